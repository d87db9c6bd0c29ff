//! Running the engine to its end on a simulated fleet, through crashes.

use std::sync::Mutex;

use reconcile_core::{check::check, desired::Desired, plan::Plan};
use reconcile_engine::{
    Converged, Event, Listener, PassError, converge, look,
    resume::Owed,
    switchover::{Order, SwitchoverError},
};
use reconcile_sim::{SimFleet, World};
use tokio_util::sync::CancellationToken;

/// What outlives the operator: which transaction was begun and not ended, as the journal knows.
#[derive(Default)]
pub(crate) struct Memory(Mutex<Option<Owed>>);

impl Memory {
    fn owe(&self, order: Option<&Order>) {
        *self.0.lock().unwrap() = order.map(|order| Owed {
            candidate: order.candidate.to_string(),
            nodes: Some(order.nodes.clone()),
            begun: None,
        });
    }
}

impl Listener for Memory {
    fn hear(&self, event: &Event<'_>) {
        match event {
            Event::SwitchBegins(order)
            | Event::SwitchEnds(order, Err(SwitchoverError::Resume { .. })) => {
                self.owe(Some(order));
            }
            Event::SwitchEnds(..) | Event::Resumed => self.owe(None),
            _ => {}
        }
    }
    fn owes_resume(&self) -> Option<Owed> {
        self.0.lock().unwrap().clone()
    }
}

/// One `apply`.
pub(crate) async fn apply(fleet: &SimFleet, desired: &Desired) -> Result<Converged, PassError> {
    remembering(fleet, desired, &Memory::default()).await
}

pub(crate) async fn remembering(
    fleet: &SimFleet,
    desired: &Desired,
    memory: &Memory,
) -> Result<Converged, PassError> {
    converge(fleet, desired, memory, &CancellationToken::new()).await
}

/// Applies until the plan is empty; a crash starts the operator anew. At most `limit` starts.
pub(crate) async fn settle(fleet: &SimFleet, desired: &Desired, limit: usize) -> Converged {
    let mut last = None;
    let memory = Memory::default();
    for _ in 0..limit {
        let result = tokio::select! {
            biased;
            result = remembering(fleet, desired, &memory) => Some(result.unwrap()),
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
    assert!(world.paused.is_empty());
    world.writes.clear();
    world
}

/// Texts of everything held.
pub(crate) fn holds(plan: &Plan) -> Vec<String> {
    plan.held.iter().map(|held| format!("{}: {}", held.object, held.reason)).collect()
}
