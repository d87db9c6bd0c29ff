//! Drift that is only reported: held with what differs, while changes of the file go through.

use reconcile_core::{
    check::check,
    desired::Desired,
    model::{HostName, ObjectId},
    plan::{Change, HoldReason, Plan, Step, differs, kept, plan, sent, shown, text},
};
use reconcile_sim::{World, fixture};
use reconcile_spec::valid::{Drift, DriftModes};

const FILE: &str = "/etc/postgresql-common/createcluster.d/reconcile.conf";
const RECORD: &str = "/var/lib/reconcile/settled";

fn three(change: impl FnOnce(&mut DriftModes)) -> Desired {
    let mut desired = fixture::desire(&fixture::spec(3, 0, |_| {}));
    change(&mut desired.policy.drift);
    desired
}

fn checked(desired: &Desired, world: &World) -> Plan {
    let observed = world.observe(desired);
    let plan = plan(desired, &observed);
    assert_eq!(check(desired, &observed, &plan), []);
    plan
}

fn edit(world: &mut World, host: &str) {
    let file = world.server_mut(host).files.get_mut(FILE).unwrap();
    file.bytes.extend_from_slice(b"# by hand\n");
}

fn file(host: &str) -> ObjectId {
    ObjectId::File(HostName::new(host), FILE.to_owned())
}

fn reported(plan: &Plan) -> Vec<(String, String)> {
    let held = plan.held.iter().filter_map(|held| match &held.reason {
        HoldReason::Reported(what) => Some((held.object.to_string(), what.clone())),
        _ => None,
    });
    held.collect()
}

#[test]
fn bare_servers_are_set_up_whatever_is_reported_and_then_nothing_is_left() {
    let desired = three(|modes| *modes = DriftModes::all(Drift::Report));
    let world = World::converged(&desired);
    assert!(checked(&desired, &world).is_converged());
    for server in world.servers.values() {
        assert!(server.files.contains_key(RECORD));
    }
    // Where nothing is reported nothing is recorded.
    let healing = World::converged(&three(|_| {}));
    assert!(healing.servers.values().all(|server| !server.files.contains_key(RECORD)));
}

#[test]
fn drift_of_a_reported_class_is_held_with_what_differs_and_the_rest_is_healed() {
    let desired = three(|modes| modes.files = Drift::Report);
    let mut world = World::converged(&desired);
    edit(&mut world, "node2");
    world.server_mut("node3").units.get_mut("etcd.service").unwrap().running = false;
    let plan = checked(&desired, &world);
    let told = reported(&plan);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].0, file("node2").to_string());
    assert!(told[0].1.contains("has 1 line by hand"), "{told:?}");
    let objects: Vec<_> = plan.steps.iter().map(|step| step.object.to_string()).collect();
    assert!(objects.iter().any(|object| object.starts_with("node3/")), "{objects:?}");
    assert!(!objects.iter().any(|object| object.starts_with("node2:")), "{objects:?}");
    // Healed, recorded, and still the drift stays as it is.
    let world = world.apply_all(&desired);
    let plan = checked(&desired, &world);
    assert_eq!(plan.steps, []);
    assert_eq!(reported(&plan).len(), 1);
}

#[test]
fn a_change_of_the_file_goes_through_in_a_reported_class() {
    let desired = three(|modes| modes.files = Drift::Report);
    let mut world = World::converged(&desired);
    edit(&mut world, "node2");
    let mut changed = desired.clone();
    for server in changed.servers.values_mut() {
        let managed = server.files.get_mut(FILE).unwrap();
        let mut text = managed.file.content.bytes().to_vec();
        text.extend_from_slice(b"# more\n");
        managed.file.content = reconcile_core::model::Content::open(text);
    }
    let world = world.apply_all(&changed);
    let after = checked(&changed, &world);
    assert!(after.is_converged(), "what the file wants anew is done: {after:?}");
    // And back again, which the record knows as well.
    let world = world.apply_all(&desired);
    assert!(checked(&desired, &world).is_converged());
}

#[test]
fn a_deleted_file_is_drift_and_a_record_that_cannot_be_read_holds() {
    let desired = three(|modes| modes.files = Drift::Report);
    let mut world = World::converged(&desired);
    world.server_mut("node1").files.remove(FILE);
    assert_eq!(reported(&checked(&desired, &world)).len(), 1);
    let record = world.server_mut("node1").files.get_mut(RECORD).unwrap();
    record.bytes = vec![0xff; 70 * 1024];
    assert_eq!(reported(&checked(&desired, &world)).len(), 1);
    // A damaged one is not written over, which would make the drift a change.
    for damaged in [&b"\xff\xfe\n"[..], b"0123 node1:/x\n", b"no digest\n"] {
        let record = world.server_mut("node1").files.get_mut(RECORD).unwrap();
        record.bytes = damaged.to_vec();
        let after = world.clone().apply_all(&desired);
        let plan = checked(&desired, &after);
        assert_eq!(reported(&plan).len(), 1);
        let told: Vec<_> = plan.held.iter().map(|held| held.reason.to_string()).collect();
        assert!(told.iter().any(|reason| reason.contains("cannot be read")), "{told:?}");
    }
}

#[test]
fn what_was_not_known_is_not_recorded_so_its_change_is_done_later() {
    let desired = three(|modes| *modes = DriftModes::all(Drift::Report));
    let mut world = World::converged(&desired);
    let mut changed = desired.clone();
    for service in &mut changed.swarm.services {
        service.labels.insert("reconcile.io/test".to_owned(), "anew".to_owned());
    }
    changed.sql.roles.values_mut().next().unwrap().connection_limit = 7;
    for host in ["node1", "node2", "node3"] {
        let unknown = &mut world.server_mut(host).unknown;
        unknown.extend([reconcile_sim::Section::Docker, reconcile_sim::Section::Sql]);
    }
    let mut world = world.apply_all(&changed);
    for host in ["node1", "node2", "node3"] {
        world.server_mut(host).unknown.clear();
    }
    let plan = checked(&changed, &world);
    assert_eq!(reported(&plan), Vec::new());
    assert!(!plan.steps.is_empty());
    assert!(checked(&changed, &world.apply_all(&changed)).is_converged());
}

#[test]
fn what_waits_for_the_policy_does_not_keep_the_rest_from_being_recorded() {
    let mut desired = three(|modes| modes.files = Drift::Report);
    desired.policy.restart = reconcile_spec::valid::Permission::Never;
    let world = World::converged(&desired);
    let mut changed = desired.clone();
    for server in changed.servers.values_mut() {
        for path in ["/etc/default/etcd", FILE] {
            let managed = server.files.get_mut(path).unwrap();
            let mut text = managed.file.content.bytes().to_vec();
            text.extend_from_slice(b"# anew\n");
            managed.file.content = reconcile_core::model::Content::open(text);
        }
    }
    let mut world = world.apply_all(&changed);
    edit(&mut world, "node2");
    let plan = checked(&changed, &world);
    assert_eq!(reported(&plan).len(), 1, "{plan:?}");
    let waiting = |held: &&reconcile_core::plan::Held| matches!(held.reason, HoldReason::Policy(_));
    assert_eq!(plan.held.iter().filter(waiting).count(), 3);
}

#[test]
fn what_alter_system_sets_is_reported_with_its_value() {
    let desired = three(|modes| modes.postgresql = Drift::Report);
    let mut world = World::converged(&desired);
    for database in world.databases.values_mut() {
        database.sql.altered.insert("work_mem".to_owned(), "64MB".to_owned());
    }
    let told = reported(&checked(&desired, &world));
    let wanted = [("node1/alter-system/work_mem".to_owned(), "value is 64MB, not none".to_owned())];
    assert_eq!(told, wanted);
}

/// It takes effect there, or on everybody once that one leads; a copy of the primary brings it along.
#[test]
fn what_alter_system_sets_on_a_replica_is_undone_there() {
    let desired = three(|_| {});
    let mut world = World::converged(&desired);
    world.server_mut("node3").altered.insert("work_mem".to_owned(), "7MB".to_owned());
    // Patroni's own stays.
    world.server_mut("node3").altered.insert("primary_slot_name".to_owned(), "x".to_owned());
    let plan = checked(&desired, &world);
    let steps: Vec<_> = plan.steps.iter().map(|step| step.object.to_string()).collect();
    assert_eq!(steps, ["node3/alter-system/work_mem"]);
    // It is not what the cluster has.
    let adopted = reconcile_core::adopt::adoption(&desired, &world.observe(&desired));
    assert!(adopted.parameters.is_empty(), "{adopted:?}");
    assert_eq!(adopted.others, ["update node3/alter-system/work_mem"]);
    world.pass(&desired);
    assert!(checked(&desired, &world).is_converged());
    assert_eq!(world.violations, Vec::<String>::new());
}

#[test]
fn a_text_that_somebody_set_by_hand_is_neither_told_nor_kept() {
    let plain = ["64MB", "off", "-1", "0.9", "128 × 8kB", "true", "5min"];
    let texts = ["curl -u u:hunter2hunter2 https://x", "hunter2hunter2", "10 hunter2hunter2", ""];
    let told = three(|modes| modes.postgresql = Drift::Report);
    let healed = three(|_| {});
    let values = plain.iter().map(|value| (value, true));
    for (value, clear) in values.chain(texts.iter().map(|value| (value, false))) {
        let mut world = World::converged(&told);
        for database in world.databases.values_mut() {
            database.sql.altered.insert("archive_command".to_owned(), (*value).to_owned());
        }
        let said = if clear { *value } else { "(text, not noted)" };
        let wanted = format!("value is {said}, not none");
        assert_eq!(reported(&checked(&told, &world))[0].1, wanted, "{value}");
        let made = plan(&healed, &world.observe(&healed));
        let altered = |step: &&Step| matches!(step.object, ObjectId::AlterSystem(..));
        let step = made.steps.iter().find(altered).expect("it is undone");
        assert_eq!(step.changes[0].from.as_deref(), Some(*value), "who is asked sees it");
        assert_eq!(kept(step)[0].from.as_deref(), Some(said), "{value}");
        assert_eq!(shown(step)[0].from.as_deref(), Some(said), "{value}");
        assert_eq!(differs(step), Some(wanted), "{value}");
        // What is sent away, a plan under a pause too.
        let within = Plan { without_pause: Some(Box::new(made.clone())), ..made.clone() };
        for plan in [sent(&made), sent(&within)] {
            let all =
                format!("{}{}", text(&plan, true), serde_json::to_string(&plan).expect("JSON"));
            assert!(!all.contains("hunter2"), "{all}");
            assert_eq!(plan.steps.len(), made.steps.len());
        }
        // The same by Patroni's dynamic configuration, and in a service's environment.
        let by_hand = |object, field: &str| {
            let change =
                Change { field: field.to_owned(), from: Some((*value).to_owned()), to: None };
            kept(&Step { object, changes: vec![change], ..step.clone() })[0].from.clone()
        };
        let parameter = "postgresql.parameters.archive_command";
        assert_eq!(by_hand(ObjectId::PatroniConfig, parameter).as_deref(), Some(said));
        assert_eq!(by_hand(ObjectId::Service("x".to_owned()), "env").as_deref(), Some(said));
        // A name that tells stars even what is plain.
        let starred =
            by_hand(ObjectId::AlterSystem("node1".into(), "db_password".to_owned()), "value");
        assert!(!clear || starred.as_deref() != Some(*value), "{starred:?}");
    }
}

#[test]
fn a_page_shows_the_lines_that_differ_and_no_secret_of_theirs() {
    let wanted = three(|_| {});
    let made = plan(&wanted, &World::bare(&wanted).observe(&wanted));
    let line =
        |text: &str| Change { field: "line".to_owned(), from: Some(text.to_owned()), to: None };
    let changes = vec![line("ETCD_NAME=other"), line("password = x9y8z7x9y8z7")];
    let step = Step { changes, ..made.steps[0].clone() };
    let from =
        |changes: Vec<Change>| changes.into_iter().filter_map(|c| c.from).collect::<Vec<_>>();
    let page = from(shown(&step));
    assert_eq!(page[0], "ETCD_NAME=other");
    assert!(page[1].starts_with("password") && !page[1].contains("x9y8z7"), "{page:?}");
    assert_eq!(from(kept(&step)), ["by hand, not noted"; 2]);
}

#[test]
fn a_server_that_is_to_leave_leaves_where_drift_is_reported() {
    let reporting = |mut desired: Desired| {
        desired.policy.drift = DriftModes::all(Drift::Report);
        desired
    };
    let before = reporting(fixture::desire(&fixture::spec(4, 0, |_| {})));
    let after = reporting(fixture::desire(&fixture::spec_without(4, 0, &["node4"])));
    let mut world = World::converged(&before);
    world.grow(&after);
    for _ in 0..4 {
        world = world.apply_all(&after);
        assert_eq!(reported(&checked(&after, &world)), Vec::new());
    }
    assert!(checked(&after, &world).is_converged(), "{:?}", checked(&after, &world));
}

#[test]
fn old_configs_are_cleared_away_where_drift_is_reported() {
    let desired = three(|modes| modes.swarm = Drift::Report);
    let mut world = World::converged(&desired);
    // As many changes as leave more behind than are kept.
    for round in 0..8 {
        let mut spec = fixture::spec(3, 0, |_| {});
        spec.pgbouncer.default_pool_size = 30 + round;
        let mut changed = fixture::desire(&spec);
        changed.policy.drift.swarm = Drift::Report;
        world = world.apply_all(&changed);
        let plan = checked(&changed, &world);
        assert!(plan.is_converged(), "round {round}: {plan:?}");
    }
}

#[test]
fn a_step_that_undoes_drift_says_what_drifted() {
    let desired = fixture::desire(&fixture::spec(3, 0, |_| {}));
    let mut world = World::converged(&desired);
    edit(&mut world, "node2");
    let server = world.server_mut("node3");
    server.files.get_mut(FILE).unwrap().mode = 0o666;
    server.units.get_mut("etcd.service").unwrap().running = false;
    world.server_mut("node1").files.remove("/etc/default/etcd");
    world.server_mut("node1").units.get_mut("patroni.service").unwrap().enabled = false;
    let swarm = world.swarms.values_mut().next().unwrap();
    swarm.services.remove("db-utils_router");
    swarm.services.get_mut("db-utils_haproxy").unwrap().spec.networks.clear();
    let plan = checked(&desired, &world);
    let told: Vec<_> = plan.steps.iter().filter_map(reconcile_core::plan::drifted).collect();
    let expected = [
        "node1:/etc/default/etcd (files): it does not exist",
        "node2:/etc/postgresql-common/createcluster.d/reconcile.conf (files): has 1 line by hand",
        "node3:/etc/postgresql-common/createcluster.d/reconcile.conf (files): mode is 0666, not 0644",
        "node1/patroni.service (units): at boot is disabled, not enabled",
        "node3/etcd.service (units): state is inactive (enabled), not active (enabled)",
        "swarm/service/db-utils_haproxy (swarm): networks is [], \
         not [{\"aliases\":[\"haproxy\"],\"network\":\"saasodoo-network\"}]",
        "swarm/service/db-utils_router (swarm): it does not exist",
    ];
    // That etcd is waited for there is no drift of its own.
    assert_eq!(told, expected);
}

/// What somebody wrote into a managed file is counted where it goes into logs, and not told.
#[test]
fn a_secret_written_by_hand_is_not_told() {
    let reason = "it differs";
    let change = |field: &str, from: Option<&str>, to: Option<&str>| Change {
        field: field.to_owned(),
        from: from.map(str::to_owned),
        to: to.map(str::to_owned),
    };
    let mut modes = Vec::new();
    for report in [false, true] {
        let desired = three(|modes| modes.files = if report { Drift::Report } else { Drift::Heal });
        let mut world = World::converged(&desired);
        let file = world.server_mut("node2").files.get_mut(FILE).unwrap();
        let text = String::from_utf8(file.bytes.clone()).unwrap();
        let first = text.lines().next().unwrap();
        file.bytes = text
            .replacen(first, "Environment=PGPASSWORD=CANARY1\x1b[2J\nx CANARY2", 1)
            .into_bytes();
        let plan = checked(&desired, &world);
        let told: Vec<String> = if report {
            reported(&plan).into_iter().map(|(_, told)| told).collect()
        } else {
            plan.steps.iter().filter_map(reconcile_core::plan::drifted).collect()
        };
        let told = told.join("\n");
        assert!(told.contains("has 2 lines by hand, lacks the line `"), "{told}");
        assert!(!told.contains("CANARY") && !told.contains('\x1b'), "{told:?}");
        modes.push(plan);
    }
    // Of other fields, the values of those that are named or formed as secrets are.
    let mut step = modes[0].steps[0].clone();
    for (field, value) in [
        ("password", "CANARY"),
        ("postgresql", r#"{"password":"CANARY","x":1}"#),
        ("primary_conninfo", "host=x password=CANARY"),
        ("archive_command", "curl https://u:CANARY@x/ \x1b[2J"),
    ] {
        step.reason = reason.to_owned();
        step.changes = vec![change(field, Some(value), Some("ours"))];
        let told = reconcile_core::plan::drifted(&step).unwrap();
        assert!(told.contains(&format!("{field} is ")) && !told.contains("CANARY"), "{told}");
        assert!(!told.contains('\x1b'), "{told:?}");
    }
}
