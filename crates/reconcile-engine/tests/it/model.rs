//! The world can complain: effects that no plan may hold, carried out by hand, are recorded as
//! violations. A model that never complains would prove nothing.

use std::time::Duration;

use reconcile_core::{
    action::{Action, DesiredFile, HostAction, PatroniGoal, SwarmAction, UnitVerb},
    desired::Desired,
    model::{Claim, ClaimKind, Content},
    ports::Fleet as _,
};
use reconcile_sim::{DataDir, File, SimFleet, World, fixture};

use crate::workloads::host;

fn three() -> Desired {
    fixture::desire(&fixture::spec(3, 0, |_| {}))
}

async fn complains(world: World, action: Action, about: &str) {
    let fleet = SimFleet::new(world);
    // Whether it reports an error is another matter.
    drop(fleet.perform(&action, Duration::from_secs(1)).await);
    let violations = fleet.world().violations;
    assert!(violations.iter().any(|text| text.contains(about)), "{about}: {violations:?}");
}

fn start_etcd(on: &str, desired: &Desired) -> Action {
    let name = desired.etcd.data_dir.clone();
    let action = HostAction::StartEtcd {
        data_dir: name.clone(),
        initial_cluster_state: "new".to_owned(),
        initial_cluster: None,
        claims: vec![Claim { kind: ClaimKind::DataDir, name }],
    };
    Action::Host(host(on), action)
}

fn unit(on: &str, unit: &str, verb: UnitVerb) -> Action {
    Action::Host(host(on), HostAction::Unit { unit: unit.to_owned(), verb, enable: true })
}

#[tokio::test]
async fn about_etcd() {
    let desired = three();
    let mut world = World::converged(&desired);
    world.server_mut("node3").units.get_mut("etcd.service").unwrap().running = false;
    world.server_mut("node3").data_dirs.remove("/var/lib/etcd");
    world.settle();
    complains(world.clone(), start_etcd("node3", &desired), "data loss").await;
    complains(world.clone(), unit("node2", "etcd.service", UnitVerb::Restart), "the quorum").await;
    // The same servers with another token are another cluster.
    let file = world.server_mut("node3").files.get_mut("/etc/default/etcd").unwrap();
    *file = File::of_root(file.text().replace("reconcile-main", "another"));
    complains(world, start_etcd("node3", &desired), "beside the formed cluster").await;
}

#[tokio::test]
async fn about_patroni_and_postgresql() {
    let desired = three();
    let world = World::converged(&desired);
    let restart = unit("node2", "patroni.service", UnitVerb::Restart);
    complains(world.clone(), restart, "restarted Patroni").await;
    let mut foreign = world.clone();
    let server = foreign.server_mut("node2");
    server.units.get_mut("patroni.service").unwrap().running = false;
    server.manifest.claims.retain(|claim| claim.kind != ClaimKind::DataDir);
    server.data_dirs.insert("/var/lib/postgresql/15/main".to_owned(), DataDir::Foreign);
    let start = HostAction::StartPatroni {
        endpoint: String::new(),
        data_dir: "/var/lib/postgresql/15/main".to_owned(),
        claims: Vec::new(),
        until: PatroniGoal::Either,
    };
    complains(foreign, Action::Host(host("node2"), start), "the data of somebody else").await;
    let odd = HostAction::Sql {
        socket_dir: String::new(),
        port: 5432,
        database: "postgres".to_owned(),
        sql: Content::open("DROP DATABASE app;"),
    };
    complains(world, Action::Host(host("node1"), odd), "does not know the statement").await;
}

#[tokio::test]
async fn about_files_packages_and_claims() {
    let desired = three();
    let mut world = World::bare(&desired);
    let theirs = File::of_root("theirs\n");
    let before = Some(theirs.digest());
    world.server_mut("node1").files.insert("/etc/motd".to_owned(), theirs);
    let file = DesiredFile {
        path: "/etc/motd".to_owned(),
        content: Content::open("ours\n"),
        mode: 0o644,
        owner: "root".to_owned(),
        group: "root".to_owned(),
    };
    let write = HostAction::WriteFile {
        file,
        before,
        claim: true,
        notify: None,
        quorum: None,
        cluster: "main".to_owned(),
    };
    complains(world.clone(), Action::Host(host("node1"), write), "was overwritten").await;
    let install = HostAction::InstallPackages {
        packages: vec![("postgresql-15".to_owned(), None)],
        cluster: "main".to_owned(),
        claims: Vec::new(),
        silence: Vec::new(),
        start: Vec::new(),
        replica: None,
    };
    complains(world.clone(), Action::Host(host("node1"), install), "database of its own").await;
    world.server_mut("node1").manifest.cluster = Some("other".to_owned());
    let claim = HostAction::Claim { cluster: "main".to_owned(), claims: Vec::new() };
    complains(world, Action::Host(host("node1"), claim), "was claimed for main").await;
}

#[tokio::test]
async fn about_the_swarm() {
    let desired = three();
    let labels = desired.swarm.labels.clone();
    let init = |on: &str| {
        let labels = labels.clone();
        Action::Swarm(host(on), SwarmAction::Init { advertise: String::new(), labels })
    };
    let mut bare = World::bare(&desired);
    bare.install_docker("node1");
    complains(bare, init("node1"), "without a claim").await;
    let mut world = World::converged(&desired);
    world.server_mut("node2").docker = Some(reconcile_sim::Engine::default());
    complains(world.clone(), init("node2"), "a second Swarm").await;
    let spec = desired.swarm.services[0].clone();
    let (mut other, name) = (spec.clone(), spec.name.clone());
    other.stop_grace_ms = 1;
    let service = world.swarms.values_mut().next().unwrap().services.get_mut(&name).unwrap();
    service.spec.labels.clear();
    let version = service.version;
    let update = SwarmAction::UpdateService {
        spec: Box::new(other),
        version,
        tasks: 0,
        waits: vec![],
        first: vec![],
        begins: false,
    };
    complains(world, Action::Swarm(host("node1"), update), "of somebody else was changed").await;
}
