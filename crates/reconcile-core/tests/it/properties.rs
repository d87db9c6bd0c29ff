//! Properties of plans on worlds that were mishandled at random.

use proptest::prelude::*;
use reconcile_core::{
    action::{Action, HostAction, PatroniAction, SwarmAction, UnitVerb},
    desired::Desired,
    model::{Listener, Observation},
    plan::{Plan, Verb, text},
};
use reconcile_sim::{DataDir, File, Reach, Section, Server, StoredFile, World, fixture};
use std::{collections::BTreeMap, sync::LazyLock};

use crate::plans::checked;

static DESIRED: LazyLock<Vec<Desired>> = LazyLock::new(|| {
    vec![
        fixture::desire(&fixture::spec(3, 0, |_| {})),
        fixture::desire(&fixture::spec(3, 1, |spec| {
            spec.haproxy.maxconn = 777;
            spec.etcd.heartbeat_ms = 120;
            spec.patroni.ttl = 40;
        })),
        fixture::desire(&fixture::spec(3, 0, fixture::no_docker)),
    ]
});
static CONVERGED: LazyLock<World> = LazyLock::new(|| World::converged(&DESIRED[0]));

/// The end that each of the first two desired states leads to from the converged world.
static ENDS: LazyLock<Vec<String>> = LazyLock::new(|| {
    DESIRED[..2].iter().map(|to| world(false, &[], to).apply_all(to).end_state()).collect()
});

/// Something that can happen to a world: kind, server, detail.
type Mishap = (u8, u8, u8);

const KINDS: u8 = 25;
const FILES: [&str; 5] = [
    "/etc/default/etcd",
    "/etc/patroni/patroni.yml",
    "/etc/postgresql-common/createcluster.d/reconcile.conf",
    "/etc/systemd/system/etcd.service",
    "/etc/systemd/system/patroni.service",
];
const UNITS: [&str; 2] = ["etcd.service", "patroni.service"];
const DIRECTORIES: [&str; 2] = ["/var/lib/etcd", "/var/lib/postgresql/15/main"];

fn choose<'a>(items: &[&'a str], detail: u8) -> &'a str {
    items[usize::from(detail) % items.len()]
}

fn disclaim(host: &mut Server, name: &str) {
    host.manifest.claims.retain(|claim| claim.name != name);
}

fn nginx(port: u16) -> Listener {
    Listener {
        port,
        address: "0.0.0.0".to_owned(),
        process: "nginx".to_owned(),
        pid: None,
        unit: "nginx.service".to_owned(),
    }
}

/// The primary's are the database's.
fn by_hand_on_a_replica(world: &mut World, server: u8, detail: u8) {
    let replica = world.server_mut(&format!("node{}", 2 + server % 2));
    replica.altered.insert("work_mem".to_owned(), detail.to_string());
}

fn happen(world: &mut World, (kind, server, detail): Mishap) {
    let name = format!("node{}", 1 + server % 3);
    let path = choose(&FILES, detail).to_owned();
    let unit = choose(&UNITS, detail);
    let directory = choose(&DIRECTORIES, detail).to_owned();
    let host = world.server_mut(&name);
    match kind % KINDS {
        0 => drop(host.files.remove(&path)),
        1 => {
            if let Some(file) = host.files.get_mut(&path) {
                file.bytes.extend_from_slice(b"# by hand\n");
            }
        }
        2 => {
            if let Some(file) = host.files.get_mut(&path) {
                file.mode = 0o666;
            }
        }
        3 => disclaim(host, &path),
        4 => drop(host.files.insert(path, File::of_root("theirs\n"))),
        5 => {
            if let Some(unit) = host.units.get_mut(unit) {
                unit.running = false;
            }
        }
        6 => {
            if let Some(unit) = host.units.get_mut(unit) {
                unit.enabled = false;
            }
        }
        7 => {
            if let Some(unit) = host.units.get_mut(unit) {
                unit.running = false;
            }
            disclaim(host, &directory);
            host.data_dirs.insert(directory, DataDir::Foreign);
        }
        8 => {
            if let Some(unit) = host.units.get_mut(unit) {
                unit.running = false;
            }
            host.data_dirs.remove(&directory);
        }
        9 => disclaim(host, &directory),
        10 => host.manifest.claims.clear(),
        11 => host.reach = Reach::Silent,
        12 => host.power = false,
        13 => {
            let section = [Section::Docker, Section::Etcd, Section::Patroni, Section::Sql];
            host.unknown.insert(section[usize::from(detail) % section.len()]);
        }
        14 => drop(host.packages.remove(choose(&["curl", "patroni", "etcd-server"], detail))),
        15 => host.free_bytes = 1,
        16 => host.manifest.cluster = Some("other".to_owned()),
        17 => host
            .strangers
            .push(nginx([2379, 5432, 6432, 15432, 5444, 8008][usize::from(detail) % 6])),
        18 => host.clock_offset_ms = 9_000,
        19 => {
            for swarm in world.swarms.values_mut() {
                let names: Vec<_> = swarm.services.keys().cloned().collect();
                if let Some(name) = names.get(usize::from(detail) % names.len().max(1)) {
                    swarm.services.remove(name);
                }
            }
        }
        20 => {
            for service in world.swarms.values_mut().flat_map(|swarm| swarm.services.values_mut()) {
                if detail % 3 == 0 {
                    service.spec.labels.clear();
                }
                service.spec.stop_grace_ms = u64::from(detail);
            }
        }
        21 => {
            for swarm in world.swarms.values_mut() {
                let file = StoredFile { labels: BTreeMap::new(), bytes: vec![detail], created: 1 };
                swarm.configs.insert(format!("db-utils_router.cfg-{detail:012}"), file);
            }
        }
        23 => by_hand_on_a_replica(world, server, detail),
        22 => {
            let role = choose(&["app", "pgbouncer", "readers", "report"], detail);
            for database in world.databases.values_mut() {
                database.sql.roles.get_mut(role).unwrap().connection_limit = 3;
                database.sql.databases.get_mut("app").unwrap().pooler_lookup = None;
            }
        }
        _ => {
            for scope in world.etcd.values_mut().flat_map(|store| store.scopes.values_mut()) {
                scope.paused = detail % 2 == 0;
                scope.config["ttl"] = 99.into();
            }
        }
    }
}

fn world(bare: bool, mishaps: &[Mishap], desired: &Desired) -> World {
    let mut world = if bare { World::bare(desired) } else { CONVERGED.clone() };
    world.grow(desired);
    for mishap in mishaps {
        happen(&mut world, *mishap);
    }
    world.settle();
    world
}

/// `PROPTEST_CASES` sets how many.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(1000)
}

/// What a step does to a thing that is not known is at most to wait for it.
fn unknown_is_left_alone(desired: &Desired, world: &World, plan: &Plan) {
    let observed = world.observe(desired);
    for step in &plan.steps {
        let (Action::Host(host, _) | Action::Patroni(host, _) | Action::Swarm(host, _)) =
            &step.action;
        let facts = observed.host(host).expect("an unknown server is not touched");
        if let Some(host) = step.object.host() {
            assert!(observed.host(host).is_some(), "{} of an unknown server", step.object);
        }
        let etcd = facts.etcd.known().is_some();
        let patroni = facts.patroni.known().is_some();
        match &step.action {
            Action::Host(
                _,
                HostAction::WriteFile { notify: Some((unit, UnitVerb::Restart)), .. },
            ) => {
                assert!(etcd || unit != "etcd.service", "a restart of an unknown etcd");
            }
            Action::Host(_, HostAction::StartEtcd { initial_cluster_state, .. }) => {
                // A unit that is active came up with a quorum once, whatever it says now.
                let formed = desired.etcd.members.keys().any(|member| {
                    let unit = observed.host(member).and_then(|f| f.units.get("etcd.service"));
                    unit.is_some_and(|unit| unit.active == "active")
                });
                assert!(initial_cluster_state != "new" || !formed, "{step:?}");
            }
            Action::Host(_, HostAction::StartPatroni { .. }) => {
                let idle = facts.units.get("patroni.service").is_none_or(|u| u.active != "active");
                assert!(patroni || idle || step.verb == Verb::Await, "{step:?}");
            }
            Action::Host(_, HostAction::Sql { .. }) => {
                let made = facts.data_dirs.contains_key(&desired.patroni.data_dir);
                assert!(!made || facts.sql.known().is_some(), "SQL on an unknown database");
            }
            Action::Patroni(
                _,
                PatroniAction::PatchConfig { .. }
                | PatroniAction::RestartReplica { .. }
                | PatroniAction::RestartPrimary { .. }
                | PatroniAction::HandOver { .. },
            ) => {
                assert!(patroni);
            }
            Action::Swarm(_, SwarmAction::Init { .. } | SwarmAction::Join { .. }) => {
                assert!(facts.docker.known().is_some());
            }
            Action::Swarm(..) => {
                assert!(matches!(observed.swarm, Observation::Known(_)), "{step:?}");
            }
            Action::Host(..) => {}
        }
    }
}

/// Everything that exists and is not claimed or labelled, as text.
fn unowned(world: &World, desired: &Desired) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for (name, server) in &world.servers {
        let ours = server.manifest.cluster.as_ref().is_none_or(|owner| *owner == desired.cluster);
        for (path, file) in &server.files {
            let claimed = server.manifest.claims(reconcile_core::model::ClaimKind::File, path);
            // The rules are Patroni's to write.
            let volatile = path.starts_with("/run/") || path.ends_with("/pg_hba.conf");
            if !volatile && (!claimed || !ours) {
                all.insert(format!("{name}:{path}"), format!("{file:?}"));
            }
        }
        for (path, data) in &server.data_dirs {
            let claimed = server.manifest.claims(reconcile_core::model::ClaimKind::DataDir, path);
            if !claimed || *data == DataDir::Foreign {
                all.insert(format!("{name}:{path}"), format!("{data:?}"));
            }
        }
    }
    for swarm in world.swarms.values() {
        for (name, service) in &swarm.services {
            if !service.spec.labels.contains_key("reconcile.io/cluster") {
                all.insert(format!("service {name}"), format!("{service:?}"));
            }
        }
        for (name, file) in &swarm.configs {
            if !file.labels.contains_key("reconcile.io/cluster") {
                all.insert(format!("config {name}"), format!("{file:?}"));
            }
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    /// Same inputs, same bytes; the checker passes; what is unknown or unowned is left alone; no
    /// rule of the world is broken by carrying the plans out.
    #[test]
    fn plans_are_pure_and_safe(
        which in 0..3_usize,
        bare in any::<bool>(),
        mishaps in prop::collection::vec(any::<Mishap>(), 0..6),
    ) {
        let desired = &DESIRED[which];
        let world = world(bare, &mishaps, desired);
        let plan = checked(desired, &world);
        let again = checked(desired, &world);
        prop_assert_eq!(text(&plan, true), text(&again, true));
        prop_assert_eq!(serde_json::to_vec(&plan).unwrap(), serde_json::to_vec(&again).unwrap());
        unknown_is_left_alone(desired, &world, &plan);
        let theirs = unowned(&world, desired);
        let after = world.apply_all(desired);
        prop_assert_eq!(&after.violations, &Vec::<String>::new());
        let mut left = unowned(&after, desired);
        // A file that was as desired already is claimed and by that ours.
        left.retain(|object, _| theirs.contains_key(object));
        for (object, before) in &theirs {
            if let Some(now) = left.get(object) {
                prop_assert_eq!(now, before, "{} was changed", object);
            }
        }
        let gone = theirs.keys().find(|object| {
            let docker = object.starts_with("config ") || object.starts_with("service ");
            docker && !left.contains_key(*object)
        });
        prop_assert_eq!(gone, None);
    }

    /// Drift that nobody has to decide on is undone to the last bit, and then nothing is left.
    #[test]
    fn drift_is_undone(
        which in 0..2_usize,
        kinds in prop::collection::vec((prop::sample::select(vec![0_u8, 1, 2, 5, 6, 14, 19, 22, 23]), any::<u8>(), any::<u8>()), 0..5),
    ) {
        let desired = &DESIRED[which];
        let after = world(false, &kinds, desired).apply_all(desired);
        prop_assert_eq!(&after.violations, &Vec::<String>::new());
        let plan = checked(desired, &after);
        prop_assert!(plan.is_converged(), "{}", text(&plan, true));
        prop_assert_eq!(&after.end_state(), &ENDS[which]);
    }
}

/// The mishaps do happen: a run of them leaves no world as it was.
#[test]
fn every_mishap_shows() {
    for kind in 0..KINDS {
        let desired = &DESIRED[0];
        let before = CONVERGED.observe(desired);
        let shown = (0..12_u8).any(|detail| {
            let world = world(false, &[(kind, 0, detail)], desired);
            world.observe(desired) != before
        });
        assert!(shown, "mishap {kind} changes nothing that is observed");
    }
}

/// A learner is healthy and has no vote: while one joins, the two voters beside it are no quorum without one
/// of them. Found by the property above, once in 11,000 worlds.
#[test]
fn no_voter_restarts_while_only_a_learner_stands_in() {
    let desired = &DESIRED[2];
    let set_up_anew = [(10, 0, 0), (8, 0, 0)];
    let edited = (4, 1, 0);
    let mishaps = [set_up_anew[0], set_up_anew[1], edited];
    let after = world(false, &mishaps, desired).apply_all(desired);
    assert_eq!(after.violations, Vec::<String>::new());
    let file = after.servers[&"node2".into()].files["/etc/default/etcd"].bytes.clone();
    assert!(!file.starts_with(b"theirs"), "its turn comes");
}

/// One voter and a learner: the learner takes nothing away, and what it is told is asked of the one voter.
#[test]
fn a_learner_beside_one_voter_is_told_its_settings() {
    let (one, two) = (
        fixture::desire(&fixture::spec(1, 0, fixture::no_docker)),
        fixture::desire(&fixture::spec(2, 0, fixture::no_docker)),
    );
    let mut world = World::converged(&one);
    world.grow(&two);
    let mut edited = false;
    for _ in 0..20 {
        let plan = checked(&two, &world);
        if plan.steps.is_empty() {
            break;
        }
        let learns = |member: &reconcile_core::model::EtcdMemberFact| member.learner;
        let observed = world.observe(&two);
        let voice = observed.host(&"node1".into()).and_then(|facts| facts.etcd.present().cloned());
        if !edited && voice.is_some_and(|etcd| etcd.members.iter().any(learns)) {
            let files = &mut world.server_mut("node2").files;
            files.insert("/etc/default/etcd".to_owned(), File::of_root("theirs\n"));
            edited = true;
            continue;
        }
        world.pass(&two);
    }
    assert!(edited, "it was a learner for a while");
    assert_eq!(world.violations, Vec::<String>::new());
    assert!(checked(&two, &world).is_converged());
}
