//! Executing a plan: steps whose needs are met run at once, a failed step stops only what needs
//! it, and the one disruptive step runs only in a pass in which nothing else is to be done.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use futures::{StreamExt as _, stream::FuturesUnordered};
use reconcile_core::{
    model::HostName,
    plan::{Plan, Step, Verb},
    ports::{EffectError, Fleet, Retry},
};
use tokio_util::sync::CancellationToken;

use crate::{
    aside::Turn,
    events::{Event, Listener},
    switchover::{Order, switch_over},
};

/// Steps under way at once on one server: sshd allows ten sessions a connection
/// (`MaxSessions`), and probes and waits need some of them.
const PER_HOST: usize = 4;

/// What came of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepResult {
    /// It took effect.
    Done,
    /// It failed.
    Failed(EffectError),
    /// What it waits for has not come to pass yet; there is time left.
    Waiting,
    /// It was not started.
    Skipped,
}

/// What came of a plan, by step id.
#[must_use = "an execution may have failed"]
#[derive(Debug, Clone, Default)]
pub struct Execution {
    /// Results by step id.
    pub results: BTreeMap<usize, StepResult>,
    /// A disruptive step was left out, since other steps were under way.
    pub(crate) held_back: bool,
    /// A newer desired state came before any step began.
    pub(crate) gave_way: bool,
    /// Something took effect that does more than to wait.
    pub(crate) wrote: bool,
}

impl Execution {
    /// The errors, in order of the steps.
    pub fn errors(&self) -> impl Iterator<Item = &EffectError> {
        self.results.values().filter_map(|result| match result {
            StepResult::Failed(error) => Some(error),
            StepResult::Done | StepResult::Waiting | StepResult::Skipped => None,
        })
    }
    /// True where some step still waits.
    pub(crate) fn waits(&self) -> bool {
        self.results.values().any(|result| *result == StepResult::Waiting)
    }
    /// How many steps took effect.
    pub fn done(&self) -> usize {
        self.results.values().filter(|result| **result == StepResult::Done).count()
    }
}

/// Carries out a checked plan.
///
/// What is set aside is held by the plan already; of `turn` only the waits matter here.
///
/// # Cancellation
/// After `cancel`, or once the turn knows of a newer desired state, no further step starts (the first
/// ones that disturb nobody do where the plan before gave way, too); those under way are waited for.
/// For a newer desired state a step that only waits is let go.
pub async fn execute<F: Fleet>(
    fleet: &F,
    plan: &Plan,
    listener: &dyn Listener,
    cancel: &CancellationToken,
    turn: &Turn,
) -> Execution {
    let mut execution = Execution::default();
    let (last, first): (Vec<&Step>, Vec<&Step>) =
        plan.steps.iter().partition(|step| step.impact.disruptive());
    let calm = first.is_empty();
    run(fleet, first, &mut execution, listener, cancel, turn).await;
    if calm {
        let last = run(fleet, last, &mut execution, listener, cancel, turn);
        turn.while_clients_wait(last).await;
    } else {
        execution.held_back = !last.is_empty();
        // What was observed before those steps may no longer hold: the disruptive step must be
        // planned on fresh facts.
        for step in last {
            execution.results.insert(step.id, StepResult::Skipped);
            listener.hear(&Event::StepSkipped(step));
        }
    }
    execution
}

async fn run<F: Fleet>(
    fleet: &F,
    mut waiting: Vec<&Step>,
    execution: &mut Execution,
    listener: &dyn Listener,
    cancel: &CancellationToken,
    turn: &Turn,
) {
    let mut busy: BTreeMap<&HostName, usize> = BTreeMap::new();
    let mut under_way = FuturesUnordered::new();
    let mut began = false;
    // Nobody's work is disturbed for what is out of date.
    let begins = turn.begins && !waiting.iter().any(|step| step.impact.disruptive());
    loop {
        let ends = turn.newer.is_cancelled() && (began || !begins);
        execution.gave_way |= ends && !began && !waiting.is_empty();
        let before = waiting.len();
        let mut still = Vec::with_capacity(before);
        for step in waiting {
            let host = host(step);
            match readiness(step, execution, cancel.is_cancelled() || ends) {
                Readiness::Never => {
                    execution.results.insert(step.id, StepResult::Skipped);
                    listener.hear(&Event::StepSkipped(step));
                }
                Readiness::Now if busy.get(host).copied().unwrap_or(0) < PER_HOST => {
                    *busy.entry(host).or_default() += 1;
                    began = true;
                    listener.hear(&Event::StepStarted(step));
                    let unnoted = listener.failure();
                    under_way.push(perform(fleet, step, unnoted, listener, turn));
                }
                Readiness::Now | Readiness::Later => still.push(step),
            }
        }
        waiting = still;
        let Some((step, result, took)) = under_way.next().await else {
            if waiting.is_empty() {
                return;
            }
            if waiting.len() == before {
                // What is left needs a step that runs later (the disruptive one): the next pass
                // plans it anew.
                for step in waiting {
                    execution.results.insert(step.id, StepResult::Skipped);
                    listener.hear(&Event::StepSkipped(step));
                }
                return;
            }
            continue;
        };
        if let Some(count) = busy.get_mut(host(step)) {
            *count -= 1;
        }
        let Some(result) = result else {
            let attempt = format!("{} {}", step.verb.word(), step.object);
            let cause = "a newer desired state goes first";
            let seen = EffectError::new(Some(host(step)), attempt, cause, Retry::Soon);
            listener.hear(&Event::StepWaits { step, seen: &seen });
            execution.results.insert(step.id, StepResult::Waiting);
            continue;
        };
        let result = match result {
            Err(error) if error.retry == Retry::Later && turn.has_time(step) => {
                listener.hear(&Event::StepWaits { step, seen: &error });
                StepResult::Waiting
            }
            result => {
                listener.hear(&Event::StepFinished { step, result: &result, took });
                execution.wrote |= result.is_ok() && step.verb != Verb::Await;
                result.map_or_else(StepResult::Failed, |()| StepResult::Done)
            }
        };
        execution.results.insert(step.id, result);
    }
}

enum Readiness {
    Now,
    Later,
    Never,
}

fn readiness(step: &Step, execution: &Execution, ends: bool) -> Readiness {
    if ends {
        return Readiness::Never;
    }
    let mut readiness = Readiness::Now;
    for need in &step.after {
        match execution.results.get(need) {
            Some(StepResult::Done) => {}
            Some(StepResult::Failed(_) | StepResult::Waiting | StepResult::Skipped) => {
                return Readiness::Never;
            }
            None => readiness = Readiness::Later,
        }
    }
    readiness
}

fn host(step: &Step) -> &HostName {
    use reconcile_core::action::Action;
    match &step.action {
        Action::Host(host, _) | Action::Patroni(host, _) | Action::Swarm(host, _) => host,
    }
}

/// The adapter keeps the deadline itself, so that it can say what it last saw; this much later
/// the step counts as hung.
const GRACE: Duration = Duration::from_secs(10);

/// None: the step was let go, and what it waits for comes without it.
async fn perform<'a, F: Fleet>(
    fleet: &F,
    step: &'a Step,
    unnoted: Option<String>,
    listener: &dyn Listener,
    turn: &Turn,
) -> (&'a Step, Option<Result<(), EffectError>>, Duration) {
    let started = Instant::now();
    if let Some(cause) = unnoted {
        let attempt = format!("{} {}", step.verb.word(), step.object);
        let error = EffectError::new(None, attempt, format!("not begun: {cause}"), Retry::Later);
        return (step, Some(Err(error)), started.elapsed());
    }
    if let Some(order) = Order::of_action(&step.action) {
        // Not under a deadline of its own: it bounds each part, and RESUME must not be cut off.
        let result = switch_over(fleet.switching(), &order, listener).await;
        let result = result.map(|_| ()).map_err(|error| error.of_step(&order));
        return (step, Some(result), started.elapsed());
    }
    let deadline = turn.deadline(step);
    let work = tokio::time::timeout(deadline + GRACE, fleet.perform(&step.action, deadline));
    let result = tokio::select! {
        biased;
        done = work => Some(done.unwrap_or_else(|_| Err(EffectError::new(
            Some(host(step)),
            format!("{} {}", step.verb.word(), step.object),
            format!("not done within {} s", deadline.as_secs()),
            Retry::Later,
        )))),
        () = turn.let_go(step) => None,
    };
    (step, result, started.elapsed())
}
