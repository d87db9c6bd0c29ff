//! From the engine's words to ours.

use std::collections::BTreeMap;

use reconcile_core::model::{
    FileMount, NetworkAttachment, PublishedPort, ServiceMode, ServiceSpec, UpdateRule,
};
use serde::Deserialize;
use serde_json::Value;

use super::{NANOS_PER_MILLI, defaults, unmodelled::unmodelled};
use crate::{
    labels::{CLUSTER, RESOLVED_IMAGE, SPEC_HASH, UNMODELLED},
    wire::lenient,
};

/// What a service is, from the `Spec` of an answer of the engine. `networks` gives names to
/// network ids; an id without a name stands for itself.
///
/// Fields that [`ServiceSpec`] has no word for show as the label [`UNMODELLED`] on services of ours.
pub fn from_engine(
    spec: &Value,
    networks: &BTreeMap<String, String>,
) -> Result<ServiceSpec, serde_json::Error> {
    let raw = Raw::deserialize(spec)?;
    let task = raw.task_template;
    let container = task.container_spec;
    let (image, digest) = match container.image.split_once('@') {
        Some((image, digest)) => (image.to_owned(), Some(digest.to_owned())),
        None => (container.image, None),
    };
    let attached = if task.networks.is_empty() { raw.networks } else { task.networks };
    let mut networks: Vec<_> = attached
        .into_iter()
        .map(|attached| NetworkAttachment {
            network: networks.get(&attached.target).cloned().unwrap_or(attached.target),
            aliases: sorted(attached.aliases),
        })
        .collect();
    networks.sort();
    let mut labels = raw.labels;
    labels.remove(SPEC_HASH);
    labels.remove(RESOLVED_IMAGE);
    if labels.contains_key(CLUSTER) {
        let foreign = unmodelled(spec);
        if !foreign.is_empty() {
            labels.insert(UNMODELLED.to_owned(), foreign.join(", "));
        }
    }
    Ok(ServiceSpec {
        name: raw.name,
        image,
        digest,
        command: container.command,
        args: container.args,
        env: container.env,
        user: container.user,
        mode: mode(&raw.mode),
        constraints: sorted(task.placement.constraints),
        networks,
        ports: ports(raw.endpoint_spec.ports),
        dnsrr: raw.endpoint_spec.mode == "dnsrr",
        configs: mounts(container.configs),
        secrets: mounts(container.secrets),
        stop_signal: container.stop_signal,
        stop_grace_ms: millis(container.stop_grace_period, defaults::STOP_GRACE_MS),
        restart_delay_ms: millis(task.restart_policy.delay, defaults::RESTART_DELAY_MS),
        update: rule(raw.update_config),
        init: container.init.unwrap_or(false),
        labels,
        container_labels: container.labels,
    })
}

fn mode(raw: &Mode) -> ServiceMode {
    match (&raw.replicated, &raw.global) {
        (Some(replicated), _) => ServiceMode::Replicated(replicated.replicas.unwrap_or(1)),
        (None, Some(_)) => ServiceMode::Global,
        // A job, or a mode of the future; never one of ours.
        (None, None) => ServiceMode::Replicated(0),
    }
}

fn ports(raw: Vec<Port>) -> Vec<PublishedPort> {
    let mut ports: Vec<_> = raw
        .into_iter()
        .map(|port| PublishedPort { published: port.published_port, target: port.target_port })
        .collect();
    ports.sort();
    ports
}

fn mounts(raw: Vec<Mount>) -> Vec<FileMount> {
    let mut mounts: Vec<_> = raw
        .into_iter()
        .map(|mount| {
            let source =
                if mount.config_name.is_empty() { mount.secret_name } else { mount.config_name };
            FileMount {
                target: mount.file.name,
                source,
                uid: mount.file.uid.parse().unwrap_or(0),
                gid: mount.file.gid.parse().unwrap_or(0),
                mode: mount.file.mode.unwrap_or(defaults::FILE_MODE),
            }
        })
        .collect();
    mounts.sort();
    mounts
}

fn rule(raw: Update) -> UpdateRule {
    UpdateRule {
        parallelism: raw.parallelism.unwrap_or(defaults::PARALLELISM),
        delay_ms: millis(raw.delay, 0),
        monitor_ms: match millis(raw.monitor, 0) {
            0 => defaults::MONITOR_MS,
            monitor => monitor,
        },
        failure_action: or(raw.failure_action, defaults::FAILURE_ACTION),
        order: or(raw.order, defaults::ORDER),
    }
}

fn millis(nanos: Option<u64>, default: u64) -> u64 {
    nanos.map_or(default, |nanos| nanos / NANOS_PER_MILLI)
}

fn or(text: String, default: &str) -> String {
    if text.is_empty() { default.to_owned() } else { text }
}

fn sorted(mut list: Vec<String>) -> Vec<String> {
    list.sort();
    list
}

type Labels = BTreeMap<String, String>;

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Raw {
    name: String,
    #[serde(deserialize_with = "lenient")]
    labels: Labels,
    task_template: Task,
    mode: Mode,
    #[serde(deserialize_with = "lenient")]
    update_config: Update,
    #[serde(deserialize_with = "lenient")]
    networks: Vec<Attachment>,
    #[serde(deserialize_with = "lenient")]
    endpoint_spec: Endpoint,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Task {
    #[serde(deserialize_with = "lenient")]
    container_spec: Container,
    #[serde(deserialize_with = "lenient")]
    restart_policy: Restart,
    #[serde(deserialize_with = "lenient")]
    placement: Placement,
    #[serde(deserialize_with = "lenient")]
    networks: Vec<Attachment>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Container {
    image: String,
    #[serde(deserialize_with = "lenient")]
    labels: Labels,
    #[serde(deserialize_with = "lenient")]
    command: Vec<String>,
    #[serde(deserialize_with = "lenient")]
    args: Vec<String>,
    #[serde(deserialize_with = "lenient")]
    env: Vec<String>,
    user: String,
    #[serde(deserialize_with = "lenient")]
    configs: Vec<Mount>,
    #[serde(deserialize_with = "lenient")]
    secrets: Vec<Mount>,
    stop_signal: String,
    stop_grace_period: Option<u64>,
    init: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Restart {
    delay: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Placement {
    #[serde(deserialize_with = "lenient")]
    constraints: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Attachment {
    target: String,
    #[serde(deserialize_with = "lenient")]
    aliases: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Endpoint {
    mode: String,
    #[serde(deserialize_with = "lenient")]
    ports: Vec<Port>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Port {
    target_port: u16,
    published_port: u16,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Mount {
    #[serde(deserialize_with = "lenient")]
    file: Target,
    config_name: String,
    secret_name: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Target {
    name: String,
    #[serde(rename = "UID")]
    uid: String,
    #[serde(rename = "GID")]
    gid: String,
    mode: Option<u32>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Update {
    parallelism: Option<u64>,
    delay: Option<u64>,
    monitor: Option<u64>,
    failure_action: String,
    order: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Mode {
    replicated: Option<Replicated>,
    global: Option<Value>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Replicated {
    replicas: Option<u64>,
}
