//! A password that stands in several places changes in all of them in one run, or in none.

use reconcile_core::{
    desired::{Desired, desired as make},
    model::SecretText,
};
use reconcile_sim::{Reach, SimFleet, World, fixture};
use reconcile_spec::{ClusterSpec, valid::Permission};

use crate::run::{apply, converged, holds, plan_now, settle};

/// Secrets of the system, and the roles whose passwords they are.
const SYSTEM: [(&str, &str); 4] = [
    ("pgbouncer-auth", "pgbouncer"),
    ("postgres-replication", "replicator"),
    ("postgres-rewind", "rewind"),
    ("postgres-superuser", "postgres"),
];

fn rotated(spec: &ClusterSpec, secret: &str) -> Desired {
    let mut values = fixture::secrets(spec);
    let value = values.get_mut(secret).expect("the fixture has it");
    *value = SecretText::new("another-value-for-it".to_owned());
    make(spec, &values).unwrap()
}

fn password(world: &World, role: &str) -> String {
    let database = world.databases.values().next().unwrap();
    database.sql.roles[role].password_digest.clone().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_new_password_reaches_the_role_and_its_users() {
    let spec = fixture::spec(3, 0, |_| {});
    let before = converged(&fixture::desire(&spec)).await;
    for (secret, role) in SYSTEM {
        let after = rotated(&spec, secret);
        let fleet = SimFleet::new(before.clone());
        settle(&fleet, &after, 1).await;
        assert_ne!(password(&fleet.world(), role), password(&before, role), "{secret}");
        assert_eq!(fleet.world().violations, Vec::<String>::new());
        assert!(plan_now(&fleet, &after).await.is_converged());
    }
}

#[tokio::test(start_paused = true)]
async fn it_reaches_nobody_while_one_of_them_cannot_be_told() {
    let spec = fixture::spec(3, 0, |_| {});
    let before = converged(&fixture::desire(&spec)).await;
    for (secret, role) in SYSTEM {
        let after = rotated(&spec, secret);
        let fleet = SimFleet::new(before.clone());
        fleet.change(|world| world.server_mut("node3").reach = Reach::Silent);
        drop(apply(&fleet, &after).await.unwrap());
        assert_eq!(password(&fleet.world(), role), password(&before, role), "{secret}");
        let held = holds(&plan_now(&fleet, &after).await);
        let told = format!("role/{role}: waits for ");
        assert!(held.iter().any(|held| held.starts_with(&told)), "{secret}: {held:#?}");
        // As soon as the server answers.
        fleet.change(|world| world.server_mut("node3").reach = Reach::Answers);
        settle(&fleet, &after, 1).await;
        assert_ne!(password(&fleet.world(), role), password(&before, role), "{secret}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_keeps_the_poolers_keeps_their_password() {
    let never = fixture::spec(3, 0, |spec| spec.policy.restart = Permission::Never);
    let before = converged(&fixture::desire(&fixture::spec(3, 0, |_| {}))).await;
    let after = rotated(&never, "pgbouncer-auth");
    let fleet = SimFleet::new(before.clone());
    drop(apply(&fleet, &after).await.unwrap());
    assert_eq!(password(&fleet.world(), "pgbouncer"), password(&before, "pgbouncer"));
    let held = holds(&plan_now(&fleet, &after).await);
    assert!(held.iter().any(|held| held.starts_with("role/pgbouncer: waits for ")), "{held:#?}");
}

/// Between the role and its poolers nothing else has its turn.
#[tokio::test(start_paused = true)]
async fn the_poolers_follow_at_once() {
    let changed = fixture::spec(3, 0, |spec| spec.etcd.heartbeat_ms = 150);
    let before = converged(&fixture::desire(&fixture::spec(3, 0, |_| {}))).await;
    let after = rotated(&changed, "pgbouncer-auth");
    let fleet = SimFleet::new(before);
    settle(&fleet, &after, 1).await;
    let effects = fleet.effects();
    let role = effects.iter().position(|effect| effect.contains("Sql")).unwrap();
    let etcd = effects.iter().rposition(|effect| effect.contains("/etc/default/etcd")).unwrap();
    assert!(etcd < role, "{effects:#?}");
}
