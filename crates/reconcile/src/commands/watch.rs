//! `reconcile --watch -f FILE`: converge, then stay converged.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rand::RngExt as _;
use reconcile_core::{
    model::{ObjectId, Observed, PauseNote},
    plan::{HoldReason, Plan, counted},
    verify::VerifyReport,
};
use reconcile_engine::{
    Event, Journal, Leased, Listener,
    lease::{LeaseError, Wait},
    watch::{Current, Prove, Refresh, Rhythm, Source as _, watch},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::converge::{Prepared, prepare, prove, resume_what_was_left};
use crate::{
    cli::Cli,
    failure::{Failure, Outcome},
    fleet::RealFleet,
    follow::Followed,
    lease::Lease,
    listen::Publish,
    notify::{Notify, Told},
    output::{self, say},
    source, state,
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
    let folder = state::folder(cli, spec.name.as_str())?;
    let _lock = state::lock(&folder)?;
    let lines = Lines::default();
    let notify = Notify::from_environment();
    let told = Told::new(&notify, &lines);
    let publish = Publish::new(cli, spec.name.as_str(), &told);
    let journal = Journal::open(&folder, &publish)
        .map_err(|error| Failure::from_error("keep the journal", &error))?;
    let (dirty, mut triggers) = tokio::sync::mpsc::channel(1);
    let mut source = Followed::start(cli, spec.name.as_str(), dirty.clone())?;
    let _served = publish.start(&cli.listen, pushed(&source, dirty))?;
    let mut prepared = Arc::new(prepare(spec, &first.base)?);
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
        let win = Lease::win_while(&prepared, Wait::Behind, stop, |why| {
            told.status(format!("waiting: {why}"));
            publish.waits(why);
        });
        let lease = match waiting(win, &mut source, &journal, &moved).await {
            Some(Ok(lease)) => lease,
            Some(Err(LeaseError::Stopped)) => break,
            Some(Err(error)) => return Err(Failure::from_error("take the lease", &error)),
            None => continue,
        };
        if std::mem::replace(&mut waited, true) {
            say("the lease is ours again");
        }
        publish.holds(&lease.held);
        resume_what_was_left(&prepared, &journal).await;
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
        lease.release().await;
        if stop.is_cancelled() {
            break;
        }
        if moved.is_cancelled() {
            say("the file names other servers; the lease is asked of them");
            continue;
        }
        if asked {
            say("the lease was given back: somebody asked for it, or a server knows a newer one");
            continue;
        }
        say("the lease was lost; another operator may act by now");
        publish.waits("the lease was lost; another operator may act by now");
    }
    output::note("stopped; the cluster serves on without reconcile");
    Ok(Outcome::Done)
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
                    Refresh::Unchanged => {}
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
}

/// Lines on standard error, only where something is new: a calm cluster is silent.
#[derive(Default)]
struct Lines {
    last: Mutex<(Vec<String>, Option<bool>)>,
    /// Steps of the last plan; it is planned every few seconds while something is waited for.
    planned: Mutex<Vec<ObjectId>>,
    /// The pause that was said to be in force.
    paused: Mutex<Option<PauseNote>>,
    /// What was said to be waited for.
    waits: Mutex<BTreeSet<ObjectId>>,
}

impl Lines {
    fn held(&self, plan: &Plan) {
        // That it failed was said when it did.
        let news = plan.held.iter().filter(|held| !matches!(held.reason, HoldReason::Failed(_)));
        let now: Vec<String> =
            news.map(|held| format!("{}: {}", held.object, held.reason)).collect();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        for line in now.iter().filter(|line| !last.0.contains(line)) {
            say(&format!("held {line}"));
        }
        for line in last.0.iter().filter(|line| !now.contains(line)) {
            say(&format!("no longer held: {line}"));
        }
        last.0 = now;
    }
}

impl Lines {
    fn paused(&self, pause: Option<&PauseNote>) {
        let mut last = self.paused.lock().unwrap_or_else(PoisonError::into_inner);
        match pause {
            Some(pause) if last.as_ref() != Some(pause) => say(&format!("paused {pause}")),
            None if last.is_some() => say("no longer paused"),
            _ => {}
        }
        *last = pause.cloned();
    }
}

impl Listener for Lines {
    fn hear(&self, event: &Event<'_>) {
        match event {
            Event::SourceChanged(None) => say("the desired state was read"),
            Event::SourceChanged(Some(revision)) => say(&format!("in force: {revision}")),
            Event::SourceBroken(refused) => {
                say("the desired state is not taken; the last good one stays in force");
                output::note(refused.to_string().trim_end());
            }
            Event::PassRefused(error) => say(&format!("nothing was done: {error}")),
            Event::Planned(plan) => {
                self.held(plan);
                let steps: Vec<_> = plan.steps.iter().map(|step| step.object.clone()).collect();
                let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
                waits.retain(|object| steps.contains(object));
                let mut last = self.planned.lock().unwrap_or_else(PoisonError::into_inner);
                let same = *last == steps;
                *last = steps;
                if !same && !plan.steps.is_empty() {
                    say(&format!("{} to do", counted(plan.steps.len(), "step")));
                }
            }
            Event::Looked { observed, .. } => self.paused(observed.pause()),
            Event::StepFinished { step, result, took } => {
                let (verb, seconds) = (step.verb.word(), took.as_secs_f64());
                match result {
                    Ok(()) => say(&format!("ok    {verb} {} ({seconds:.1} s)", step.object)),
                    Err(error) => {
                        say(&format!("FAIL  {verb} {} ({seconds:.1} s): {error}", step.object));
                    }
                }
            }
            Event::StepWaits { step, seen } => {
                let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
                if waits.insert(step.object.clone()) {
                    say(&format!("wait  {}: {seen}", step.object));
                }
            }
            Event::SwitchEnds(_, Ok(report)) => {
                let seconds = report.held.as_secs_f64();
                say(&format!("writers waited in the poolers for {seconds:.1} s at most"));
            }
            Event::Resumed => say("poolers that were left paused are resumed"),
            Event::Verified(report) => {
                let holds = report.holds();
                let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
                if last.1 != Some(holds) {
                    last.1 = Some(holds);
                    say(if holds {
                        "the cluster is as desired and serves"
                    } else {
                        "the cluster does not serve"
                    });
                }
                for proof in report.proofs.iter().filter(|proof| !proof.holds) {
                    say(&format!("FAIL  {}: {}", proof.what, proof.detail));
                }
            }
            Event::PassStarted(_)
            | Event::Observed { .. }
            | Event::PassEnded { .. }
            | Event::Tick
            | Event::StepStarted(_)
            | Event::StepSkipped(_)
            | Event::SwitchBegins(_)
            | Event::SwitchEnds(_, Err(_))
            | Event::Verifying => {}
        }
    }
}
