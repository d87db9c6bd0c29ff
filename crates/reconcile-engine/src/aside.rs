//! What is not tried for now, object by object: so a step that keeps failing slows down nothing
//! else, and events without end do not make tries without pause.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use reconcile_core::{
    action::{Action, HostAction},
    model::{ObjectId, Observed},
    plan::{Plan, SetAside, Step, Verb},
    ports::Retry,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    backoff::Backoff,
    execute::{Execution, StepResult},
    observe::{Answered, answered},
};

/// A step that failed and will fail again until somebody changes something is not tried again before
/// this has passed or the desired state has changed: each try of a bad image or configuration costs
/// a task that served.
const STUCK: Duration = Duration::from_secs(600);

/// A pass of the watch waits no longer than this for anything: nothing is looked at meanwhile.
const WAIT: Duration = Duration::from_secs(5);

/// What the first try of a step that brings an update to the next node has for the node's images. Nothing is
/// looked at meanwhile, so later tries have only what the trial and the tasks take.
const PULL: Duration = Duration::from_secs(150);

/// After so long Patroni was told to start, and only its becoming a member is waited for. The server
/// itself may wait for half a minute before, until nothing of an operator before us is under way.
const STARTED: Duration = Duration::from_secs(60);

/// What one pass leaves alone, and how long it waits. The default is a pass of a single run: nothing
/// is set aside, and every wait has its whole deadline.
#[derive(Debug, Default)]
pub struct Turn {
    /// What failed and is tried again later.
    pub(crate) set_aside: SetAside,
    /// What failed before.
    tried: BTreeSet<ObjectId>,
    /// Longest wait.
    wait: Option<Duration>,
    /// What has been waited for over passes for as long as its deadline.
    overdue: BTreeSet<ObjectId>,
    /// Told when there is a newer desired state.
    pub(crate) newer: CancellationToken,
    /// The plan before gave way before anything of it began: of this one the first steps do begin.
    /// Something that is edited without end must not keep everything from being done.
    pub(crate) begins: bool,
    /// Clients wait for what is under way: the source is not looked at, for a look may take its time.
    clients_wait: AtomicBool,
    /// What answered in the look before.
    pub(crate) before: Option<Answered>,
}

impl Turn {
    /// A pass of a single run after one that saw this.
    pub(crate) fn after(observed: &Observed) -> Self {
        Self { before: Some(answered(observed)), ..Self::default() }
    }

    /// Carries out what clients wait for.
    pub(crate) async fn while_clients_wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.clients_wait.store(true, Ordering::Relaxed);
        let done = work.await;
        self.clients_wait.store(false, Ordering::Relaxed);
        done
    }

    pub(crate) fn clients_wait(&self) -> bool {
        self.clients_wait.load(Ordering::Relaxed)
    }

    /// How long a step may take in this pass.
    pub(crate) fn deadline(&self, step: &Step) -> Duration {
        let whole = Duration::from_secs(step.deadline_seconds);
        if step.action.ends_a_rollout() && self.tried.contains(&step.object) {
            return whole.saturating_sub(PULL);
        }
        self.wait.filter(|_| step.verb == Verb::Await).map_or(whole, |wait| wait.min(whole))
    }

    /// Resolves where a step only waits by now, and a newer desired state need not wait along. A first
    /// copy of a large database takes hours and goes on without us; any other wait is a short one.
    pub(crate) async fn let_go(&self, step: &Step) {
        if !matches!(&step.action, Action::Host(_, HostAction::StartPatroni { .. })) {
            return std::future::pending().await;
        }
        tokio::time::sleep(STARTED).await;
        self.newer.cancelled().await;
    }

    /// True where a wait that ran out is no failure yet.
    pub(crate) fn has_time(&self, step: &Step) -> bool {
        self.wait.is_some() && step.verb == Verb::Await && !self.overdue.contains(&step.object)
    }
}

/// What came of the last tries.
#[derive(Default)]
pub(crate) struct Aside {
    tries: BTreeMap<ObjectId, Try>,
    /// Until when it is no failure that something is still waited for.
    waits: BTreeMap<ObjectId, (Action, Instant)>,
    /// What took effect in the last pass.
    done: Vec<(ObjectId, Action)>,
    /// What answered in it.
    answered: Option<Answered>,
}

struct Try {
    backoff: Backoff,
    until: Instant,
    cause: String,
}

impl Aside {
    /// Takes note of a pass. True where some step failed, or took effect and is planned again
    /// although it took effect in the pass before: it did not help, so no spinning.
    pub(crate) fn note(&mut self, plan: &Plan, execution: &Execution, jitter: fn() -> f64) -> bool {
        let now = Instant::now();
        let mut done = Vec::new();
        let mut again = BTreeSet::new();
        for step in &plan.steps {
            let rest = match execution.results.get(&step.id) {
                Some(StepResult::Failed(error)) => {
                    Some((error.retry == Retry::AfterChange, error.to_string()))
                }
                Some(StepResult::Done) => {
                    done.push((step.object.clone(), step.action.clone()));
                    self.was_done(step).then(|| (false, "it took effect and did not help".into()))
                }
                Some(StepResult::Waiting | StepResult::Skipped) | None => continue,
            };
            let Some((stuck, cause)) = rest else { continue };
            again.insert(step.object.clone());
            let entry = self.tries.entry(step.object.clone());
            let entry = entry.or_insert_with(|| Try {
                backoff: Backoff::default(),
                until: now,
                cause: String::new(),
            });
            let pause = if stuck { STUCK } else { entry.backoff.next_pause(jitter()) };
            (entry.until, entry.cause) = (now + pause, cause);
        }
        self.note_waits(plan, execution, now);
        // What is planned no more has healed, and what took effect has no failures to remember.
        self.tries.retain(|object, _| {
            let planned = is_planned(plan, object);
            let took_effect = done.iter().any(|(healed, _)| healed == object);
            planned && (again.contains(object) || !took_effect)
        });
        self.done = done;
        !again.is_empty()
    }

    fn note_waits(&mut self, plan: &Plan, execution: &Execution, now: Instant) {
        self.waits.retain(|object, (action, _)| {
            let step = plan.steps.iter().find(|step| step.object == *object);
            // Where it is set aside, the plan holds it: it is still the same wait.
            step.map_or_else(
                || is_planned(plan, object),
                |step| step.verb == Verb::Await && step.action == *action,
            )
        });
        let waiting = |step: &&Step| execution.results.get(&step.id) == Some(&StepResult::Waiting);
        for step in plan.steps.iter().filter(waiting) {
            let until = now + Duration::from_secs(step.deadline_seconds);
            let wait = || (step.action.clone(), until);
            self.waits.entry(step.object.clone()).or_insert_with(wait);
        }
    }

    fn was_done(&self, step: &Step) -> bool {
        self.done.iter().any(|(object, action)| *object == step.object && *action == step.action)
    }

    /// Takes note of what answered.
    pub(crate) fn saw(&mut self, observed: &Observed) {
        self.answered = Some(answered(observed));
    }

    /// What a pass that begins now leaves alone.
    pub(crate) fn now(&self) -> Turn {
        let now = Instant::now();
        let resting = self.tries.iter().filter(|(_, entry)| entry.until > now);
        let overdue = self.waits.iter().filter(|(_, (_, until))| *until <= now);
        Turn {
            set_aside: resting
                .map(|(object, entry)| (object.clone(), entry.cause.clone()))
                .collect(),
            tried: self.tries.keys().cloned().collect(),
            wait: Some(WAIT),
            overdue: overdue.map(|(object, _)| object.clone()).collect(),
            newer: CancellationToken::new(),
            begins: false,
            clients_wait: AtomicBool::new(false),
            before: self.answered.clone(),
        }
    }

    /// When something has rested long enough.
    pub(crate) fn due(&self) -> Option<Instant> {
        let now = Instant::now();
        self.tries.values().map(|entry| entry.until).filter(|until| *until > now).min()
    }
}

/// True also where it is held: what is set aside has not healed.
fn is_planned(plan: &Plan, object: &ObjectId) -> bool {
    plan.steps.iter().any(|step| step.object == *object)
        || plan.held.iter().any(|held| held.object == *object)
}
