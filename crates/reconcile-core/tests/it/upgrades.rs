//! Upgrades: the plan of one, and every rule of the checker about them, broken once.

use reconcile_core::{
    action::{Action, HostAction},
    model::{HostName, Observation, PatroniFact, PatroniRole},
    plan::{Impact, Step, text},
};
use reconcile_sim::{Package, World, fixture};

use crate::refusals::{Case, three};

fn upgrading() -> Case {
    let desired = fixture::desire(&fixture::spec(3, 0, |spec| {
        spec.etcd.version = Some("1.0-2".to_owned());
        spec.patroni.version = Some("1.1-1".to_owned());
        spec.postgresql.package_version = Some("15.2-1".to_owned());
    }));
    Case::of(desired, &World::converged(&three()))
}

fn fact<'a>(case: &'a mut Case, host: &str) -> &'a mut PatroniFact {
    let Observation::Known(Some(fact)) = &mut case.facts(host).patroni else { panic!() };
    fact
}

fn step(case: &mut Case) -> &mut Step {
    case.step(|action| matches!(action, Action::Host(_, HostAction::UpgradePackages { .. })))
}

#[test]
fn the_plan_names_each_package() {
    let case = upgrading();
    let text = text(&case.plan, true);
    for said in [
        "node2/upgrade",
        "etcd-server: 1.0-1 -> 1.0-2",
        "patroni: 1.0-1 -> 1.1-1",
        "postgresql-15: 1.0-1 -> 15.2-1",
    ] {
        assert!(text.contains(said), "{said}\n{text}");
    }
}

#[test]
fn upgrades() {
    let case = upgrading();
    let change = |case: &mut Case, name: &str, version: &str| {
        let action = &mut step(case).action;
        let Action::Host(_, HostAction::UpgradePackages { packages, .. }) = action else {
            panic!()
        };
        packages.push((name.to_owned(), version.to_owned()));
    };
    case.breaks("an upgrade says that restarts follow", |case| step(case).impact = Impact::None);
    case.breaks("nothing is installed where packages are not ours to install", |case| {
        case.desired.servers.get_mut(&HostName::new("node2")).unwrap().install = false;
    });
    case.breaks("only what the file pins is upgraded", |case| change(case, "curl", "9.9-1"));
    case.breaks("only what the file pins is upgraded", |case| change(case, "patroni", "1.2-1"));
    case.breaks("a version is only replaced by a newer one", |case| {
        case.facts("node2").packages.get_mut("patroni").unwrap().version = "1.10-1".to_owned();
    });
    case.breaks("a unit whose program is replaced is noted first", |case| {
        let action = &mut step(case).action;
        let Action::Host(_, HostAction::UpgradePackages { outdates, .. }) = action else {
            panic!()
        };
        outdates.pop();
    });
    case.breaks("who leads is asked for again in the moment of an upgrade", |case| {
        let action = &mut step(case).action;
        let Action::Host(_, HostAction::UpgradePackages { replica, .. }) = action else { panic!() };
        *replica = None;
    });
    case.breaks("what may run for somebody else is not upgraded", |case| {
        case.facts("node2").manifest.claims.clear();
    });
    case.breaks("one server is upgraded to its end before the next", |case| {
        case.facts("node3").units.get_mut("etcd.service").unwrap().outdated = true;
    });
    case.breaks("a server is upgraded only while all other members serve", |case| {
        fact(case, "node3").streaming = false;
    });
    case.breaks("a server is upgraded only while all other members of etcd are healthy", |case| {
        case.facts("node3").etcd = Observation::unknown("no answer");
    });
    case.breaks(
        "the primary's programs are not replaced while a replica could take over",
        |case| {
            fact(case, "node2").role = PatroniRole::Primary;
        },
    );
}

#[test]
fn restarts_of_patroni() {
    let mut case = upgrading();
    let action = HostAction::RestartPatroni {
        endpoint: String::new(),
        data_dir: String::new(),
        max_lag_bytes: 1,
    };
    case.does(Action::Host(HostName::new("node2"), action));
    case.breaks("only a Patroni that an upgrade has outdated is restarted", |_| {});
    case.facts("node2").units.get_mut("patroni.service").unwrap().outdated = true;
    assert_eq!(reconcile_core::check::check(&case.desired, &case.observed, &case.plan), []);
    case.breaks("only a replica of the one primary is restarted as one", |case| {
        fact(case, "node2").role = PatroniRole::Primary;
    });
    case.breaks("a restart says that it is one", |case| case.plan.steps[0].impact = Impact::None);
    case.breaks("a member is disturbed only while all others serve", |case| {
        fact(case, "node3").streaming = false;
    });
    case.breaks("no member is disturbed while Patroni is paused", |case| {
        fact(case, "node1").paused = true;
    });
    case.breaks("a Patroni that is not ours is not restarted", |case| {
        case.facts("node2").manifest.claims.clear();
    });
}

/// A package that is half installed on a member is finished, but not under a primary.
#[test]
fn what_is_half_installed() {
    let half = |host: &str| {
        let mut world = World::converged(&three());
        let package = Package { version: "1.0-1".to_owned(), complete: false };
        world.server_mut(host).packages.insert("patroni".to_owned(), package);
        Case::of(three(), &world)
    };
    let install =
        |action: &Action| matches!(action, Action::Host(_, HostAction::InstallPackages { .. }));
    let primary = half("node1");
    assert!(!primary.plan.steps.iter().any(|step| install(&step.action)), "{:#?}", primary.plan);
    let shown = text(&primary.plan, false);
    assert!(
        shown.contains("hand over node1/postgresql: its packages are to be replaced"),
        "{shown}"
    );
    assert!(shown.contains("node1/packages: one disruptive step at a time"), "{shown}");

    let case = half("node2");
    case.breaks("who leads is asked for again where what is half installed is finished", |case| {
        let action = &mut case.step(install).action;
        let Action::Host(_, HostAction::InstallPackages { replica, .. }) = action else { panic!() };
        assert!(replica.take().is_some());
    });
    case.breaks("what is half installed is not finished under a primary", |case| {
        fact(case, "node2").role = PatroniRole::Primary;
    });
}

/// Who calls itself the primary without running, or beside another, keeps its programs; the planner
/// says why instead of planning what the checker refuses.
#[test]
fn nothing_is_replaced_while_it_is_disputed_who_leads() {
    let replaces = |step: &Step| {
        matches!(
            step.action,
            Action::Host(
                _,
                HostAction::InstallPackages { .. } | HostAction::UpgradePackages { .. }
            )
        )
    };
    let judged = |mut case: Case, why: &str| {
        case.plan = reconcile_core::plan::plan(&case.desired, &case.observed);
        let shown = text(&case.plan, false);
        assert!(!case.plan.steps.iter().any(replaces), "{shown}");
        assert!(shown.contains(why), "{why}\n{shown}");
        assert_eq!(reconcile_core::check::check(&case.desired, &case.observed, &case.plan), []);
    };
    let half = || {
        let mut world = World::converged(&three());
        let package = Package { version: "1.0-1".to_owned(), complete: false };
        world.server_mut("node2").packages.insert("patroni".to_owned(), package);
        Case::of(three(), &world)
    };
    assert!(half().plan.steps.iter().any(replaces));
    assert!(upgrading().plan.steps.iter().any(replaces));
    for state in ["starting", "crashed", "start failed"] {
        let mut case = half();
        fact(&mut case, "node2").role = PatroniRole::Primary;
        fact(&mut case, "node2").state = state.to_owned();
        let person = "node2/packages: needs a person: packages of the database are half installed";
        let waits = "node2/packages: waits for node2/patroni";
        judged(case, if state == "starting" { waits } else { person });

        let mut case = upgrading();
        fact(&mut case, "node2").role = PatroniRole::Primary;
        fact(&mut case, "node2").state = state.to_owned();
        judged(case, "node2/upgrade: waits for node2/patroni");
    }
    let split = "more than one member says that it is the primary";
    for mut case in [half(), upgrading()] {
        fact(&mut case, "node2").role = PatroniRole::Primary;
        judged(case, split);
    }
    let mut case = half();
    fact(&mut case, "node3").role = PatroniRole::Primary;
    judged(case, "node2/packages: needs a person: more than one member says");
}

#[test]
fn what_is_half_installed_under_a_primary_that_does_not_run_names_its_remedy() {
    let mut case = Case::of(three(), &World::converged(&three()));
    fact(&mut case, "node1").state = "stopped".to_owned();
    case.facts("node1").packages.get_mut("postgresql-15").unwrap().complete = false;
    let plan = reconcile_core::plan::plan(&case.desired, &case.observed);
    let held = plan.held.iter().find(|held| held.object.to_string() == "node1/packages").unwrap();
    let told = held.reason.to_string();
    assert!(told.contains("node1 calls itself the primary without leading"), "{told}");
    assert!(told.contains("`dpkg --configure -a` there finishes them"), "{told}");
}
