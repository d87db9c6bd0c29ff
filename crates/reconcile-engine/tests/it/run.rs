//! Running the engine to its end on a simulated fleet, through crashes.

use reconcile_core::{check::check, desired::Desired, plan::Plan};
use reconcile_engine::{Converged, PassError, converge, look};
use reconcile_sim::{SimFleet, World};
use tokio_util::sync::CancellationToken;

/// One `apply`.
pub(crate) async fn apply(fleet: &SimFleet, desired: &Desired) -> Result<Converged, PassError> {
    converge(fleet, desired, &(), &CancellationToken::new()).await
}

/// Applies until the plan is empty; a crash starts the operator anew. At most `limit` starts.
pub(crate) async fn settle(fleet: &SimFleet, desired: &Desired, limit: usize) -> Converged {
    let mut last = None;
    for _ in 0..limit {
        let result = tokio::select! {
            biased;
            result = apply(fleet, desired) => Some(result.unwrap()),
            () = fleet.crashed() => None,
        };
        match result {
            Some(converged) if converged.is_converged() => return converged,
            Some(converged) => last = Some(converged),
            None => fleet.restart(),
        }
    }
    let last = last.unwrap();
    panic!(
        "not converged after {limit} starts: {:?}\n{}\nviolations: {:?}",
        last.errors,
        reconcile_core::plan::text(&last.last.plan, true),
        fleet.world().violations,
    );
}

/// The plan of this moment; it passes the checker.
pub(crate) async fn plan_now(fleet: &SimFleet, desired: &Desired) -> Plan {
    let pass = look(fleet, desired, &()).await.unwrap();
    assert_eq!(check(desired, &pass.observed, &pass.plan), []);
    pass.plan
}

/// A converged world.
pub(crate) async fn converged(desired: &Desired) -> World {
    let fleet = SimFleet::new(World::bare(desired));
    settle(&fleet, desired, 2).await;
    let mut world = fleet.world();
    assert_eq!(world.violations, Vec::<String>::new());
    world.writes.clear();
    world
}

/// Texts of everything held.
pub(crate) fn holds(plan: &Plan) -> Vec<String> {
    plan.held.iter().map(|held| format!("{}: {}", held.object, held.reason)).collect()
}
