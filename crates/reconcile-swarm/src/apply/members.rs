//! The Swarm itself and its nodes.

use std::collections::BTreeMap;

use bollard::models::{SwarmInitRequest, SwarmSpec};
use reconcile_core::ports::{EffectError, Retry};
use serde_json::{Value, json};

use super::Task;
use crate::{
    engine::{Engine, escape, filters},
    fault::Fault,
    labels::{CLUSTER, same_cluster},
    wire::{Info, LocalSwarm, Node, Swarm, Tokens, Version},
};

const LISTEN: &str = "0.0.0.0:2377";

type Labels = BTreeMap<String, String>;

/// Founds a Swarm, labelled from the start.
pub(super) async fn init(
    task: &Task<'_>,
    advertise: &str,
    labels: &Labels,
) -> Result<(), EffectError> {
    let local = local(task.engine).await.map_err(task.failed())?;
    if local.local_node_state == "inactive" {
        let request = SwarmInitRequest {
            listen_addr: Some(LISTEN.to_owned()),
            advertise_addr: Some(advertise.to_owned()),
            spec: Some(SwarmSpec {
                labels: Some(labels.clone().into_iter().collect()),
                ..SwarmSpec::default()
            }),
            ..SwarmInitRequest::default()
        };
        task.engine.call(|docker| docker.init_swarm(request)).await.map_err(task.failed())?;
    } else {
        refuse_unless_member(task, &local)?;
        if !local.control_available {
            let cause = format!(
                "the server is a worker (node {}) of a Swarm that somebody else founded",
                local.node_id
            );
            return Err(task.error(cause, Retry::AfterChange));
        }
    }
    let swarm: Swarm = task.engine.get("/swarm").await.map_err(task.failed())?;
    if same_cluster(&swarm.spec.labels, labels) {
        return Ok(());
    }
    let owner = match swarm.spec.labels.get(CLUSTER) {
        Some(cluster) => format!("belongs to cluster {cluster}"),
        None => "is none of ours".to_owned(),
    };
    let cause = format!("the server is a manager of Swarm {} already, which {owner}", swarm.id);
    Err(task.error(cause, Retry::AfterChange))
}

/// Adds labels to the Swarm. Its specification goes back as it came, word by word, so that nothing
/// in it that we do not know is lost.
pub(super) async fn label(task: &Task<'_>, labels: &Labels) -> Result<(), EffectError> {
    let mut raw: Value = task.engine.get("/swarm").await.map_err(task.failed())?;
    let version = index(&raw);
    let spec = raw["Spec"].take();
    let now = spec.get("Labels").cloned().unwrap_or_default();
    if labels.iter().all(|(name, value)| now[name].as_str() == Some(value)) {
        return Ok(());
    }
    if let Some(other) = now[CLUSTER].as_str()
        && labels.get(CLUSTER).map(String::as_str) != Some(other)
    {
        let cause = format!("the Swarm belongs to cluster {other}");
        return Err(task.error(cause, Retry::AfterChange));
    }
    let spec = with_labels(spec, labels);
    let path = format!("/swarm/update?version={version}");
    task.engine.post(&path, &spec).await.map_err(task.failed())?;
    Ok(())
}

fn with_labels(mut spec: Value, labels: &Labels) -> Value {
    if !spec["Labels"].is_object() {
        spec["Labels"] = json!({});
    }
    for (name, value) in labels {
        spec["Labels"][name] = value.as_str().into();
    }
    spec
}

/// Joins the server to the Swarm of `via` and waits until `via` sees it ready.
pub(super) async fn join(
    task: &Task<'_>,
    via: &Engine,
    advertise: &str,
    manager: bool,
    remote: &[String],
) -> Result<(), EffectError> {
    let before = local(task.engine).await.map_err(task.failed())?;
    let joined_now = before.local_node_state == "inactive";
    if joined_now {
        request_join(task, via, advertise, manager, remote).await?;
    } else {
        refuse_unless_member(task, &before)?;
    }
    let mut missing = "the engine has not become a member yet".to_owned();
    loop {
        let now = local(task.engine).await.map_err(task.failed())?;
        if now.local_node_state == "active" {
            match node(via, &now.node_id).await {
                Ok(node)
                    if node.ready()
                        && (!manager || node.manager_status.reachability == "reachable") =>
                {
                    return Ok(());
                }
                Ok(node) => {
                    missing = format!("{} sees it {}", via.host(), node.status.state);
                    if manager && node.ready() {
                        missing += " and not reachable as a manager yet";
                    }
                }
                // A member from before that the manager does not know is a member elsewhere.
                Err(fault) if fault.status() == Some(404) && !joined_now => {
                    let cause = format!(
                        "the server is in another Swarm already (as node {}), not in that of {}",
                        now.node_id,
                        via.host()
                    );
                    return Err(task.error(cause, Retry::AfterChange));
                }
                Err(fault) => missing = format!("ask {}: {fault}", via.host()),
            }
        } else if now.local_node_state != "inactive" || !now.error.is_empty() {
            refuse_unless_member(task, &now)?;
        }
        task.pause(&missing).await?;
    }
}

/// Asks the server's engine to join. The token goes from one engine to the other and nowhere else.
async fn request_join(
    task: &Task<'_>,
    via: &Engine,
    advertise: &str,
    manager: bool,
    remote: &[String],
) -> Result<(), EffectError> {
    let tokens: Tokens = via.get("/swarm").await.map_err(|fault| {
        fault.at(via.host(), format!("ask for a join token to {}", task.attempt))
    })?;
    let token = if manager { tokens.join_tokens.manager } else { tokens.join_tokens.worker };
    let request = json!({
        "ListenAddr": LISTEN,
        "AdvertiseAddr": advertise,
        "RemoteAddrs": remote,
        "JoinToken": token,
    });
    match task.engine.post("/swarm/join", &request).await {
        Ok(_) => Ok(()),
        // The engine goes on joining by itself, or somebody was faster; what follows will tell.
        Err(fault)
            if fault.says("will continue in the background")
                || fault.says("already part of a swarm") =>
        {
            Ok(())
        }
        Err(fault) => {
            let mut error = fault.at(task.engine.host(), &task.attempt);
            error.cause = error.cause.replace(&token, "(token)");
            Err(error)
        }
    }
}

/// Promotes or demotes a node and waits until the managers act on it.
pub(super) async fn set_role(
    task: &Task<'_>,
    node_id: &str,
    manager: bool,
) -> Result<(), EffectError> {
    let role = if manager { "manager" } else { "worker" };
    let path = format!("/nodes/{}", escape(node_id));
    let mut raw: Value = task.engine.get(&path).await.map_err(task.failed())?;
    if raw["Spec"]["Role"] != role {
        let version = index(&raw);
        let mut spec = raw["Spec"].take();
        spec["Role"] = role.into();
        let update = format!("{path}/update?version={version}");
        task.engine.post(&update, &spec).await.map_err(task.failed())?;
    }
    let mut missing = format!("the node is not a {role} yet");
    loop {
        match node(task.engine, node_id).await {
            Ok(node) => {
                let reachability = node.manager_status.reachability;
                let done =
                    if manager { reachability == "reachable" } else { reachability.is_empty() };
                if done && node.spec.role == role {
                    return Ok(());
                }
            }
            // Managers elect anew when one of them steps down.
            Err(fault) if fault.retry() != Retry::AfterChange => missing = fault.to_string(),
            Err(fault) => return Err(task.failed()(fault)),
        }
        task.pause(&missing).await?;
    }
}

/// Takes all tasks off a node, and waits until they have ended: by then connections are drained.
pub(super) async fn drain(task: &Task<'_>, node_id: &str) -> Result<(), EffectError> {
    let path = format!("/nodes/{}", escape(node_id));
    let mut raw: Value = task.engine.get(&path).await.map_err(task.failed())?;
    if raw["Spec"]["Availability"] != "drain" {
        let version = index(&raw);
        let mut spec = raw["Spec"].take();
        spec["Availability"] = "drain".into();
        let update = format!("{path}/update?version={version}");
        task.engine.post(&update, &spec).await.map_err(task.failed())?;
    }
    loop {
        let path = format!("/tasks{}", filters("node", &[node_id]));
        let tasks: Vec<crate::wire::Task> = task.engine.get(&path).await.map_err(task.failed())?;
        let left = tasks.iter().filter(|task| task.status.state == "running").count();
        if left == 0 {
            return Ok(());
        }
        task.pause(&format!("{left} tasks still run there")).await?;
    }
}

/// Has the server leave the Swarm that it is a worker of.
pub(super) async fn leave(task: &Task<'_>) -> Result<(), EffectError> {
    loop {
        let now = local(task.engine).await.map_err(task.failed())?;
        if now.local_node_state == "inactive" {
            return Ok(());
        }
        if !now.control_available {
            break;
        }
        // The other managers know of the demotion a moment before the node itself does.
        task.pause("the node is still a manager").await?;
    }
    task.engine.post("/swarm/leave", &json!({})).await.map_err(task.failed())?;
    loop {
        let now = local(task.engine).await.map_err(task.failed())?;
        if now.local_node_state == "inactive" {
            return Ok(());
        }
        task.pause(&format!("the engine's place in a Swarm is {}", now.local_node_state)).await?;
    }
}

/// Removes a node that is down, its role as a manager first. Never by force: the engine itself refuses
/// where the node is up, or where the managers would lose their majority.
pub(super) async fn remove(task: &Task<'_>, node_id: &str) -> Result<(), EffectError> {
    loop {
        let seen = match node(task.engine, node_id).await {
            Ok(node) => node,
            Err(fault) if fault.status() == Some(404) => return Ok(()),
            Err(fault) => return Err(task.failed()(fault)),
        };
        if seen.status.state != "down" {
            task.pause(&format!("the node is {}", seen.status.state)).await?;
            continue;
        }
        if seen.spec.role == "manager" || !seen.manager_status.reachability.is_empty() {
            set_role(task, node_id, false).await?;
        }
        let removed = task.engine.call(|docker| docker.delete_node(node_id, None)).await;
        let missing = match removed {
            Ok(()) => return Ok(()),
            Err(fault) if fault.status() == Some(404) => return Ok(()),
            Err(fault) => fault.to_string(),
        };
        task.pause(&missing).await?;
    }
}

fn refuse_unless_member(task: &Task<'_>, local: &LocalSwarm) -> Result<(), EffectError> {
    match local.local_node_state.as_str() {
        "active" | "pending" => Ok(()),
        state => {
            let cause = format!("the engine's place in a Swarm is {state}: {}", local.error);
            Err(task.error(cause.trim_end_matches([':', ' ']), Retry::AfterChange))
        }
    }
}

async fn local(engine: &Engine) -> Result<LocalSwarm, Fault> {
    Ok(engine.get::<Info>("/info").await?.swarm)
}

async fn node(engine: &Engine, id: &str) -> Result<Node, Fault> {
    engine.get(&format!("/nodes/{}", escape(id))).await
}

pub(super) fn index(raw: &Value) -> u64 {
    use serde::Deserialize as _;
    Version::deserialize(&raw["Version"]).unwrap_or_default().index
}
