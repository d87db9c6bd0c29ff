//! No secret's value shows in anything that people or logs see.

use reconcile_core::{
    action::HostAction, desired::Desired, plan::text, status::status, verify::VerifyReport,
};
use reconcile_sim::{World, fixture};

use crate::plans::checked;

/// Every secret of the fixture holds this word; every password in PostgreSQL starts like that.
const NEVER: [&str; 2] = ["canary-", "SCRAM-SHA-256$"];

fn silent(what: &str, shown: &str) {
    for word in NEVER {
        if let Some(at) = shown.find(word) {
            let from = at.saturating_sub(80);
            panic!("{what} shows a secret: …{}…", shown.get(from..at).unwrap_or_default());
        }
    }
}

fn everything(desired: &Desired, world: &World) {
    let plan = checked(desired, world);
    let observed = world.observe(desired);
    silent("plan text", &text(&plan, true));
    silent("plan JSON", &serde_json::to_string(&plan).unwrap());
    silent("Debug of the plan", &format!("{plan:?}"));
    silent("Debug of the desired state", &format!("{desired:?}"));
    silent("JSON of the desired state", &serde_json::to_string(desired).unwrap());
    silent("Debug of the observations", &format!("{observed:?}"));
    silent("JSON of the observations", &serde_json::to_string(&observed).unwrap());
    let status = status(desired, &observed, &plan, Some(VerifyReport::default()));
    silent("Debug of the status", &format!("{status:?}"));
    silent("JSON of the status", &serde_json::to_string(&status).unwrap());
}

#[test]
fn secrets_stay_secret() {
    let spec = fixture::spec(3, 0, |_| {});
    let desired = fixture::desire(&spec);
    // The canary is alive: the files and statements do hold the values.
    let held = desired.servers.values().flat_map(|server| server.files.values()).any(|file| {
        file.file.content.is_secret()
            && String::from_utf8_lossy(file.file.content.bytes()).contains("canary-")
    });
    assert!(held);
    let bare = World::bare(&desired);
    let statements = checked(&desired, &bare).steps.into_iter().any(|step| {
        matches!(step.action, reconcile_core::action::Action::Host(_, HostAction::Sql { sql, .. })
            if String::from_utf8_lossy(sql.bytes()).contains("SCRAM-SHA-256$"))
    });
    assert!(statements);

    everything(&desired, &bare);
    let world = World::converged(&desired);
    everything(&desired, &world);
    // Drift of everything that holds a secret, once by hand and once by rotation.
    let mut drifted = world.clone();
    for server in drifted.servers.values_mut() {
        let file = server.files.get_mut("/etc/patroni/patroni.yml").unwrap();
        file.bytes.extend_from_slice(b"# canary-by-hand\n");
    }
    for database in drifted.databases.values_mut() {
        database.sql.roles.get_mut("app").unwrap().password_digest = None;
    }
    everything(&desired, &drifted);
    let rotated = fixture::secrets(&spec)
        .into_iter()
        .map(|(name, value)| {
            let value = format!("{}-rotated", value.expose());
            (name, reconcile_core::model::SecretText::new(value))
        })
        .collect();
    everything(&reconcile_core::desired::desired(&spec, &rotated).unwrap(), &world);
}
