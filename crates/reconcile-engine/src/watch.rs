//! Watching: converge, then stay converged.
//!
//! Triggers only say "dirty" and carry no data: every pass observes everything anew, so there is
//! one code path however a change was noticed. A desired state that cannot be read keeps the last
//! good one in force.

use std::time::Duration;

use reconcile_core::{
    desired::Desired,
    model::{RefusedSource, Revision},
    ports::Fleet,
    verify::VerifyReport,
};
use tokio::{
    sync::mpsc,
    time::{Instant, Interval},
};
use tokio_util::sync::CancellationToken;

use crate::{
    aside::{Aside, Turn},
    backoff::Backoff,
    events::{Event, Listener},
    execute::Execution,
    pass::run,
    proofs::Proofs,
};

/// Least time between a pass and one that a trigger asks for.
const MIN_GAP: Duration = Duration::from_millis(500);

/// Between two looks while something is waited for.
const WAIT_GAP: Duration = Duration::from_secs(2);

/// Where the desired state comes from.
pub trait Source: Send {
    /// How its servers are reached.
    type Fleet: Fleet;

    /// Looks whether the desired state has changed since the last call; cheap enough for every
    /// second. Until the first [`Refresh::Changed`] no pass is begun.
    fn refresh(&mut self) -> Refresh<Self::Fleet>;
}

/// What a look at the source gave.
pub enum Refresh<F> {
    /// Nothing new.
    Unchanged,
    /// A new desired state.
    Changed(Box<Current<F>>),
    /// A new desired state that is not begun here: the watch is to end.
    Elsewhere,
    /// It cannot be read; said once for each change.
    Broken(RefusedSource),
}

/// A desired state in force.
pub struct Current<F> {
    /// The desired state.
    pub desired: Desired,
    /// Its servers.
    pub fleet: F,
    /// The commit that it comes from.
    pub revision: Option<Revision>,
}

/// How to watch.
#[derive(Debug, Clone, Copy)]
pub struct Rhythm {
    /// Between two passes while nothing happens; jitter takes up to a tenth away.
    pub interval: Duration,
    /// Between two looks at the source.
    pub poll: Duration,
    /// From a trigger to its pass, so that a burst of triggers makes one pass.
    pub debounce: Duration,
    /// Between two proofs of service while nothing changes.
    pub prove_every: Duration,
    /// A random number from 0 to 1.
    pub jitter: fn() -> f64,
}

/// Proves service; the caller knows the credentials.
pub trait Prove<F>: Send + Sync {
    /// Proves that the cluster serves. `commit`: something was changed before.
    fn prove(
        &self,
        current: &Current<F>,
        observed: &reconcile_core::model::Observed,
        commit: bool,
    ) -> impl Future<Output = VerifyReport> + Send;

    /// Whether what clients come through answers at all: so cheap that every pass can ask. False asks
    /// for a proof, which tells what is wrong.
    fn answers(
        &self,
        _: &Current<F>,
        _: &reconcile_core::model::Observed,
    ) -> impl Future<Output = bool> + Send {
        async { true }
    }
}

/// What the source told while something was under way, to be taken after it.
struct Ahead<F> {
    current: Box<Current<F>>,
    /// What came after it and cannot be read.
    broken: Option<RefusedSource>,
}

/// Carries something out and looks at the source meanwhile, but not while clients wait for what is
/// under way: a look at a slow disk, say, would keep RESUME waiting. Where the source has another
/// desired state, the turn is told, so that what is under way is the last of it.
async fn meanwhile<S: Source, T>(
    work: impl Future<Output = T>,
    source: &mut S,
    generation: &str,
    turn: &Turn,
    poll: &mut Interval,
    listener: &dyn Listener,
) -> (T, Option<Ahead<S::Fleet>>) {
    let mut work = std::pin::pin!(work);
    let mut ahead: Option<Ahead<S::Fleet>> = None;
    let mut put_off = false;
    loop {
        tokio::select! {
            biased;
            done = &mut work => {
                if put_off {
                    poll.reset_immediately();
                }
                return (done, ahead);
            }
            _ = poll.tick() => {
                put_off = turn.clients_wait();
                if put_off {
                    continue;
                }
                match (source.refresh(), &mut ahead) {
                    (Refresh::Unchanged, _) => {}
                    (Refresh::Elsewhere, _) => turn.newer.cancel(),
                    (Refresh::Changed(current), _) => {
                        if !turn.newer.is_cancelled() && current.desired.digest() != generation {
                            listener.hear(&Event::SourceAhead);
                            turn.newer.cancel();
                        }
                        ahead = Some(Ahead { current, broken: None });
                    }
                    (Refresh::Broken(refused), Some(ahead)) => ahead.broken = Some(refused),
                    (Refresh::Broken(refused), None) => {
                        listener.hear(&Event::SourceBroken(&refused));
                    }
                }
            }
        }
    }
}

/// Watches until `stop`. `dirty` takes triggers; a closed channel only means that none will come.
///
/// A desired state that is read during a pass is taken after the steps at hand; what only waits is cut
/// short for it.
///
/// # Cancellation
/// After `stop` the steps at hand are finished and nothing further begins.
pub async fn watch<S: Source, P: Prove<S::Fleet>>(
    source: &mut S,
    prover: &P,
    dirty: &mut mpsc::Receiver<()>,
    rhythm: Rhythm,
    listener: &dyn Listener,
    stop: &CancellationToken,
) {
    let mut current: Option<Box<Current<S::Fleet>>> = None;
    let mut backoff = Backoff::default();
    let mut aside = Aside::default();
    let begun = Instant::now();
    let mut due = begun;
    let mut ended = due;
    let mut proofs = Proofs::default();
    let mut number = 0;
    let mut poll = tokio::time::interval(rhythm.poll);
    poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut triggers, mut gave_way) = (true, false);
    let mut ahead: Option<Ahead<S::Fleet>> = None;
    while !stop.is_cancelled() {
        if let Some(Ahead { current: new, broken }) = ahead.take() {
            listener.hear(&Event::SourceChanged(new.revision.as_ref()));
            if let Some(refused) = broken {
                listener.hear(&Event::SourceBroken(&refused));
            }
            current = Some(new);
            aside = Aside::default();
            backoff.reset();
            due = Instant::now();
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = poll.tick() => {
                match source.refresh() {
                    Refresh::Unchanged | Refresh::Elsewhere => {}
                    Refresh::Changed(current) => ahead = Some(Ahead { current, broken: None }),
                    Refresh::Broken(refused) => listener.hear(&Event::SourceBroken(&refused)),
                }
                listener.hear(&Event::Tick);
                continue;
            }
            trigger = dirty.recv(), if triggers => {
                triggers = trigger.is_some();
                if triggers {
                    // What changed may be the source itself.
                    poll.reset_immediately();
                    // A crash loop makes events without end; they must not make passes without pause.
                    due = due.min((Instant::now() + rhythm.debounce).max(ended + MIN_GAP));
                }
                continue;
            }
            () = tokio::time::sleep_until(due), if current.is_some() => {}
        }
        let Some(current) = &current else { continue };
        number += 1;
        tracing::debug!(number, "pass");
        listener.hear(&Event::PassStarted(number));
        let started = Instant::now();
        let mut turn = aside.now();
        turn.begins = gave_way;
        let generation = current.desired.digest();
        let pass = run(&current.fleet, &current.desired, listener, stop, &turn);
        let pass = meanwhile(pass, source, &generation, &turn, &mut poll, listener);
        let outcome;
        (outcome, ahead) = pass.await;
        ended = Instant::now();
        let (pass, execution) = match outcome {
            Ok(outcome) => outcome,
            Err(error) => {
                listener.hear(&Event::PassRefused(&error));
                due = Instant::now() + backoff.next_pause((rhythm.jitter)());
                continue;
            }
        };
        listener.hear(&Event::PassEnded {
            took: ended - started,
            done: execution.done(),
            failed: execution.errors().count(),
        });
        gave_way = execution.gave_way;
        proofs.note(&execution);
        aside.saw(&pass.observed);
        let again = aside.note(&pass.plan, &execution, rhythm.jitter);
        backoff.reset();
        if ahead.is_some() {
            continue;
        }
        if execution.done() > 0 && !again {
            due = Instant::now();
            continue;
        }
        let converged = pass.plan.is_converged();
        proofs.saw(&pass.observed.serving_digest(), prover.answers(current, &pass.observed)).await;
        if proofs.due(converged, begun, rhythm) {
            let commit = converged && proofs.wrote;
            listener.hear(&Event::Verifying);
            let asked = Instant::now();
            let proof = prover.prove(current, &pass.observed, commit);
            let proof = meanwhile(proof, source, &generation, &turn, &mut poll, listener);
            let report;
            (report, ahead) = proof.await;
            listener.hear(&Event::Verified(&report));
            proofs.made(converged, &report, asked.elapsed(), rhythm);
        }
        due = proofs.sooner(next_look(rhythm, &aside, &execution, again));
    }
}

/// When to look again where nobody tells of anything.
fn next_look(rhythm: Rhythm, aside: &Aside, execution: &Execution, again: bool) -> Instant {
    let now = Instant::now();
    if again && execution.held_back {
        // What failed is set aside from now on: the disruptive step has its turn before that is tried
        // again.
        return now;
    }
    let due = now + rhythm.interval.mul_f64(1.0 - (rhythm.jitter)() / 10.0);
    let due = aside.due().map_or(due, |rested| due.min(rested));
    if execution.waits() { due.min(now + WAIT_GAP) } else { due }
}
