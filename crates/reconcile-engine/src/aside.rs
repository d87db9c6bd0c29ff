//! What is not tried for now, object by object: so a step that keeps failing slows down nothing
//! else, and events without end do not make tries without pause.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use reconcile_core::{
    action::Action,
    model::ObjectId,
    plan::{Plan, Step},
    ports::Retry,
};
use tokio::time::Instant;

use crate::{
    backoff::Backoff,
    execute::{Execution, StepResult},
};

/// A step that failed and will fail again until somebody changes something is not tried again before
/// this has passed or the desired state has changed: each try of a bad image or configuration costs
/// a task that served.
const STUCK: Duration = Duration::from_secs(600);

/// Objects whose steps a pass leaves alone.
#[derive(Debug, Default)]
pub struct SetAside {
    /// Trying again helps nothing: as if it were not planned.
    pub stuck: BTreeSet<ObjectId>,
    /// Tried again soon; until then nothing disruptive is done elsewhere.
    pub resting: BTreeSet<ObjectId>,
}

impl SetAside {
    /// True where steps on `object` are left alone.
    pub fn contains(&self, object: &ObjectId) -> bool {
        self.stuck.contains(object) || self.resting.contains(object)
    }
}

/// What came of the last tries.
#[derive(Default)]
pub(crate) struct Aside {
    tries: BTreeMap<ObjectId, Try>,
    /// What took effect in the last pass.
    done: Vec<(ObjectId, Action)>,
}

struct Try {
    backoff: Backoff,
    until: Instant,
    stuck: bool,
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
                Some(StepResult::Failed(error)) => Some(error.retry == Retry::AfterChange),
                Some(StepResult::Done) => {
                    done.push((step.object.clone(), step.action.clone()));
                    self.was_done(step).then_some(false)
                }
                Some(StepResult::Skipped) | None => continue,
            };
            let Some(stuck) = rest else { continue };
            again.insert(step.object.clone());
            let entry = self.tries.entry(step.object.clone());
            let entry =
                entry.or_insert_with(|| Try { backoff: Backoff::default(), until: now, stuck });
            let pause = if stuck { STUCK } else { entry.backoff.next_pause(jitter()) };
            (entry.until, entry.stuck) = (now + pause, stuck);
        }
        // What is planned no more has healed, and what took effect has no failures to remember.
        self.tries.retain(|object, _| {
            let planned = plan.steps.iter().any(|step| step.object == *object);
            let took_effect = done.iter().any(|(healed, _)| healed == object);
            planned && (again.contains(object) || !took_effect)
        });
        self.done = done;
        !again.is_empty()
    }

    fn was_done(&self, step: &Step) -> bool {
        self.done.iter().any(|(object, action)| *object == step.object && *action == step.action)
    }

    /// What a pass that begins now leaves alone.
    pub(crate) fn now(&self) -> SetAside {
        let now = Instant::now();
        let mut aside = SetAside::default();
        for (object, entry) in self.tries.iter().filter(|(_, entry)| entry.until > now) {
            let set = if entry.stuck { &mut aside.stuck } else { &mut aside.resting };
            set.insert(object.clone());
        }
        aside
    }

    /// When something has rested long enough.
    pub(crate) fn due(&self) -> Option<Instant> {
        let now = Instant::now();
        self.tries.values().map(|entry| entry.until).filter(|until| *until > now).min()
    }
}
