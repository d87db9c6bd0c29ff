//! Passes until nothing is left to do, or nothing more can be done now.

use std::{collections::BTreeMap, time::Duration};

use reconcile_core::{
    desired::Desired,
    model::ObjectId,
    plan::HoldReason,
    ports::{EffectError, Fleet, Retry},
};
use tokio_util::sync::CancellationToken;

use crate::{
    aside::Turn,
    events::{Event, Listener},
    execute::StepResult,
    pass::{Pass, run},
    refusal::PassError,
};

/// A plan is done in one to three passes, and a server has left in ten; a loop that needs more than
/// several of those does not converge.
const MAX_PASSES: u32 = 60;
/// Failures of the same object in a row before giving up; `--watch` never gives up.
const MAX_FAILING: u32 = 2;
/// Passes with the very same steps in a row, each of which took effect, before giving up: 20 s.
const MAX_REPEATS: u32 = 10;
/// Pause after a pass with errors, or with the same steps as the one before.
const PAUSE: Duration = Duration::from_secs(2);

/// Looks, with pauses, at what is unknown and keeps something held, before giving up: a Swarm elects
/// a leader within seconds.
const MAX_LOOKS: u32 = 3;

/// How a run ended.
#[derive(Debug)]
pub struct Converged {
    /// The last pass: its plan is what is left.
    pub last: Pass,
    /// Errors of the last pass that executed anything.
    pub errors: Vec<EffectError>,
    /// Steps that took effect over all passes.
    pub steps_done: usize,
    /// Some of them did more than to wait.
    pub wrote: bool,
    /// Passes.
    pub passes: u32,
    /// The run was asked to stop.
    pub stopped: bool,
}

impl Converged {
    /// True where nothing is left and nothing failed.
    pub fn is_converged(&self) -> bool {
        self.errors.is_empty() && self.last.plan.is_converged()
    }
}

/// Passes until the plan is empty, only holds are left, or errors keep coming.
pub async fn converge<F: Fleet>(
    fleet: &F,
    desired: &Desired,
    listener: &dyn Listener,
    stop: &CancellationToken,
) -> Result<Converged, PassError> {
    let mut passes = 0;
    let mut steps_done = 0;
    let mut failing: BTreeMap<ObjectId, u32> = BTreeMap::new();
    let mut previous = Vec::new();
    let mut repeats = 0;
    let mut looks = 0;
    let mut turn = Turn::default();
    let mut wrote = false;
    loop {
        passes += 1;
        listener.hear(&Event::PassStarted(passes));
        let (last, execution) = run(fleet, desired, listener, stop, &turn).await?;
        turn = Turn::after(&last.observed);
        wrote |= execution.wrote;
        steps_done += execution.done();
        let errors: Vec<EffectError> = execution.errors().cloned().collect();
        let stopped = stop.is_cancelled();
        // The same steps again after all of them took effect: the world may be slow to show it (what
        // Patroni tells of others is up to `loop_wait` old), so look again a few times, calmly.
        let repeated = errors.is_empty() && execution.done() > 0 && previous == last.plan.steps;
        repeats = if repeated { repeats + 1 } else { 0 };
        previous.clone_from(&last.plan.steps);
        // A server that is off is not waited for.
        let doubt = last.plan.held.iter().any(|held| {
            matches!(held.reason, HoldReason::Unknown(_))
                && !matches!(held.object, ObjectId::Host(_))
        });
        let servers_known = desired.servers.keys().all(|host| last.observed.host(host).is_some());
        let unclear = last.plan.steps.is_empty() && doubt && servers_known && looks < MAX_LOOKS;
        looks += u32::from(unclear);
        let nothing_left = last.plan.steps.is_empty() && !unclear;
        let finished = nothing_left || passes >= MAX_PASSES || stopped || repeats >= MAX_REPEATS;
        let failed = |id: &usize| matches!(execution.results.get(id), Some(StepResult::Failed(_)));
        failing = last
            .plan
            .steps
            .iter()
            .filter(|step| failed(&step.id))
            .map(|step| (step.object.clone(), failing.get(&step.object).map_or(1, |n| n + 1)))
            .collect();
        // What Docker went back from is held from now on, and the rest of the rollout goes on.
        let rolled = failing.keys().any(|object| matches!(object, ObjectId::Service(_)));
        let hopeless = !errors.is_empty()
            && (failing.values().any(|count| *count >= MAX_FAILING)
                || !rolled && errors.iter().all(|error| error.retry == Retry::AfterChange));
        if finished || hopeless {
            return Ok(Converged { last, errors, steps_done, wrote, passes, stopped });
        }
        if !errors.is_empty() || repeated || unclear {
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = stop.cancelled() => {}
            }
        }
    }
}
