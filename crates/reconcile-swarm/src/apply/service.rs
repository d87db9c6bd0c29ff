//! Services: written entirely from the desired state, then watched until they run.

use std::collections::{BTreeMap, BTreeSet};

use bollard::query_parameters::UpdateServiceOptionsBuilder;
use reconcile_core::{
    model::ServiceSpec,
    ports::{EffectError, Retry},
};
use serde_json::Value;

use super::{Task, rollout};
use crate::{
    convert::{Ids, from_engine, to_engine},
    engine::{Engine, SLOW_ANSWER, escape, filters},
    fault::Fault,
    labels::same_cluster,
    observe,
    rollout::{Goal, STEADY, broken, settle},
    wire::{File, Service},
};

/// Creates the service and waits for its tasks. One of ours with the same specification that is
/// there already is only waited for.
pub(super) async fn create(
    task: &Task<'_>,
    spec: &ServiceSpec,
    tasks: usize,
) -> Result<(), EffectError> {
    if let Some(there) = find(task, &spec.name).await? {
        own(task, spec, &there).await?;
        if !same(task, spec, &there).await? {
            let cause = "it exists already and differs";
            return Err(task.error(cause, Retry::Soon));
        }
        return wait(task, &spec.name, tasks).await;
    }
    let request = request(task, spec).await?;
    match task.engine.call(|docker| docker.create_service(request, None)).await {
        Ok(created) => {
            for warning in created.warnings.into_iter().flatten() {
                tracing::warn!(service = spec.name, warning, "the engine warns");
            }
        }
        // Somebody was faster: look again rather than judge what is there.
        Err(fault) if fault.status() == Some(409) => {
            return Err(task.error(fault.to_string(), Retry::Soon));
        }
        Err(fault) => return Err(task.failed()(fault)),
    }
    wait(task, &spec.name, tasks).await
}

/// Updates the service if its version is still `version`, on all nodes but those that wait, and waits
/// for its tasks. Where an earlier run got as far as writing it, it is only waited for.
pub(super) async fn update(
    task: &Task<'_>,
    spec: &ServiceSpec,
    version: u64,
    tasks: usize,
    waits: &[String],
) -> Result<(), EffectError> {
    let there = find(task, &spec.name)
        .await?
        .ok_or_else(|| task.error("the service is gone", Retry::Soon))?;
    own(task, spec, &there).await?;
    let broken_before = broken(task.engine, &there).await.map_err(task.failed())?;
    if !same(task, spec, &there).await? {
        if there.version.index != version {
            let cause = "it was changed since it was looked at";
            return Err(task.error(cause, Retry::Soon));
        }
        let mut request = request(task, spec).await?;
        // Another count would restart tasks that are right otherwise.
        if let Some(template) = &mut request.task_template {
            template.force_update = Some(there.force_update());
        }
        let version = i32::try_from(version).map_err(|_| {
            task.error("its version index is beyond what bollard can send", Retry::AfterChange)
        })?;
        let options = UpdateServiceOptionsBuilder::new().version(version).build();
        rollout::hold_back(task, waits).await?;
        let update =
            task.engine.call(|docker| docker.update_service(&there.id, request, options, None));
        let updated = match update.await {
            Ok(updated) => updated,
            Err(fault) => {
                // Refused, it did not begin. Of any other fault that is not known, and the marks stay.
                let refused = fault.status().is_some_and(|status| (400..500).contains(&status));
                if refused || fault.says("out of sequence") {
                    rollout::let_go(task, waits).await;
                }
                return Err(task.failed()(fault));
            }
        };
        for warning in updated.warnings.into_iter().flatten() {
            tracing::warn!(service = spec.name, warning, "the engine warns");
        }
    }
    let goal = Goal {
        service: &spec.name,
        tasks,
        node: None,
        steady: STEADY,
        updating: true,
        broken_before,
    };
    settle(task.engine, &task.attempt, &goal, task.deadline).await
}

/// Waits for the tasks of a service.
pub(super) async fn wait(task: &Task<'_>, name: &str, tasks: usize) -> Result<(), EffectError> {
    let goal = Goal {
        service: name,
        tasks,
        node: None,
        steady: STEADY,
        updating: false,
        broken_before: BTreeSet::new(),
    };
    settle(task.engine, &task.attempt, &goal, task.deadline).await
}

async fn find(task: &Task<'_>, name: &str) -> Result<Option<Service>, EffectError> {
    match task.engine.get(&format!("/services/{}", escape(name))).await {
        Ok(service) => Ok(Some(service)),
        Err(fault) if fault.status() == Some(404) => Ok(None),
        Err(fault) => Err(task.failed()(fault)),
    }
}

/// Fails where the service belongs to somebody else.
async fn own(task: &Task<'_>, spec: &ServiceSpec, there: &Service) -> Result<(), EffectError> {
    let now = read(task, there).await?;
    if same_cluster(&now.labels, &spec.labels) {
        return Ok(());
    }
    let cause = "a service of that name exists that is none of ours";
    Err(task.error(cause, Retry::AfterChange))
}

/// True where the service is what `spec` asks for; without a digest any pinned one will do.
async fn same(task: &Task<'_>, spec: &ServiceSpec, there: &Service) -> Result<bool, EffectError> {
    let mut now = read(task, there).await?;
    if spec.digest.is_none() {
        now.digest = None;
    }
    Ok(now == *spec)
}

async fn read(task: &Task<'_>, there: &Service) -> Result<ServiceSpec, EffectError> {
    let names = attached_names(task.engine, &there.spec).await.map_err(task.failed())?;
    from_engine(&there.spec, &names)
        .map_err(|error| task.failed()(Fault::Garbled(error.to_string())))
}

async fn attached_names(engine: &Engine, spec: &Value) -> Result<BTreeMap<String, String>, Fault> {
    let mut names = BTreeMap::new();
    let attached = spec["TaskTemplate"]["Networks"].as_array().into_iter().flatten();
    for id in attached.filter_map(|attached| attached["Target"].as_str()) {
        match engine.network_name(id).await {
            Ok(name) => drop(names.insert(id.to_owned(), name)),
            Err(fault) if fault.status() == Some(404) => {}
            Err(fault) => return Err(fault),
        }
    }
    Ok(names)
}

/// The request for `spec`, with the image's digest and the ids of what it mounts looked up.
async fn request(
    task: &Task<'_>,
    spec: &ServiceSpec,
) -> Result<bollard::models::ServiceSpec, EffectError> {
    let mut spec = spec.clone();
    if spec.digest.is_none() {
        spec.digest = Some(digest(task, &spec.image).await?);
    }
    let ids = Ids {
        configs: ids(task, "/configs", spec.configs.iter().map(|mount| mount.source.as_str()))
            .await?,
        secrets: ids(task, "/secrets", spec.secrets.iter().map(|mount| mount.source.as_str()))
            .await?,
    };
    to_engine(&spec, &ids).map_err(|cause| task.error(cause, Retry::Soon))
}

async fn digest(task: &Task<'_>, image: &str) -> Result<String, EffectError> {
    observe::resolve(task.engine, image, SLOW_ANSWER).await.map_err(|fault| {
        let missing = fault.status() == Some(404)
            || ["manifest unknown", "not found", "no such image"]
                .iter()
                .any(|text| fault.says(text));
        if missing {
            let cause = format!("image {image} not found in its registry: {fault}");
            return task.error(cause, Retry::AfterChange);
        }
        task.error(format!("resolve image {image}: {fault}"), fault.retry())
    })
}

async fn ids<'a>(
    task: &Task<'_>,
    path: &str,
    names: impl Iterator<Item = &'a str>,
) -> Result<BTreeMap<String, String>, EffectError> {
    let names: Vec<_> = names.collect();
    if names.is_empty() {
        return Ok(BTreeMap::new());
    }
    let path = format!("{path}{}", filters("name", &names));
    let found: Vec<File> = task.engine.get(&path).await.map_err(task.failed())?;
    Ok(found.into_iter().map(|file| (file.spec.name, file.id)).collect())
}
