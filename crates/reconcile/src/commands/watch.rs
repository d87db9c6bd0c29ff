//! `reconcile --watch -f FILE`: converge, then stay converged.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rand::RngExt as _;
use reconcile_core::{model::Observed, verify::VerifyReport};
use reconcile_engine::{
    Event, Journal, Leased, Listener,
    lease::{Held, LeaseError, Wait},
    watch::{Current, Prove, Refresh, Rhythm, Source as _, watch},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::converge::{Prepared, answers, prepare, prove, resume_what_was_left};
use crate::{
    cli::Cli,
    failure::{Failure, Outcome},
    fleet::RealFleet,
    follow::Followed,
    lease::{Lease, given_back},
    lines::Lines,
    listen::{self, Publish},
    notify::{Notify, Told},
    output::{self, say},
    source::{self, Refused},
    state,
};

/// Between two looks at the file; a push is seen well within a second of its check-out.
const POLL: Duration = Duration::from_millis(500);
const DEBOUNCE: Duration = Duration::from_millis(200);
const PROVE_EVERY: Duration = Duration::from_secs(60);

pub(super) async fn run(cli: &Cli, stop: &CancellationToken) -> Result<Outcome, Failure> {
    let first = source::read_in_force(cli)?;
    let [spec] = first.clusters.as_slice() else {
        return Err(Failure::usage("`--watch` takes one cluster").hint("choose it with --cluster"));
    };
    let listen = listen::asked(&cli.listen)?;
    let folder = state::folder(cli, spec.name.as_str())?;
    let lock = state::lock(&folder)?;
    lock.watches()?;
    let lines = Lines::default();
    let notify = Notify::from_environment();
    let told = Told::new(&notify, &lines);
    let publish = Publish::new(cli, spec.name.as_str(), &told);
    let journal = Journal::open(&folder, &publish)
        .map_err(|error| Failure::from_error("keep the journal", &error))?;
    let (dirty, mut triggers) = tokio::sync::mpsc::channel(1);
    let mut source = Followed::start(cli, spec.name.as_str(), dirty.clone())?;
    let _served = publish.start(listen, pushed(&source, dirty))?;
    let mut prepared = prepare(spec, &first.base)?;
    prepared.desired.only_looks = first.refused.as_ref().and_then(Refused::only_looks);
    let mut prepared = Arc::new(prepared);
    let rhythm = Rhythm {
        interval: Duration::from_secs(cli.interval),
        poll: POLL,
        debounce: DEBOUNCE,
        prove_every: PROVE_EVERY,
        jitter: || rand::rng().random(),
    };
    let prover = Prover;
    let _watchdog = notify.watchdog(publish.alive());
    let _stopping = stopping(&notify, stop);
    notify.ready();
    let mut waited = false;
    loop {
        prepared = source.prepared().unwrap_or(prepared);
        let moved = source.elect(&prepared);
        if let Some(why) = &prepared.desired.only_looks {
            say(why);
            told.status(why.clone());
            publish.waits(why, None);
            source.begin(&Held::none());
            let until = either(stop, &moved);
            watch(&mut source, &prover, &mut triggers, rhythm, &journal, &until).await;
            if stop.is_cancelled() {
                break;
            }
            continue;
        }
        let stood_by = AtomicBool::new(false);
        let win = Lease::win_while(&prepared, Some(&lock), Wait::Behind, stop, |why, keeper| {
            stood_by.fetch_or(keeper.is_some(), Ordering::Relaxed);
            told.status(stands(why, keeper));
            publish.waits(why, keeper);
        });
        let lease = match waiting(win, &mut source, &journal, &moved).await {
            Some(Ok(lease)) => lease,
            Some(Err(LeaseError::Stopped)) => break,
            Some(Err(error)) => return Err(Failure::from_error("take the lease", &error)),
            None => continue,
        };
        if std::mem::replace(&mut waited, true) {
            say("the lease is ours again");
        } else if stood_by.load(Ordering::Relaxed) {
            say("the lease is ours: this operator, a standby until now, keeps the cluster");
        }
        publish.holds(&lease.held);
        resume_what_was_left(&prepared, &journal, &lease).await;
        source.begin(&lease.held);
        let until = lease.until(stop);
        let (ends, others, asked) = (until.clone(), moved.clone(), lease.held.asked().clone());
        tokio::spawn(async move {
            tokio::select! {
                () = others.cancelled() => ends.cancel(),
                () = asked.cancelled() => ends.cancel(),
                () = ends.cancelled() => {}
            }
        });
        watch(&mut source, &prover, &mut triggers, rhythm, &journal, &until).await;
        let asked = lease.held.asked().is_cancelled() && lease.held.holds();
        let lease_given_back = given_back(lease.held.give_back());
        lease.release().await;
        if stop.is_cancelled() {
            break;
        }
        if moved.is_cancelled() {
            say("the file names other servers; the lease is asked of them");
            continue;
        }
        if asked {
            say(&lease_given_back);
            continue;
        }
        say("the lease was lost; another operator may act by now");
        publish.waits("the lease was lost; another operator may act by now", None);
    }
    output::note("stopped; the cluster serves on without reconcile");
    Ok(Outcome::Done)
}

/// How one stands that waits for the lease.
fn stands(why: &str, keeper: Option<&str>) -> String {
    keeper.map_or_else(
        || format!("waiting: {why}"),
        |keeper| format!("standby: {keeper} keeps this cluster"),
    )
}

/// Cancelled with either.
fn either(stop: &CancellationToken, moved: &CancellationToken) -> CancellationToken {
    let (either, moved) = (stop.child_token(), moved.clone());
    let both = either.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = moved.cancelled() => both.cancel(),
            () = both.cancelled() => {}
        }
    });
    either
}

/// Says when it is told to end.
fn stopping(notify: &Notify, stop: &CancellationToken) -> tokio::task::JoinHandle<()> {
    let (notify, stop) = (notify.clone(), stop.clone());
    tokio::spawn(async move {
        stop.cancelled().await;
        notify.stopping();
    })
}

/// Waits for the lease; meanwhile the desired state is followed, and the loop's heartbeat heard. None: the
/// file names other servers by now.
async fn waiting<T>(
    lease: impl Future<Output = T>,
    source: &mut Followed<'_>,
    listener: &dyn Listener,
    moved: &CancellationToken,
) -> Option<T> {
    let mut lease = std::pin::pin!(lease);
    let mut poll = tokio::time::interval_at(tokio::time::Instant::now() + POLL, POLL);
    loop {
        tokio::select! {
            done = &mut lease => return Some(done),
            _ = poll.tick() => {
                listener.hear(&Event::Tick);
                match source.refresh() {
                    Refresh::Unchanged | Refresh::Elsewhere => {}
                    Refresh::Changed(new) => {
                        listener.hear(&Event::SourceChanged(new.revision.as_ref()));
                    }
                    Refresh::Broken(refused) => listener.hear(&Event::SourceBroken(&refused)),
                }
                if moved.is_cancelled() {
                    return None;
                }
            }
        }
    }
}

/// Where the webhook's word goes: to whoever follows the branch, who tells the loop after a look;
/// where none is followed, to the loop.
fn pushed(source: &Followed<'_>, dirty: mpsc::Sender<()>) -> mpsc::Sender<()> {
    let Some(waker) = source.waker() else { return dirty };
    let (sender, mut pushes) = mpsc::channel(1);
    tokio::spawn(async move {
        while pushes.recv().await.is_some() {
            waker.wake();
        }
    });
    sender
}

/// A fleet that remembers what it was prepared from.
pub(crate) struct Watched(pub(crate) Arc<Prepared>);

impl std::ops::Deref for Watched {
    type Target = RealFleet;

    fn deref(&self) -> &RealFleet {
        &self.0.fleet
    }
}

struct Prover;

impl Prove<Leased<Watched>> for Prover {
    async fn prove(
        &self,
        current: &Current<Leased<Watched>>,
        observed: &Observed,
        commit: bool,
    ) -> VerifyReport {
        prove(&current.fleet.fleet.0, observed, commit).await
    }

    async fn answers(&self, current: &Current<Leased<Watched>>, observed: &Observed) -> bool {
        answers(&current.fleet.fleet.0, observed).await
    }
}
