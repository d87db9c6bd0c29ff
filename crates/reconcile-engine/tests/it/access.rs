//! A change of who gets into PostgreSQL is proven on one replica first, and taken back where somebody
//! who must get in does not.

use reconcile_core::{
    desired::{Desired, desired as make},
    model::{AccessState, HostName, SecretText},
    plan::Plan,
};
use reconcile_sim::{Faults, Position, SimFleet, World, fixture};
use reconcile_spec::{
    ClusterSpec,
    valid::{Drift, HbaMethod, HbaRule, HbaType},
};

use crate::{
    crashes::every_crash,
    run::{apply, converged, holds, plan_now, settle},
    workloads::{Workload, host},
};

const CONFIG: &str = "/etc/patroni/patroni.yml";
const RULES: &str = "/var/lib/postgresql/15/main/pg_hba.conf";
/// Only the server can tell who is in it.
const GRANTED: &str = "+granted_by_hand";

pub(crate) fn rule(user: &str, method: HbaMethod) -> HbaRule {
    HbaRule {
        kind: HbaType::Host,
        database: "all".to_owned(),
        user: user.to_owned(),
        address: Some("all".to_owned()),
        method,
        options: [].into(),
        deliberate: false,
    }
}

fn spec(members: usize, change: impl FnOnce(&mut ClusterSpec)) -> ClusterSpec {
    fixture::spec(members, 0, change)
}

fn with(members: usize, own: HbaRule) -> Desired {
    fixture::desire(&spec(members, |spec| spec.postgresql.hba.push(own)))
}

fn opened(members: usize) -> Desired {
    let own = rule("report", HbaMethod::ScramSha256);
    with(members, HbaRule { address: Some("10.9.0.0/16".to_owned()), ..own })
}

fn closed(members: usize) -> Desired {
    with(members, rule(GRANTED, HbaMethod::Reject))
}

fn locks_out(world: &mut World) {
    world.locking_out.insert(GRANTED.to_owned());
}

fn nothing(_: &mut World) {}

async fn before(members: usize) -> World {
    converged(&fixture::desire(&spec(members, |_| {}))).await
}

fn steps(plan: &Plan) -> Vec<String> {
    plan.steps.iter().map(|step| format!("{} {}", step.object, step.reason)).collect()
}

fn rules(world: &World, name: &str) -> String {
    world.servers[&host(name)].files[RULES].text()
}

/// Where it was tried, and how that ended.
fn tried(world: &World) -> Vec<(&HostName, AccessState)> {
    let notes = world.servers.iter();
    notes.filter_map(|(name, server)| Some((name, server.access.as_ref()?.state))).collect()
}

#[tokio::test(start_paused = true)]
async fn it_is_proven_on_a_replica_before_others_have_it() {
    let desired = opened(3);
    let fleet = SimFleet::new(before(3).await);
    let plan = plan_now(&fleet, &desired).await;
    let first = format!("node2:{CONFIG} its access rules are tried on this replica first");
    assert_eq!(steps(&plan), [first]);
    let wait = |node| format!("{node}:{CONFIG}: waits for node2:{CONFIG}");
    assert_eq!(holds(&plan), [wait("node1"), wait("node3")]);
    assert_eq!(plan.stalled().count(), 0, "they come by themselves");

    settle(&fleet, &desired, 1).await;
    let world = fleet.world();
    assert_eq!(world.violations, Vec::<String>::new());
    assert_eq!(tried(&world), [(&host("node2"), AccessState::Proven)]);
    let effects = fleet.effects();
    let trials = effects.iter().filter(|effect| effect.contains("TryAccess")).count();
    assert_eq!(trials, 1, "{effects:#?}");
    for node in ["node1", "node2", "node3"] {
        assert!(rules(&world, node).contains("10.9.0.0/16"), "{node}");
    }
    // And back again: what was proven once is not in force any more.
    let back = fixture::desire(&spec(3, |_| {}));
    assert!(steps(&plan_now(&fleet, &back).await)[0].contains("tried on this replica first"));
    settle(&fleet, &back, 1).await;
    assert!(!rules(&fleet.world(), "node1").contains("10.9.0.0/16"));
}

#[tokio::test(start_paused = true)]
async fn what_locks_somebody_out_is_taken_back_and_never_reaches_the_primary() {
    let old = before(3).await;
    let fleet = SimFleet::new(old.clone());
    fleet.change(locks_out);
    let result = apply(&fleet, &closed(3)).await.unwrap();
    assert!(!result.is_converged());
    let world = fleet.world();
    assert_eq!(world.violations, Vec::<String>::new());
    assert_eq!(tried(&world), [(&host("node2"), AccessState::Refused)]);
    assert_eq!(world.end_state(), old.end_state(), "all is as it was");
    assert_eq!(world.writes.get(&format!("node1:{CONFIG}")), None);

    let plan = plan_now(&fleet, &closed(3)).await;
    assert_eq!(steps(&plan), Vec::<String>::new(), "it is not tried again");
    let held = holds(&plan);
    assert_eq!(held.len(), 3, "{held:#?}");
    let told =
        "needs a person: the access rules were tried on node2 and taken back: app does not get in";
    assert!(held.iter().all(|held| held.contains(told)), "{held:#?}");

    // Another wish is tried afresh, and the old one is at peace.
    settle(&fleet, &opened(3), 1).await;
    settle(&fleet, &fixture::desire(&spec(3, |_| {})), 1).await;
    assert_eq!(fleet.world().end_state(), old.end_state());
}

/// What the rules alone tell is not tried at all.
#[tokio::test(start_paused = true)]
async fn a_certain_lockout_is_not_tried() {
    let fleet = SimFleet::new(before(3).await);
    let desired = with(3, rule("all", HbaMethod::Reject));
    let plan = plan_now(&fleet, &desired).await;
    assert_eq!(steps(&plan), Vec::<String>::new());
    let held = holds(&plan);
    let told = "would lock out app to database app from 10.0.0.2, by `host all all all reject`";
    assert!(held.len() == 3 && held.iter().all(|held| held.contains(told)), "{held:#?}");
    let meant = HbaRule { deliberate: true, ..rule("all", HbaMethod::Reject) };
    settle(&fleet, &with(3, meant), 1).await;
    assert!(rules(&fleet.world(), "node1").contains("host all all all reject"));
}

#[tokio::test(start_paused = true)]
async fn without_a_replica_the_primary_proves_in_place() {
    for members in [1, 3] {
        let fleet = SimFleet::new(before(members).await);
        fleet.change(|world| {
            locks_out(world);
            for node in ["node2", "node3"].into_iter().take(members - 1) {
                world.server_mut(node).units.get_mut("patroni.service").unwrap().running = false;
            }
            world.settle();
        });
        // A member that has lived does not wait for a file that is held.
        let plan = plan_now(&fleet, &closed(members)).await;
        let starts = steps(&plan).iter().filter(|step| step.contains("patroni-member")).count();
        assert_eq!(starts, members - 1, "{:#?}", steps(&plan));
        assert!(steps(&plan)[0].contains("tried in place"), "{:#?}", steps(&plan));
        drop(apply(&fleet, &closed(members)).await.unwrap());
        let world = fleet.world();
        assert_eq!(world.violations, Vec::<String>::new());
        assert_eq!(tried(&world), [(&host("node1"), AccessState::Refused)]);
        assert!(!rules(&world, "node1").contains(GRANTED));
    }
}

/// What an operator that died leaves is finished by the next, whatever the file says by then.
#[tokio::test(start_paused = true)]
async fn a_trial_that_was_cut_off_is_finished() {
    let old = before(3).await;
    for position in [Position::Inside, Position::Late] {
        for then in [
            closed(3),
            opened(3),
            fixture::desire(&spec(3, |_| {})),
            with(3, rule("all", HbaMethod::Reject)),
        ] {
            let fleet = SimFleet::with_faults(old.clone(), Faults::crash(1, position));
            fleet.change(locks_out);
            let wish = closed(3);
            tokio::select! {
                biased;
                _ = apply(&fleet, &wish) => panic!("it was to be killed"),
                () = fleet.crashed() => {}
            }
            assert_eq!(tried(&fleet.world()), [(&host("node2"), AccessState::Trying)]);
            fleet.restart();
            let plan = plan_now(&fleet, &then).await;
            assert!(steps(&plan)[0].contains("was cut off here"), "{:#?}", steps(&plan));
            drop(apply(&fleet, &then).await.unwrap());
            let world = fleet.world();
            assert_eq!(world.violations, Vec::<String>::new());
            for node in ["node1", "node2", "node3"] {
                assert!(!rules(&world, node).contains(GRANTED), "{node}");
            }
            assert!(
                !world.servers[&host("node2")].files.keys().any(|path| path.ends_with(".before"))
            );
            assert!(steps(&plan_now(&fleet, &then).await).is_empty());
        }
    }
}

/// Also where drift is only reported: it is no drift what a trial of ours left.
#[tokio::test(start_paused = true)]
async fn what_a_trial_left_is_no_drift() {
    let reports = |own: &[HbaRule]| {
        fixture::desire(&spec(3, |spec| {
            spec.policy.drift.files = Drift::Report;
            spec.postgresql.hba.extend(own.iter().cloned());
        }))
    };
    let (old, new) = (reports(&[]), reports(&[rule(GRANTED, HbaMethod::Reject)]));
    let fleet = SimFleet::new(converged(&old).await);
    fleet.fail(Faults::crash(1, Position::Late));
    fleet.change(locks_out);
    tokio::select! {
        biased;
        _ = apply(&fleet, &new) => panic!("it was to be killed"),
        () = fleet.crashed() => {}
    }
    fleet.restart();
    settle(&fleet, &old, 1).await;
    assert!(!rules(&fleet.world(), "node2").contains(GRANTED));
    assert_eq!(fleet.world().violations, Vec::<String>::new());
}

/// What somebody did by hand on the primary of a cluster that was founded without a trial.
#[tokio::test(start_paused = true)]
async fn rules_that_no_note_speaks_of_hold_nothing_for_good() {
    let plain = || spec(3, |_| {});
    let by_hand = |world: &mut World, path: &str, from: &str, to: &str| {
        let file = world.server_mut("node1").files.get_mut(path).unwrap();
        let text = file.text().replacen(from, to, 1);
        assert_ne!(text, file.text());
        file.bytes = text.into_bytes();
    };
    let old = before(3).await;
    assert_eq!(tried(&old), []);

    // A line in its patroni.yml, and loaded.
    let desired = fixture::desire(&plain());
    let fleet = SimFleet::new(old.clone());
    fleet.change(|world| {
        let line = "  pg_hba:\n    - host all all 10.9.9.9/32 scram-sha-256\n";
        by_hand(world, CONFIG, "  pg_hba:\n", line);
        world.settle();
    });
    assert!(rules(&fleet.world(), "node1").contains("10.9.9.9/32"));
    settle(&fleet, &desired, 1).await;
    let world = fleet.world();
    assert_eq!(world.violations, Vec::<String>::new());
    assert_eq!(world.end_state(), old.end_state());
    assert_eq!(tried(&world), [(&host("node2"), AccessState::Proven)]);

    // A comment in pg_hba.conf itself, which nobody mends, and later a new password.
    let mut values = fixture::secrets(&plain());
    values.insert("postgres-replication".to_owned(), SecretText::new("another-value-for-it"));
    let desired = make(&plain(), &values).unwrap();
    let fleet = SimFleet::new(old);
    fleet.change(|world| {
        by_hand(world, RULES, "\n", "\n# by hand\n");
        world.settle();
    });
    assert!(rules(&fleet.world(), "node1").contains("# by hand"));
    settle(&fleet, &desired, 1).await;
    let world = fleet.world();
    assert_eq!(world.violations, Vec::<String>::new());
    assert_eq!(tried(&world), [(&host("node2"), AccessState::Proven)]);
    for node in ["node1", "node2", "node3"] {
        let file = world.servers[&host(node)].files[CONFIG].text();
        assert!(file.contains("another-value-for-it"), "{node}");
    }
}

/// A new password in the same file comes after the rules, and only if they hold.
#[tokio::test(start_paused = true)]
async fn a_password_in_the_same_file_does_not_come_with_the_trial() {
    let rotated = |own: HbaRule| {
        let spec = spec(3, |spec| spec.postgresql.hba.push(own));
        let mut values = fixture::secrets(&spec);
        let name = "postgres-replication".to_owned();
        values.insert(name, SecretText::new("another-value-for-it"));
        make(&spec, &values).unwrap()
    };
    let password = |world: &World| {
        let database = world.databases.values().next().unwrap();
        database.sql.roles["replicator"].password_digest.clone()
    };
    let old = before(3).await;
    let fleet = SimFleet::new(old.clone());
    fleet.change(locks_out);
    drop(apply(&fleet, &rotated(rule(GRANTED, HbaMethod::Reject))).await.unwrap());
    assert_eq!(password(&fleet.world()), password(&old));
    assert_eq!(fleet.world().end_state(), old.end_state());

    let fleet = SimFleet::new(old.clone());
    let desired = rotated(rule("report", HbaMethod::ScramSha256));
    settle(&fleet, &desired, 1).await;
    assert_ne!(password(&fleet.world()), password(&old));
    let own = fleet.world().servers[&host("node2")].files[CONFIG].text();
    assert!(own.contains("another-value-for-it"));
    let workload =
        Workload { name: "rules and a password", before: old, disturb: nothing, desired };
    every_crash(&workload).await;
}

#[tokio::test(start_paused = true)]
async fn it_survives_a_crash_at_every_effect() {
    for members in [1, 3] {
        let workload = Workload {
            name: "access rules",
            before: before(members).await,
            disturb: nothing,
            desired: opened(members),
        };
        every_crash(&workload).await;
    }
}

/// Through every crash and lost answer, rules that lock somebody out end where they began.
#[tokio::test(start_paused = true)]
async fn a_lockout_is_taken_back_through_every_crash() {
    let old = before(3).await;
    for effect in 1..=2 {
        for position in [Position::Before, Position::Inside, Position::Late, Position::After] {
            let fleet = SimFleet::with_faults(old.clone(), Faults::crash(effect, position));
            fleet.change(locks_out);
            let wish = closed(3);
            tokio::select! {
                biased;
                _ = apply(&fleet, &wish) => {}
                () = fleet.crashed() => fleet.restart(),
            }
            drop(apply(&fleet, &closed(3)).await.unwrap());
            let world = fleet.world();
            assert_eq!(world.violations, Vec::<String>::new(), "{position:?} {effect}");
            assert_eq!(world.end_state(), old.end_state(), "{position:?} {effect}");
            assert!(steps(&plan_now(&fleet, &closed(3)).await).is_empty());
        }
    }
}
