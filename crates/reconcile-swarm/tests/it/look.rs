//! What is made of a manager's answers.

use std::{collections::BTreeSet, future::Future};

use futures::StreamExt;
use reconcile_core::{
    model::{HostName, NetworkAttachment, Observation, ServiceSpec, SwarmFacts},
    probe::SwarmRequest,
};
use reconcile_swarm::{Hint, Ids, SwarmClient, to_engine};
use serde_json::{Value, json};

use crate::fake::{Fake, blank, node, task};

const DIGEST: &str = "sha256:0a";

fn service(spec: &ServiceSpec) -> Value {
    let spec = to_engine(spec, &Ids::default()).unwrap();
    json!([{"ID": "svc-1", "Version": {"Index": 12}, "Spec": spec, "UpdateStatus": {"State": "completed"}}])
}

fn front() -> ServiceSpec {
    ServiceSpec { digest: Some(DIGEST.to_owned()), ..blank("db_front") }
}

fn request() -> SwarmRequest {
    SwarmRequest {
        services: BTreeSet::from(["db_front".to_owned(), "db_none".to_owned()]),
        images: BTreeSet::from([front().image]),
    }
}

async fn look(fake: &Fake) -> SwarmFacts {
    fake.client().observe(&"node1".into(), &request()).await.unwrap()
}

#[test]
fn futures_can_move_between_threads() {
    fn send<T: Send>(_: impl FnOnce(&'static SwarmClient) -> T) {}
    fn sent(client: &'static SwarmClient) -> impl Future + Send {
        async {
            let host = HostName::new("node1");
            drop(client.observe(&host, &SwarmRequest::default()).await);
            let name = String::new();
            let action = reconcile_core::action::SwarmAction::AwaitService { name, tasks: 0 };
            drop(client.apply(&host, &action, std::time::Duration::ZERO).await);
            drop(client.events(&host).await);
        }
    }
    send(sent);
}

#[tokio::test]
async fn only_the_newest_task_of_a_place_counts_and_only_on_a_ready_node() {
    let fake = Fake::manager();
    fake.now(
        "GET /nodes",
        200,
        json!([
            node("n1", "node1", "ready"),
            node("n2", "node2", "ready"),
            node("n3", "node3", "down"),
            node("n4", "node4", "ready"),
        ]),
    );
    fake.now("GET /services", 200, service(&front()));
    let spec = json!({});
    let t = |id: &str, node: &str, at: &str, state: &str, desired: &str, err: &str| {
        task(id, node, &format!("2026-11-22T04:00:0{at}Z"), state, desired, err, &spec)
    };
    fake.now(
        "GET /tasks",
        200,
        json!([
            t("a1", "n1", "0", "shutdown", "shutdown", ""),
            t("a2", "n1", "1", "running", "running", ""),
            t("b1", "n2", "1.1", "rejected", "shutdown", "No such image: x"),
            t("b2", "n2", "1.12", "preparing", "running", ""),
            t("c1", "n3", "1", "running", "shutdown", ""),
            t("d1", "n4", "1", "complete", "shutdown", ""),
        ]),
    );
    let facts = look(&fake).await;
    let fact = &facts.services["db_front"];
    let seen: Vec<_> = fact
        .tasks
        .iter()
        .map(|task| (task.node_id.as_str(), task.state.as_str(), task.message.as_str()))
        .collect();
    assert_eq!(
        seen,
        [("n1", "running", "started"), ("n2", "preparing", "rejected: No such image: x"),]
    );
    assert_eq!((fact.version, fact.update_state.as_str()), (12, "completed"));

    // Swarm goes on wanting, and reporting, a task on a node that it lost a moment ago.
    fake.now("GET /tasks", 200, json!([t("c1", "n3", "1", "running", "running", "")]));
    let facts = look(&fake).await;
    let lost = &facts.services["db_front"].tasks[0];
    assert_eq!((lost.state.as_str(), lost.message.as_str()), ("unknown", "node node3 is down"));
}

#[tokio::test]
async fn tasks_are_asked_for_by_the_ids_of_services_that_exist() {
    let fake = Fake::manager();
    look(&fake).await;
    assert!(fake.asked().iter().all(|asked| !asked.line.ends_with("/tasks")));
    fake.now("GET /services", 200, service(&front()));
    look(&fake).await;
    let asked = fake.asked();
    let tasks = asked.iter().find(|asked| asked.line.ends_with("/tasks")).unwrap();
    assert_eq!(tasks.query, "filters=%7B%22service%22%3A%5B%22svc-1%22%5D%7D");
}

#[tokio::test]
async fn a_running_service_of_ours_pins_its_digest_else_the_registry_is_asked() {
    let fake = Fake::manager();
    let image = front().image;
    let distribution = format!("GET /distribution/{image}/json");
    fake.on(&distribution, 200, json!({"Descriptor": {"mediaType": "x", "digest": "sha256:0b"}}));
    assert_eq!(look(&fake).await.images[&image], Observation::Known("sha256:0b".to_owned()));

    fake.now("GET /services", 200, service(&front()));
    let running = task("a", "n1", "2026", "running", "running", "", &json!({}));
    fake.now("GET /tasks", 200, json!([running]));
    assert_eq!(look(&fake).await.images[&image], Observation::Known(DIGEST.to_owned()));

    // Nothing runs: the registry's word, and the pin again where it has none.
    fake.now("GET /tasks", 200, json!([]));
    assert_eq!(look(&fake).await.images[&image], Observation::Known("sha256:0b".to_owned()));
    fake.now(&distribution, 500, json!({"message": "registry is off"}));
    assert_eq!(look(&fake).await.images[&image], Observation::Known(DIGEST.to_owned()));

    fake.now("GET /services", 200, json!([]));
    let reason = look(&fake).await.images[&image].reason().unwrap().to_owned();
    assert!(reason.contains("registry is off"), "{reason}");
}

#[tokio::test]
async fn predefined_networks_are_named_by_their_id_in_the_swarm_once() {
    let fake = Fake::manager();
    let host = NetworkAttachment { network: "host-id".to_owned(), aliases: vec![] };
    fake.now("GET /services", 200, service(&ServiceSpec { networks: vec![host], ..front() }));
    fake.on(
        "GET /networks/host-id",
        200,
        json!({"Name": "host", "Id": "host-id", "Driver": "host"}),
    );
    let client = fake.client();
    for _ in 0..2 {
        let facts = client.observe(&"node1".into(), &request()).await.unwrap();
        assert_eq!(facts.services["db_front"].spec.networks[0].network, "host");
    }
    let asked = fake.asked();
    let asked: Vec<_> = asked.iter().filter(|asked| asked.line.ends_with("host-id")).collect();
    assert_eq!((asked.len(), asked[0].query.as_str()), (1, "scope=swarm"));
}

#[tokio::test]
async fn words_and_shapes_of_the_future_are_tolerated() {
    let fake = Fake::manager();
    let mut odd = node("n1", "node1", "hibernating");
    odd["Spec"]["Availability"] = "sometimes".into();
    odd["ManagerStatus"] = Value::Null;
    odd["Status"]["Addr"] = "0.0.0.0".into();
    fake.now("GET /nodes", 200, json!([odd]));
    let mut list = service(&front());
    list[0]["UpdateStatus"]["State"] = "reconsidering".into();
    list[0]["Spec"]["TaskTemplate"]["ContainerSpec"]["Isolation"] = "moon".into();
    list.as_array_mut()
        .unwrap()
        .push(json!({"ID": "j", "Spec": {"Name": "job", "Mode": {"GlobalJob": {}}}}));
    fake.now("GET /services", 200, list);
    fake.now(
        "GET /tasks",
        200,
        json!([task("a", "n1", "2026", "pondering", "running", "", &json!({}))]),
    );
    fake.now("GET /networks", 200, json!([
        {"Name": "net", "Id": "1", "Driver": "bridge", "Scope": "local", "IPAM": {"Config": null}},
        {"Name": "net", "Id": "2", "Driver": "overlay", "Scope": "swarm", "Attachable": true,
         "Options": {"encrypted": ""}, "IPAM": {"Config": [{"Subnet": "10.9.0.0/24"}]}, "Labels": null},
        {"Name": "net", "Id": "3", "Driver": "bridge", "Scope": "local", "Options": null, "IPAM": null},
    ]));
    let facts = look(&fake).await;
    assert_eq!(facts.nodes["n1"].state, "hibernating");
    assert_eq!(facts.services["db_front"].tasks[0].state, "pondering");
    assert_eq!(facts.services["db_front"].update_state, "reconsidering");
    let network = &facts.networks["net"];
    assert_eq!((network.id.as_str(), network.encrypted, network.attachable), ("2", true, true));
    assert_eq!(facts.cluster_id, "swarm-1");
}

#[tokio::test]
async fn events_become_hints_and_noise_is_passed_over() {
    let fake = Fake::manager();
    let lines = [
        json!({"Type": "service", "Action": "update", "Actor": {"ID": "s", "Attributes": {"name": "db_front"}}, "scope": "swarm"}),
        json!({"Type": "container", "Action": "exec_start: sh", "Actor": {"ID": "c", "Attributes": {"name": "x"}}}),
        json!("nonsense"),
        json!({"Type": "container", "Action": "die", "Actor": {"ID": "c", "Attributes":
            {"name": "db_front.1", "com.docker.swarm.service.name": "db_front"}}}),
        json!({"Type": "galaxy", "Action": "born", "Actor": {"ID": "g", "Attributes": null}}),
    ];
    let text = lines.map(|line| line.to_string() + "\n").concat();
    fake.raw("GET /events", &text);
    let client = fake.client();
    let hints: Vec<_> = client.events(&"node1".into()).await.unwrap().collect().await;
    let hint = |kind: &str, name: &str, action: &str| Hint {
        kind: kind.to_owned(),
        name: name.to_owned(),
        action: action.to_owned(),
    };
    assert_eq!(
        hints,
        [
            hint("service", "db_front", "update"),
            hint("container", "db_front", "die"),
            hint("galaxy", "g", "born"),
        ]
    );
}
