//! Nodes that an update is yet to come to, and the way back from one that does not serve.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::future::{join_all, try_join_all};
use reconcile_core::ports::{EffectError, Retry};
use serde_json::{Map, Value};
use tokio::time::sleep;

use super::{LOOK, Task, members::index};
use crate::{
    convert::made_from,
    engine::escape,
    fault::Fault,
    labels::{CLUSTER, WAITS},
    observe,
    rollout::{self, Goal},
    wire::{self, Service},
};

/// A node's entry changes with each word from it, and Docker takes a change of the last version only.
const TRIES: u32 = 5;

/// Marks nodes and sets them to `pause`. Where one fails those before it are let go again.
pub(super) async fn hold_back(task: &Task<'_>, nodes: &[String]) -> Result<(), EffectError> {
    for (done, node) in nodes.iter().enumerate() {
        let held = rewrite(task, node, |spec| {
            if spec["Availability"] != "active" {
                return;
            }
            spec["Availability"] = "pause".into();
            if !spec["Labels"].is_object() {
                spec["Labels"] = Map::new().into();
            }
            spec["Labels"][WAITS] = "yes".into();
        });
        if let Err(fault) = held.await {
            let_go(task, &nodes[..done]).await;
            return Err(task.failed()(fault));
        }
    }
    Ok(())
}

/// Takes that back after a failure, as far as it can be: the marks tell the next pass of the rest.
pub(super) async fn let_go(task: &Task<'_>, nodes: &[String]) {
    for node in nodes {
        if let Err(fault) = rewrite(task, node, unmark).await {
            tracing::warn!(node, %fault, "a node goes on waiting for an update that did not begin");
        }
    }
}

fn is_marked(spec: &Value) -> bool {
    spec["Labels"].get(WAITS).is_some()
}

/// Ours is the pause that comes with the mark. What somebody else set since stays.
fn wake(spec: &mut Value) {
    if is_marked(spec) && spec["Availability"] == "pause" {
        spec["Availability"] = "active".into();
    }
}

fn unmark(spec: &mut Value) {
    wake(spec);
    if let Some(labels) = spec["Labels"].as_object_mut() {
        labels.remove(WAITS);
    }
}

/// Has the update come to a node, and waits for its tasks. The mark goes last: until then nobody else's turn
/// comes.
pub(super) async fn next(
    task: &Task<'_>,
    node: &str,
    services: &[String],
    steady: Duration,
) -> Result<(), EffectError> {
    let spec = rewrite(task, node, wake).await.map_err(task.failed())?;
    if spec["Availability"] != "active" {
        // Somebody set it to something else meanwhile.
        return rewrite(task, node, unmark).await.map(drop).map_err(task.failed());
    }
    let settled = services.iter().map(async |service| {
        let goal = Goal {
            service,
            tasks: 1,
            node: Some(node),
            steady,
            updating: false,
            broken_before: BTreeSet::new(),
        };
        rollout::settle(task.engine, &task.attempt, &goal, task.deadline).await
    });
    try_join_all(settled).await?;
    rewrite(task, node, unmark).await.map(drop).map_err(task.failed())
}

/// Writes a node's specification anew where `change` makes it another; gives it as it is then.
async fn rewrite(task: &Task<'_>, node: &str, change: impl Fn(&mut Value)) -> Result<Value, Fault> {
    let path = format!("/nodes/{}", escape(node));
    let mut tries = 1;
    loop {
        let mut raw: Value = task.engine.get(&path).await?;
        let version = index(&raw);
        let before = raw["Spec"].take();
        let mut spec = before.clone();
        change(&mut spec);
        if spec == before {
            return Ok(spec);
        }
        match task.engine.post(&format!("{path}/update?version={version}"), &spec).await {
            Ok(_) => return Ok(spec),
            Err(fault) if fault.says("out of sequence") && tries < TRIES => {}
            Err(fault) => return Err(fault),
        }
        tries += 1;
        sleep(LOOK).await;
    }
}

/// Has the services of `cluster` go back that are half way through an update: what runs on a node that
/// waits is what the service was before. Gives their names once they have; where none is half way, none.
pub(crate) async fn go_back(task: &Task<'_>, cluster: &str) -> Result<Vec<String>, EffectError> {
    let nodes = observe::nodes(task.engine).await.map_err(task.failed())?;
    let waits = |task: &wire::Task| {
        nodes.get(&task.node_id).is_some_and(|node| {
            let spec = &node.spec;
            node.ready() && spec.availability == "pause" && spec.labels.contains_key(WAITS)
        })
    };
    let services: Vec<Service> = task.engine.get("/services").await.map_err(task.failed())?;
    let ours = |service: &&Service| service.label(CLUSTER) == Some(cluster);
    let services: Vec<_> = services.iter().filter(ours).filter(|there| !goes_back(there)).collect();
    let ids: Vec<_> = services.iter().map(|service| service.id.as_str()).collect();
    let tasks = observe::tasks(task.engine, &ids).await.map_err(task.failed())?;
    let half_way = |service: &&&Service| {
        let before = &service.previous_spec["TaskTemplate"];
        let old = |task: &&wire::Task| {
            made_from(&task.spec, before) && !made_from(&task.spec, &service.spec["TaskTemplate"])
        };
        // The newest on each node that waits, also one that died: Docker starts none there.
        let mut kept: BTreeMap<&str, &wire::Task> = BTreeMap::new();
        for task in tasks.iter().filter(|task| task.service_id == service.id && waits(task)) {
            let newest = kept.entry(task.node_id.as_str()).or_insert(task);
            if newest.age_key() < task.age_key() {
                *newest = task;
            }
        }
        before.is_object() && !kept.is_empty() && kept.values().all(old)
    };
    let half_way: Vec<&Service> = services.iter().filter(half_way).copied().collect();
    let gone = join_all(half_way.iter().map(|there| roll_back(task, there))).await;
    let (mut back, mut errors) = (Vec::new(), Vec::new());
    for (service, gone) in half_way.iter().zip(gone) {
        match gone {
            Ok(()) => back.push(service.name().to_owned()),
            Err(error) => errors.push(error),
        }
    }
    let Some(mut error) = errors.pop() else { return Ok(back) };
    if !back.is_empty() {
        error.cause = format!("{}, while {} went back", error.cause, back.join(", "));
    }
    Err(error)
}

/// Docker is on its way with it, or has been back.
fn goes_back(service: &Service) -> bool {
    let state = service.update_status.state.as_str();
    state == "updating" || state.starts_with("rollback")
}

/// Has a service go back to what it was before its last change, unless it changed since it was read, and
/// waits until it has.
async fn roll_back(task: &Task<'_>, there: &Service) -> Result<(), EffectError> {
    let path = format!("/services/{}", escape(there.name()));
    // Docker's own word on an update moves the version as well.
    let (mut version, mut tries) = (there.version.index, 1);
    loop {
        let update = format!("{path}/update?version={version}&rollback=previous");
        match task.engine.post(&update, &there.spec).await {
            Ok(_) => break,
            Err(fault) if fault.says("out of sequence") && tries < TRIES => {
                let now: Service = task.engine.get(&path).await.map_err(task.failed())?;
                if now.spec != there.spec || goes_back(&now) {
                    return Err(task.failed()(fault));
                }
                version = now.version.index;
                tries += 1;
            }
            Err(fault) => return Err(task.failed()(fault)),
        }
    }
    loop {
        let service: Service = task.engine.get(&path).await.map_err(task.failed())?;
        match service.update_status.state.as_str() {
            "rollback_completed" => return Ok(()),
            "rollback_paused" => {
                let cause = format!("Docker could not finish with {}", there.name());
                return Err(task.error(cause, Retry::AfterChange));
            }
            state => {
                let told = format!("the update of {} is {state}", there.name());
                task.pause(&told).await?;
            }
        }
    }
}
