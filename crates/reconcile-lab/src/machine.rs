//! The outer machine: what it must have installed, and long-lived processes on it.
//!
//! Must not end a process that it cannot prove to be the one that was started.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::command::Invocation;
use crate::error::{LabError, Result, at};

/// Where all labs of this machine keep what they share: mirror, registry storage, logs, pids.
pub(crate) const SHARED: &str = "/var/lib/reconcile-lab";

/// Programs that the lab calls, with the Debian package that brings each.
/// `docker` alone does not count: a client may be there without an engine.
const NEEDED: &[(&str, &str)] = &[
    ("dockerd", "docker.io"),
    ("iptables", "iptables"),
    ("debootstrap", "debootstrap"),
    ("docker-registry", "docker-registry"),
    ("dpkg-scanpackages", "dpkg-dev"),
    ("ssh-keygen", "openssh-client"),
    ("ip", "iproute2"),
    ("setsid", "util-linux"),
];

/// Signs the packages that the base image is made of.
pub(crate) const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A file below the shared folder.
pub(crate) fn shared(name: &str) -> PathBuf {
    Path::new(SHARED).join(name)
}

/// Refuses early, and usefully, when not run by root.
pub(crate) fn require_root() -> Result<()> {
    let status =
        std::fs::read_to_string("/proc/self/status").map_err(at("read", "/proc/self/status"))?;
    let root = status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:"))
        .and_then(|ids| ids.split_whitespace().nth(1))
        .is_some_and(|effective| effective == "0");
    if root {
        return Ok(());
    }
    let again = std::env::args().collect::<Vec<_>>().join(" ");
    Err(LabError::Lacking {
        what: "the lab boots servers and mends their network, and needs root for it".to_owned(),
        commands: vec![format!("sudo {again}")],
    })
}

/// Packages that this machine lacks.
pub(crate) fn lacking() -> Vec<&'static str> {
    let mut packages: Vec<&'static str> = NEEDED
        .iter()
        .filter(|(program, _)| find(program).is_none())
        .map(|&(_, package)| package)
        .collect();
    if !Path::new(KEYRING).exists() {
        packages.push("debian-archive-keyring");
    }
    packages
}

/// Installs packages with apt; says what to run by hand where there is no apt.
pub(crate) async fn install(packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    if find("apt-get").is_none() {
        return Err(LabError::Lacking {
            what: format!("this machine lacks {list}, and has no apt-get"),
            commands: vec![format!("apt-get install {list}   # or what your system has for it")],
        });
    }
    let apt = |words: &[&str]| {
        Invocation::new("apt-get").args(words).env("DEBIAN_FRONTEND", "noninteractive")
    };
    let attempt = apt(&["install", "-y", "--no-install-recommends"]).args(packages);
    let tried = format!("install {list}");
    if attempt.run(&tried).await.is_ok() {
        return Ok(());
    }
    // The usual cause is a package list that is absent or old.
    apt(&["update"]).run("refresh the package lists").await?;
    attempt.run(&tried).await.map(drop)
}

/// A program on the path, or where a system keeps what only root runs.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// A process that was started and left running, told apart from a later one with its pid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Started {
    /// Its process id.
    pid: u32,
    /// When it began, in the kernel's clock ticks since the machine's start.
    ticks: u64,
    /// The machine's start that the ticks count from.
    boot: String,
}

impl Started {
    /// Takes down who a pid is, now.
    pub(crate) fn observe(pid: u32) -> Result<Self> {
        let stat = PathBuf::from(format!("/proc/{pid}/stat"));
        let text = std::fs::read_to_string(&stat).map_err(at("read", &stat))?;
        let ticks = start_ticks(&text).ok_or_else(|| LabError::Malformed {
            what: stat.display().to_string(),
            reason: "no start time".to_owned(),
        })?;
        let boot = "/proc/sys/kernel/random/boot_id";
        let boot = std::fs::read_to_string(boot).map_err(at("read", boot))?;
        Ok(Self { pid, ticks, boot: boot.trim().to_owned() })
    }

    /// Whether this very process still runs.
    pub(crate) fn runs(&self) -> bool {
        Self::observe(self.pid).is_ok_and(|now| now == *self) && !is_zombie(&self.pid.to_string())
    }

    /// Reads a record; none where there is none.
    pub(crate) fn load(file: &Path) -> Result<Option<Self>> {
        match std::fs::read(file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| {
                LabError::Malformed { what: file.display().to_string(), reason: error.to_string() }
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(at("read", file)(error)),
        }
    }

    /// Writes the record.
    pub(crate) fn save(&self, file: &Path) -> Result<()> {
        let text = serde_json::to_vec(self).map_err(|error| LabError::Malformed {
            what: format!("record of process {}", self.pid),
            reason: error.to_string(),
        })?;
        std::fs::write(file, text).map_err(at("write", file))
    }

    /// Ends the process if it is still the one that was started, and waits until it is gone.
    pub(crate) async fn end(&self, what: &str, patience: Duration) -> Result<()> {
        if !self.runs() {
            return Ok(());
        }
        let stopped =
            Invocation::new("kill").arg(self.pid.to_string()).run(&format!("stop {what}")).await;
        if self.runs() {
            stopped?;
        }
        wait_for(&format!("{what} to stop"), patience, || async {
            if self.runs() { Err(format!("process {} still runs", self.pid)) } else { Ok(()) }
        })
        .await
    }
}

/// Whether a pid names a live process whose program has this name. One that is dead but not yet
/// collected by its parent does not count: some machines' PID 1 never collects any.
pub(crate) fn runs_as(pid: &str, name: &str) -> bool {
    let pid = pid.trim();
    std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name)
        && !is_zombie(pid)
}

fn is_zombie(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| Some(stat.rsplit_once(") ")?.1.starts_with('Z')))
        .unwrap_or(false)
}

/// Field 22 of `/proc/PID/stat`; the second may hold spaces and brackets (proc(5)).
fn start_ticks(stat: &str) -> Option<u64> {
    let after_name = stat.rsplit_once(") ")?.1;
    after_name.split(' ').nth(19)?.parse().ok()
}

/// Asks again and again until the answer is yes, with short pauses, for so long at most.
pub(crate) async fn wait_for<T, F>(what: &str, patience: Duration, ask: impl Fn() -> F) -> Result<T>
where
    F: Future<Output = std::result::Result<T, String>>,
{
    /// Short beside what is awaited (a daemon, a boot), long beside the cost of asking.
    const PAUSE: Duration = Duration::from_millis(100);
    let deadline = tokio::time::Instant::now() + patience;
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(last) if tokio::time::Instant::now() >= deadline => {
                return Err(LabError::Timeout { what: what.to_owned(), waited: patience, last });
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Held while a folder's content is being made, so that two commands do not make it twice.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: std::fs::File,
}

/// Waits for a lock file; it is free again when the result is dropped or the process dies.
pub(crate) async fn lock(path: PathBuf) -> Result<Lock> {
    let shown = path.clone();
    tokio::task::spawn_blocking(move || {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(at("create", folder))?;
        }
        let file = std::fs::File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(at("open", &path))?;
        file.lock().map_err(at("lock", &path))?;
        Ok(Lock { _file: file })
    })
    .await
    .map_err(|error| LabError::Malformed {
        what: format!("lock {}", shown.display()),
        reason: error.to_string(),
    })?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_is_found_behind_any_program_name() {
        let stat = "42 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 777 20 21";
        assert_eq!(start_ticks(stat), Some(777));
        assert_eq!(start_ticks("42 (short) S 1"), None);
    }

    #[test]
    fn a_recycled_pid_is_not_taken_for_the_process() {
        let own = Started::observe(std::process::id()).expect("this process runs");
        assert!(own.runs());
        let earlier = Started { ticks: own.ticks + 1, ..own };
        assert!(!earlier.runs());
    }
}
