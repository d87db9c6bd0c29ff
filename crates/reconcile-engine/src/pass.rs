//! One pass: observe → plan → check → execute.

use std::time::Instant;

use reconcile_core::{
    check::check,
    desired::Desired,
    model::{Observation, Observed},
    plan::{Plan, SetAside, plan_beside},
    ports::Fleet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    aside::Turn,
    events::{Event, Listener},
    execute::{Execution, execute},
    observe::{Answered, observe},
    refusal::PassError,
    resume::{forget_stopped, resume_owed},
};

/// Observations and the plan made from them.
#[derive(Debug, Clone)]
pub struct Pass {
    /// What was observed before anything was done.
    pub observed: Observed,
    /// The plan.
    pub plan: Plan,
}

/// Observes and plans; changes nothing.
pub async fn look<F: Fleet>(
    fleet: &F,
    desired: &Desired,
    listener: &dyn Listener,
) -> Result<Pass, PassError> {
    look_beside(fleet, desired, listener, &SetAside::new(), None).await
}

async fn look_beside<F: Fleet>(
    fleet: &F,
    desired: &Desired,
    listener: &dyn Listener,
    set_aside: &SetAside,
    before: Option<&Answered>,
) -> Result<Pass, PassError> {
    let started = Instant::now();
    let (observed, answers) = observe(fleet, desired, before).await;
    let known =
        observed.hosts.values().filter(|facts| matches!(facts, Observation::Known(_))).count();
    let servers = observed.hosts.len();
    tracing::debug!(took = ?started.elapsed(), known, servers, "observed");
    listener.hear(&Event::Observed { took: started.elapsed(), known, servers, answers: &answers });
    let plan = plan_beside(desired, &observed, set_aside);
    let violations = check(desired, &observed, &plan);
    if !violations.is_empty() {
        return Err(PassError::Unsafe(violations));
    }
    listener.hear(&Event::Planned(&plan));
    listener.hear(&Event::Looked { desired, observed: &observed, plan: &plan });
    Ok(Pass { observed, plan })
}

/// Observes, plans and executes.
pub async fn run<F: Fleet>(
    fleet: &F,
    desired: &Desired,
    listener: &dyn Listener,
    stop: &CancellationToken,
    turn: &Turn,
) -> Result<(Pass, Execution), PassError> {
    // Clients wait: before anything else, and again in the next pass where it fails.
    // Who only looks has no lease, and another operator may be in the middle of a switchover.
    let failed = match desired.only_looks {
        None => turn.while_clients_wait(resume_owed(fleet.switching(), desired, listener)).await,
        Some(_) => Vec::new(),
    };
    let pass = look_beside(fleet, desired, listener, &turn.set_aside, turn.before.as_ref()).await?;
    forget_stopped(desired, &pass.observed, &failed, listener);
    let execution = execute(fleet, &pass.plan, listener, stop, turn).await;
    Ok((pass, execution))
}
