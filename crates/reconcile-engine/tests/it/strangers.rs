//! T6 and T10: start states that belong to somebody else or lack something. The object is held
//! or fails with a clear reason, what does not need it proceeds, and nothing of the stranger's is
//! touched.

use reconcile_core::model::Listener;
use reconcile_engine::Converged;
use reconcile_sim::{DataDir, File, SimFleet, Unit, World, fixture};
use reconcile_spec::valid::Component;

use crate::{
    run::{apply, converged, holds, plan_now},
    workloads::host,
};

/// What came of an attempt, as texts.
struct Outcome {
    holds: Vec<String>,
    errors: Vec<String>,
    world: World,
    result: Converged,
}

impl Outcome {
    fn holds(&self, object: &str, reason: &str) {
        let found = self.holds.iter().any(|h| h.starts_with(object) && h.contains(reason));
        assert!(found, "no hold of {object} for {reason}: {:#?}", self.holds);
    }
}

/// Applies to bare servers that were changed; nothing that must never happen may happen.
async fn attempt(change: impl FnOnce(&mut World)) -> Outcome {
    let desired = fixture::desire(&fixture::spec(3, 0, |_| {}));
    let mut world = World::bare(&desired);
    change(&mut world);
    world.settle();
    outcome(SimFleet::new(world), &desired).await
}

async fn outcome(fleet: SimFleet, desired: &reconcile_core::desired::Desired) -> Outcome {
    let result = apply(&fleet, desired).await.unwrap();
    let plan = plan_now(&fleet, desired).await;
    let world = fleet.world();
    assert_eq!(world.violations, Vec::<String>::new(), "{:#?}", fleet.effects());
    assert!(!result.is_converged());
    let errors = result.errors.iter().map(ToString::to_string).collect();
    Outcome { holds: holds(&plan), errors, world, result }
}

fn foreign(world: &mut World, host: &str, path: &str) {
    world.server_mut(host).data_dirs.insert(path.to_owned(), DataDir::Foreign);
}

#[tokio::test(start_paused = true)]
async fn a_foreign_database_directory_is_held() {
    let outcome = attempt(|world| foreign(world, "node2", "/var/lib/postgresql/15/main")).await;
    outcome.holds("node2/patroni-member", "holds data that reconcile did not put there");
    assert!(outcome.errors.is_empty(), "{:?}", outcome.errors);
    // etcd and the Swarm need no database.
    assert!(outcome.world.etcd.keys().all(|number| outcome.world.etcd_has_quorum(*number)));
    assert_eq!(outcome.world.swarms.values().map(|swarm| swarm.services.len()).sum::<usize>(), 4);
    let directory = &outcome.world.servers[&host("node2")].data_dirs["/var/lib/postgresql/15/main"];
    assert_eq!(*directory, DataDir::Foreign);
}

#[tokio::test(start_paused = true)]
async fn a_foreign_etcd_directory_is_held() {
    let outcome = attempt(|world| foreign(world, "node3", "/var/lib/etcd")).await;
    outcome.holds("node3/etcd.service", "holds data that reconcile did not put there");
    outcome.holds("node1/etcd.service", "waits for node3/etcd.service");
    outcome.holds("node1/patroni-member", "waits for");
    assert!(outcome.errors.is_empty(), "{:?}", outcome.errors);
    assert!(outcome.world.etcd.is_empty() && outcome.world.databases.is_empty());
    assert_eq!(outcome.world.swarms.values().map(|swarm| swarm.services.len()).sum::<usize>(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_running_etcd_of_somebody_else_is_neither_joined_nor_used() {
    for host in ["node1", "node3"] {
        let outcome = attempt(|world| world.plant_foreign_etcd(host, "/var/lib/etcd")).await;
        outcome.holds(&format!("{host}/etcd.service"), "not made by reconcile");
        assert!(outcome.errors.is_empty(), "{:?}", outcome.errors);
        assert!(outcome.world.databases.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_patroni_of_somebody_else_is_not_configured() {
    for (directory, scope) in
        [("/var/lib/postgresql/15/main", "theirs"), ("/srv/postgresql", "theirs")]
    {
        let outcome = attempt(|world| {
            world.plant_foreign_patroni("node1", directory, scope);
            // Their etcd listens elsewhere than ours would.
            let server = world.server_mut("node1");
            server.files.remove("/etc/default/etcd");
        })
        .await;
        outcome.holds("node1", "not made by reconcile");
        let theirs = outcome.world.databases.values().filter(|database| database.foreign).count();
        assert_eq!((theirs, outcome.world.databases.len()), (1, 1));
    }
}

/// A unit file of ours would shadow the package's, and theirs would start with our settings.
#[tokio::test(start_paused = true)]
async fn no_file_is_put_under_a_service_of_somebody_else() {
    let ours = |world: &World| {
        let files = &world.servers[&host("node1")].files;
        let under = |path: &&String| path.contains("patroni") || path.contains("etcd");
        files.keys().filter(under).cloned().collect::<Vec<_>>()
    };
    let outcome = attempt(|world| {
        world.plant_foreign_patroni("node1", "/var/lib/postgresql/15/main", "theirs");
        let server = world.server_mut("node1");
        server.files.remove("/etc/default/etcd");
        server.files.remove("/etc/patroni/patroni.yml");
    })
    .await;
    let path = "node1:/etc/systemd/system/patroni.service";
    outcome.holds(path, "patroni.service runs here already");
    outcome.holds("node1:/etc/default/etcd", "etcd.service runs here already");
    assert_eq!(ours(&outcome.world), Vec::<String>::new());
    // Stopped, it would start at the next boot.
    let outcome = attempt(|world| {
        foreign(world, "node1", "/var/lib/postgresql/15/main");
        let unit = Unit { enabled: true, ..Unit::default() };
        world.server_mut("node1").units.insert("patroni.service".to_owned(), unit);
    })
    .await;
    outcome.holds(path, "patroni.service starts at boot here already");
    assert!(!ours(&outcome.world).iter().any(|path| path.contains("patroni")));
}

#[tokio::test(start_paused = true)]
async fn a_foreign_swarm_is_not_joined_or_used() {
    for host in ["node1", "node2"] {
        let outcome = attempt(|world| world.plant_foreign_swarm(host)).await;
        outcome.holds("swarm", "belongs to nobody known");
        assert_eq!(outcome.world.swarms.len(), 1);
        // The database does not need the Swarm.
        assert_eq!(outcome.world.census()["main"], (1, 2));
    }
}

#[tokio::test(start_paused = true)]
async fn a_swarm_founded_by_hand_on_a_server_that_was_claimed_is_not_taken() {
    let desired = fixture::desire(&fixture::spec(3, 0, |_| {}));
    let mut world = converged(&desired).await;
    // Somebody takes node1 out and founds another Swarm there.
    for swarm in world.swarms.values_mut() {
        swarm.nodes.remove("node-node1");
    }
    world.plant_foreign_swarm("node1");
    let outcome = outcome(SimFleet::new(world), &desired).await;
    // Ours is found through another manager, and only that server is held.
    outcome.holds("swarm/node/node1", "it is in another Swarm");
    assert_eq!(outcome.world.swarms.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_port_of_a_stranger_is_left_to_him() {
    let listener = |port: u16| Listener {
        port,
        address: "0.0.0.0".to_owned(),
        process: "nginx".to_owned(),
        pid: Some(7),
        unit: "nginx.service".to_owned(),
    };
    for (port, object) in [
        (2379, "node2/etcd.service"),
        (8008, "node2/patroni-member"),
        (5432, "node2/patroni-member"),
        (6432, "swarm/service/db-utils_pgbouncer"),
        (15432, "swarm/service/db-utils_haproxy"),
        (5444, "swarm/service/db-utils_router"),
    ] {
        let outcome = attempt(|world| {
            world.server_mut("node2").strangers.push(listener(port));
        })
        .await;
        outcome.holds(object, "port taken: nginx of nginx.service listens on");
        assert!(outcome.errors.is_empty(), "{port}: {:?}", outcome.errors);
        if port != 2379 {
            assert!(!outcome.world.etcd.is_empty(), "{port}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_of_another_cluster_is_not_touched() {
    let outcome = attempt(|world| {
        world.server_mut("node3").manifest.cluster = Some("other".to_owned());
    })
    .await;
    outcome.holds("host/node3", "the server belongs to cluster other");
    assert!(outcome.world.servers[&host("node3")].files.is_empty());
    assert!(outcome.world.servers[&host("node1")].has_package("patroni"));
    assert!(outcome.world.etcd.is_empty() && outcome.world.swarms.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_file_of_somebody_else_is_not_overwritten() {
    let outcome = attempt(|world| {
        let file = File::of_root("theirs\n");
        world.server_mut("node2").files.insert("/etc/default/etcd".to_owned(), file);
    })
    .await;
    outcome.holds("node2:/etc/default/etcd", "exists with other content");
    let file = &outcome.world.servers[&host("node2")].files["/etc/default/etcd"];
    assert_eq!(file.text(), "theirs\n");
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_stops_its_server_alone() {
    let outcome = attempt(|world| world.server_mut("node2").free_bytes = 100 << 20).await;
    outcome.holds("node2/packages", "has 100 MB free, 1024 MB are needed");
    assert!(outcome.world.servers[&host("node1")].has_package("patroni"));
    assert!(outcome.world.servers[&host("node3")].runs("etcd.service"));
}

#[tokio::test(start_paused = true)]
async fn a_missing_package_is_told() {
    let outcome = attempt(|world| {
        world.repository.remove("patroni");
    })
    .await;
    let error = "install packages on node1: E: Unable to locate package patroni";
    assert!(outcome.errors.iter().any(|text| text == error), "{:?}", outcome.errors);
    assert!(outcome.result.passes <= 3, "it gives up: nothing changes by itself");
}

#[tokio::test(start_paused = true)]
async fn a_missing_image_is_told_and_the_rest_stands() {
    let outcome = attempt(|world| {
        world.images.remove("haproxy:3.3-alpine");
    })
    .await;
    let told =
        outcome.errors.iter().chain(&outcome.holds).any(|text| text.contains("haproxy:3.3-alpine"));
    assert!(told, "{:?} {:?}", outcome.errors, outcome.holds);
    assert_eq!(outcome.world.census()["main"], (1, 2));
    let pooler =
        outcome.world.swarms.values().any(|s| s.services.contains_key("db-utils_pgbouncer"));
    assert!(pooler);
}

#[tokio::test(start_paused = true)]
async fn a_clock_far_off_stops_its_server() {
    let outcome = attempt(|world| world.server_mut("node2").clock_offset_ms = 60_000).await;
    outcome.holds("host/node2", "its clock is 60.0 s off");
}

#[tokio::test(start_paused = true)]
async fn a_docker_that_hangs_is_unknown() {
    let outcome = attempt(|world| {
        world.install_docker("node2");
        world.server_mut("node2").docker_hangs = true;
    })
    .await;
    outcome.holds("swarm", "unknown: Docker on node2");
    assert_eq!(outcome.world.census()["main"], (1, 2));
    assert!(outcome.world.swarms.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_masked_or_failed_unit_is_started_again() {
    let desired = fixture::desire(&fixture::spec(3, 0, |_| {}));
    let mut world = converged(&desired).await;
    let masked = Unit { masked: true, ..Unit::default() };
    world.server_mut("node2").units.insert("etcd.service".to_owned(), masked);
    let failed = Unit { failed: true, enabled: true, ..Unit::default() };
    world.server_mut("node3").units.insert("patroni.service".to_owned(), failed);
    world.settle();
    let fleet = SimFleet::new(world);
    let result = apply(&fleet, &desired).await.unwrap();
    assert!(result.is_converged());
    assert_eq!(fleet.world().census()["main"], (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_member_that_lost_its_data_is_not_founded_again() {
    let desired = fixture::desire(&fixture::spec(3, 0, |_| {}));
    for forgotten in [false, true] {
        let mut world = converged(&desired).await;
        for host in ["node2", "node3"] {
            let server = world.server_mut(host);
            server.units.get_mut("etcd.service").unwrap().running = false;
            server.data_dirs.remove("/var/lib/etcd");
            if forgotten {
                server.manifest.claims.clear();
            }
        }
        world.settle();
        let outcome = outcome(SimFleet::new(world), &desired).await;
        let reason = if forgotten { "quorum" } else { "is its disk mounted?" };
        outcome.holds("node2/etcd.service", reason);
        outcome.holds("node3/etcd.service", reason);
    }
}

/// File systems that were not mounted look like directories that are empty.
#[tokio::test(start_paused = true)]
async fn a_database_whose_directories_vanished_is_not_made_anew() {
    let desired = fixture::desire(&fixture::spec(3, 0, |_| {}));
    let mut world = converged(&desired).await;
    for host in ["node1", "node2", "node3"] {
        let server = world.server_mut(host);
        server.units.get_mut("patroni.service").unwrap().running = false;
        server.data_dirs.remove("/var/lib/postgresql/15/main");
    }
    world.settle();
    let fleet = SimFleet::new(world);
    let result = apply(&fleet, &desired).await.unwrap();
    assert!(!result.is_converged());
    let world = fleet.world();
    assert_eq!(world.violations, Vec::<String>::new());
    assert_eq!(world.databases.len(), 1);
}

/// Joins come after the label, so an unlabelled Swarm of two nodes is nobody's unfinished founding.
#[tokio::test(start_paused = true)]
async fn an_empty_swarm_of_two_is_not_taken_for_our_own_unfinished_one() {
    let desired = fixture::desire(&fixture::spec(3, 0, |_| {}));
    let mut world = converged(&desired).await;
    for server in world.servers.values_mut() {
        server.docker = Some(reconcile_sim::Engine::default());
    }
    world.swarms.clear();
    world.plant_foreign_swarm("node1");
    let theirs = reconcile_sim::Node {
        host: host("node2"),
        manager: false,
        availability: "active".to_owned(),
        waits: false,
    };
    world.swarms.values_mut().next().unwrap().nodes.insert("theirs".to_owned(), theirs);
    let outcome = outcome(SimFleet::new(world), &desired).await;
    outcome.holds("swarm", "belongs to nobody known");
}

/// A file that moves the database of a living cluster: no half of that may come about.
#[tokio::test(start_paused = true)]
async fn a_change_of_identity_is_held_as_a_whole() {
    type Change = fn(&mut reconcile_spec::ClusterSpec);
    let before = fixture::desire(&fixture::spec(3, 0, |_| {}));
    let cases: Vec<(Change, &str, &str)> = vec![
        (|spec| spec.postgresql.port = 5499, "patroni/config", "port 5432, and the file says 5499"),
        (
            |spec| spec.postgresql.data_dir = spec.postgresql.data_dir.replace("15", "16"),
            "patroni/config",
            "15/main",
        ),
        (
            |spec| spec.etcd.client_port = 2479,
            "patroni/config",
            "port 2379, and the file says 2479",
        ),
        (|spec| spec.swarm.stack = "other".parse().unwrap(), "swarm", "stack db-utils"),
    ];
    for (change, object, says) in cases {
        let world = converged(&before).await;
        let after = fixture::desire(&fixture::spec(3, 0, change));
        let outcome = outcome(SimFleet::new(world), &after).await;
        outcome.holds(object, says);
        assert!(outcome.world.writes.is_empty(), "{says}: {:?}", outcome.world.writes);
    }
}

/// New hosts for etcd under a database that lives: no empty etcd is founded for it.
#[tokio::test(start_paused = true)]
async fn etcd_is_not_founded_anew_elsewhere() {
    let with = |etcd: [usize; 3]| {
        fixture::desire(&fixture::spec(6, 0, |spec| {
            for (index, host) in spec.hosts.iter_mut().enumerate() {
                host.components.clear();
                if etcd.contains(&index) {
                    host.components.insert(Component::Etcd);
                }
                if index < 3 {
                    host.components.insert(Component::Patroni);
                }
            }
        }))
    };
    let world = converged(&with([0, 1, 2])).await;
    let outcome = outcome(SimFleet::new(world), &with([3, 4, 5])).await;
    outcome.holds("patroni/config", "holds data of this cluster in /var/lib/etcd");
    assert!(outcome.world.writes.is_empty(), "{:?}", outcome.world.writes);
}
