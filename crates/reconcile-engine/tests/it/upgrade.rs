//! Newer versions of packages that the file pins: which server comes when, what is restarted after, and
//! what is held. (Crashes, lost answers and stale looks: the workloads of those names.)

use std::time::Duration;

use reconcile_core::{
    action::{Action, HostAction},
    desired::Desired,
    ports::{Fleet as _, Switching as _},
};
use reconcile_sim::{Faults, Package, SimFleet, Unit, World, fixture};
use reconcile_spec::{
    ClusterSpec,
    valid::{Drift, PackageSource, Permission},
};

use crate::{
    run::{apply, converged, holds, plan_now, settle},
    workloads::host,
};

const OF_POSTGRESQL: [&str; 2] = ["postgresql-15", "postgresql-client-15"];

fn desired(members: usize, change: impl Fn(&mut ClusterSpec)) -> Desired {
    fixture::desire(&fixture::spec(members, 0, |spec| change(spec)))
}

fn etcd(spec: &mut ClusterSpec) {
    spec.etcd.version = Some("1.0-2".to_owned());
}

fn patroni(spec: &mut ClusterSpec) {
    spec.patroni.version = Some("1.1-1".to_owned());
}

fn postgresql(spec: &mut ClusterSpec) {
    spec.postgresql.package_version = Some("15.2-1".to_owned());
}

fn all(spec: &mut ClusterSpec) {
    etcd(spec);
    patroni(spec);
    postgresql(spec);
}

/// What was done, in order.
fn done(fleet: &SimFleet) -> Vec<String> {
    let words = [
        "UpgradePackages",
        "RestartPatroni",
        "RestartReplica",
        "restart the primary",
        "Notify",
        "hand over",
    ];
    let told = |effect: String| {
        let (on, what) = effect.split_once(' ')?;
        let word = words.into_iter().find(|word| what.starts_with(word))?;
        Some(match word {
            "UpgradePackages" => format!("{on} upgrade"),
            "Notify" => format!("{on} restart of etcd"),
            "hand over" => format!("{on} {what}"),
            _ => format!("{on} {word}"),
        })
    };
    fleet.effects().into_iter().filter_map(told).collect()
}

/// A cluster, and its packages' newer versions.
async fn start(members: usize, change: impl Fn(&mut ClusterSpec)) -> (SimFleet, Desired) {
    let mut world = converged(&desired(members, |_| {})).await;
    let after = desired(members, change);
    world.grow(&after);
    (SimFleet::new(world), after)
}

fn up_to_date(world: &World) {
    assert_eq!(world.violations, Vec::<String>::new());
    for (name, server) in &world.servers {
        assert!(!server.replaced, "{name}");
        let old = server.units.iter().find(|(_, unit)| unit.old_program);
        assert_eq!(old.map(|(unit, _)| unit), None, "{name}");
    }
}

async fn roll(members: usize, change: impl Fn(&mut ClusterSpec)) -> SimFleet {
    let (fleet, after) = start(members, change).await;
    settle(&fleet, &after, 1).await;
    up_to_date(&fleet.world());
    let again = apply(&fleet, &after).await.unwrap();
    assert_eq!(again.steps_done, 0);
    fleet
}

#[tokio::test(start_paused = true)]
async fn one_server_after_the_other_and_the_primary_when_it_is_none_any_more() {
    let fleet = roll(3, all).await;
    let order = [
        "node2 upgrade",
        "node2 restart of etcd",
        "node2 RestartPatroni",
        "node3 upgrade",
        "node3 restart of etcd",
        "node3 RestartPatroni",
        "node1 hand over to node2",
        "node1 upgrade",
        "node1 restart of etcd",
        "node1 RestartPatroni",
    ];
    assert_eq!(done(&fleet), order);
    for server in fleet.world().servers.values() {
        for (package, version) in
            [("etcd-server", "1.0-2"), ("etcd-client", "1.0-2"), ("patroni", "1.1-1")]
        {
            assert_eq!(server.packages[package].version, version);
        }
        for package in OF_POSTGRESQL {
            assert_eq!(server.packages[package].version, "15.2-1");
        }
        assert_eq!(server.packages["curl"].version, "1.0-1", "it is not pinned");
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_postgresql_is_started_through_patroni() {
    let order = [
        "node2 upgrade",
        "node2 RestartReplica",
        "node3 upgrade",
        "node3 RestartReplica",
        "node1 hand over to node2",
        "node1 upgrade",
        "node1 RestartReplica",
    ];
    assert_eq!(done(&roll(3, postgresql).await), order);
}

/// etcd knows no primary of the database: nobody hands over for it.
#[tokio::test(start_paused = true)]
async fn etcd_goes_member_by_member() {
    let order = [
        "node2 upgrade",
        "node2 restart of etcd",
        "node3 upgrade",
        "node3 restart of etcd",
        "node1 upgrade",
        "node1 restart of etcd",
    ];
    assert_eq!(done(&roll(3, etcd).await), order);
}

#[tokio::test(start_paused = true)]
async fn a_single_server_is_upgraded_in_place() {
    let order = ["node1 upgrade", "node1 restart the primary"];
    assert_eq!(done(&roll(1, postgresql).await), order);
    // Restarting its Patroni stops PostgreSQL, and nobody takes over: a person does that.
    let (fleet, after) = start(1, patroni).await;
    drop(apply(&fleet, &after).await.unwrap());
    assert_eq!(done(&fleet), ["node1 upgrade"]);
    let held = holds(&plan_now(&fleet, &after).await);
    assert!(held.iter().any(|h| h.contains("systemctl restart patroni.service")), "{held:#?}");
    fleet.change(|world| {
        world.reboot("node1");
    });
    settle(&fleet, &after, 1).await;
    up_to_date(&fleet.world());
}

#[tokio::test(start_paused = true)]
async fn one_upgrade_is_planned_and_the_others_wait_for_it() {
    let (fleet, after) = start(3, all).await;
    let plan = plan_now(&fleet, &after).await;
    assert_eq!(plan.steps.len(), 1, "{plan:#?}");
    let held = holds(&plan);
    for other in ["node1", "node3"] {
        let said = format!("{other}/upgrade: one disruptive step at a time: after node2/upgrade");
        assert!(held.contains(&said), "{held:#?}");
    }
}

/// What somebody installed himself and the file does not pin is left as it is.
#[tokio::test(start_paused = true)]
async fn what_is_not_pinned_is_not_touched() {
    let before = converged(&desired(3, |_| {})).await;
    let fleet = SimFleet::new(before);
    fleet.change(|world| {
        let server = world.server_mut("node2");
        for name in OF_POSTGRESQL {
            server.packages.get_mut(name).unwrap().version = "15.2-1".to_owned();
        }
        server.replaced = true;
        world.repository.insert("patroni".to_owned(), "9.9-1".to_owned());
    });
    let same = desired(3, |_| {});
    let last = apply(&fleet, &same).await.unwrap();
    assert_eq!((last.steps_done, done(&fleet)), (0, Vec::new()));
    // Pinned to what is installed there already, it is started anew, and the others follow.
    let after = desired(3, postgresql);
    fleet.change(|world| world.grow(&after));
    settle(&fleet, &after, 1).await;
    up_to_date(&fleet.world());
    let order = [
        "node2 RestartReplica",
        "node3 upgrade",
        "node3 RestartReplica",
        "node1 hand over to node2",
        "node1 upgrade",
        "node1 RestartReplica",
    ];
    assert_eq!(done(&fleet), order);
}

/// Applies; no package is changed, and every server that waits says why.
async fn is_held(
    change: impl Fn(&mut ClusterSpec),
    disturb: impl FnOnce(&mut World),
    reason: &str,
) {
    let (fleet, after) = start(3, change).await;
    fleet.change(disturb);
    drop(apply(&fleet, &after).await.unwrap());
    assert_eq!(fleet.world().violations, Vec::<String>::new());
    assert_eq!(done(&fleet), Vec::<String>::new(), "{reason}");
    let held = holds(&plan_now(&fleet, &after).await);
    let told = held.iter().any(|h| h.contains("/upgrade: ") && h.contains(reason));
    assert!(told, "{reason}: {held:#?}");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_upgraded_says_why() {
    let older = |world: &mut World| {
        for name in ["node1", "node2", "node3"] {
            world.server_mut(name).packages.get_mut("patroni").unwrap().version =
                "1.10-1".to_owned();
        }
    };
    is_held(patroni, older, "pinned to 1.1-1; data may not go back").await;
    let leap = |spec: &mut ClusterSpec| spec.etcd.version = Some("1.2-1".to_owned());
    is_held(leap, |_| {}, "etcd goes up by one minor version at a time").await;
    let no_v2 = |spec: &mut ClusterSpec| spec.etcd.version = Some("3.6.0-1".to_owned());
    is_held(no_v2, |_| {}, "no v2 interface").await;
    let preinstalled = |spec: &mut ClusterSpec| {
        patroni(spec);
        spec.packages.source = PackageSource::Preinstalled;
    };
    is_held(preinstalled, |_| {}, "packages.source is `preinstalled`").await;
    let never = |spec: &mut ClusterSpec| {
        all(spec);
        spec.policy.restart = Permission::Never;
    };
    is_held(never, |_| {}, "policy.restart is `never`").await;
    let full = |world: &mut World| {
        for name in ["node1", "node2", "node3"] {
            world.server_mut(name).free_bytes = 900 << 20;
        }
    };
    is_held(all, full, "1024 MB are needed").await;
}

/// Somebody else's etcd and Patroni run from the same packages.
#[tokio::test(start_paused = true)]
async fn what_somebody_else_runs_is_not_upgraded() {
    let after = desired(3, all);
    let mut world = World::bare(&after);
    world.plant_foreign_patroni("node1", "/var/lib/postgresql/15/main", "theirs");
    for name in ["etcd-server", "etcd-client", "patroni", "postgresql-15", "postgresql-client-15"] {
        let package = Package { version: "1.0-1".to_owned(), complete: true };
        world.server_mut("node1").packages.insert(name.to_owned(), package);
    }
    let fleet = SimFleet::new(world);
    drop(apply(&fleet, &after).await.unwrap());
    let world = fleet.world();
    assert_eq!(world.violations, Vec::<String>::new());
    assert_eq!(done(&fleet), Vec::<String>::new());
    let held = holds(&plan_now(&fleet, &after).await);
    assert!(held.iter().any(|h| h.starts_with("node1/upgrade: waits for")), "{held:#?}");
}

/// Packages that were there before us, older than pinned: the cluster is founded, and then upgraded.
#[tokio::test(start_paused = true)]
async fn what_was_installed_before_is_upgraded_when_it_is_ours() {
    let after = desired(3, all);
    let mut world = World::bare(&after);
    for name in ["etcd-server", "etcd-client", "patroni"] {
        let package = Package { version: "1.0-1".to_owned(), complete: true };
        world.server_mut("node1").packages.insert(name.to_owned(), package);
    }
    for unit in ["etcd.service", "patroni.service"] {
        world.server_mut("node1").units.insert(unit.to_owned(), Unit::default());
    }
    let fleet = SimFleet::new(world);
    settle(&fleet, &after, 3).await;
    let world = fleet.world();
    up_to_date(&world);
    assert_eq!(world.servers[&host("node1")].packages["patroni"].version, "1.1-1");
}

/// A downgrade, or any upgrade that waits, keeps nothing else from being mended.
#[tokio::test(start_paused = true)]
async fn what_is_held_blocks_no_repair() {
    let (fleet, after) = start(3, |spec| {
        all(spec);
        spec.policy.restart = Permission::Never;
    })
    .await;
    fleet.change(|world| {
        for (name, unit) in [("node2", "patroni.service"), ("node3", "etcd.service")] {
            world.server_mut(name).units.get_mut(unit).unwrap().running = false;
        }
        world.settle();
    });
    drop(apply(&fleet, &after).await.unwrap());
    let world = fleet.world();
    assert_eq!(world.violations, Vec::<String>::new());
    for (name, unit) in [("node2", "patroni.service"), ("node3", "etcd.service")] {
        assert!(world.servers[&host(name)].units[unit].running, "{unit} on {name}");
    }
}

/// A member that does not serve comes first: the newer version may be what it waits for.
#[tokio::test(start_paused = true)]
async fn who_does_not_serve_is_first() {
    let (fleet, after) = start(3, all).await;
    fleet.change(|world| {
        let unit = world.server_mut("node3").units.get_mut("patroni.service").unwrap();
        (unit.running, unit.masked) = (false, true);
        world.settle();
    });
    let plan = plan_now(&fleet, &after).await;
    let told = |step: &reconcile_core::plan::Step| step.object.to_string() == "node3/upgrade";
    assert!(
        holds(&plan).iter().any(|h| h.starts_with("node3/upgrade")) || plan.steps.iter().any(told)
    );
    settle(&fleet, &after, 2).await;
    up_to_date(&fleet.world());
}

/// While the version cannot be installed on the first server, the others keep theirs.
#[tokio::test(start_paused = true)]
async fn a_version_that_nobody_has_stops_at_the_first_server() {
    let (fleet, after) = start(3, all).await;
    fleet.change(|world| {
        world.repository.insert("patroni".to_owned(), "1.0-1".to_owned());
    });
    let last = apply(&fleet, &after).await.unwrap();
    assert!(last.errors.iter().any(|e| e.to_string().contains("no package source")), "{last:?}");
    let order = done(&fleet);
    assert!(!order.is_empty() && order.iter().all(|done| done == "node2 upgrade"), "{order:?}");
    let world = fleet.world();
    up_to_date(&world);
    assert_eq!(world.servers[&host("node2")].packages["etcd-server"].version, "1.0-1");
}

#[tokio::test(start_paused = true)]
async fn a_failover_in_the_middle_ends_well() {
    for node in ["node1", "node2"] {
        for effect in 1..=24 {
            let (fleet, after) = start(3, all).await;
            fleet.fail(Faults { reboots: [(effect, host(node))].into(), ..Default::default() });
            settle(&fleet, &after, 6).await;
            up_to_date(&fleet.world());
        }
    }
}

/// Without a switchover the replicas come up to date, and the primary keeps what it has.
#[tokio::test(start_paused = true)]
async fn without_a_switchover_the_primarys_server_keeps_its_packages() {
    let (fleet, after) = start(3, |spec| {
        postgresql(spec);
        spec.policy.switchover = Permission::Never;
    })
    .await;
    drop(apply(&fleet, &after).await.unwrap());
    let world = fleet.world();
    assert_eq!(world.violations, Vec::<String>::new());
    let version = |name: &str| world.servers[&host(name)].packages["postgresql-15"].version.clone();
    assert_eq!(
        [version("node1"), version("node2"), version("node3")],
        ["1.0-1", "15.2-1", "15.2-1"]
    );
    let held = holds(&plan_now(&fleet, &after).await);
    assert!(held.iter().any(|h| h.contains("policy.switchover is `never`")), "{held:#?}");
}

/// The holds of a plan that does nothing.
async fn only_held(fleet: &SimFleet, desired: &Desired) -> Vec<String> {
    let plan = plan_now(fleet, desired).await;
    let steps: Vec<_> = plan.steps.iter().map(|step| step.object.to_string()).collect();
    assert_eq!(steps, Vec::<String>::new());
    holds(&plan)
}

/// Clients do not wait for a switchover whose upgrade is then held.
#[tokio::test(start_paused = true)]
async fn nobody_hands_over_for_an_upgrade_that_the_policy_holds() {
    let (fleet, after) = start(3, |spec| {
        postgresql(spec);
        spec.policy.switchover = Permission::Never;
    })
    .await;
    drop(apply(&fleet, &after).await.unwrap());
    let forbidden = desired(3, |spec| {
        postgresql(spec);
        spec.policy.restart = Permission::Never;
    });
    let held = only_held(&fleet, &forbidden).await;
    assert!(held.iter().any(|held| held.contains("policy.restart is `never`")), "{held:#?}");
}

/// The same where somebody set a package back by hand, and such drift is only told.
#[tokio::test(start_paused = true)]
async fn nobody_hands_over_for_drift_that_is_only_reported() {
    let (fleet, after) = start(3, |spec| {
        postgresql(spec);
        spec.policy.drift.packages = Drift::Report;
    })
    .await;
    settle(&fleet, &after, 1).await;
    let mut leader = None;
    for name in after.servers.keys() {
        if fleet.is_primary(name).await {
            leader = Some(name);
        }
    }
    let leader = leader.unwrap();
    fleet.change(|world| {
        let server = world.servers.get_mut(leader).unwrap();
        server.packages.get_mut("postgresql-15").unwrap().version = "1.0-1".to_owned();
    });
    let held = only_held(&fleet, &after).await;
    assert!(
        held.iter().any(|held| held.contains("postgresql-15 is 1.0-1, not 15.2-1")),
        "{held:#?}"
    );
}

/// An upgrade was cut off on a replica, and that replica was promoted: what is half installed is finished
/// when it has handed over.
#[tokio::test(start_paused = true)]
async fn what_is_half_installed_is_not_finished_under_a_primary() {
    let half = |world: &mut World| {
        let packages = &mut world.server_mut("node1").packages;
        let package = Package { version: "15.2-1".to_owned(), complete: false };
        packages.insert("postgresql-15".to_owned(), package);
    };
    let (fleet, after) = start(3, postgresql).await;
    assert!(fleet.is_primary(&host("node1")).await);
    fleet.change(half);
    let plan = plan_now(&fleet, &after).await;
    assert!(holds(&plan).iter().any(|held| {
        held.starts_with("node1/packages") && held.contains("after node1/postgresql")
    }));
    settle(&fleet, &after, 3).await;
    up_to_date(&fleet.world());
    let order = done(&fleet);
    assert!(order.contains(&"node1 hand over to node2".to_owned()), "{order:?}");
    assert!(fleet.world().servers[&host("node1")].packages["postgresql-15"].complete);

    // Without a switchover it waits, and says for what.
    let never = desired(3, |spec| {
        postgresql(spec);
        spec.policy.switchover = Permission::Never;
    });
    let (fleet, _) = start(3, postgresql).await;
    fleet.change(half);
    drop(apply(&fleet, &never).await.unwrap());
    let world = fleet.world();
    assert_eq!(world.violations, Vec::<String>::new());
    assert!(!world.servers[&host("node1")].packages["postgresql-15"].complete);
    let held = holds(&plan_now(&fleet, &never).await);
    assert!(held.iter().any(|held| held.contains("policy.switchover is `never`")), "{held:#?}");

    // Who leads between the look and the effect is asked for by the step itself.
    let (fleet, after) = start(3, postgresql).await;
    fleet.change(|world| {
        let package = Package { version: "15.2-1".to_owned(), complete: false };
        world.server_mut("node2").packages.insert("postgresql-15".to_owned(), package);
    });
    let plan = plan_now(&fleet, &after).await;
    let step = plan.steps.iter().find(|step| step.object.to_string() == "node2/packages").unwrap();
    let mut action = step.action.clone();
    fleet.change(|world| world.power_off("node1"));
    assert!(fleet.is_primary(&host("node2")).await);
    let done = fleet.perform(&action, Duration::from_secs(900)).await.unwrap_err();
    assert!(done.to_string().contains("it is the primary by now"), "{done}");
    assert_eq!(fleet.world().violations, Vec::<String>::new());
    // Had it not asked, this is what would have been.
    let Action::Host(_, HostAction::InstallPackages { replica, .. }) = &mut action else {
        panic!()
    };
    assert!(replica.take().is_some());
    drop(fleet.perform(&action, Duration::from_secs(900)).await);
    assert_eq!(fleet.world().violations, ["the programs of the primary on node2 were finished"]);
}
