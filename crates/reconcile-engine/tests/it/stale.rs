//! T3: at every look the operator is told once what the world was at the look before.

use reconcile_sim::{Faults, SimFleet};

use crate::{
    crashes::{more_writes, reference, same_state},
    run::{plan_now, settle},
    workloads::{self, Workload},
};

/// A fleet whose last look was before the change.
async fn looked_at(workload: &Workload) -> SimFleet {
    let fleet = SimFleet::new(workload.before.clone());
    drop(plan_now(&fleet, &workload.desired).await);
    fleet.change(|world| *world = workload.start());
    fleet
}

#[tokio::test(start_paused = true)]
async fn a_stale_look_does_no_harm() {
    let mut all = vec![workloads::bare()];
    all.extend(workloads::changes().await);
    for workload in all {
        let reference = reference(&workload).await;
        for read in 1..=reference.reads {
            let fleet = looked_at(&workload).await;
            fleet.fail(Faults { stale_reads: [read].into(), ..Faults::default() });
            settle(&fleet, &workload.desired, 3).await;
            // A look at the world before the change may have ended the run early, as nothing was
            // wrong then; the next run sees what is.
            fleet.heal();
            settle(&fleet, &workload.desired, 1).await;
            let what = format!("{}: look {read} stale", workload.name);
            let writes = same_state(&fleet, &reference, &what);
            assert_eq!(more_writes(&writes, &reference, 1), None, "{what}");
            assert!(writes.keys().eq(reference.writes.keys()), "{what}");
        }
    }
}
