//! Servers that are added, or set up anew under their name: through every crash and lost answer,
//! without a quorum lost, and with nothing done where there is a doubt.

use reconcile_core::desired::Desired;
use reconcile_sim::{DataDir, Faults, Reach, Section, SimFleet, World, fixture};

use crate::{
    crashes::every_crash,
    run::{apply, converged, holds, plan_now, settle},
    workloads::Workload,
};

const ETCD: &str = "/var/lib/etcd";

fn members(count: usize) -> Desired {
    fixture::desire(&fixture::spec(count, 0, |_| {}))
}

fn nothing(_: &mut World) {}

async fn from_to(name: &'static str, from: usize, to: usize) -> Workload {
    let before = converged(&members(from)).await;
    Workload { name, before, disturb: nothing, desired: members(to) }
}

async fn disturbed(name: &'static str, disturb: fn(&mut World)) -> Workload {
    Workload { disturb, ..from_to(name, 3, 3).await }
}

/// Ids of the members with a vote, and of learners.
fn voters_and_learners(world: &World) -> (Vec<String>, Vec<String>) {
    let members = world.etcd.values().flat_map(|store| store.members.values());
    let (learners, voters): (Vec<_>, Vec<_>) = members.partition(|member| member.learner);
    let ids = |members: Vec<&reconcile_sim::EtcdMember>| {
        members.iter().map(|member| member.id.clone()).collect()
    };
    (ids(voters), ids(learners))
}

#[tokio::test(start_paused = true)]
async fn a_replica_set_up_anew_survives_every_crash() {
    every_crash(&disturbed("replica anew", |world| world.set_up_anew("node3")).await).await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_set_up_anew_survives_every_crash() {
    every_crash(&disturbed("leader anew", |world| world.set_up_anew("node1")).await).await;
}

#[tokio::test(start_paused = true)]
async fn a_fourth_server_survives_every_crash() {
    every_crash(&from_to("a fourth server", 3, 4).await).await;
}

#[tokio::test(start_paused = true)]
async fn two_servers_more_survive_every_crash() {
    every_crash(&from_to("from three to five", 3, 5).await).await;
}

#[tokio::test(start_paused = true)]
async fn one_server_becomes_three() {
    every_crash(&from_to("from one to three", 1, 3).await).await;
}

#[tokio::test(start_paused = true)]
async fn the_old_member_and_node_are_gone_and_the_others_were_left_alone() {
    let workload = disturbed("anew", |world| world.set_up_anew("node3")).await;
    let fleet = SimFleet::new(workload.start());
    settle(&fleet, &workload.desired, 1).await;
    let world = fleet.world();
    assert_eq!(world.violations, Vec::<String>::new());
    let (voters, learners) = voters_and_learners(&world);
    assert_eq!((voters.len(), learners.len()), (3, 0), "{voters:?}");
    assert!(!voters.contains(&"member-node3".to_owned()), "{voters:?}");
    let swarm = world.swarms.values().next().unwrap();
    let nodes: Vec<_> = swarm.nodes.iter().map(|(id, node)| (id, &node.host)).collect();
    assert_eq!(nodes.len(), 3, "{nodes:?}");
    let others = fleet.effects();
    let elsewhere = others.iter().filter(|effect| {
        !effect.starts_with("node3 ") && !effect.contains("RemoveNode") && !effect.contains("Await")
    });
    assert_eq!(elsewhere.collect::<Vec<_>>(), Vec::<&String>::new());
}

#[tokio::test(start_paused = true)]
async fn members_that_stay_are_not_restarted_for_one_that_comes() {
    let workload = from_to("four", 3, 4).await;
    let fleet = SimFleet::new(workload.start());
    settle(&fleet, &workload.desired, 1).await;
    let world = fleet.world();
    let restarts = world.writes.keys().filter(|object| object.ends_with(" restart"));
    assert_eq!(restarts.collect::<Vec<_>>(), Vec::<&String>::new());
    let list = "node4=http://";
    for server in world.servers.values() {
        assert!(server.files["/etc/default/etcd"].text().contains(list));
    }
    let (voters, learners) = voters_and_learners(&world);
    assert_eq!((voters.len(), learners.len()), (4, 0));
}

/// Nothing of the membership was changed.
async fn nothing_changes(world: World, desired: &Desired, told: &str) {
    let fleet = SimFleet::new(world);
    let before = voters_and_learners(&fleet.world());
    let plan = plan_now(&fleet, desired).await;
    let held = holds(&plan);
    assert!(held.iter().any(|text| text.contains(told)), "{told}: {held:#?}");
    apply(&fleet, desired).await.unwrap();
    let world = fleet.world();
    assert_eq!(voters_and_learners(&world), before, "{told}");
    assert_eq!(world.violations, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_forgotten_on_a_doubt() {
    let desired = members(3);
    let whole = converged(&desired).await;
    // Its disk may not be mounted: the server knows that it was a member.
    let mut world = whole.clone();
    world.power_off("node3");
    world.server_mut("node3").data_dirs.remove(ETCD);
    world.server_mut("node3").reboot();
    let etcd = world.server_mut("node3").units.get_mut("etcd.service").unwrap();
    (etcd.running, etcd.enabled) = (false, false);
    world.settle();
    nothing_changes(world, &desired, "is its disk mounted?").await;
    // It does not answer.
    let mut world = whole.clone();
    world.set_up_anew("node3");
    world.server_mut("node3").reach = Reach::Silent;
    nothing_changes(world, &desired, "host/node3: unknown").await;
    // Another member does not tell how it is.
    let mut world = whole.clone();
    world.set_up_anew("node3");
    world.server_mut("node2").unknown.insert(Section::Etcd);
    nothing_changes(world, &desired, "that on node2 is not").await;
    // There is no quorum to change anything by.
    let mut world = whole.clone();
    world.set_up_anew("node3");
    world.set_up_anew("node2");
    nothing_changes(world, &desired, "no quorum now").await;
    // Somebody else's data stand there.
    let mut world = whole;
    world.set_up_anew("node3");
    world.server_mut("node3").data_dirs.insert(ETCD.to_owned(), DataDir::Foreign);
    nothing_changes(world, &desired, "reconcile did not put there").await;
}

/// A stale look at a server, when its member lives by now, does not take it away.
#[tokio::test(start_paused = true)]
async fn old_news_remove_nobody() {
    for (workload, frozen) in [
        (disturbed("anew", |world| world.set_up_anew("node3")).await, "node3"),
        (from_to("four", 3, 4).await, "node4"),
    ] {
        let fleet = SimFleet::new(workload.start());
        drop(plan_now(&fleet, &workload.desired).await);
        let faults = Faults {
            frozen: [reconcile_core::model::HostName::new(frozen)].into(),
            ..Faults::default()
        };
        fleet.fail(faults);
        drop(apply(&fleet, &workload.desired).await);
        assert_eq!(fleet.world().violations, Vec::<String>::new(), "{}", workload.name);
        fleet.heal();
        settle(&fleet, &workload.desired, 2).await;
        assert_eq!(fleet.world().violations, Vec::<String>::new(), "{}", workload.name);
    }
}

/// A server that is being let in loses power: it forgets the list by which it was to join.
#[tokio::test(start_paused = true)]
async fn a_boot_in_the_middle_of_joining_is_made_good() {
    let workload = from_to("three to five", 3, 5).await;
    let fleet = SimFleet::new(workload.start());
    settle(&fleet, &workload.desired, 1).await;
    let effects = fleet.effects().len() as u64;
    let reference = fleet.world().end_state();
    for effect in 1..=effects {
        let node = if effect % 2 == 0 { "node4" } else { "node5" };
        let host = reconcile_core::model::HostName::new(node);
        let faults = Faults { reboots: [(effect, host)].into(), ..Faults::default() };
        let fleet = SimFleet::with_faults(workload.start(), faults);
        settle(&fleet, &workload.desired, 2).await;
        let world = fleet.world();
        assert_eq!(world.violations, Vec::<String>::new(), "boot before effect {effect}");
        assert_eq!(world.end_state(), reference, "boot before effect {effect}");
    }
}

/// A part in the Swarm that the file changes is changed node by node.
#[tokio::test(start_paused = true)]
async fn parts_in_the_swarm_follow_the_file() {
    let five = fixture::spec(5, 0, |_| {});
    let before = converged(&fixture::desire(&five)).await;
    let mut three = five.clone();
    for host in three.hosts.iter_mut().skip(3) {
        host.swarm = reconcile_spec::valid::SwarmRole::Worker;
    }
    let fleet = SimFleet::new(before);
    for (spec, managers) in [(&three, 3), (&five, 5)] {
        settle(&fleet, &fixture::desire(spec), 1).await;
        let world = fleet.world();
        let swarm = world.swarms.values().next().unwrap();
        assert_eq!(swarm.nodes.values().filter(|node| node.manager).count(), managers);
        assert_eq!(world.violations, Vec::<String>::new());
    }
}
