//! One node first: the marks of the others, and the way back.

use std::time::{Duration, Instant};

use reconcile_core::{
    action::SwarmAction,
    model::{HostName, ServiceSpec},
    ports::EffectError,
    probe::SwarmRequest,
};
use reconcile_swarm::{Ids, to_engine};
use serde_json::{Value, json};

use crate::fake::{Fake, blank, node, task};

const MARK: &str = "reconcile.io/waits-for-update";

fn spec(user: &str) -> ServiceSpec {
    ServiceSpec { digest: Some("sha256:0a".to_owned()), user: user.to_owned(), ..blank("db_front") }
}

fn raw(user: &str) -> Value {
    serde_json::to_value(to_engine(&spec(user), &Ids::default()).unwrap()).unwrap()
}

fn service(user: &str, update: &str) -> Value {
    json!({"ID": "svc-1", "Version": {"Index": 9}, "Spec": raw(user), "UpdateStatus": {"State": update, "Message": ""}})
}

fn held_back(availability: &str) -> Value {
    let mut held = node("n2", "node2", "ready");
    held["Spec"]["Availability"] = availability.into();
    held["Spec"]["Labels"][MARK] = "yes".into();
    held
}

async fn act(fake: &Fake, action: SwarmAction) -> Result<(), EffectError> {
    fake.client().apply(&HostName::new("node1"), &action, Duration::from_secs(5)).await
}

fn update() -> SwarmAction {
    SwarmAction::UpdateService {
        spec: Box::new(spec("2")),
        version: 9,
        tasks: 1,
        waits: vec!["n2".to_owned()],
        first: vec![HostName::new("node1")],
        begins: true,
    }
}

fn next() -> SwarmAction {
    SwarmAction::UpdateNode {
        node_id: "n2".to_owned(),
        services: vec!["db_front".to_owned()],
        steady_ms: 800,
        updated: vec![HostName::new("node1")],
        lost: false,
    }
}

#[tokio::test]
async fn nodes_are_marked_before_the_update_and_keep_their_own_labels() {
    let fake = Fake::manager();
    fake.on("GET /services/db_front", 200, service("1", ""));
    fake.on("GET /services/db_front", 200, service("2", "completed"));
    fake.on("GET /nodes/n2", 200, node("n2", "node2", "ready"));
    // A node's entry changes with each word from it.
    fake.on("POST /nodes/n2/update", 500, json!({"message": "rpc error: update out of sequence"}));
    fake.on("POST /nodes/n2/update", 200, json!(null));
    fake.on("POST /services/svc-1/update", 200, json!({"Warnings": null}));
    let runs = |user: &str, id: &str, on: &str| {
        task(id, on, "2026-1Z", "running", "running", "", &raw(user)["TaskTemplate"])
    };
    fake.now("GET /tasks", 200, json!([runs("2", "a", "n1"), runs("1", "b", "n2")]));
    act(&fake, update()).await.unwrap();
    let sent = fake.bodies("POST /nodes/n2/update");
    assert_eq!(sent.len(), 2);
    let (labels, availability) = (&sent[1]["Labels"], &sent[1]["Availability"]);
    assert_eq!(
        (&labels[MARK], &labels["keep"], availability),
        (&json!("yes"), &json!("me"), &json!("pause"))
    );
    let lines: Vec<_> = fake.asked().into_iter().map(|asked| asked.line).collect();
    let at =
        |part: &str| lines.iter().rposition(|line| line.starts_with("POST") && line.contains(part));
    assert!(at("/nodes/n2/update") < at("/services/svc-1/update"), "{lines:#?}");
}

#[tokio::test]
async fn nodes_are_let_go_where_the_update_is_refused() {
    let fake = Fake::manager();
    fake.on("GET /services/db_front", 200, service("1", ""));
    fake.on("GET /nodes/n2", 200, node("n2", "node2", "ready"));
    fake.on("GET /nodes/n2", 200, held_back("pause"));
    fake.on("POST /nodes/n2/update", 200, json!(null));
    fake.on("POST /services/svc-1/update", 400, json!({"message": "invalid"}));
    act(&fake, update()).await.unwrap_err();
    let sent = fake.bodies("POST /nodes/n2/update");
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[1]["Availability"], "active");
    assert_eq!(sent[1]["Labels"], json!({"keep": "me"}));
}

#[tokio::test]
async fn the_update_comes_to_a_node_when_its_mark_goes() {
    let fake = Fake::manager();
    fake.on("GET /nodes/n2", 200, held_back("pause"));
    fake.on("POST /nodes/n2/update", 200, json!(null));
    fake.on("GET /services/db_front", 200, service("2", "completed"));
    // That the first node has it says nothing of this one.
    let t = |id: &str, on: &str, user: &str| {
        task(id, on, "2026-1Z", "running", "running", "", &raw(user)["TaskTemplate"])
    };
    fake.on("GET /tasks", 404, json!({"message": "unused"}));
    fake.now("GET /tasks", 200, json!([t("a", "n1", "2"), t("b", "n2", "1")]));
    fake.on("GET /tasks", 200, json!([t("a", "n1", "2"), t("c", "n2", "2")]));
    let began = Instant::now();
    act(&fake, next()).await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(1200), "it must go on running for a while");
    // The mark goes when all is well, so that a failure leaves it.
    let sent = fake.bodies("POST /nodes/n2/update");
    assert_eq!(
        (&sent[0]["Availability"], &sent[0]["Labels"][MARK]),
        (&json!("active"), &json!("yes"))
    );
    assert_eq!(
        (&sent[1]["Availability"], &sent[1]["Labels"]),
        (&json!("active"), &json!({"keep": "me"}))
    );
}

#[tokio::test]
async fn a_node_that_somebody_drained_only_loses_the_mark() {
    let fake = Fake::manager();
    fake.on("GET /nodes/n2", 200, held_back("drain"));
    fake.on("POST /nodes/n2/update", 200, json!(null));
    act(&fake, next()).await.unwrap();
    assert_eq!(fake.bodies("POST /nodes/n2/update")[0]["Availability"], "drain");
    // Nor is a node activated that carries no mark of ours.
    let fake = Fake::manager();
    let mut paused = node("n2", "node2", "ready");
    paused["Spec"]["Availability"] = "pause".into();
    fake.on("GET /nodes/n2", 200, paused);
    act(&fake, next()).await.unwrap();
    assert!(fake.bodies("POST /nodes/n2/update").is_empty());
}

#[tokio::test]
async fn what_was_taken_back_is_known_by_its_newest_task() {
    let fake = Fake::manager();
    let t = |id: &str, at: &str, user: &str, state: &str, error: &str| {
        let desired = if state == "running" { "running" } else { "shutdown" };
        task(id, "n1", &format!("2026-{at}Z"), state, desired, error, &raw(user)["TaskTemplate"])
    };
    fake.now("GET /services", 200, json!([service("1", "rollback_completed")]));
    let given_up = async |tasks: Value| {
        fake.now("GET /tasks", 200, tasks);
        let request =
            SwarmRequest { services: ["db_front".to_owned()].into(), ..SwarmRequest::default() };
        let facts = fake.client().observe(&HostName::new("node1"), &request).await.unwrap();
        let given_up = facts.services["db_front"].given_up.clone().unwrap();
        (given_up.spec.user, given_up.cause)
    };
    // One of long ago that broke while another held its port is not what was tried.
    let old = t("x", "0", "0", "failed", "address in use");
    let (user, cause) = given_up(json!([
        old,
        t("a", "1", "1", "shutdown", ""),
        t("b", "2", "2", "shutdown", ""),
        t("c", "3", "1", "running", ""),
    ]))
    .await;
    assert_eq!((user.as_str(), cause.as_str()), ("2", "node1: it ran, and was taken back"));
    let (user, cause) = given_up(json!([
        old,
        t("b", "2", "2", "failed", "non-zero exit (1)"),
        t("d", "3", "2", "shutdown", ""),
        t("c", "4", "1", "running", ""),
    ]))
    .await;
    assert_eq!((user.as_str(), cause.as_str()), ("2", "node1: failed: non-zero exit (1)"));
}

#[tokio::test]
async fn what_is_half_way_goes_back_and_nothing_else_does() {
    let t = |id: &str, on: &str, user: &str, of: &str| {
        let mut task =
            task(id, on, "2026-1Z", "running", "running", "", &raw(user)["TaskTemplate"]);
        task["ServiceID"] = of.into();
        task
    };
    let there = |name: &str, update: &str, before: &str, cluster: &str| {
        let mut service = service("2", update);
        service["ID"] = name.into();
        service["Spec"]["Name"] = name.into();
        service["Spec"]["Labels"]["reconcile.io/cluster"] = cluster.into();
        service["PreviousSpec"] = raw(before);
        service
    };
    let world = |waiting: Value| {
        let fake = Fake::manager();
        fake.now("GET /nodes", 200, json!([node("n1", "node1", "ready"), waiting]));
        let services = [
            ("half", "completed", "1", "db"),
            // What ran on the node that waits has died.
            ("dead", "completed", "1", "db"),
            ("updating", "updating", "1", "db"),
            // All nodes have it.
            ("whole", "completed", "1", "db"),
            // Docker remembers something else than what the others run.
            ("calm", "completed", "2", "db"),
            ("older", "completed", "3", "db"),
            ("back", "rollback_completed", "1", "db"),
            ("theirs", "completed", "1", "other"),
        ];
        let services = services.map(|(name, update, before, of)| there(name, update, before, of));
        fake.now("GET /services", 200, json!(services));
        let kept = |name: &str| if name == "whole" { "2" } else { "1" };
        let tasks = ["half", "dead", "updating", "whole", "calm", "older", "back", "theirs"];
        let tasks = tasks.map(|name| {
            let mut kept = t(&format!("b-{name}"), "n2", kept(name), name);
            if name == "dead" {
                kept["Status"]["State"] = "failed".into();
                kept["DesiredState"] = "shutdown".into();
            }
            [t("a", "n1", "2", name), kept]
        });
        fake.now("GET /tasks", 200, json!(tasks.concat()));
        for name in ["half", "dead"] {
            let path = format!("GET /services/{name}");
            if name == "dead" {
                let gone = "rpc error: update out of sequence";
                fake.on("POST /services/dead/update", 500, json!({ "message": gone }));
                fake.on(&path, 200, there("dead", "completed", "1", "db"));
                fake.on(&path, 200, there("dead", "rollback_completed", "2", "db"));
            }
            fake.on(&format!("POST /services/{name}/update"), 200, json!({"Warnings": null}));
        }
        fake.on("GET /services/half", 200, there("half", "rollback_started", "2", "db"));
        fake.on("GET /services/half", 200, there("half", "rollback_completed", "2", "db"));
        fake
    };
    let host = HostName::new("node1");
    let within = Duration::from_secs(5);
    let fake = world(held_back("pause"));
    assert_eq!(fake.client().go_back(&host, "db", within).await.unwrap(), ["half", "dead"]);
    let asked = fake.asked();
    let posts: Vec<_> = asked.iter().filter(|asked| asked.line.starts_with("POST")).collect();
    assert_eq!(posts.len(), 3);
    assert!(posts[0].query.contains("version=9") && posts[0].query.contains("rollback=previous"));
    // No node waits: the update is over, or is none of this kind.
    for waiting in [node("n2", "node2", "ready"), held_back("active"), held_back("drain")] {
        let fake = world(waiting);
        assert!(fake.client().go_back(&host, "db", within).await.unwrap().is_empty());
        assert!(fake.asked().iter().all(|asked| asked.line.starts_with("GET")));
    }
}
