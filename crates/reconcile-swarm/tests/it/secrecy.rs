//! Join tokens and secrets leave no trace in logs, errors or Debug output.

use std::{sync::Mutex, time::Duration};

use reconcile_core::{
    action::{SwarmAction, SwarmFile},
    model::{Content, HostName},
    probe::SwarmRequest,
};
use serde_json::json;

use crate::fake::{Fake, node};

/// Keeps every record at the finest level, whatever filter the program would use.
struct Keep(Mutex<String>);

static LOG: Keep = Keep(Mutex::new(String::new()));

impl log::Log for Keep {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &log::Record<'_>) {
        let mut kept = self.0.lock().unwrap();
        kept.push_str(&format!("{} {}\n", record.target(), record.args()));
    }
    fn flush(&self) {}
}

#[tokio::test]
async fn tokens_and_secrets_are_never_logged() {
    log::set_logger(&LOG).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    let fake = Fake::manager();
    fake.on("GET /info", 200, json!({"Swarm": {"LocalNodeState": "inactive"}}));
    fake.on("GET /info", 200, json!({"Swarm": {"LocalNodeState": "active", "NodeID": "n2"}}));
    fake.on("GET /nodes/n2", 200, node("n2", "node2", "ready"));
    fake.on("POST /swarm/join", 200, json!(null));
    fake.on("POST /secrets/create", 201, json!({"ID": "s1"}));
    let client = fake.client();
    let join = |manager| SwarmAction::Join {
        advertise: "192.0.2.2".to_owned(),
        manager,
        via: "node1".into(),
        remote: vec!["192.0.2.1:2377".to_owned()],
    };
    let limit = Duration::from_secs(3);
    client.apply(&HostName::new("node2"), &join(true), limit).await.unwrap();
    let body = &fake.bodies("POST /swarm/join")[0];
    assert_eq!(body["JoinToken"], "SWMTKN-manager-canary");
    assert_eq!(body["ListenAddr"], "0.0.0.0:2377");
    let secret = SwarmAction::CreateSecret(SwarmFile {
        name: "userlist".to_owned(),
        content: Content::secret("secret-canary"),
        labels: [("reconcile.io/cluster".to_owned(), "demo".to_owned())].into(),
    });
    client.apply(&HostName::new("node1"), &secret, limit).await.unwrap();
    let facts = client.observe(&"node1".into(), &SwarmRequest::default()).await.unwrap();

    // What goes through bollard is seen here, so what is not seen did not go through it.
    let name = "seen".to_owned();
    fake.on("POST /swarm/init", 200, json!("n1"));
    fake.now("GET /info", 200, json!({"Swarm": {"LocalNodeState": "inactive"}}));
    let labels = [("reconcile.io/cluster".to_owned(), name.clone())].into();
    let init = SwarmAction::Init { advertise: "192.0.2.1".to_owned(), labels };
    drop(client.apply(&HostName::new("node1"), &init, limit).await);
    assert!(LOG.0.lock().unwrap().contains(&format!("\"reconcile.io/cluster\":\"{name}\"")));

    // An engine that repeats the token in its refusal.
    fake.now("GET /info", 200, json!({"Swarm": {"LocalNodeState": "inactive"}}));
    fake.now(
        "POST /swarm/join",
        400,
        json!({"message": "invalid join token SWMTKN-worker-canary"}),
    );
    let error = client.apply(&HostName::new("node2"), &join(false), limit).await.unwrap_err();
    assert!(error.cause.contains("invalid join token (token)"), "{error}");

    let seen = format!("{}{facts:?}{error:?}{secret:?}", LOG.0.lock().unwrap());
    // The word "secret-canary" in base64.
    for canary in ["SWMTKN", "secret-canary", "c2VjcmV0LWNhbmFyeQ"] {
        assert!(!seen.contains(canary), "{canary} in {seen}");
    }
}
