//! The operator's own folder for a cluster: the journal, and a lock so that two runs on one
//! machine do not act at the same time. Plans never rest on anything in it.

use std::{
    fs::{File, OpenOptions, TryLockError},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use crate::{cli::Cli, failure::Failure};

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// The folder of a cluster's state.
pub(crate) fn folder(cli: &Cli, cluster: &str) -> Result<PathBuf, Failure> {
    if let Some(folder) = &cli.state_dir {
        return Ok(folder.join(cluster));
    }
    let base = std::env::var_os("XDG_STATE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/state")));
    base.map(|base| base.join("reconcile").join(cluster)).ok_or_else(|| {
        Failure::usage("no place for the journal is known")
            .hint("name one with --state-dir or in RECONCILE_STATE_DIR")
    })
}

/// Held while this process may change the cluster.
pub(crate) struct Lock {
    _file: File,
}

/// Whether a process on this machine holds the lock of a cluster.
pub(crate) fn locked(folder: &Path) -> bool {
    File::open(folder.join("lock"))
        .is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Makes the folder of a cluster's state unless it is there, readable by its owner only.
pub(crate) fn make(folder: &Path) -> Result<(), Failure> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|error| Failure::from_error(format!("make {}", folder.display()), &error))
}

/// Takes the lock of a cluster, or says who holds it.
pub(crate) fn lock(folder: &Path) -> Result<Lock, Failure> {
    let path = folder.join("lock");
    let attempt = || format!("lock {}", path.display());
    make(folder)?;
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|error| Failure::from_error(attempt(), &error))?;
    match file.try_lock() {
        Ok(()) => Ok(Lock { _file: file }),
        Err(TryLockError::WouldBlock) => {
            Err(Failure::new("another reconcile works on this cluster from this machine")
                .caused_by(format!("{} is locked", path.display()))
                .hint("wait for it, or end it; it leaves nothing half done"))
        }
        Err(TryLockError::Error(error)) => Err(Failure::from_error(attempt(), &error)),
    }
}
