//! Nodes that an update is yet to come to, and the way back from one that does not serve.

use std::{collections::BTreeSet, time::Duration};

use futures::future::try_join_all;
use reconcile_core::{
    model::ServiceSpec,
    ports::{EffectError, Retry},
};
use serde_json::{Map, Value};
use tokio::time::sleep;

use super::{LOOK, Task, members::index, service};
use crate::{
    engine::escape,
    fault::Fault,
    labels::WAITS,
    rollout::{self, Goal},
    wire::Service,
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

/// Has a service go back to what it was before the update to `spec`, and waits until it has. Not where it
/// is something else by now, or goes back already: then it is somebody else's.
pub(crate) async fn take_back(task: &Task<'_>, spec: &ServiceSpec) -> Result<(), EffectError> {
    let path = format!("/services/{}", escape(&spec.name));
    let raw: Value = task.engine.get(&path).await.map_err(task.failed())?;
    let there: Service = serde_json::from_value(raw.clone())
        .map_err(|error| task.failed()(Fault::Garbled(error.to_string())))?;
    let back = there.update_status.state.starts_with("rollback");
    if back || !service::same(task, spec, &there).await? {
        return Err(task.error("it was changed meanwhile", Retry::Soon));
    }
    let update = format!("{path}/update?version={}&rollback=previous", there.version.index);
    task.engine.post(&update, &raw["Spec"]).await.map_err(task.failed())?;
    loop {
        let service: Service = task.engine.get(&path).await.map_err(task.failed())?;
        match service.update_status.state.as_str() {
            "rollback_completed" => return Ok(()),
            "rollback_paused" => {
                let cause = "Docker could not finish";
                return Err(task.error(cause, Retry::AfterChange));
            }
            state => task.pause(&format!("its update is {state}")).await?,
        }
    }
}
