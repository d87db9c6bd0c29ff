//! The Swarm: what a service is, and what a manager tells.
//!
//! [`ServiceSpec`] serves both sides, desired and observed, so that they compare with `==`.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Observation;

/// What one manager tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SwarmFacts {
    /// Swarm (cluster) id.
    pub cluster_id: String,
    /// Labels of the Swarm itself.
    pub labels: BTreeMap<String, String>,
    /// Nodes, by node id.
    pub nodes: BTreeMap<String, NodeFact>,
    /// Overlay and predefined networks, by name.
    pub networks: BTreeMap<String, NetworkFact>,
    /// Configs, by name.
    pub configs: BTreeMap<String, ConfigFact>,
    /// Secrets, by name. Their content cannot be read back.
    pub secrets: BTreeMap<String, ConfigFact>,
    /// Services, by name.
    pub services: BTreeMap<String, ServiceFact>,
    /// The digest (`sha256:…`) of each image reference asked for: as pinned by a running service
    /// of ours with the same reference, else as the registry answers now.
    pub images: BTreeMap<String, Observation<String>>,
}

/// A node as the managers see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeFact {
    /// Host name that the engine reported.
    pub hostname: String,
    /// Address that the managers see.
    pub address: String,
    /// True for managers.
    pub manager: bool,
    /// `active`, `pause`, `drain`.
    pub availability: String,
    /// `ready`, `down`, `unknown`, `disconnected`.
    pub state: String,
    /// Manager reachability: `reachable`, `unreachable`, `unknown`; empty for workers.
    pub reachability: String,
    /// True for the Raft leader.
    pub leader: bool,
    /// True where it carries our mark: an update of ours is under way elsewhere and yet to come to it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub waits: bool,
}

impl NodeFact {
    /// True where it is up and takes tasks.
    pub(crate) fn takes_tasks(&self) -> bool {
        self.state == "ready" && self.availability == "active"
    }
}

/// A desired network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkSpec {
    /// Name.
    pub name: String,
    /// `overlay`.
    pub driver: String,
    /// Containers outside services may join.
    pub attachable: bool,
    /// Data plane is encrypted (`--opt encrypted`).
    pub encrypted: bool,
    /// Subnet in CIDR notation; None lets Docker choose.
    pub subnet: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// An observed network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkFact {
    /// Id.
    pub id: String,
    /// `overlay`, `host`, `bridge`, …
    pub driver: String,
    /// `swarm` or `local`.
    pub scope: String,
    /// Containers outside services may join.
    pub attachable: bool,
    /// Data plane is encrypted.
    pub encrypted: bool,
    /// Subnets in CIDR notation.
    pub subnets: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// An observed config or secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigFact {
    /// Id.
    pub id: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Creation time as Docker prints it (RFC 3339), for retention.
    pub created_at: String,
}

/// A service, in the words of the Engine API, reduced to what reconcile uses.
/// The observed form fills every field from the engine, so that a change by hand shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceSpec {
    /// Full name with the stack in front, such as `db-utils_haproxy`.
    pub name: String,
    /// Image; desired: reference without digest; observed: reference without digest.
    pub image: String,
    /// Digest (`sha256:…`) that the image is pinned to; None: to be resolved when created.
    pub digest: Option<String>,
    /// `ContainerSpec.Command`, replaces the image's entry point.
    pub command: Vec<String>,
    /// `ContainerSpec.Args`.
    pub args: Vec<String>,
    /// `ContainerSpec.Env`, `NAME=value`; never holds a secret.
    pub env: Vec<String>,
    /// `ContainerSpec.User`, such as `10001:10001`.
    pub user: String,
    /// Global or replicated.
    pub mode: ServiceMode,
    /// `Placement.Constraints`, sorted.
    pub constraints: Vec<String>,
    /// Networks; the predefined network `host` is one of them by name.
    pub networks: Vec<NetworkAttachment>,
    /// Ports published in host mode.
    pub ports: Vec<PublishedPort>,
    /// `dnsrr` endpoint mode (else `vip`).
    pub dnsrr: bool,
    /// Mounted configs, by target.
    pub configs: Vec<FileMount>,
    /// Mounted secrets, by target (a plain name lands below /run/secrets).
    pub secrets: Vec<FileMount>,
    /// `StopSignal`.
    pub stop_signal: String,
    /// `StopGracePeriod` in milliseconds.
    pub stop_grace_ms: u64,
    /// `RestartPolicy.Delay` in milliseconds; the condition is `any`.
    pub restart_delay_ms: u64,
    /// Rolling updates (and, with the same values, rollbacks).
    pub update: UpdateRule,
    /// Run an init inside the container (`Init`).
    pub init: bool,
    /// Service labels, without those that reconcile adds for its own bookkeeping
    /// (`reconcile.io/spec-hash`, `reconcile.io/resolved-image`).
    pub labels: BTreeMap<String, String>,
    /// Container labels.
    pub container_labels: BTreeMap<String, String>,
}

/// Service mode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ServiceMode {
    /// One task on each node that fits the constraints.
    Global,
    /// A number of tasks.
    Replicated(u64),
}

/// A network that a service's tasks join.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkAttachment {
    /// Network by name.
    pub network: String,
    /// Names that the tasks answer to there.
    pub aliases: Vec<String>,
}

/// A port published in host mode, TCP.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PublishedPort {
    /// Port on the node.
    pub published: u16,
    /// Port in the container.
    pub target: u16,
}

/// A config or secret mounted as a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FileMount {
    /// Path (config) or name (secret) in the container.
    pub target: String,
    /// Full content-hashed name of the config or secret.
    pub source: String,
    /// Owner in the container.
    pub uid: u32,
    /// Group in the container.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
}

/// How tasks are replaced. Order is always stop-first: host ports cannot be held twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UpdateRule {
    /// Tasks at a time.
    pub parallelism: u64,
    /// Pause between tasks in milliseconds.
    pub delay_ms: u64,
    /// How long a new task must stay up, in milliseconds.
    pub monitor_ms: u64,
    /// `rollback`, `pause` or `continue`.
    pub failure_action: String,
    /// `stop-first` or `start-first`.
    pub order: String,
}

/// An observed service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceFact {
    /// Id.
    pub id: String,
    /// Version index, for the optimistic lock of updates.
    pub version: u64,
    /// What it is now.
    pub spec: ServiceSpec,
    /// `UpdateStatus.State`; empty when it was never updated.
    pub update_state: String,
    /// Where the last update was rolled back: what was tried, and how it broke.
    pub given_up: Option<GivenUp>,
    /// Tasks that are meant to run or do run, newest per node or slot, in order of node.
    pub tasks: Vec<TaskFact>,
}

/// What Docker tried and went back from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GivenUp {
    /// As its task was made; only what concerns its container is filled in.
    pub spec: ServiceSpec,
    /// Where and how it broke.
    pub cause: String,
}

/// A task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskFact {
    /// Node id; empty while not placed.
    pub node_id: String,
    /// `new`, `pending`, `preparing`, `running`, `failed`, `rejected`, …
    pub state: String,
    /// `running`, `shutdown`, …
    pub desired_state: String,
    /// The engine's message or error.
    pub message: String,
}
