//! What an operator that was killed in the middle leaves behind is made good by whoever comes next, or
//! by the servers themselves.

use reconcile_core::{desired::Desired, model::ObjectId};
use reconcile_sim::{Position, SimFleet, World, fixture};
use reconcile_spec::ClusterSpec;

use crate::run::{apply, converged, plan_now, settle};

fn desired(change: impl Fn(&mut ClusterSpec)) -> Desired {
    fixture::desire(&fixture::spec(3, 0, |spec| change(spec)))
}

/// The operator is killed right after the first PAUSE, for good: the nodes resume by themselves.
/// Another operator, which knows nothing of it, need not wait for that.
#[tokio::test(start_paused = true)]
async fn nobody_waits_for_an_operator_that_is_gone() {
    let before = converged(&desired(|_| {})).await;
    let after = desired(|spec| {
        spec.postgresql.parameters.insert("max_connections".to_owned(), "300".to_owned());
    });
    let fleet = SimFleet::new(before.clone());
    settle(&fleet, &after, 1).await;
    let effects = fleet.effects();
    let first = effects.iter().position(|effect| effect.ends_with(" guard")).unwrap() as u64 + 1;
    let last = effects.iter().rposition(|effect| effect.ends_with(" unguard")).unwrap() as u64 + 1;
    for effect in first..=last {
        for position in [Position::Before, Position::Inside, Position::After] {
            let faults = reconcile_sim::Faults::crash(effect, position);
            let fleet = SimFleet::with_faults(before.clone(), faults);
            tokio::select! {
                biased;
                result = apply(&fleet, &after) => panic!("{:?}", result.map(|done| done.passes)),
                () = fleet.crashed() => {}
            }
            let mut alone = fleet.world();
            alone.unattended();
            assert_eq!(alone.paused, [].into(), "{position:?} {effect}");

            fleet.restart();
            let held = fleet.world().guarded;
            let plan = plan_now(&fleet, &after).await;
            let resumed = plan.steps.iter().filter_map(|step| match &step.object {
                ObjectId::Pooler(node) => Some(node.clone()),
                _ => None,
            });
            assert_eq!(resumed.collect::<std::collections::BTreeSet<_>>(), held);
            settle(&fleet, &after, 1).await;
            let world = fleet.world();
            assert_eq!((world.paused, world.guarded), ([].into(), [].into()));
            assert_eq!(world.violations, Vec::<String>::new(), "{position:?} {effect}");
        }
    }
}

/// The script is killed after the file was replaced and before the unit was told.
#[tokio::test(start_paused = true)]
async fn a_unit_is_told_of_its_file_by_whoever_comes_next() {
    let before = converged(&desired(|_| {})).await;
    let after = desired(|spec| {
        spec.etcd.heartbeat_ms = 150;
        spec.postgresql.hba.clear();
    });
    let reference = SimFleet::new(before.clone());
    settle(&reference, &after, 1).await;
    let mut cut = 0;
    for effect in 1..=reference.effects().len() as u64 {
        let fleet = SimFleet::with_faults(
            before.clone(),
            reconcile_sim::Faults::crash(effect, Position::Late),
        );
        tokio::select! {
            biased;
            _ = apply(&fleet, &after) => panic!("it was to be killed"),
            () = fleet.crashed() => {}
        }
        let outdated = |world: &World| {
            let units = world.servers.values().flat_map(|server| server.units.values());
            units.filter(|unit| unit.outdated).count()
        };
        cut += outdated(&fleet.world());
        fleet.restart();
        settle(&fleet, &after, 1).await;
        assert_eq!(outdated(&fleet.world()), 0, "{effect}");
        assert_eq!(fleet.world().end_state(), reference.world().end_state(), "{effect}");
    }
    assert!(cut >= 3, "{cut}: the fault does what it says");
}

/// A backup's long transaction holds the roll, by name; when it has ended the roll goes on.
#[tokio::test(start_paused = true)]
async fn work_that_would_be_cut_off_is_named_and_waited_for() {
    let before = converged(&desired(|_| {})).await;
    let after = desired(|spec| {
        spec.postgresql.parameters.insert("max_connections".to_owned(), "300".to_owned());
    });
    let fleet = SimFleet::new(before);
    fleet.change(|world| world.transactions.push("pid 812 of backup in auth".to_owned()));
    let result = apply(&fleet, &after).await.unwrap();
    let said = result.errors.iter().map(ToString::to_string).collect::<String>();
    assert!(said.contains("not begun: pid 812 of backup in auth"), "{said}");
    let touched = fleet.effects().into_iter().find(|effect| effect.ends_with("PAUSE"));
    assert_eq!(touched, None);
    fleet.change(|world| world.transactions.clear());
    settle(&fleet, &after, 1).await;
}

/// A power cut while packages were installed: what kept their services from starting goes with the
/// next run, also where all packages are there by then; somebody else's stays.
#[tokio::test(start_paused = true)]
async fn what_kept_packages_quiet_does_not_stay() {
    use reconcile_core::desired::server::{POLICY, POLICY_TEXT};
    let wanted = desired(|_| {});
    for (text, stays) in [(POLICY_TEXT, false), ("#!/bin/sh\nexit 101\n", true)] {
        let fleet = SimFleet::new(converged(&wanted).await);
        fleet.change(|world| {
            let file = reconcile_sim::File::of_root(text);
            world.server_mut("node2").files.insert(POLICY.to_owned(), file);
        });
        settle(&fleet, &wanted, 1).await;
        let files = &fleet.world().servers[&"node2".into()].files;
        assert_eq!(files.contains_key(POLICY), stays, "{text}");
    }
}
