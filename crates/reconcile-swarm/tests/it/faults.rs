//! What goes wrong between us and an engine, and what is said of it.

use std::time::Duration;

use reconcile_core::{
    action::{SwarmAction, SwarmFile},
    model::{Content, HostName},
    ports::{EffectError, Retry},
    probe::SwarmRequest,
};
use serde_json::json;

use crate::fake::{Fake, blank};

async fn look(fake: &Fake) -> Result<reconcile_core::model::SwarmFacts, EffectError> {
    fake.client().observe(&"node1".into(), &SwarmRequest::default()).await
}

async fn act(fake: &Fake, action: SwarmAction) -> Result<(), EffectError> {
    fake.client().apply(&HostName::new("node1"), &action, Duration::from_secs(3)).await
}

#[tokio::test]
async fn the_dialers_own_words_reach_the_error() {
    let fake = Fake::manager();
    fake.go_down("no route to host");
    let error = look(&fake).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "observe the Swarm through node1: reach the Docker API on node1: no route to host"
    );
    assert_eq!(error.retry, Retry::Later);
    // Through bollard as well.
    let remove = SwarmAction::RemoveConfig { name: "x".to_owned() };
    assert!(act(&fake, remove).await.unwrap_err().cause.ends_with("no route to host"));
}

#[tokio::test]
async fn every_request_carries_the_negotiated_version() {
    for (daemon, wire) in [("1.41", "/v1.41/"), ("1.44", "/v1.44/"), ("1.52", "/v1.45/")] {
        let fake = Fake::manager();
        fake.now("GET /version", 200, json!({"ApiVersion": daemon, "MinAPIVersion": "1.24"}));
        fake.on("POST /swarm/init", 200, json!("node-id"));
        fake.on("GET /info", 200, json!({"Swarm": {"LocalNodeState": "inactive"}}));
        look(&fake).await.unwrap();
        // bollard sends no version of its own accord.
        let labels = [("reconcile.io/cluster".to_owned(), "demo".to_owned())].into();
        act(&fake, SwarmAction::Init { advertise: "192.0.2.1".to_owned(), labels }).await.unwrap();
        let asked = fake.asked();
        assert!(asked.iter().any(|asked| asked.line == format!("POST {wire}swarm/init")));
        for asked in asked.iter().filter(|asked| asked.line != "GET /version") {
            assert!(asked.line.contains(wire), "{}", asked.line);
        }
    }
}

#[tokio::test]
async fn an_engine_too_old_is_refused_and_one_with_a_high_floor_is_met_there() {
    let fake = Fake::manager();
    fake.now("GET /version", 200, json!({"ApiVersion": "1.40"}));
    let error = look(&fake).await.unwrap_err();
    assert_eq!(error.retry, Retry::AfterChange);
    assert!(error.cause.contains("at least 1.41"), "{error}");
    let fake = Fake::manager();
    fake.now("GET /version", 200, json!({"ApiVersion": "1.60", "MinAPIVersion": "1.48"}));
    look(&fake).await.unwrap();
    assert!(fake.asked().iter().any(|asked| asked.line == "GET /v1.48/nodes"));
}

#[tokio::test]
async fn the_version_is_asked_again_once_the_engine_refuses_it() {
    let fake = Fake::manager();
    fake.now("GET /nodes", 400, json!({"message": "client version 1.41 is too old"}));
    let client = fake.client();
    let (via, request) = ("node1".into(), SwarmRequest::default());
    client.observe(&via, &request).await.unwrap_err();
    fake.now("GET /nodes", 200, json!([]));
    client.observe(&via, &request).await.unwrap();
    client.observe(&via, &request).await.unwrap();
    assert_eq!(fake.asked().iter().filter(|asked| asked.line == "GET /version").count(), 2);
}

#[tokio::test]
async fn connections_are_kept_and_few() {
    let fake = Fake::manager();
    let client = fake.client();
    for _ in 0..5 {
        client.observe(&"node1".into(), &SwarmRequest::default()).await.unwrap();
    }
    assert!(fake.dials() <= 5, "{} dials", fake.dials());
}

#[tokio::test]
async fn statuses_tell_when_to_try_again() {
    for (status, message, retry) in [
        (503, "This node is not a swarm manager. Use \"docker swarm init\"", Retry::Soon),
        (503, "rpc error: code = Unknown desc = The swarm does not have a leader", Retry::Later),
        (500, "rpc error: code = DeadlineExceeded desc = context deadline exceeded", Retry::Later),
        (500, "rpc error: code = Unknown desc = update out of sequence", Retry::Soon),
        (500, "broken disk", Retry::Later),
        (404, "no such thing", Retry::Soon),
        (409, "name conflicts with an existing object", Retry::Soon),
        (400, "invalid thing", Retry::AfterChange),
    ] {
        let fake = Fake::manager();
        fake.now("GET /services", status, json!({"message": message}));
        let error = look(&fake).await.unwrap_err();
        assert_eq!(error.retry, retry, "{message}");
        // Of a lack of managers the engine says 60 words.
        let leaderless = message.contains("does not have a leader");
        let told = if leaderless { "the Swarm has no leader yet" } else { message };
        assert!(error.cause.contains(told), "{error}");
    }
}

#[tokio::test]
async fn nonsense_from_the_engine_is_said_to_be_that() {
    let fake = Fake::manager();
    fake.now("GET /nodes", 200, json!("surprise"));
    let error = look(&fake).await.unwrap_err();
    assert!(error.cause.starts_with("the engine's answer is not understood"), "{error}");
}

#[tokio::test]
async fn a_config_in_use_is_for_later_and_a_foreign_one_stays() {
    let fake = Fake::manager();
    let config = |labels| json!([{"ID": "c1", "CreatedAt": "2026", "Spec": {"Name": "app", "Labels": labels, "Data": "b2xk"}}]);
    fake.now("GET /configs", 200, config(json!({"reconcile.io/cluster": "demo"})));
    fake.on(
        "DELETE /configs/c1",
        400,
        json!({"message": "rpc error: code = InvalidArgument desc = config 'app' is in use by the following service: web"}),
    );
    let remove = || SwarmAction::RemoveConfig { name: "app".to_owned() };
    let error = act(&fake, remove()).await.unwrap_err();
    assert_eq!((error.retry, error.attempt.as_str()), (Retry::Later, "remove config app"));
    fake.now("GET /configs", 200, config(json!(null)));
    let error = act(&fake, remove()).await.unwrap_err();
    assert_eq!(error.retry, Retry::AfterChange);
    // Not there at all: done, and a name that only begins alike is another one.
    act(&fake, SwarmAction::RemoveConfig { name: "ap".to_owned() }).await.unwrap();
}

#[tokio::test]
async fn a_conflict_of_names_is_success_only_for_our_own_with_the_same_content() {
    let fake = Fake::manager();
    let file = |content: &str| SwarmFile {
        name: "app".to_owned(),
        content: Content::open(content),
        labels: [("reconcile.io/cluster".to_owned(), "demo".to_owned())].into(),
    };
    for path in ["configs", "secrets"] {
        fake.on(&format!("POST /{path}/create"), 409, json!({"message": "already exists"}));
        let there = json!([{"ID": "c1", "Spec": {"Name": "app", "Labels": {"reconcile.io/cluster": "demo"}, "Data": "b2xk"}}]);
        fake.now(&format!("GET /{path}"), 200, there);
    }
    act(&fake, SwarmAction::CreateConfig(file("old"))).await.unwrap();
    act(&fake, SwarmAction::CreateSecret(file("new"))).await.unwrap();
    let error = act(&fake, SwarmAction::CreateConfig(file("new"))).await.unwrap_err();
    assert_eq!(error.retry, Retry::AfterChange);
}

#[tokio::test]
async fn a_stale_version_and_a_lost_race_are_for_soon() {
    let fake = Fake::manager();
    let service = json!({"ID": "svc-1", "Version": {"Index": 9}, "Spec": {
        "Name": "db_front", "Labels": {"reconcile.io/cluster": "demo"}, "Mode": {"Global": {}},
        "TaskTemplate": {"ContainerSpec": {"Image": "old"}, "ForceUpdate": 4}}});
    fake.on("GET /services/db_front", 200, service);
    let spec = reconcile_core::model::ServiceSpec {
        digest: Some("sha256:0a".to_owned()),
        ..blank("db_front")
    };
    let update = |version| SwarmAction::UpdateService {
        spec: Box::new(spec.clone()),
        version,
        tasks: 2,
        waits: vec![],
        first: vec![],
        begins: false,
    };
    let error = act(&fake, update(8)).await.unwrap_err();
    assert_eq!(
        (error.retry, error.cause.as_str()),
        (Retry::Soon, "it was changed since it was looked at")
    );
    assert!(fake.bodies("POST /services/svc-1/update").is_empty());

    fake.on(
        "POST /services/svc-1/update",
        500,
        json!({"message": "rpc error: code = Unknown desc = update out of sequence"}),
    );
    let error = act(&fake, update(9)).await.unwrap_err();
    assert_eq!(error.retry, Retry::Soon);
    let sent = fake.bodies("POST /services/svc-1/update");
    assert_eq!(sent[0]["TaskTemplate"]["ForceUpdate"], 4);
    let query = fake.asked().last().unwrap().query.clone();
    assert!(query.contains("version=9"), "{query}");
}
