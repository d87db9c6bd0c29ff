//! What goes out, as types: the JSON of `/status` and of the event stream, and its schema.
//!
//! They are apart from the core's types on purpose: only what is named here can leave. Effects,
//! file contents and requests are not.

mod upkeep;

pub(crate) use upkeep::{Leaving, Maintenance};

use schemars::JsonSchema;
use serde::Serialize;

/// The status of a cluster as this operator sees it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Document {
    /// Name of the cluster.
    pub(crate) cluster: String,
    /// The operator.
    pub(crate) operator: Operator,
    /// The desired state's source.
    pub(crate) source: Source,
    /// Digest of the desired state that the rest is about; missing before the first pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) observed_generation: Option<String>,
    /// When the servers were last observed; missing before the first pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) observed_at: Option<String>,
    /// The last passes.
    pub(crate) passes: Passes,
    /// Conditions in the manner of Kubernetes.
    pub(crate) conditions: Vec<Condition>,
    /// Maintenance windows; missing where the file has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) maintenance: Option<Maintenance>,
    /// Servers.
    pub(crate) hosts: Vec<Host>,
    /// Services on the Swarm.
    pub(crate) services: Vec<Service>,
    /// The plan.
    pub(crate) plan: Plan,
    /// The last proof of service, whatever came of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) proof: Option<Proof>,
    /// When a proof of service last held.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_good_proof: Option<String>,
    /// What happened lately, newest last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) events: Option<Vec<Entry>>,
}

/// The operator itself.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Operator {
    /// Version of reconcile.
    pub(crate) version: String,
    /// When it started.
    pub(crate) started_at: String,
    /// Seconds between two passes while nothing happens.
    pub(crate) interval_seconds: f64,
    /// The lease under which it acts; missing before the first word of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lease: Option<Lease>,
    /// The certificate of this endpoint; missing without TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) certificate: Option<Certificate>,
}

/// The operators' lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Lease {
    /// True: this operator may act.
    pub(crate) held: bool,
    /// Since when it is so.
    pub(crate) since: String,
    /// Its number; of two, the higher one is in force. Missing while it is not held.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<u64>,
    /// How long it lasts unless it is renewed, which is done every few seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) until: Option<String>,
    /// Why it is not held.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) waits: Option<String>,
    /// Who holds it instead, `user@machine (process N)`: this operator is a standby, and changes and
    /// observes nothing. Missing while it is held, and where that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) keeper: Option<String>,
}

/// A certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Certificate {
    /// Valid from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) not_before: Option<String>,
    /// Valid until.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) not_after: Option<String>,
    /// Why its files cannot be used as they are now; the certificate before stays in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fault: Option<String>,
}

/// Whether the desired state can be read.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Source {
    /// `pending` before the first read, `inForce`, or `broken`: then the last good one is in force.
    pub(crate) state: SourceState,
    /// Since when.
    pub(crate) since: String,
    /// What is not taken, while the state is `broken`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) refused: Option<Refused>,
    /// The commit in force, where the desired state comes from Git.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) commit: Option<Commit>,
    /// When the desired state in force was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) in_force_since: Option<String>,
}

/// A desired state that is not taken.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Refused {
    /// File or folder, as it was named.
    pub(crate) file: String,
    /// The commit, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) commit: Option<Commit>,
    /// The first that is wrong, in a line.
    pub(crate) reason: String,
    /// It could not be read: whether there is a newer one at all is not known.
    pub(crate) unread: bool,
    /// All that is wrong, with the places and lines in the file. What may be a secret in them is
    /// starred out.
    pub(crate) report: String,
}

/// A commit.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Commit {
    /// Its full hash.
    pub(crate) hash: String,
    /// Name and address of its author.
    pub(crate) author: String,
    /// When it was committed, ISO 8601.
    pub(crate) time: String,
    /// First line of its message.
    pub(crate) subject: String,
}

/// State of the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) enum SourceState {
    /// Not read yet.
    Pending,
    /// As read.
    InForce,
    /// It cannot be read.
    Broken,
}

/// The last passes.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Passes {
    /// How many were begun.
    pub(crate) number: u32,
    /// When the one at hand, or the last one, began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) started_at: Option<String>,
    /// True while one is under way.
    pub(crate) running: bool,
    /// When the last finished one ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ended_at: Option<String>,
    /// How long it took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seconds: Option<f64>,
    /// Why its plan was refused, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) refused: Option<String>,
}

/// A condition.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Condition {
    /// Type, such as `Ready`.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// `True`, `False`, `Unknown`.
    pub(crate) status: &'static str,
    /// One word in CamelCase.
    pub(crate) reason: String,
    /// For people.
    pub(crate) message: String,
    /// When `status` last changed, as far as this operator has seen it.
    pub(crate) last_transition_time: String,
}

/// A server.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Host {
    /// Name.
    pub(crate) name: String,
    /// Address.
    pub(crate) address: String,
    /// Why nothing is known of it; missing where it could be looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) unreachable: Option<String>,
    /// Whether it answers at all: one of which nothing is known may do so, and refuse the login.
    pub(crate) answers: bool,
    /// How far it is, where it is to leave.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) leaving: Option<Leaving>,
    /// Seconds that it took to answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) answer_seconds: Option<f64>,
    /// etcd: `leader`, `member`, `unhealthy`, `down`, `unknown`, `-` where it has no member.
    pub(crate) etcd: String,
    /// PostgreSQL: `primary`, `replica`, … or `down`, `unknown`, `-`.
    pub(crate) role: String,
    /// Patroni's state.
    pub(crate) state: String,
    /// Timeline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) timeline: Option<u64>,
    /// Distance to the leader in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lag_bytes: Option<u64>,
    /// How WAL is archived; only of a primary that archives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) archive: Option<Archive>,
    /// Swarm: `leader`, `manager`, `worker`, `drain`, `outside`, …
    pub(crate) swarm: String,
    /// Running tasks of the stack here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tasks: Option<usize>,
    /// Versions that run here.
    pub(crate) versions: Versions,
}

/// The archiver's own word (`pg_stat_archiver`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Archive {
    /// When it last archived a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_archived_at: Option<String>,
    /// When it last failed to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_failed_at: Option<String>,
}

/// Versions; missing: not there, or not known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Versions {
    /// etcd.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) etcd: Option<String>,
    /// Patroni.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) patroni: Option<String>,
    /// PostgreSQL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) postgresql: Option<String>,
    /// The Docker engine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) docker: Option<String>,
}

/// A service on the Swarm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Service {
    /// Name.
    pub(crate) name: String,
    /// Image that runs; the file's where none does.
    pub(crate) image: String,
    /// The file's image, where another one runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) desired_image: Option<String>,
    /// Running tasks; missing while the Swarm is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) running: Option<usize>,
    /// Tasks wanted.
    pub(crate) wanted: usize,
    /// Tasks on servers of ours.
    pub(crate) tasks: Vec<Task>,
}

/// A task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Task {
    /// Server.
    pub(crate) host: String,
    /// `running`, `preparing`, `failed`, …
    pub(crate) state: String,
    /// It runs and gives no sign of life, by the last proof of service.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) silent: bool,
}

/// The plan of the last pass.
#[derive(Debug, Clone, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Plan {
    /// Steps in order.
    pub(crate) steps: Vec<Step>,
    /// Steps that a pause holds, in the order in which they would be done.
    pub(crate) paused: Vec<Step>,
    /// What comes by itself after the steps, and after which.
    pub(crate) queued: Vec<Held>,
    /// What is held, and why; what a pause holds among it.
    pub(crate) held: Vec<Held>,
}

/// A step.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Step {
    /// Its place in the plan, from 1.
    pub(crate) id: usize,
    /// What it changes.
    pub(crate) object: String,
    /// Class of the object, such as `file`.
    pub(crate) class: &'static str,
    /// Server that the object is on, if it is on one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) host: Option<String>,
    /// `create`, `update`, `start`, …
    pub(crate) verb: &'static str,
    /// `none`, `reload`, `restart`.
    pub(crate) impact: &'static str,
    /// Why.
    pub(crate) reason: String,
    /// Steps that must have succeeded before.
    pub(crate) after: Vec<usize>,
    /// Field by field.
    pub(crate) changes: Vec<Change>,
    /// How it goes.
    pub(crate) progress: Progress,
}

/// How a step goes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Progress {
    /// Where it stands.
    pub(crate) state: StepState,
    /// When it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) started_at: Option<String>,
    /// How long it took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seconds: Option<f64>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

/// Where a step stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) enum StepState {
    /// Not begun.
    #[default]
    Pending,
    /// Under way.
    Running,
    /// It took effect.
    Done,
    /// It failed.
    Failed,
    /// Left for a later pass.
    Skipped,
}

/// A changed field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Change {
    /// Field.
    pub(crate) field: String,
    /// Value before; missing: absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) from: Option<String>,
    /// Value after; missing: absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) to: Option<String>,
}

/// Something that is not done now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Held {
    /// What.
    pub(crate) object: String,
    /// Server that the object is on, if it is on one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) host: Option<String>,
    /// Kind of reason, such as `quorum`.
    pub(crate) kind: String,
    /// For people.
    pub(crate) message: String,
    /// Since when, as far as this operator has seen it.
    pub(crate) since: String,
}

/// A proof of service.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Proof {
    /// When it was made.
    pub(crate) at: String,
    /// True if all of it held then.
    pub(crate) holds: bool,
    /// It was made more than three minutes ago and says nothing of now.
    pub(crate) outdated: bool,
    /// Its parts.
    pub(crate) parts: Vec<ProofPart>,
}

/// A part of a proof.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ProofPart {
    /// What was proven.
    pub(crate) what: String,
    /// Server concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) host: Option<String>,
    /// Whether it holds.
    pub(crate) holds: bool,
    /// It could not be tried: nothing is known, neither that it holds nor that it fails.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) untried: bool,
    /// What it comes of that it does not hold, where that is something else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) comes_of: Option<String>,
    /// Milliseconds that it took.
    pub(crate) millis: u64,
    /// What was seen.
    pub(crate) detail: String,
}

/// Something that happened.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Entry {
    /// When.
    pub(crate) at: String,
    /// `source`, `pass`, `step`, `hold`, `condition`, `host`, `proof`, `webhook`, `window`, ….
    pub(crate) kind: &'static str,
    /// How it is to be taken.
    pub(crate) level: Level,
    /// For people.
    pub(crate) text: String,
}

/// How an entry is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Level {
    /// As it should be.
    Good,
    /// For information.
    Info,
    /// Wants attention.
    Warn,
    /// Went wrong.
    Bad,
}

/// A step's progress on the event stream.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StepChange {
    /// The step's place in the plan.
    pub(crate) id: usize,
    /// Its object.
    pub(crate) object: String,
    /// How it goes.
    pub(crate) progress: Progress,
}

/// A finished pass that showed nothing new, on the event stream.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Calm {
    /// When the servers were observed.
    pub(crate) observed_at: Option<String>,
    /// The last passes.
    pub(crate) passes: Passes,
    /// When the last proof of service was made.
    pub(crate) proof_at: Option<String>,
    /// When a proof of service last held.
    pub(crate) last_good_proof: Option<String>,
}
