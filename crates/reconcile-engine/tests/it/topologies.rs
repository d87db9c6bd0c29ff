//! T11: every combination of three servers that answer, hang, are off, or tell old news, times the
//! states that a cluster can be found in. Small topologies are where violations show (Kivi).

use reconcile_core::model::HostName;
use reconcile_sim::{Faults, Position, Reach, SimFleet, World};

use crate::{
    crashes::{Reference, more_writes, reference, same_state},
    run::{apply, plan_now, settle},
    workloads::{self, Workload},
};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Condition {
    Up,
    Silent,
    Off,
    Stale,
}

const CONDITIONS: [Condition; 4] =
    [Condition::Up, Condition::Silent, Condition::Off, Condition::Stale];

async fn found_in(workload: &Workload, reference: &Reference, conditions: [Condition; 3]) {
    let what = format!("{}: {conditions:?}", workload.name);
    let fleet = SimFleet::new(workload.before.clone());
    drop(plan_now(&fleet, &workload.desired).await);
    fleet.change(|world| *world = workload.start());
    let hosts: Vec<HostName> = fleet.world().servers.keys().cloned().collect();
    let mut faults = Faults::default();
    for (host, condition) in hosts.iter().zip(conditions) {
        match condition {
            Condition::Up => {}
            Condition::Silent => {
                fleet.change(|world| world.server_mut(host.as_str()).reach = Reach::Silent);
            }
            Condition::Off => fleet.change(|world| world.power_off(host.as_str())),
            Condition::Stale => _ = faults.frozen.insert(host.clone()),
        }
    }
    fleet.fail(faults);
    // What can be done is done; a plan that breaks a rule would be an error here.
    let result = apply(&fleet, &workload.desired).await.unwrap();
    let world = fleet.world();
    assert_eq!(world.violations, Vec::<String>::new(), "{what}: {:#?}", fleet.effects());
    for (host, condition) in hosts.iter().zip(conditions) {
        let away = matches!(condition, Condition::Silent | Condition::Off);
        let tried = fleet.effects().iter().any(|effect| effect.starts_with(host.as_str()));
        assert!(!(away && tried), "{what}: {host} was tried: {:#?}", fleet.effects());
    }
    let away = conditions.iter().any(|c| matches!(c, Condition::Silent | Condition::Off));
    assert!(!(away && result.is_converged()), "{what}: it cannot know that all is well");

    // Everything comes back: the same end as ever.
    fleet.heal();
    fleet.change(|world| {
        for (host, condition) in hosts.iter().zip(conditions) {
            world.server_mut(host.as_str()).reach = Reach::Answers;
            if condition == Condition::Off {
                world.reboot(host.as_str());
            }
        }
    });
    settle(&fleet, &workload.desired, 2).await;
    let writes = same_state(&fleet, reference, &what);
    // Every pass of a run is a stale look at a server that tells old news.
    let stale = if conditions.contains(&Condition::Stale) { 100 } else { 0 };
    assert_eq!(more_writes(&writes, reference, stale), None, "{what}: more writes");
}

async fn everywhere(workload: &Workload) {
    let reference = reference(workload).await;
    for a in CONDITIONS {
        for b in CONDITIONS {
            for c in CONDITIONS {
                found_in(workload, &reference, [a, b, c]).await;
            }
        }
    }
}

fn stop_everywhere(world: &mut World, unit: &str) {
    for server in world.servers.values_mut() {
        server.units.get_mut(unit).unwrap().running = false;
    }
}

/// A founding that was cut off when two of three members had been started.
async fn half_founded() -> Workload {
    let mut workload = workloads::bare();
    let fleet = SimFleet::new(workload.before.clone());
    let result = settle(&fleet, &workload.desired, 1).await;
    assert!(result.is_converged());
    let starts = fleet.effects();
    let second = starts.iter().enumerate().filter(|(_, text)| text.contains("StartEtcd")).nth(1);
    let effect = second.unwrap().0 as u64 + 1;
    let fleet =
        SimFleet::with_faults(workload.before.clone(), Faults::crash(effect, Position::After));
    tokio::select! {
        _ = apply(&fleet, &workload.desired) => panic!("it was to be cut off"),
        () = fleet.crashed() => {}
    }
    workload.name = "half founded";
    workload.before = fleet.world();
    workload.before.writes.clear();
    workload
}

#[tokio::test(start_paused = true)]
async fn while_it_is_founded() {
    everywhere(&workloads::bare()).await;
    everywhere(&half_founded().await).await;
}

#[tokio::test(start_paused = true)]
async fn while_everything_is_stopped() {
    let stopped = workloads::changes().await.remove(0);
    let etcd = |world: &mut World| stop_everywhere(world, "etcd.service");
    everywhere(&Workload { name: "etcd stopped", disturb: etcd, ..stopped.clone() }).await;
    let patroni = |world: &mut World| stop_everywhere(world, "patroni.service");
    everywhere(&Workload { name: "patroni stopped", disturb: patroni, ..stopped }).await;
}

#[tokio::test(start_paused = true)]
async fn while_it_is_changed() {
    for workload in workloads::changes().await {
        if ["etcd environment", "files drift", "haproxy config"].contains(&workload.name) {
            everywhere(&workload).await;
        }
    }
}
