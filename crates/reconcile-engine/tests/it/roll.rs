//! Rolling restarts for parameters that need one: the order by direction, and everything that makes
//! the operator hold instead. (Crashes, lost answers and stale looks: the workloads of those names.)

use reconcile_core::{desired::Desired, model::ObjectId};
use reconcile_engine::{Event, Listener as _, switchover::Order};
use reconcile_sim::{Section, SimFleet, World, fixture};
use reconcile_spec::{ClusterSpec, valid::Permission};

use crate::{
    run::{Memory, apply, converged, holds, plan_now, remembering, settle},
    workloads::host,
};

fn set(parameters: &[(&str, &str)]) -> impl Fn(&mut ClusterSpec) {
    move |spec| {
        for (name, value) in parameters {
            spec.postgresql.parameters.insert((*name).to_owned(), (*value).to_owned());
        }
    }
}

fn desired(members: usize, change: impl Fn(&mut ClusterSpec)) -> Desired {
    fixture::desire(&fixture::spec(members, 0, |spec| change(spec)))
}

/// What was done to PostgreSQL and the poolers, in order.
fn done(fleet: &SimFleet) -> Vec<String> {
    let told = |effect: String| {
        let (on, what) = effect.split_once(' ')?;
        let word = ["RestartReplica", "restart the primary", "hand over", "PAUSE", "RESUME"]
            .into_iter()
            .find(|word| what.starts_with(word))?;
        Some(match word {
            "PAUSE" | "RESUME" => word.to_owned(),
            "hand over" => format!("{on} {what}"),
            _ => format!("{on} {word}"),
        })
    };
    let mut all: Vec<String> = fleet.effects().into_iter().filter_map(told).collect();
    all.dedup();
    all
}

/// The restarts that a plan tells of: the next one, which is a step, and those that follow.
async fn told(fleet: &SimFleet, desired: &Desired) -> Vec<String> {
    let plan = plan_now(fleet, desired).await;
    let next = plan.steps.iter().filter_map(|step| match &step.object {
        ObjectId::Postgresql(host) => Some(host.to_string()),
        _ => None,
    });
    next.chain(plan.restarts.iter().map(|restart| restart.host.to_string())).collect()
}

/// The restarts that there were.
fn restarted(fleet: &SimFleet) -> Vec<String> {
    let done = done(fleet).into_iter().filter(|what| !["PAUSE", "RESUME"].contains(&what.as_str()));
    done.filter_map(|what| Some(what.split_once(' ')?.0.to_owned())).collect()
}

async fn roll(members: usize, parameters: &[(&str, &str)]) -> (SimFleet, Desired) {
    let before = converged(&desired(members, |_| {})).await;
    let after = desired(members, set(parameters));
    let fleet = SimFleet::new(before);
    let told = told(&fleet, &after).await;
    settle(&fleet, &after, 1).await;
    assert_eq!(told, restarted(&fleet), "the plan said so");
    let world = fleet.world();
    assert_eq!(world.violations, Vec::<String>::new());
    assert!(world.paused.is_empty());
    for server in world.servers.values() {
        for (name, value) in parameters {
            assert_eq!(server.running.as_ref().unwrap()[*name], *value);
        }
    }
    (fleet, after)
}

#[tokio::test(start_paused = true)]
async fn replicas_are_raised_first_and_the_primary_is_handed_over() {
    for parameter in [("max_connections", "300"), ("shared_buffers", "1GB")] {
        let (fleet, _) = roll(3, &[parameter]).await;
        let order = [
            "node2 RestartReplica",
            "node3 RestartReplica",
            "PAUSE",
            "node1 hand over to node2",
            "RESUME",
        ];
        assert_eq!(done(&fleet), order, "{parameter:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_primary_is_lowered_first_and_in_place() {
    let order = [
        "PAUSE",
        "node1 restart the primary",
        "RESUME",
        "node2 RestartReplica",
        "node3 RestartReplica",
    ];
    assert_eq!(done(&roll(3, &[("max_connections", "150")]).await.0), order);
}

/// A value that PostgreSQL cannot start with must not meet the primary first.
#[tokio::test(start_paused = true)]
async fn what_changes_along_with_a_lowered_limit_is_tried_on_the_replicas() {
    let (fleet, _) = roll(3, &[("max_connections", "150"), ("shared_buffers", "1GB")]).await;
    let order = [
        "node2 RestartReplica",
        "node3 RestartReplica",
        "PAUSE",
        "node1 restart the primary",
        "RESUME",
        "node2 RestartReplica",
        "node3 RestartReplica",
    ];
    assert_eq!(done(&fleet), order);
}

/// Limits up and down, others along with them, and changes of mind in the middle: the simulator and
/// the checker complain where a standby has less than its primary, or the primary is the first to
/// run with a new value.
#[tokio::test(start_paused = true)]
async fn any_mixture_ends_well() {
    let choices: [(&str, [&str; 3]); 5] = [
        ("max_connections", ["150", "200", "300"]),
        ("max_worker_processes", ["4", "8", "16"]),
        ("max_wal_senders", ["8", "10", "14"]),
        ("shared_buffers", ["128MB", "160MB", "1GB"]),
        ("max_replication_slots", ["8", "10", "12"]),
    ];
    let mut random = reconcile_sim::Random::new(7);
    let mut fleet = SimFleet::new(converged(&desired(3, |_| {})).await);
    for round in 0..24 {
        let draw: Vec<(&str, &str)> = choices
            .iter()
            .filter_map(|(name, values)| {
                let value = random.pick(values)?;
                Some((*name, *value))
            })
            .collect();
        let after = desired(3, set(&draw));
        // A change of mind comes while the one before is half done.
        let stop = (round % 3 == 0).then(|| 1 + random.below(8));
        let faults = stop.map_or_else(reconcile_sim::Faults::default, |effect| {
            reconcile_sim::Faults::crash(effect, reconcile_sim::Position::After)
        });
        fleet = SimFleet::with_faults(fleet.world(), faults);
        if stop.is_some() {
            tokio::select! {
                biased;
                result = apply(&fleet, &after) => drop(result.unwrap()),
                () = fleet.crashed() => fleet.restart(),
            }
        } else {
            let told = told(&fleet, &after).await;
            settle(&fleet, &after, 1).await;
            assert_eq!(told, restarted(&fleet), "{round}: the plan said so of {draw:?}");
        }
        assert_eq!(fleet.world().violations, Vec::<String>::new(), "{round}: {draw:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_raised_and_what_is_lowered_each_has_its_order() {
    let (fleet, _) = roll(3, &[("max_connections", "150"), ("max_worker_processes", "16")]).await;
    let order = [
        "node2 RestartReplica",
        "node3 RestartReplica",
        "PAUSE",
        "node1 restart the primary",
        "RESUME",
        "node2 RestartReplica",
        "node3 RestartReplica",
    ];
    assert_eq!(done(&fleet), order);
}

#[tokio::test(start_paused = true)]
async fn a_single_server_restarts_in_place() {
    for value in ["150", "300"] {
        let (fleet, _) = roll(1, &[("max_connections", value)]).await;
        assert_eq!(done(&fleet), ["PAUSE", "node1 restart the primary", "RESUME"]);
    }
}

#[tokio::test(start_paused = true)]
async fn one_member_at_a_time_is_planned() {
    let before = converged(&desired(3, |_| {})).await;
    let after = desired(3, set(&[("max_connections", "300")]));
    let plan = plan_now(&SimFleet::new(before), &after).await;
    let held = holds(&plan);
    for other in ["node1", "node3"] {
        let said =
            format!("{other}/postgresql: one disruptive step at a time: after node2/postgresql");
        assert!(held.contains(&said), "{held:#?}");
    }
    assert_eq!(plan.steps.iter().filter(|step| step.impact.disruptive()).count(), 1);
}

/// Applies; nothing of PostgreSQL is disturbed, and each member that waits says why.
async fn is_held(
    change: impl Fn(&mut ClusterSpec),
    disturb: impl FnOnce(&mut World),
    reason: &str,
) {
    let before = converged(&desired(3, |_| {})).await;
    let after = desired(3, change);
    // Patroni has the new configuration; what keeps a restart from being done happens then.
    let fleet = SimFleet::new(before);
    fleet.change(|world| {
        for store in world.etcd.values_mut() {
            store.scopes.get_mut("main").unwrap().config = after.patroni.config.clone();
        }
        disturb(world);
    });
    // A run may fail where something is broken; it must not do harm.
    drop(apply(&fleet, &after).await.unwrap());
    let world = fleet.world();
    assert_eq!(world.violations, Vec::<String>::new());
    assert_eq!(done(&fleet), Vec::<String>::new(), "{reason}");
    let held = holds(&plan_now(&fleet, &after).await);
    let told = held.iter().any(|h| h.contains("/postgresql: ") && h.contains(reason));
    assert!(told, "{reason}: {held:#?}");
}

#[tokio::test(start_paused = true)]
async fn doubt_holds_every_restart() {
    let raise = || set(&[("max_connections", "300")]);
    is_held(
        raise(),
        |world| world.server_mut("node3").reach = reconcile_sim::Reach::Silent,
        "node3",
    )
    .await;
    let hide = |section| {
        move |world: &mut World| {
            world.server_mut("node3").unknown.insert(section);
        }
    };
    is_held(raise(), hide(Section::Patroni), "could not be observed").await;
    let pause = |world: &mut World| {
        for store in world.etcd.values_mut() {
            store.scopes.get_mut("main").unwrap().paused = true;
        }
    };
    is_held(raise(), pause, "Patroni is paused").await;
}

/// A node that was drained has no pooler: the others are paused, and the roll goes to its end.
#[tokio::test(start_paused = true)]
async fn a_drained_node_is_not_waited_for() {
    for (value, effect) in
        [("300", "node1 hand over to node2"), ("150", "node1 restart the primary")]
    {
        let before = converged(&desired(3, |_| {})).await;
        let after = desired(3, set(&[("max_connections", value)]));
        let fleet = SimFleet::new(before);
        fleet.change(|world| drain(world, "node3"));
        let started = tokio::time::Instant::now();
        let last = apply(&fleet, &after).await.unwrap();
        assert_eq!(last.errors, []);
        assert!(started.elapsed() < std::time::Duration::from_secs(60), "{:?}", started.elapsed());
        let effects = fleet.effects();
        assert!(effects.iter().any(|done| done.starts_with(effect)), "{effects:#?}");
        let told = |what: &str| effects.iter().filter(|effect| effect.ends_with(what)).count();
        assert_eq!((told("PAUSE"), told("RESUME")), (2, 2), "{effects:#?}");
        assert!(!effects.iter().any(|effect| effect == "node3 PAUSE" || effect == "node3 RESUME"));
        let world = fleet.world();
        assert_eq!(world.violations, Vec::<String>::new());
        assert!(world.paused.is_empty());
    }
}

fn drain(world: &mut World, node: &str) {
    for swarm in world.swarms.values_mut() {
        for seen in swarm.nodes.values_mut().filter(|seen| seen.host.as_str() == node) {
            "drain".clone_into(&mut seen.availability);
        }
    }
    world.settle();
}

/// Where a pooler should run and does not, it could come up in the middle and not wait.
#[tokio::test(start_paused = true)]
async fn a_pooler_that_should_run_is_waited_for() {
    let before = converged(&desired(3, |_| {})).await;
    let after = desired(3, set(&[("max_connections", "300")]));
    let fleet = SimFleet::new(before);
    fleet.change(|world| {
        let stranger = reconcile_core::model::Listener {
            port: 6432,
            address: "0.0.0.0".to_owned(),
            unit: String::new(),
            process: "nc".to_owned(),
            pid: None,
        };
        world.server_mut("node3").strangers.push(stranger);
    });
    drop(apply(&fleet, &after).await.unwrap());
    let held = holds(&plan_now(&fleet, &after).await);
    let told = |h: &String| h.contains("the pooler on node3 does not run");
    assert!(held.iter().any(told), "{held:#?}");
    assert_eq!(done(&fleet), ["node2 RestartReplica", "node3 RestartReplica"]);
}

#[tokio::test(start_paused = true)]
async fn the_policy_is_asked() {
    for (permission, word) in [(Permission::Never, "never"), (Permission::InWindow, "inWindow")] {
        let never = |spec: &mut ClusterSpec| {
            set(&[("max_connections", "300")])(spec);
            spec.policy.restart = permission;
        };
        is_held(never, |_| {}, &format!("policy.restart is `{word}`")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_switchover_the_primary_keeps_its_place() {
    let before = converged(&desired(3, |_| {})).await;
    let after = desired(3, |spec| {
        set(&[("max_connections", "300")])(spec);
        spec.policy.switchover = Permission::Never;
    });
    let fleet = SimFleet::new(before);
    drop(apply(&fleet, &after).await.unwrap());
    assert_eq!(done(&fleet), ["node2 RestartReplica", "node3 RestartReplica"]);
    let held = holds(&plan_now(&fleet, &after).await);
    assert!(held.iter().any(|h| h.contains("policy.switchover is `never`")), "{held:#?}");
    assert_eq!(fleet.world().violations, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_pooler_that_cannot_be_paused_stops_the_switchover_and_not_its_clients() {
    let before = converged(&desired(3, |_| {})).await;
    let after = desired(3, set(&[("max_connections", "300")]));
    // The number of the effect that pauses the pooler on node2, in a run without faults.
    let fleet = SimFleet::new(before.clone());
    settle(&fleet, &after, 1).await;
    let pause =
        fleet.effects().iter().position(|effect| effect == "node2 PAUSE").unwrap() as u64 + 1;
    let fleet = SimFleet::with_faults(
        before,
        reconcile_sim::Faults { refusals: [pause].into(), ..Default::default() },
    );
    settle(&fleet, &after, 1).await;
    let order = done(&fleet);
    assert_eq!(order[2..], ["PAUSE", "RESUME", "PAUSE", "node1 hand over to node2", "RESUME"]);
    assert_eq!(fleet.world().violations, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_failover_in_the_middle_ends_well() {
    for (name, value) in
        [("max_connections", "300"), ("max_connections", "150"), ("shared_buffers", "1GB")]
    {
        let before = converged(&desired(3, |_| {})).await;
        let after = desired(3, set(&[(name, value)]));
        for effect in 1..=16 {
            let faults = reconcile_sim::Faults {
                reboots: [(effect, host("node1"))].into(),
                ..Default::default()
            };
            let fleet = SimFleet::with_faults(before.clone(), faults);
            settle(&fleet, &after, 4).await;
            let world = fleet.world();
            assert_eq!(world.violations, Vec::<String>::new(), "{name} {value} effect {effect}");
            assert!(world.paused.is_empty());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn etcds_quorum_is_asked_for_again_in_the_moment_of_a_restart() {
    let before = converged(&desired(3, |_| {})).await;
    let after = desired(3, |spec| spec.etcd.heartbeat_ms = 150);
    let fleet = SimFleet::new(before);
    let plan = plan_now(&fleet, &after).await;
    let step = plan.steps.iter().find(|step| step.impact.disruptive()).unwrap();
    // Another member stops after the plan was made.
    fleet.change(|world| {
        world.server_mut("node3").units.get_mut("etcd.service").unwrap().running = false;
    });
    let result = reconcile_core::ports::Fleet::perform(
        &fleet,
        &step.action,
        std::time::Duration::from_secs(60),
    );
    let error = result.await.unwrap_err();
    assert!(error.cause.contains("quorum"), "{error}");
    let world = fleet.world();
    assert_eq!(world.violations, Vec::<String>::new());
    let file = &world.servers[&host("node1")].files["/etc/default/etcd"];
    assert!(!file.text().contains("150"), "the file waits for the restart, too");
}

/// A pooler that cannot be resumed keeps nothing from being done, and is owed until it is resumed or
/// known not to run.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_resumed_stops_nobody() {
    let wanted = desired(3, |_| {});
    let before = converged(&wanted).await;
    let fleet = SimFleet::new(before);
    let nodes = vec![host("node2"), host("node3")];
    let order = Order {
        leader: host("node1"),
        candidate: host("node2"),
        restart: None,
        nodes,
        regardless: false,
    };
    let memory = Memory::default();
    memory.hear(&Event::SwitchBegins(&order));
    fleet.change(|world| {
        world.paused.extend([host("node2"), host("node3")]);
        world.server_mut("node3").reach = reconcile_sim::Reach::Silent;
    });
    // While node3 is not known, it is owed.
    drop(remembering(&fleet, &wanted, &memory).await.unwrap());
    assert_eq!(fleet.world().paused, [host("node3")].into());
    assert!(memory.owes_resume().is_some());
    let resumes = fleet.effects().into_iter().filter(|effect| effect.ends_with("RESUME"));
    assert!(!resumes.into_iter().any(|effect| effect.starts_with("node1")), "it was not paused");
    // It comes back drained: nobody waits there.
    fleet.change(|world| {
        world.server_mut("node3").reach = reconcile_sim::Reach::Answers;
        world.paused.clear();
        drain(world, "node3");
    });
    drop(remembering(&fleet, &wanted, &memory).await.unwrap());
    assert_eq!(memory.owes_resume(), None);
}
