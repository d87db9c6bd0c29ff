//! T1 and T2: the operator dies before, inside and after every effect of every workload, or the
//! answer is lost. The next start comes to the same end with the same number of writes.

use std::collections::BTreeMap;

use reconcile_sim::{Faults, Position, SimFleet};

use crate::{
    run::{apply, settle},
    workloads::{self, Workload},
};

/// The end that a run without faults comes to.
pub(crate) struct Reference {
    pub(crate) end: String,
    pub(crate) writes: BTreeMap<String, u64>,
    pub(crate) effects: u64,
    pub(crate) reads: u64,
}

pub(crate) async fn reference(workload: &Workload) -> Reference {
    let fleet = SimFleet::new(workload.start());
    let result = settle(&fleet, &workload.desired, 1).await;
    let world = fleet.world();
    let name = workload.name;
    assert_eq!(world.violations, Vec::<String>::new(), "{name}");
    // A server leaves, and packages are upgraded, in a chain of steps of which each rests on a new look;
    // and so does an update of services, node by node.
    let long = !workload.desired.leaving.is_empty() || name.contains("upgraded");
    let limit = if long { 20 } else { 12 };
    assert!(result.passes <= limit, "{name}: {} passes", result.passes);
    let effects = fleet.effects().len() as u64;
    assert!(effects > 0, "{name} changes nothing");
    let again = apply(&fleet, &workload.desired).await.unwrap();
    assert_eq!(again.steps_done, 0, "{name}");
    Reference { end: world.end_state(), writes: world.writes, effects, reads: fleet.reads() }
}

/// Asserts that a run came to the end of the run without faults, with as many writes.
pub(crate) fn same_end(fleet: &SimFleet, reference: &Reference, what: &str) {
    let writes = same_state(fleet, reference, what);
    assert_eq!(writes, reference.writes, "{what}: other writes; {:#?}", fleet.effects());
}

/// The first object that was written more often than in the run without faults. After so many
/// stale looks a unit may have been told of its file that many times more: a file that is as
/// desired by now could be the work of a try that was cut off before its unit was told.
pub(crate) fn more_writes<'a>(
    writes: &'a BTreeMap<String, u64>,
    reference: &Reference,
    stale_looks: u64,
) -> Option<(&'a String, &'a u64)> {
    writes.iter().find(|(object, count)| {
        let told = object.ends_with(" restart") || object.ends_with(" reload");
        let allowed = reference.writes.get(*object).copied().unwrap_or(0);
        **count > allowed + if told { stale_looks } else { 0 }
    })
}

/// Asserts that a run came to the end of the run without faults. Returns its writes.
pub(crate) fn same_state(
    fleet: &SimFleet,
    reference: &Reference,
    what: &str,
) -> BTreeMap<String, u64> {
    let world = fleet.world();
    assert_eq!(world.violations, Vec::<String>::new(), "{what}");
    let end = world.end_state();
    if end != reference.end {
        let diff: Vec<_> = end
            .lines()
            .filter(|line| !reference.end.contains(line))
            .chain(["instead of"])
            .chain(reference.end.lines().filter(|line| !end.contains(line)))
            .collect();
        panic!("{what}: another end:\n{}\n{:#?}", diff.join("\n"), fleet.effects());
    }
    // The one write more that the fault model brings about: a Swarm that was founded and not
    // labelled before the crash is labelled by a step of its own.
    let mut writes = world.writes;
    writes.remove("swarm/labels");
    writes
}

pub(crate) async fn every_crash(workload: &Workload) {
    let reference = reference(workload).await;
    let start = workload.start();
    for effect in 1..=reference.effects {
        for position in [Position::Before, Position::Inside, Position::Late, Position::After] {
            let what = format!("{}: crash {position:?} effect {effect}", workload.name);
            let faults = Faults::crash(effect, position);
            let fleet = SimFleet::with_faults(start.clone(), faults);
            settle(&fleet, &workload.desired, 2).await;
            same_end(&fleet, &reference, &what);
        }
        let what = format!("{}: answer of effect {effect} lost", workload.name);
        let faults = Faults { lost_answers: [effect].into(), ..Faults::default() };
        let fleet = SimFleet::with_faults(start.clone(), faults);
        settle(&fleet, &workload.desired, 1).await;
        same_end(&fleet, &reference, &what);
    }
}

#[tokio::test(start_paused = true)]
async fn bare_survives_a_crash_at_every_effect() {
    every_crash(&workloads::bare()).await;
}

#[tokio::test(start_paused = true)]
async fn changes_survive_a_crash_at_every_effect() {
    let changes = workloads::changes().await;
    assert!(changes.len() >= 8);
    for workload in changes {
        every_crash(&workload).await;
    }
}
