//! The operators' lease as the commands use it: who we are, waiting for it, keeping it.

use std::{
    process,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use rand::RngExt as _;
use reconcile_engine::lease::{self, Candidate, GiveBack, Held, LeaseError, Wait};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{commands::Prepared, fleet::Electorate, output::say, state::Lock};

/// How long a command that ends by itself waits: a holder that was killed is gone by then.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// How long one waits that asked the holder: it finishes the steps at hand first.
pub(crate) const ASKING: Duration = Duration::from_secs(60);

/// A round of renewals takes no longer, but where a server is cut off.
const ROUND: Duration = Duration::from_secs(2);

/// A lease that is kept until it is released or lost.
pub(crate) struct Lease {
    pub(crate) held: Arc<Held>,
    electorate: Arc<Electorate>,
    keeper: JoinHandle<()>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Lease {
    /// Waits for the lease of a cluster, for so long or for ever, and says why it waits. Who held `lock`
    /// before us and is gone is not waited for; it is to be held as long as the lease is.
    pub(crate) async fn win(
        prepared: &Prepared,
        lock: Option<&Lock>,
        wait: Wait,
        stop: &CancellationToken,
    ) -> Result<Self, LeaseError> {
        Self::win_while(prepared, lock, wait, stop, |_, _| ()).await
    }

    /// The same; `hears` is told why it waits as well, and who has the lease meanwhile.
    pub(crate) async fn win_while(
        prepared: &Prepared,
        lock: Option<&Lock>,
        wait: Wait,
        stop: &CancellationToken,
        hears: impl Fn(&str, Option<&str>),
    ) -> Result<Self, LeaseError> {
        let electorate = Arc::new(prepared.fleet.electorate());
        let waits = |error: &LeaseError| {
            let asked = matches!((wait, error), (Wait::Asking(_), LeaseError::Taken { .. }));
            let asked = if asked { "; it is asked to give it back between two steps" } else { "" };
            let why = told(error) + asked;
            say(&format!("waiting: {why}"));
            hears(&why, keeper(error).as_deref());
        };
        let jitter = || rand::rng().random();
        let holder = holder(lock.and_then(Lock::mark));
        let gone = |other: &str| {
            let gone = lock.is_some_and(|lock| gone(lock, other));
            if gone {
                tracing::info!(holder = other, "its process is gone; its lease is taken over");
            }
            gone
        };
        let candidate = Candidate { holder: &holder, gone: &gone };
        let held = lease::win(electorate.as_ref(), candidate, wait, jitter, waits, stop).await?;
        tracing::info!(token = held.claimant().token, "the lease is ours");
        let (port, kept) = (Arc::clone(&electorate), Arc::clone(&held));
        let keeper = tokio::spawn(async move { lease::keep(port.as_ref(), &kept).await });
        Ok(Self { held, electorate, keeper })
    }

    /// Cancelled when it is lost, or with `stop`.
    pub(crate) fn until(&self, stop: &CancellationToken) -> CancellationToken {
        let (lost, stop, either) =
            (self.held.lost().clone(), stop.clone(), CancellationToken::new());
        let both = either.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = lost.cancelled() => {}
                () = stop.cancelled() => {}
            }
            both.cancel();
        });
        either
    }

    /// Gives it back, so that the next operator need not wait for its end.
    pub(crate) async fn release(mut self) {
        self.held.lost().cancel();
        let _late_or_over = tokio::time::timeout(ROUND, &mut self.keeper).await;
        self.keeper.abort();
        lease::release(self.electorate.as_ref(), &self.held).await;
    }
}

/// Why the lease is given back, for people.
pub(crate) fn given_back(why: Option<GiveBack>) -> String {
    match why {
        Some(GiveBack::Asked { by }) => {
            let (name, process) = named(&by);
            format!("the lease was given back: {name} (process {process}) asked for it")
        }
        Some(GiveBack::Outdated { host, token, holder, own }) => {
            let (name, process) = named(&holder);
            format!(
                "the lease was given back: {host} knows number {token} of {name} (process {process}) and would refuse ours, {own}; a newer one is asked for"
            )
        }
        None => "the lease was given back".to_owned(),
    }
}

/// `user@machine` and the process of a holder.
pub(crate) fn named(holder: &str) -> (&str, &str) {
    let mut words = holder.split('/');
    (words.next().unwrap_or("-"), words.next().unwrap_or("-"))
}

/// Who has the lease that is waited for, as far as that is known.
fn keeper(error: &LeaseError) -> Option<String> {
    let LeaseError::Taken { holder } = error else { return None };
    let (name, process) = named(holder);
    Some(format!("{name} (process {process})"))
}

/// The error for people: a holder's name without what only makes it unique.
pub(crate) fn told(error: &LeaseError) -> String {
    match error {
        LeaseError::Busy { holder, host } => {
            let (name, _) = named(holder);
            format!("a step of {name}, which is gone, is not over yet on {host}")
        }
        LeaseError::Asked { by } => {
            let (name, _) = named(by);
            format!("{name} asked for the lease of this cluster")
        }
        LeaseError::Taken { holder } => {
            let (name, process) = named(holder);
            let since =
                holder.split('/').nth(2).and_then(|since| since.parse::<u64>().ok()).unwrap_or(0);
            let (hours, minutes) = (since / 3600 % 24, since / 60 % 60);
            format!(
                "{name} (process {process}) holds the lease of this cluster, since {hours:02}:{minutes:02}Z"
            )
        }
        other => other.to_string(),
    }
}

/// Of this process, whatever its number is.
static PROCESS: LazyLock<String> = LazyLock::new(|| format!("{:08x}", rand::rng().random::<u32>()));

/// A name for this process and this attempt: `user@machine/process/seconds/number.attempt/mark`, without
/// blanks. In containers the first three may be those of another; the mark is its lock's.
fn holder(mark: Option<&str>) -> String {
    static ATTEMPT: AtomicU32 = AtomicU32::new(0);
    let attempt = ATTEMPT.fetch_add(1, Ordering::Relaxed);
    let mark = mark.unwrap_or("-");
    let (who, process, now) = (who(), process::id(), crate::state::now());
    format!("{who}/{process}/{now}/{}.{attempt}/{mark}", *PROCESS)
}

/// Whether the process of a holder is no more. What this one held itself it gave back on purpose, for
/// somebody who asked, say, and does not take again in his place.
fn gone(lock: &Lock, holder: &str) -> bool {
    let process = holder.split('/').nth(3).and_then(|number| number.split('.').next());
    process != Some(PROCESS.as_str()) && mark(holder).is_some_and(|mark| lock.outlived(mark))
}

/// The mark of a holder's lock.
fn mark(holder: &str) -> Option<&str> {
    holder.split('/').nth(4).filter(|mark| *mark != "-")
}

/// `user@machine`, without blanks.
pub(crate) fn who() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let plain = |text: &str| {
        let kept = text.chars().filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c));
        kept.take(60).collect::<String>()
    };
    let machine = plain(&read("/proc/sys/kernel/hostname"));
    let user = plain(&std::env::var("USER").unwrap_or_else(|_| "operator".to_owned()));
    format!("{user}@{machine}")
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;
    use crate::state;

    #[test]
    fn who_held_the_same_lock_and_lives_no_more_is_gone() {
        let folder = tempfile::tempdir().expect("a folder");
        let other = tempfile::tempdir().expect("a folder");
        let lock = state::lock(folder.path()).expect("a lock");
        let own = holder(lock.mark());
        assert_eq!(mark(&own), lock.mark());
        assert_ne!(own, holder(lock.mark()), "in one second, too");
        assert!(lock.outlived(mark(&own).expect("a mark")), "nobody else can hold what we hold");
        assert!(!gone(&lock, &own), "we live");
        let before = own.replace(PROCESS.as_str(), "00c0ffee");
        assert!(gone(&lock, &before), "of the process before us");
        // A copy of the folder is another folder: whoever works from there may live.
        let copied = state::lock(other.path()).expect("a lock");
        assert_ne!(copied.mark(), lock.mark());
        assert!(!lock.outlived(copied.mark().expect("a mark")));
        assert_eq!(mark(&holder(None)), None);
        assert_eq!(mark("ada@ops1/4711/1795341600"), None, "of an earlier version");

        // A switchover beside a watch.
        let asks = state::lock_switchover(folder.path()).expect("a lock").expect("it is free");
        assert!(
            state::lock_switchover(folder.path()).expect("a lock").is_none(),
            "one has the mark"
        );
        let its = asks.mark().expect("a mark").to_owned();
        assert!(!lock.outlived(&its), "it works");
        assert!(!asks.outlived(lock.mark().expect("a mark")), "so does the watch");
        drop(asks);
        assert!(lock.outlived(&its));
    }

    #[test]
    fn one_that_is_only_stopped_is_not_gone() {
        let folder = tempfile::tempdir().expect("a folder");
        let mark = state::lock_switchover(folder.path())
            .expect("a lock")
            .expect("it is free")
            .mark()
            .expect("a mark")
            .to_owned();
        let lock = state::lock(folder.path()).expect("a lock");
        let mut held = Command::new("flock")
            .args(["-n", "-x"])
            .arg(folder.path().join("switchover.lock"))
            .args(["-c", "echo held; read end"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("its process");
        let mut said = [0; 4];
        std::io::Read::read_exact(held.stdout.as_mut().expect("its process"), &mut said)
            .expect("its process");
        assert!(!lock.outlived(&mark));
        let stopped = Command::new("kill").args(["-STOP", &held.id().to_string()]).status();
        assert!(stopped.expect("its process").success());
        assert!(!lock.outlived(&mark), "it may go on");
        drop(held.stdin.take());
        held.kill().expect("its process");
        held.wait().expect("its process");
        // Its shell ends with its input.
        let began = std::time::Instant::now();
        while !lock.outlived(&mark) {
            assert!(began.elapsed() < Duration::from_secs(5));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn why_it_is_given_back_is_one_of_two() {
        let asked = GiveBack::Asked { by: "ada@ops1/4711/1795341600".to_owned() };
        assert_eq!(
            given_back(Some(asked)),
            "the lease was given back: ada@ops1 (process 4711) asked for it"
        );
        let host = reconcile_core::model::HostName::new("node3");
        let holder = "eve@ops2/12/1795341600".to_owned();
        let outdated = given_back(Some(GiveBack::Outdated { host, token: 9, holder, own: 8 }));
        assert!(outdated.contains("node3 knows number 9 of eve@ops2 (process 12)"), "{outdated}");
        assert!(outdated.contains("would refuse ours, 8") && !outdated.contains("asked for it"));
    }
}
