//! Servers that leave: through every crash and lost answer, the primary and managers too, and with
//! everything held where somebody would miss them.

use reconcile_core::desired::Desired;
use reconcile_sim::{DataDir, Reach, Section, SimFleet, World, fixture};

use crate::{
    crashes::every_crash,
    run::{apply, converged, holds, plan_now, settle},
    workloads::Workload,
};

fn members(count: usize) -> Desired {
    fixture::desire(&fixture::spec(count, 0, |_| {}))
}

fn without(count: usize, leaving: &[&str]) -> Desired {
    fixture::desire(&fixture::spec_without(count, 0, leaving))
}

fn nothing(_: &mut World) {}

async fn leaving(name: &'static str, from: usize, leaving: &[&str]) -> Workload {
    let before = converged(&members(from)).await;
    Workload { name, before, disturb: nothing, desired: without(from, leaving) }
}

/// Nothing of a server that has left is among the others, and its data are where they were.
fn has_left(world: &World, host: &str) {
    let server = &world.servers[&crate::workloads::host(host)];
    for unit in ["patroni.service", "etcd.service"] {
        let unit = &server.units[unit];
        assert!(!unit.running && !unit.enabled, "{host}: {unit:?}");
    }
    assert!(server.data_dirs.values().any(|data| matches!(data, DataDir::Etcd(_))));
    assert!(server.data_dirs.values().any(|data| matches!(data, DataDir::Postgres(_))));
    let address = &server.address;
    for store in world.etcd.values() {
        assert!(!store.members.keys().any(|url| url.contains(address)), "{:?}", store.members);
    }
    for swarm in world.swarms.values() {
        assert!(!swarm.nodes.values().any(|node| node.host.as_str() == host));
        for (name, service) in &swarm.services {
            let mounted = service.spec.configs.iter().map(|mount| &swarm.configs[&mount.source]);
            let named = mounted.into_iter().any(|config| {
                String::from_utf8_lossy(&config.bytes).contains(&format!("{address}:"))
            });
            assert!(!named, "{name} still names {host}");
        }
    }
    for (other, server) in world.servers.iter().filter(|(other, _)| other.as_str() != host) {
        if let Some(file) =
            server.files.get("/etc/patroni/patroni.yml").filter(|_| server.runs("patroni.service"))
        {
            assert!(
                !file.text().contains(&format!("{address}/32")),
                "{other} still lets {host} in"
            );
        }
    }
}

async fn leaves(workload: Workload, gone: &[&str]) {
    let fleet = SimFleet::new(workload.start());
    settle(&fleet, &workload.desired, 1).await;
    let world = fleet.world();
    assert_eq!(world.violations, Vec::<String>::new(), "{}", workload.name);
    for host in gone {
        has_left(&world, host);
    }
    // Its entry can go, and nothing is left to do.
    let spec = fixture::spec(workload.desired.servers.len(), 0, |spec| {
        spec.hosts.retain(|host| !gone.contains(&host.name.as_str()));
        let roles = &workload.desired.swarm.nodes;
        for host in &mut spec.hosts {
            let own = roles.iter().find(|(name, _)| name.as_str() == host.name.as_str());
            host.swarm = own.unwrap().1;
        }
    });
    let plan = plan_now(&fleet, &fixture::desire(&spec)).await;
    assert!(plan.is_converged(), "{}", reconcile_core::plan::text(&plan, true));
    every_crash(&workload).await;
}

#[tokio::test(start_paused = true)]
async fn a_fourth_server_leaves() {
    leaves(leaving("a fourth leaves", 4, &["node4"]).await, &["node4"]).await;
}

fn stopped(world: &mut World) {
    world.server_mut("node2").units.get_mut("patroni.service").unwrap().running = false;
    world.settle();
}

/// The files of those who stay wait for the leaving; a member that was stopped must not wait for them.
#[tokio::test(start_paused = true)]
async fn one_leaves_while_another_was_stopped() {
    for (name, leaver) in [("a replica leaves", "node4"), ("the primary leaves", "node1")] {
        let workload = leaving(name, 4, &[leaver]).await;
        leaves(Workload { disturb: stopped, ..workload }, &[leaver]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_primary_leaves() {
    leaves(leaving("the primary leaves", 3, &["node1"]).await, &["node1"]).await;
}

#[tokio::test(start_paused = true)]
async fn two_of_five_leave() {
    let gone = ["node2", "node5"];
    leaves(leaving("two of five leave", 5, &gone).await, &gone).await;
}

#[tokio::test(start_paused = true)]
async fn two_of_three_leave() {
    let gone = ["node1", "node2"];
    leaves(leaving("two of three leave", 3, &gone).await, &gone).await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_leaves() {
    let before = converged(&fixture::desire(&fixture::spec(3, 1, |_| {}))).await;
    let desired = fixture::desire(&fixture::spec_without(3, 1, &["node4"]));
    let workload = Workload { name: "a worker leaves", before, disturb: nothing, desired };
    every_crash(&workload).await;
    let fleet = SimFleet::new(workload.start());
    settle(&fleet, &workload.desired, 1).await;
    assert!(fleet.world().swarms.values().all(|swarm| swarm.nodes.len() == 3));
}

/// One comes and another goes with one edit of the file.
#[tokio::test(start_paused = true)]
async fn one_comes_as_another_goes() {
    let before = converged(&members(3)).await;
    let desired = without(4, &["node2"]);
    let workload = Workload { name: "in and out", before, disturb: nothing, desired };
    every_crash(&workload).await;
    let fleet = SimFleet::new(workload.start());
    settle(&fleet, &workload.desired, 1).await;
    has_left(&fleet.world(), "node2");
}

/// The primary is handed over before anything of it stops.
#[tokio::test(start_paused = true)]
async fn the_primary_is_handed_over_first() {
    let workload = leaving("primary", 3, &["node1"]).await;
    let fleet = SimFleet::new(workload.start());
    settle(&fleet, &workload.desired, 1).await;
    let effects = fleet.effects();
    let first = |word: &str| effects.iter().position(|effect| effect.contains(word)).unwrap();
    assert!(first("hand over to") < first("StopPatroni"));
    assert!(first("StopPatroni") < first("EtcdMembership"));
    assert!(first("StopPatroni") < first("patroni.yml"), "{effects:#?}");
    assert!(first("StopPatroni") < first("UpdateService"));
}

async fn stays(world: World, desired: &Desired, told: &str) {
    let fleet = SimFleet::new(world);
    let plan = plan_now(&fleet, desired).await;
    let held = holds(&plan);
    assert!(held.iter().any(|text| text.contains(told)), "{told}: {held:#?}");
    apply(&fleet, desired).await.unwrap();
    let world = fleet.world();
    assert_eq!(world.violations, Vec::<String>::new());
    let effects = fleet.effects();
    let stopped = effects
        .iter()
        .any(|effect| effect.contains("StopPatroni") || effect.contains("EtcdMembership"));
    assert!(!stopped, "{told}: {effects:#?}");
}

#[tokio::test(start_paused = true)]
async fn nobody_leaves_where_he_would_be_missed() {
    let desired = without(4, &["node4"]);
    let mut whole = converged(&members(4)).await;
    whole.grow(&desired);
    let mut world = whole.clone();
    world.server_mut("node4").reach = Reach::Silent;
    stays(world, &desired, "host/node4: unknown").await;
    let mut world = whole.clone();
    world.server_mut("node2").reach = Reach::Silent;
    stays(world, &desired, "host/node2: unknown").await;
    let mut world = whole.clone();
    world.server_mut("node2").unknown.insert(Section::Patroni);
    stays(world, &desired, "node4/patroni-member: unknown").await;
    let mut world = whole.clone();
    for store in world.etcd.values_mut() {
        store.scopes.get_mut("main").unwrap().paused = true;
    }
    stays(world, &desired, "Patroni is paused").await;
    // The primary stays where policy allows no switchover.
    let mut never = without(3, &["node1"]);
    never.policy.switchover = reconcile_spec::valid::Permission::Never;
    let mut world = converged(&members(3)).await;
    world.grow(&never);
    stays(world, &never, "policy.switchover is `never`").await;
}
