//! Services from the request to running tasks, and the Swarm's members.

use std::{collections::BTreeMap, time::Duration};

use reconcile_core::{
    action::SwarmAction,
    model::{HostName, ServiceSpec},
    ports::{EffectError, Retry},
};
use reconcile_swarm::{Ids, to_engine};
use serde_json::{Value, json};

use crate::fake::{Fake, blank, node, task};

fn spec() -> ServiceSpec {
    ServiceSpec { digest: Some("sha256:0a".to_owned()), ..blank("db_front") }
}

fn raw(spec: &ServiceSpec) -> Value {
    serde_json::to_value(to_engine(spec, &Ids::default()).unwrap()).unwrap()
}

fn service(spec: &Value, update: &str) -> Value {
    json!({"ID": "svc-1", "Version": {"Index": 9}, "Spec": spec, "UpdateStatus": {"State": update, "Message": "because"}})
}

async fn act(fake: &Fake, action: SwarmAction, seconds: u64) -> Result<(), EffectError> {
    fake.client().apply(&HostName::new("node1"), &action, Duration::from_secs(seconds)).await
}

fn create() -> SwarmAction {
    SwarmAction::CreateService { spec: Box::new(spec()), tasks: 2 }
}

fn labels(cluster: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("reconcile.io/cluster".to_owned(), cluster.to_owned())])
}

#[tokio::test]
async fn a_create_ends_when_the_tasks_run_steadily() {
    let fake = Fake::manager();
    let raw = raw(&spec());
    let template = &raw["TaskTemplate"];
    fake.on("GET /services/db_front", 404, json!({"message": "service db_front not found"}));
    fake.on("GET /services/db_front", 200, service(&raw, ""));
    fake.on("POST /services/create", 201, json!({"ID": "svc-1"}));
    let t = |id: &str, node: &str, at: &str, state: &str, desired: &str, err: &str| {
        task(id, node, &format!("2026-11-22T04:00:0{at}Z"), state, desired, err, template)
    };
    // A node rejects one task at first; a later one of it runs.
    let rejected =
        t("b1", "n2", "1", "rejected", "shutdown", "cannot create a swarm scoped network");
    fake.on(
        "GET /tasks",
        200,
        json!([t("a1", "n1", "1", "running", "running", ""), rejected.clone()]),
    );
    fake.on(
        "GET /tasks",
        200,
        json!([
            t("a1", "n1", "1", "running", "running", ""),
            rejected,
            t("b2", "n2", "2", "running", "running", ""),
        ]),
    );
    act(&fake, create(), 10).await.unwrap();
    let sent = fake.bodies("POST /services/create");
    assert_eq!(sent.len(), 1);
    assert_eq!(
        sent[0]["TaskTemplate"]["ContainerSpec"]["Image"],
        "registry.example/haproxy:2.6@sha256:0a"
    );
    // Once more, as after a crash: nothing is created again.
    act(&fake, create(), 10).await.unwrap();
    assert_eq!(fake.bodies("POST /services/create").len(), 1);
}

#[tokio::test]
async fn at_the_deadline_the_newest_errors_are_told_by_node() {
    let fake = Fake::manager();
    let raw = raw(&spec());
    let template = &raw["TaskTemplate"];
    fake.now(
        "GET /nodes",
        200,
        json!([
            node("n1", "node1", "ready"),
            node("n2", "node2", "ready"),
            node("n3", "node3", "down"),
        ]),
    );
    fake.on("GET /services/db_front", 200, service(&raw, ""));
    fake.now(
        "GET /tasks",
        200,
        json!([
            task("a1", "n1", "2026-1Z", "failed", "shutdown", "older", template),
            task("a2", "n1", "2026-2Z", "failed", "shutdown", "task: non-zero exit (1)", template),
            task("a3", "n1", "2026-3Z", "ready", "ready", "", template),
            task("b1", "n2", "2026-1Z", "rejected", "running", "No such image: x", template),
            task("c1", "n3", "2026-1Z", "running", "running", "", template),
        ]),
    );
    let wait = SwarmAction::AwaitService { name: "db_front".to_owned(), tasks: 3 };
    let error = act(&fake, wait, 1).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "wait for service db_front: 0 of 3 tasks run; node1: failed: task: non-zero exit (1); \
         node2: rejected: No such image: x; node node3 is down, active"
    );
    assert_eq!(error.retry, Retry::Later);
}

#[tokio::test]
async fn tasks_of_an_earlier_specification_do_not_count() {
    let fake = Fake::manager();
    let (now, before) = (raw(&spec()), raw(&ServiceSpec { user: "1".to_owned(), ..spec() }));
    fake.on("GET /services/db_front", 200, service(&now, ""));
    let old = task("a", "n1", "2026Z", "running", "running", "", &before["TaskTemplate"]);
    fake.now("GET /tasks", 200, json!([old]));
    let wait = SwarmAction::AwaitService { name: "db_front".to_owned(), tasks: 1 };
    assert!(act(&fake, wait, 2).await.unwrap_err().cause.starts_with("0 of 1 tasks run"));
}

#[tokio::test]
async fn an_update_that_is_rolled_back_says_why() {
    let fake = Fake::manager();
    let old = raw(&ServiceSpec { user: "1".to_owned(), ..spec() });
    let new = raw(&spec());
    fake.on("GET /services/db_front", 200, service(&old, "completed"));
    fake.on("GET /services/db_front", 200, service(&new, "updating"));
    fake.on("GET /services/db_front", 200, service(&old, "rollback_started"));
    fake.on("GET /services/db_front", 200, service(&old, "rollback_completed"));
    fake.on("POST /services/svc-1/update", 200, json!({"Warnings": null}));
    let long_ago =
        task("a0", "n1", "2026-0Z", "failed", "shutdown", "last year", &old["TaskTemplate"]);
    fake.on("GET /tasks", 404, json!({"message": "unused"}));
    fake.now("GET /tasks", 200, json!([long_ago.clone()]));
    fake.on(
        "GET /tasks",
        200,
        json!([
            long_ago,
            task(
                "a1",
                "n1",
                "2026-1Z",
                "failed",
                "shutdown",
                "task: non-zero exit (1)",
                &new["TaskTemplate"]
            ),
            task("a2", "n1", "2026-2Z", "running", "running", "", &old["TaskTemplate"]),
        ]),
    );
    let update = SwarmAction::UpdateService {
        spec: Box::new(spec()),
        version: 9,
        tasks: 1,
        waits: vec![],
        first: vec![],
        begins: false,
    };
    let error = act(&fake, update, 10).await.unwrap_err();
    assert_eq!(error.cause, "Swarm rolled the update back: node1: failed: task: non-zero exit (1)");
    assert_eq!(error.retry, Retry::AfterChange);
}

#[tokio::test]
async fn an_unknown_image_is_named_before_anything_is_created() {
    let fake = Fake::manager();
    let spec = ServiceSpec { digest: None, ..spec() };
    let action = SwarmAction::CreateService { spec: Box::new(spec.clone()), tasks: 1 };
    fake.on("GET /services/db_front", 404, json!({"message": "not found"}));
    let distribution = format!("GET /distribution/{}/json", spec.image);
    fake.on(&distribution, 404, json!({"message": "manifest unknown"}));
    let error = act(&fake, action, 3).await.unwrap_err();
    assert!(
        error.cause.starts_with("image registry.example/haproxy:2.6 not found in its registry"),
        "{error}"
    );
    assert_eq!(error.retry, Retry::AfterChange);
    assert!(fake.bodies("POST /services/create").is_empty());
}

#[tokio::test]
async fn a_service_of_somebody_else_is_left_alone() {
    let fake = Fake::manager();
    let foreign = raw(&ServiceSpec { labels: labels("other"), ..spec() });
    fake.on("GET /services/db_front", 200, service(&foreign, ""));
    for action in [
        create(),
        SwarmAction::UpdateService {
            spec: Box::new(spec()),
            version: 9,
            tasks: 2,
            waits: vec![],
            first: vec![],
            begins: false,
        },
    ] {
        let error = act(&fake, action, 3).await.unwrap_err();
        assert_eq!(error.retry, Retry::AfterChange, "{error}");
    }
    assert!(fake.asked().iter().all(|asked| asked.line.starts_with("GET")));
}

#[tokio::test]
async fn founding_is_idempotent_and_refuses_a_foreign_swarm_by_its_id() {
    let fake = Fake::manager();
    fake.on(
        "GET /info",
        200,
        json!({"Swarm": {"LocalNodeState": "active", "NodeID": "n1", "ControlAvailable": true}}),
    );
    let init =
        |cluster| SwarmAction::Init { advertise: "192.0.2.1".to_owned(), labels: labels(cluster) };
    act(&fake, init("demo"), 3).await.unwrap();
    let error = act(&fake, init("other"), 3).await.unwrap_err();
    assert!(error.cause.contains("swarm-1"), "{error}");
    assert_eq!(error.retry, Retry::AfterChange);
    assert!(fake.bodies("POST /swarm/init").is_empty());
}

#[tokio::test]
async fn labelling_keeps_what_it_does_not_know() {
    let fake = Fake::manager();
    fake.on("POST /swarm/update", 200, json!(null));
    act(&fake, SwarmAction::Label { labels: labels("demo") }, 3).await.unwrap();
    assert!(fake.bodies("POST /swarm/update").is_empty());
    let mut more = labels("demo");
    more.insert("stack".to_owned(), "db".to_owned());
    act(&fake, SwarmAction::Label { labels: more }, 3).await.unwrap();
    let sent = &fake.bodies("POST /swarm/update")[0];
    assert_eq!((&sent["Future"]["x"], &sent["Labels"]["stack"]), (&json!(1), &json!("db")));
    assert_eq!(fake.asked().last().unwrap().query, "version=7");
    let error = act(&fake, SwarmAction::Label { labels: labels("other") }, 3).await.unwrap_err();
    assert_eq!(error.retry, Retry::AfterChange);
}

#[tokio::test]
async fn a_member_of_another_swarm_does_not_join() {
    let fake = Fake::manager();
    fake.on("GET /info", 200, json!({"Swarm": {"LocalNodeState": "active", "NodeID": "stranger"}}));
    fake.on("GET /nodes/stranger", 404, json!({"message": "node stranger not found"}));
    let join = SwarmAction::Join {
        advertise: "192.0.2.2".to_owned(),
        manager: false,
        via: "node1".into(),
        remote: vec![],
    };
    let error = act(&fake, join, 3).await.unwrap_err();
    assert!(error.cause.contains("in another Swarm"), "{error}");
    assert_eq!(error.retry, Retry::AfterChange);
    assert!(fake.bodies("POST /swarm/join").is_empty());
}

#[tokio::test]
async fn a_role_change_keeps_the_nodes_labels_and_its_version() {
    let fake = Fake::manager();
    let mut worker = node("n2", "node2", "ready");
    worker["Spec"]["Role"] = "worker".into();
    worker["ManagerStatus"] = Value::Null;
    fake.on("GET /nodes/n2", 200, worker);
    fake.on("GET /nodes/n2", 200, node("n2", "node2", "ready"));
    fake.on("POST /nodes/n2/update", 200, json!(null));
    act(&fake, SwarmAction::SetRole { node_id: "n2".to_owned(), manager: true }, 3).await.unwrap();
    let sent = &fake.bodies("POST /nodes/n2/update")[0];
    assert_eq!((&sent["Role"], &sent["Labels"]["keep"]), (&json!("manager"), &json!("me")));
}
