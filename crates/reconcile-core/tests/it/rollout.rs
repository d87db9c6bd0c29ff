//! The order in which nodes get what is new in a service.

use proptest::prelude::*;
use reconcile_core::{
    action::{Action, SwarmAction},
    check::check,
    desired::Desired,
    model::{HostName, Observation},
    plan::{Plan, Step, plan},
};
use reconcile_sim::{World, fixture};
use reconcile_spec::valid::{Drift, Permission};

fn desired(maxconn: u32) -> Desired {
    fixture::desire(&fixture::spec(3, 0, |spec| spec.haproxy.maxconn = maxconn))
}

fn planned(desired: &Desired, world: &World) -> Plan {
    let observed = world.observe(desired);
    let plan = plan(desired, &observed);
    assert_eq!(check(desired, &observed, &plan), []);
    plan
}

fn swarm_step(plan: &Plan) -> Option<&Step> {
    let mut steps = plan.steps.iter();
    steps.find(|step| {
        matches!(
            &step.action,
            Action::Swarm(_, SwarmAction::UpdateService { .. } | SwarmAction::UpdateNode { .. })
        )
    })
}

/// What each pass does to the services and nodes until nothing is left.
fn passes(desired: &Desired, world: &mut World) -> Vec<String> {
    let mut seen = Vec::new();
    for _ in 0..20 {
        let plan = planned(desired, world);
        if plan.steps.is_empty() {
            return seen;
        }
        if let Some(step) = swarm_step(&plan) {
            seen.push(format!("{}: {}", step.object, step.reason));
        }
        world.pass(desired);
    }
    panic!("no end: {seen:#?}");
}

fn node<'a>(world: &'a mut World, host: &str) -> &'a mut reconcile_sim::Node {
    let swarm = world.swarms.values_mut().next().unwrap();
    swarm.nodes.values_mut().find(|node| node.host == HostName::new(host)).unwrap()
}

#[test]
fn each_node_in_turn_and_the_primarys_last() {
    for (primary, first, then) in
        [("node1", "node2", ["node3", "node1"]), ("node3", "node1", ["node2", "node3"])]
    {
        let mut world = World::converged(&desired(2000));
        if primary != "node1" {
            world.hand_over(&HostName::new("node1"), &HostName::new(primary)).unwrap();
        }
        let seen = passes(&desired(3000), &mut world);
        let expected = [
            format!("swarm/service/db-utils_haproxy: on {first} first, then {}", then.join(", ")),
            format!("swarm/service/db-utils_router: on {first} first, then {}", then.join(", ")),
            format!(
                "swarm/node/{}: the services' update comes to it next, then to 1 more node",
                then[0]
            ),
            format!("swarm/node/{}: the services' update comes to it last", then[1]),
        ];
        assert_eq!(seen, expected);
        let swarm = world.swarms.values().next().unwrap();
        assert!(swarm.nodes.values().all(|node| node.availability == "active" && !node.waits));
    }
}

/// Killed after the first node, with a file that changed its mind meanwhile.
#[test]
fn nodes_that_wait_are_let_go_whatever_the_file_wants_by_then() {
    let (old, new) = (desired(2000), desired(3000));
    let begun = || {
        let mut world = World::converged(&old);
        // The front, then the router, which has the limit as well.
        world.pass(&new);
        world.pass(&new);
        assert_eq!(node(&mut world, "node2").availability, "active");
        for host in ["node1", "node3"] {
            assert_eq!(
                (node(&mut world, host).waits, node(&mut world, host).availability.as_str()),
                (true, "pause")
            );
        }
        world
    };
    let first = |world: &World, desired: &Desired| {
        let plan = planned(desired, world);
        swarm_step(&plan).map(|step| step.object.to_string()).unwrap_or_default()
    };
    assert_eq!(first(&begun(), &new), "swarm/node/node3");
    // Back: the one that has it goes back first, and nobody waits in the end.
    let mut world = begun();
    assert_eq!(first(&world, &old), "swarm/service/db-utils_haproxy");
    passes(&old, &mut world);
    assert!(world.swarms.values().next().unwrap().nodes.values().all(|node| !node.waits));
    // The primary has moved: its node is the last all the same.
    let mut world = begun();
    world.hand_over(&HostName::new("node1"), &HostName::new("node3")).unwrap();
    assert_eq!(first(&world, &new), "swarm/node/node1");
    // What is begun is ended, outside of a window and where drift is only reported as well.
    let mut never = new.clone();
    never.policy.restart = Permission::Never;
    assert_eq!(first(&begun(), &never), "swarm/node/node3");
    let mut reported = new.clone();
    reported.policy.drift.swarm = Drift::Report;
    assert_eq!(first(&begun(), &reported), "swarm/node/node3");
    // Who drained a node meanwhile meant it. The others go on, and it loses our mark when it is back.
    let mut world = begun();
    "drain".clone_into(&mut node(&mut world, "node3").availability);
    passes(&new, &mut world);
    let drained = node(&mut world, "node3");
    assert_eq!(drained.availability, "drain");
    assert!(!node(&mut world, "node1").waits);
    "active".clone_into(&mut node(&mut world, "node3").availability);
    passes(&new, &mut world);
    assert!(!node(&mut world, "node3").waits);
    // And who paused one is not overruled.
    let mut world = World::converged(&old);
    "pause".clone_into(&mut node(&mut world, "node3").availability);
    passes(&new, &mut world);
    assert_eq!(node(&mut world, "node3").availability, "pause");
}

/// Docker starts none there while the node waits.
#[test]
fn a_node_that_lost_a_task_comes_next_and_a_lost_one_of_those_updated_stops_it() {
    let (old, new) = (desired(2000), desired(3000));
    let mut world = World::converged(&old);
    world.pass(&new);
    world.pass(&new);
    let without = |host: &str| {
        let mut observed = world.observe(&new);
        let Observation::Known(Some(swarm)) = &mut observed.swarm else {
            panic!("there is a Swarm")
        };
        let tasks = &mut swarm.services.get_mut("db-utils_haproxy").unwrap().tasks;
        tasks.retain(|task| task.node_id != format!("node-{host}"));
        let plan = plan(&new, &observed);
        assert_eq!(check(&new, &observed, &plan), []);
        let steps = plan.steps.iter().filter(|step| step.object.to_string().starts_with("swarm/"));
        steps.map(|step| format!("{} {}", step.verb.word(), step.object)).collect::<Vec<_>>()
    };
    assert_eq!(without("node1"), ["update swarm/node/node1"]);
    assert_eq!(without("node2"), ["await swarm/service/db-utils_haproxy"]);
}

#[test]
fn labels_alone_and_a_wish_for_more_at_once_keep_nobody_waiting() {
    let mut world = World::converged(&desired(2000));
    let two = fixture::desire(&fixture::spec(3, 0, |spec| {
        spec.haproxy.maxconn = 3000;
        spec.swarm.deploy.update.parallelism = 2;
    }));
    let seen = passes(&two, &mut world);
    assert!(seen.iter().all(|step| step.ends_with("it differs")), "{seen:#?}");
    let mut calm = fixture::spec(3, 0, |_| {});
    calm.swarm.deploy.update.monitor.0 += 1000;
    let mut world = World::converged(&fixture::desire(&fixture::spec(3, 0, |_| {})));
    let seen = passes(&fixture::desire(&calm), &mut world);
    assert!(!seen.is_empty() && seen.iter().all(|step| step.ends_with("it differs")), "{seen:#?}");
}

#[test]
fn no_plan_may_take_another_order() {
    let (old, new) = (desired(2000), desired(3000));
    let world = World::converged(&old);
    let observed = world.observe(&new);
    let good = plan(&new, &observed);
    let broken = |change: &dyn Fn(&mut SwarmAction)| {
        let mut plan = good.clone();
        let mut steps = plan.steps.iter_mut();
        let step = steps.find(|step| step.object.to_string().contains("service")).unwrap();
        let Action::Swarm(_, action) = &mut step.action else { panic!("a service's") };
        change(action);
        let violations = check(&new, &observed, &plan);
        violations.iter().map(|violation| violation.rule).collect::<Vec<_>>()
    };
    let waits = |wanted: &[&str]| {
        let wanted: Vec<String> = wanted.iter().map(|host| format!("node-{host}")).collect();
        broken(&|action| {
            if let SwarmAction::UpdateService { waits, .. } = action {
                waits.clone_from(&wanted);
            }
        })
    };
    assert_eq!(waits(&["node1", "node3"]), [""; 0]);
    assert_eq!(waits(&["node2"]), ["an update does not come to the primary's node before others"]);
    assert_eq!(waits(&["node1", "node2", "node3"]), ["an update comes to some node at once"]);
    assert!(
        waits(&["node1", "stranger"])
            .contains(&"only a node of a server that stays is told to wait")
    );
    let next = |node: &str| {
        let node = format!("node-{node}");
        broken(&|action| {
            *action = SwarmAction::UpdateNode {
                node_id: node.clone(),
                services: Vec::new(),
                steady_ms: 0,
                updated: Vec::new(),
                lost: false,
            };
        })
    };
    assert_eq!(next("node3"), ["only a node that we had wait takes tasks again"]);
}

#[test]
fn a_mark_that_nobody_waits_by_any_more_goes() {
    let four =
        |maxconn: u32| fixture::desire(&fixture::spec(4, 0, |spec| spec.haproxy.maxconn = maxconn));
    let mut world = World::converged(&four(2000));
    world.pass(&four(3000));
    world.pass(&four(3000));
    assert!(node(&mut world, "node4").waits);
    // The file no longer names the server, which may serve somebody else there.
    let three = desired(3000);
    passes(&three, &mut world);
    let left = node(&mut world, "node4");
    assert_eq!((left.waits, left.availability.as_str()), (false, "active"));
}

#[test]
fn the_primary_that_moved_to_the_first_node_is_not_first_for_the_next_service() {
    let (old, new) = (desired(2000), desired(3000));
    let mut world = World::converged(&old);
    world.pass(&new);
    world.hand_over(&HostName::new("node1"), &HostName::new("node2")).unwrap();
    let seen = passes(&new, &mut world);
    assert!(seen[0].starts_with("swarm/node/node1: "), "{seen:#?}");
    assert!(seen[1].starts_with("swarm/service/db-utils_router: on node1 first"), "{seen:#?}");
    assert!(node(&mut world, "node3").availability == "active" && !node(&mut world, "node2").waits);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever Docker tells of a rollout: the checker takes the plan, and a node that we keep waiting is a
    /// step or a hold.
    #[test]
    fn no_node_waits_unseen(
        begun in 0..4_usize,
        wants in 0..4_usize,
        primary in 1..4_usize,
        report in any::<bool>(),
        never in any::<bool>(),
        mishaps in prop::collection::vec((0..9_usize, 1..4_usize, 0..3_usize), 0..4),
    ) {
        let (old, new) = (desired(2000), desired(3000));
        let mut world = World::converged(&old);
        for _ in 0..begun {
            world.pass(&new);
        }
        if primary > 1 {
            world
                .hand_over(&HostName::new("node1"), &HostName::new(format!("node{primary}")))
                .unwrap();
        }
        let mut wanted = match wants {
            0 => old,
            1 => fixture::desire(&fixture::spec_without(4, 0, &[])),
            2 => fixture::desire(&fixture::spec(3, 0, |spec| spec.pgbouncer.default_pool_size = 33)),
            _ => new,
        };
        if report {
            wanted.policy.drift.swarm = Drift::Report;
        }
        if never {
            wanted.policy.restart = Permission::Never;
        }
        let mut observed = world.observe(&wanted);
        let Observation::Known(Some(swarm)) = &mut observed.swarm else { panic!("there is a Swarm") };
        for (what, host, which) in mishaps {
            let id = format!("node-node{host}");
            let service = swarm.services.values_mut().nth(which).unwrap();
            let node = swarm.nodes.get_mut(&id).unwrap();
            match what {
                0 => service.tasks.retain(|task| task.node_id != id),
                1 => "updating".clone_into(&mut service.update_state),
                2 => "rollback_started".clone_into(&mut service.update_state),
                3 => "paused".clone_into(&mut service.update_state),
                4 => "drain".clone_into(&mut node.availability),
                5 => "pause".clone_into(&mut node.availability),
                6 => "down".clone_into(&mut node.state),
                7 => node.waits = true,
                _ => service.spec.labels.clear(),
            }
        }
        let plan = plan(&wanted, &observed);
        prop_assert_eq!(check(&wanted, &observed, &plan), []);
        let Observation::Known(Some(swarm)) = &observed.swarm else { panic!("there is a Swarm") };
        for (id, node) in swarm.nodes.iter().filter(|(_, node)| node.waits) {
            let object = format!("swarm/node/{}", id.trim_start_matches("node-"));
            let told = plan.steps.iter().any(|step| step.object.to_string() == object)
                || plan.held.iter().any(|held| held.object.to_string() == object);
            prop_assert!(told, "{} waits unseen: {:#?}", object, (node, &plan.steps, &plan.held));
        }
    }
}
