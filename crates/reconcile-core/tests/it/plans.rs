//! Plans as people read them, one golden a case, and the order that they keep.

use std::collections::{BTreeMap, BTreeSet};

use reconcile_core::{
    action::{Action, HostAction},
    check::check,
    desired::Desired,
    model::{ObjectId, Observation},
    plan::{HoldReason, Impact, Plan, SetAside, plan, plan_beside, text},
};
use reconcile_sim::{DataDir, Reach, World, fixture};

use crate::golden::golden;

fn three() -> Desired {
    fixture::desire(&fixture::spec(3, 0, |_| {}))
}

/// A plan that passes the checker.
pub(crate) fn checked(desired: &Desired, world: &World) -> Plan {
    let observed = world.observe(desired);
    let plan = plan(desired, &observed);
    assert_eq!(check(desired, &observed, &plan), []);
    plan
}

pub(crate) fn case(name: &str, desired: &Desired, world: &World) {
    golden(&format!("plan/{name}/plan.txt"), &text(&checked(desired, world), true));
}

#[test]
fn bare_three() {
    let desired = three();
    case("bare-three", &desired, &World::bare(&desired));
}

#[test]
fn converged() {
    let desired = three();
    case("converged", &desired, &World::converged(&desired));
}

#[test]
fn drifted_file() {
    let desired = three();
    let mut world = World::converged(&desired);
    let file = world.server_mut("node2").files.get_mut("/etc/default/etcd").unwrap();
    file.bytes.extend_from_slice(b"ETCD_MAX_SNAPSHOTS=9\n");
    let file = world.server_mut("node3").files.get_mut("/etc/patroni/patroni.yml").unwrap();
    file.mode = 0o644;
    case("drifted-file", &desired, &world);
}

/// Only the next restart is a step; how many follow is said.
#[test]
fn parameter_that_needs_restarts() {
    let world = World::converged(&three());
    let with = |value: &str| {
        fixture::desire(&fixture::spec(3, 0, |spec| {
            spec.postgresql.parameters.insert("max_connections".into(), value.into());
        }))
    };
    case("parameter-raised", &with("300"), &world);
    case("parameter-lowered", &with("50"), &world);
    // What does not come by itself is not said to come.
    let desired = with("300");
    let object = ObjectId::Postgresql("node2".into());
    let set_aside = SetAside::from([(object, "it did not come up".to_owned())]);
    let plan = plan_beside(&desired, &world.observe(&desired), &set_aside);
    assert_eq!(plan.restarts, []);
}

#[test]
fn one_host_unknown() {
    let desired = three();
    let mut world = World::converged(&desired);
    world.server_mut("node2").reach = Reach::Silent;
    world.server_mut("node3").files.remove("/etc/systemd/system/patroni.service");
    case("one-host-unknown", &desired, &world);
}

#[test]
fn one_host_unknown_from_bare() {
    let desired = three();
    let mut world = World::bare(&desired);
    world.server_mut("node2").reach = Reach::Silent;
    case("one-host-unknown-from-bare", &desired, &world);
}

#[test]
fn foreign_data_dir() {
    let desired = three();
    let mut world = World::bare(&desired);
    let directory = "/var/lib/postgresql/15/main".to_owned();
    world.server_mut("node2").data_dirs.insert(directory, DataDir::Foreign);
    case("foreign-data-dir", &desired, &world);
}

#[test]
fn role_added() {
    let world = World::converged(&three());
    let desired = fixture::desire(&fixture::spec(3, 0, |spec| {
        let mut role = spec.postgresql.roles[0].clone();
        role.name = reconcile_spec::valid::RoleName::new("audit").unwrap();
        spec.postgresql.roles.push(role);
    }));
    case("role-added", &desired, &world);
}

#[test]
fn haproxy_config_change() {
    let world = World::converged(&three());
    let desired = fixture::desire(&fixture::spec(3, 0, |spec| spec.haproxy.maxconn = 5000));
    case("haproxy-config-change", &desired, &world);
}

#[test]
fn etcd_environment_change() {
    let world = World::converged(&three());
    let desired = fixture::desire(&fixture::spec(3, 0, |spec| spec.etcd.heartbeat_ms = 150));
    case("etcd-environment-change", &desired, &world);
}

/// T14: what a step rests on has come before it.
#[test]
fn the_order_of_a_founding() {
    let desired = three();
    let plan = checked(&desired, &World::bare(&desired));
    let ids: BTreeMap<&ObjectId, usize> =
        plan.steps.iter().map(|step| (&step.object, step.id)).collect();
    // All that a step comes after, by others' words included.
    let mut before: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    for step in &plan.steps {
        let mut all: BTreeSet<usize> = step.after.iter().copied().collect();
        all.extend(step.after.iter().flat_map(|id| before[id].clone()));
        before.insert(step.id, all);
    }
    let hosts: Vec<_> = desired.servers.keys().cloned().collect();
    let first = &hosts[0];
    for host in &hosts {
        let etcd = ids[&ObjectId::Unit(host.clone(), "etcd.service".to_owned())];
        let awaited = ids[&ObjectId::EtcdMember(host.clone())];
        let patroni = ids[&ObjectId::PatroniMember(host.clone())];
        let packages = ids[&ObjectId::Packages(host.clone())];
        let environment = ids[&ObjectId::File(host.clone(), "/etc/default/etcd".to_owned())];
        assert!(before[&etcd].contains(&packages) && before[&packages].contains(&environment));
        for other in &hosts {
            let started = ids[&ObjectId::Unit(other.clone(), "etcd.service".to_owned())];
            assert!(before[&awaited].contains(&started), "a member waits for its peers' start");
            assert!(before[&patroni].contains(&ids[&ObjectId::EtcdMember(other.clone())]));
        }
        if host != first {
            let primary = ids[&ObjectId::PatroniMember(first.clone())];
            assert!(
                before[&patroni].contains(&primary),
                "the database is made before it is copied"
            );
        }
    }
    let primary = ids[&ObjectId::PatroniMember(first.clone())];
    for step in &plan.steps {
        if matches!(step.action, Action::Host(_, HostAction::Sql { .. })) {
            assert!(before[&step.id].contains(&primary), "{}", step.object);
        }
        if let ObjectId::Service(name) = &step.object {
            assert!(before[&step.id].contains(&ids[&ObjectId::Swarm]), "{name}");
        }
    }
}

/// A database whose encoding cannot be changed is held whole, also where its owner differs.
#[test]
fn an_object_is_held_or_changed_never_both() {
    let desired = three();
    let mut world = World::converged(&desired);
    for database in world.databases.values_mut() {
        let archive = database.sql.databases.get_mut("archive").unwrap();
        "LATIN1".clone_into(&mut archive.encoding);
        "report".clone_into(&mut archive.owner);
    }
    let plan = checked(&desired, &world);
    assert_eq!(plan.steps, []);
    assert_eq!(plan.held.len(), 1, "{:?}", plan.held);
}

/// A file of a service that is stopped disturbs nobody: all servers get it at once.
#[test]
fn a_stopped_service_is_not_disturbed_by_its_file() {
    let mut world = World::converged(&three());
    for server in world.servers.values_mut() {
        server.units.get_mut("etcd.service").unwrap().running = false;
    }
    world.settle();
    let desired = fixture::desire(&fixture::spec(3, 0, |spec| spec.etcd.heartbeat_ms = 150));
    let plan = checked(&desired, &world);
    let files: Vec<_> =
        plan.steps.iter().filter(|step| matches!(step.object, ObjectId::File(..))).collect();
    assert_eq!(files.len(), 3, "{}", text(&plan, true));
    assert!(files.iter().all(|step| step.impact == Impact::None));
}

/// On a server of ours somebody has started a Patroni of another scope.
#[test]
fn a_patroni_of_another_scope_is_held_and_nothing_is_asked_of_it() {
    let desired = fixture::desire(&fixture::spec(3, 0, |spec| spec.patroni.ttl = 45));
    let mut observed = World::converged(&three()).observe(&desired);
    let first = observed.hosts.values_mut().next().unwrap();
    let Observation::Known(facts) = first else { panic!("it is known") };
    let Observation::Known(Some(patroni)) = &mut facts.patroni else { panic!("it is known") };
    "theirs".clone_into(&mut patroni.scope);
    let plan = plan(&desired, &observed);
    assert_eq!(check(&desired, &observed, &plan), []);
    let asked = plan.steps.iter().any(|step| {
        matches!(step.action, Action::Patroni(..) | Action::Host(_, HostAction::Sql { .. }))
    });
    assert!(!asked, "{}", text(&plan, true));
    let held = plan.held.iter().any(|held| matches!(held.object, ObjectId::PatroniMember(_)));
    assert!(held, "{}", text(&plan, true));
}

#[test]
fn a_disruptive_step_that_is_set_aside_gives_its_turn_to_the_next() {
    let desired = three();
    let mut world = World::converged(&desired);
    for host in ["node1", "node2", "node3"] {
        let file = world.server_mut(host).files.get_mut("/etc/default/etcd").unwrap();
        file.bytes.extend_from_slice(b"ETCD_MAX_SNAPSHOTS=9\n");
    }
    let observed = world.observe(&desired);
    let file = |host: &str| ObjectId::File(host.into(), "/etc/default/etcd".to_owned());
    let disruptive = |plan: &Plan| -> Vec<ObjectId> {
        let steps = plan.steps.iter().filter(|step| step.impact.disruptive());
        steps.map(|step| step.object.clone()).collect()
    };
    assert_eq!(disruptive(&plan(&desired, &observed)), [file("node1")]);
    let aside = SetAside::from([(file("node1"), "the disk is full".to_owned())]);
    let beside = plan_beside(&desired, &observed, &aside);
    assert_eq!(check(&desired, &observed, &beside), []);
    assert_eq!(disruptive(&beside), [file("node2")]);
    let stalled: Vec<_> = beside.stalled().map(|held| (&held.object, &held.reason)).collect();
    let reason = HoldReason::Failed("the disk is full".to_owned());
    assert_eq!(stalled, [(&file("node1"), &reason)], "and the third only waits for its turn");
}
