//! The operator's own folder for a cluster: the journal, and a lock so that two runs on one
//! machine do not act at the same time. Plans never rest on anything in it.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use reconcile_core::model::sha256_hex;

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

/// What a process holds to its end that may change the cluster.
const RUN: &str = "lock";
/// In it, where that process is a `--watch`.
const WATCHES: &str = "watch\n";
/// The same of a switchover, which may work beside a `--watch` that gave it the lease.
const SWITCHOVER: &str = "switchover.lock";

/// Held while this process may change the cluster.
pub(crate) struct Lock {
    file: File,
    folder: PathBuf,
    mark: Option<String>,
}

impl Lock {
    /// Names the file that is locked, and no other on any machine; None where this machine tells too
    /// little. A process that carries it in its name holds the lock as long as it lives.
    pub(crate) fn mark(&self) -> Option<&str> {
        self.mark.as_deref()
    }

    /// Notes that who holds it is a `--watch`, which takes up what comes into force meanwhile.
    pub(crate) fn watches(&self) -> Result<(), Failure> {
        let noted = (&self.file).write_all(WATCHES.as_bytes());
        noted.map_err(|error| Failure::from_error("note in the lock who holds it", &error))
    }

    /// Whether the process that carried `mark` is no more: one that is only stopped holds its lock. What
    /// another machine, container or boot has marked is never known to be gone.
    pub(crate) fn outlived(&self, mark: &str) -> bool {
        let free = |name: &str| {
            let file = File::open(self.folder.join(name)).ok()?;
            (mark_of(&file)? == mark && file.try_lock_shared().is_ok()).then_some(())
        };
        self.mark() == Some(mark) || [RUN, SWITCHOVER].into_iter().any(|name| free(name).is_some())
    }
}

/// File systems whose locks this kernel alone keeps: of others a server may lose them while their
/// holder lives.
const LOCAL: [&str; 8] = ["ext4", "ext3", "ext2", "xfs", "tmpfs", "overlay", "f2fs", "zfs"];

/// Whether a lock on a file of the device is kept by this kernel alone.
fn local(device: u64, mounts: &str) -> bool {
    // The C library's makedev: 12 bits, 8 bits, 12 bits, and more above.
    let major = (device >> 8) & 0xfff | (device >> 32) & !0xfff;
    let minor = device & 0xff | (device >> 12) & !0xff;
    let wanted = format!("{major}:{minor}");
    let mut kinds = mounts.lines().filter_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        (place.split(' ').nth(2) == Some(wanted.as_str())).then(|| kind.split(' ').next())?
    });
    kinds.next().is_some_and(|kind| LOCAL.contains(&kind))
}

/// A file is one by its device and number as long as this kernel runs, as a lock on it is one.
fn mark_of(file: &File) -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let about = file.metadata().ok()?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let text = format!("{} {} {}", boot.trim(), about.dev(), about.ino());
    (local(about.dev(), &mounts) && !boot.trim().is_empty())
        .then(|| sha256_hex(text.as_bytes())[..16].to_owned())
}

/// Whether a process on this machine holds the lock of a cluster.
pub(crate) fn locked(folder: &Path) -> bool {
    File::open(folder.join(RUN))
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
    try_lock(folder, RUN)?.ok_or_else(|| busy(folder))
}

/// Takes the lock of a cluster; None: a `--watch` holds it.
pub(crate) fn lock_unless_watched(folder: &Path) -> Result<Option<Lock>, Failure> {
    match try_lock(folder, RUN)? {
        None if watched(folder) => Ok(None),
        taken => taken.map(Some).ok_or_else(|| busy(folder)),
    }
}

fn watched(folder: &Path) -> bool {
    locked(folder)
        && std::fs::read_to_string(folder.join(RUN)).is_ok_and(|holder| holder == WATCHES)
}

fn busy(folder: &Path) -> Failure {
    let who = if watched(folder) { "a running `--watch`" } else { "another reconcile" };
    Failure::new(format!("{who} works on this cluster from this machine"))
        .caused_by(format!("{} is locked", folder.join(RUN).display()))
        .hint("wait for it, or end it; it leaves nothing half done")
}

/// Takes the lock of a switchover; None: another one is under way or asks for the lease.
pub(crate) fn lock_switchover(folder: &Path) -> Result<Option<Lock>, Failure> {
    try_lock(folder, SWITCHOVER)
}

fn try_lock(folder: &Path, name: &str) -> Result<Option<Lock>, Failure> {
    let path = folder.join(name);
    let attempt = || format!("lock {}", path.display());
    make(folder)?;
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|error| Failure::from_error(attempt(), &error))?;
    let mut tries = 0;
    let taken = loop {
        match file.try_lock() {
            // One that looks whether we live holds it for a moment.
            Err(TryLockError::WouldBlock) if tries < 10 => {
                tries += 1;
                std::thread::sleep(Duration::from_millis(10));
            }
            taken => break taken,
        }
    };
    match taken {
        Ok(()) => {
            // What the holder before was.
            file.set_len(0).map_err(|error| Failure::from_error(attempt(), &error))?;
            let mark = mark_of(&file);
            Ok(Some(Lock { file, folder: folder.to_owned(), mark }))
        }
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(Failure::from_error(attempt(), &error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_this_kernel_locks_alone_tells_who_is_gone() {
        let mounts = "22 1 254:1 / / rw,noatime shared:1 - ext4 /dev/vda1 rw\n\
                      36 22 0:50 / /home rw shared:7 master:2 - nfs4 server:/home rw\n\
                      40 22 259:300 / /data rw - xfs /dev/nvme0n1p300 rw\n";
        assert!(local(254 << 8 | 1, mounts));
        assert!(local(259 << 8 | 0x2c | 0x100 << 12, mounts));
        assert!(!local(50, mounts), "a server may lose it");
        assert!(!local(51, mounts), "not known");
        let folder = tempfile::tempdir().expect("a folder");
        assert!(lock(folder.path()).expect("a lock").mark().is_some(), "here");
    }
}
