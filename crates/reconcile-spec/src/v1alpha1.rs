//! The desired-state file as people write it: `apiVersion: reconcile/v1alpha1`.
//!
//! The doc comments below are the texts of the JSON Schema, so they speak to the user. Nearly
//! every field is optional; what a missing one means is decided in [`crate::validate`].
//! Shapes stay plain (no flatten, no untagged enums), because positions get lost in those.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether a field says nothing, so that writing it can be left out.
fn absent<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Declares a structure of the file: camelCase, nothing unknown, everything optional for serde.
///
/// Fields that the user must write carry `x-required`; [`crate::schema`] turns that into the
/// schema's `required`, and the walk against the schema reports what is missing.
macro_rules! structure {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "camelCase", deny_unknown_fields, default)]
        pub struct $name {
            $(
                $(#[$field_meta])*
                #[serde(skip_serializing_if = "crate::v1alpha1::absent")]
                pub $field: $type,
            )*
        }
    };
}

mod postgresql;
mod utilities;

pub use postgresql::{Database, HbaRule, HbaType, Initdb, Listen, PasswordRef, Postgresql, Role};
pub use utilities::{
    Checks, Deploy, FailureAction, FrontPorts, Haproxy, Pgbouncer, PoolMode, PoolerPorts, Publish,
    ReadFallback, RouterPorts, Runtime, Swarm, Timeouts, Update, UpdateOrder,
};

/// A plain value, kept exactly as written: a text, a number, `true` or `false`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Scalar(pub String);

impl JsonSchema for Scalar {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Scalar".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": ["string", "number", "boolean"] })
    }
}

/// Version of the file format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ApiVersion {
    /// The only version so far.
    #[serde(rename = "reconcile/v1alpha1")]
    #[default]
    V1alpha1,
}

/// Kind of the document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Kind {
    /// A highly available PostgreSQL cluster.
    #[default]
    PostgresCluster,
}

/// A highly available PostgreSQL cluster: etcd, Patroni and PostgreSQL run by systemd on a few
/// servers, HAProxy and PgBouncer run by Docker Swarm.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PostgresCluster {
    /// Always `reconcile/v1alpha1`.
    #[schemars(extend("x-required" = true))]
    pub api_version: ApiVersion,
    /// Always `PostgresCluster`.
    #[schemars(extend("x-required" = true))]
    pub kind: Kind,
    /// Name and labels.
    #[schemars(extend("x-required" = true))]
    pub metadata: Metadata,
    /// What the cluster shall be like.
    #[schemars(extend("x-required" = true))]
    pub spec: Spec,
}

structure! {
    /// Name and labels of the cluster.
    pub struct Metadata {
        /// Name of the cluster: lower-case letters, digits and `-`. Also Patroni's scope.
        #[schemars(extend("x-required" = true), length(min = 1, max = 63))]
        pub name: String,
        /// Labels, for people.
        pub labels: BTreeMap<String, String>,
    }
}

structure! {
    /// What the cluster shall be like. Only `hosts` must be said.
    pub struct Spec {
        /// Where the values of secrets are looked up. Default: `file: secrets.yaml`.
        pub secrets: Option<Secrets>,
        /// How all hosts are reached; a host's own `ssh` wins field by field.
        pub ssh: Option<Ssh>,
        /// The servers.
        #[schemars(extend("x-required" = true), length(min = 1))]
        pub hosts: Vec<Host>,
        /// Where the software of the core comes from.
        pub packages: Option<Packages>,
        /// The consensus store.
        pub etcd: Option<Etcd>,
        /// The failover manager.
        pub patroni: Option<Patroni>,
        /// The database.
        pub postgresql: Option<Postgresql>,
        /// The connection poolers.
        pub pgbouncer: Option<Pgbouncer>,
        /// The load balancer, and the router that knows who is primary.
        pub haproxy: Option<Haproxy>,
        /// The Docker Swarm that runs the two above.
        pub swarm: Option<Swarm>,
        /// What reconcile may do on its own, and when.
        pub policy: Option<Policy>,
    }
}

structure! {
    /// Where the values of secrets are looked up; exactly one of the fields. Values themselves
    /// never stand in this file.
    pub struct Secrets {
        /// Path of a YAML file of `name: value`, relative to this file; `reconcile secrets init`
        /// makes one. In clear it must stay out of Git; encrypted with age or SOPS it may be there.
        pub file: Option<String>,
        /// Prefix of environment variables; the rest is the name in upper case with `_` for `-`.
        pub env: Option<String>,
        /// A program and its arguments that prints such a YAML file.
        pub exec: Option<Vec<String>>,
    }
}

structure! {
    /// How hosts are reached by SSH.
    pub struct Ssh {
        /// Login user. Must be said here or at the host.
        #[schemars(length(min = 1))]
        pub user: Option<String>,
        /// TCP port. Default: 22.
        #[schemars(range(min = 1, max = 65535))]
        pub port: Option<u16>,
        /// Path of the private key. Without it the SSH agent is asked.
        #[schemars(length(min = 1))]
        pub identity_file: Option<String>,
        /// Whether the SSH agent is asked for keys. Default: if there is no `identityFile`.
        pub agent: Option<bool>,
        /// The host to go through, as in OpenSSH's ProxyJump: `[user@]host[:port]`, or `none`.
        #[schemars(length(min = 1))]
        pub jump: Option<String>,
        /// Pinned host key of the jump host: `ssh-ed25519 AAAA…`. Default: `knownHosts` decides.
        pub jump_host_key: Option<String>,
        /// Path of a known_hosts file, relative to this file, for hosts without `hostKey`.
        #[schemars(length(min = 1))]
        pub known_hosts: Option<String>,
        /// Whether commands that need root go through `sudo -n`. Default: if the user is not root.
        pub sudo: Option<bool>,
    }
}

structure! {
    /// A server.
    pub struct Host {
        /// Name: lower-case letters, digits and `-`. Also its etcd and Patroni member name.
        #[schemars(extend("x-required" = true), length(min = 1, max = 63))]
        pub name: String,
        /// IP address by which the other hosts reach it; its services listen there.
        #[schemars(extend("x-required" = true), length(min = 1))]
        pub address: String,
        /// Its pinned SSH host key: `ssh-ed25519 AAAA…`, as in `/etc/ssh/ssh_host_ed25519_key.pub`.
        pub host_key: Option<String>,
        /// What differs from the common `ssh`.
        pub ssh: Option<Ssh>,
        /// Labels, for people.
        pub labels: BTreeMap<String, String>,
        /// Which parts of the core run here. Default: all. `[]`: none, only containers.
        pub components: Option<Vec<Component>>,
        /// Its part in the Swarm.
        pub swarm: Option<HostSwarm>,
        /// It is to leave the cluster: its services are stopped in a safe order, and the others
        /// forget it. Its data stay where they are. When that is done, take it out of the file.
        /// Default: false.
        pub leaving: Option<bool>,
    }
}

/// A part of the core.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub enum Component {
    /// A member of the etcd cluster.
    Etcd,
    /// Patroni together with its PostgreSQL.
    Patroni,
}

structure! {
    /// A host's part in the Swarm.
    pub struct HostSwarm {
        /// Default: `manager` if listed in `swarm.managers`, else `worker`.
        pub role: Option<SwarmRole>,
        /// Address that it advertises to the other nodes. Default: the host's address.
        #[schemars(length(min = 1))]
        pub advertise_address: Option<String>,
    }
}

/// A host's part in the Swarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum SwarmRole {
    /// Takes part in the Swarm's consensus and runs containers.
    Manager,
    /// Runs containers.
    Worker,
    /// Is no node of the Swarm.
    None,
}

structure! {
    /// Where the software of the core comes from.
    pub struct Packages {
        /// Default: `apt`.
        pub source: Option<PackageSource>,
    }
}

/// A source of packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum PackageSource {
    /// The package sources that apt knows on the host.
    Apt,
    /// Nothing is installed; what is missing is reported.
    Preinstalled,
}

structure! {
    /// The etcd cluster, one member on each host with the component `etcd`.
    pub struct Etcd {
        /// TCP port for clients. Default: 2379.
        #[schemars(range(min = 1, max = 65535))]
        pub client_port: Option<u16>,
        /// TCP port between members. Default: 2380.
        #[schemars(range(min = 1, max = 65535))]
        pub peer_port: Option<u16>,
        /// Absolute path of the data directory. Default: /var/lib/etcd.
        #[schemars(length(min = 1))]
        pub data_dir: Option<String>,
        /// Heartbeat of the leader. Default: 100ms.
        pub heartbeat_interval: Option<String>,
        /// Silence after which a member stands for election; at least five heartbeats.
        /// Default: 1s.
        pub election_timeout: Option<String>,
        /// History that is kept before it is compacted. Default: 1h.
        pub auto_compaction_retention: Option<String>,
        /// Size at which etcd stops accepting writes. Default: 2GB.
        pub quota_backend: Option<String>,
        /// Version of the package, exactly as the package source names it. Default: what it offers.
        #[schemars(length(min = 1))]
        pub version: Option<String>,
    }
}

structure! {
    /// Patroni. Times are whole seconds, as in Patroni itself.
    pub struct Patroni {
        /// Named set of the four times below. Default: `norm`.
        pub profile: Option<Profile>,
        /// Lease of the leader, at least 20. Default: from the profile.
        #[schemars(range(min = 20, max = 3600))]
        pub ttl: Option<u32>,
        /// Pause between two rounds. Default: from the profile.
        #[schemars(range(min = 1, max = 600))]
        pub loop_wait: Option<u32>,
        /// Patience with etcd and PostgreSQL, at least 3; `loopWait + 2·retryTimeout ≤ ttl`.
        /// Default: from the profile.
        #[schemars(range(min = 3, max = 1800))]
        pub retry_timeout: Option<u32>,
        /// Time that a crashed primary gets to come back before a failover.
        /// Default: from the profile.
        #[schemars(range(min = 0, max = 86400))]
        pub primary_start_timeout: Option<u32>,
        /// A replica further behind is no candidate for failover. Default: 1MB.
        pub maximum_lag_on_failover: Option<String>,
        /// Keep the primary while etcd is away and all members answer. Default: true.
        pub failsafe_mode: Option<bool>,
        /// Repair a diverged former primary with pg_rewind. Default: true.
        pub use_pg_rewind: Option<bool>,
        /// Synchronous replication. Default: off.
        pub synchronous: Option<Synchronous>,
        /// TCP port of the REST API. Default: 8008.
        #[schemars(range(min = 1, max = 65535))]
        pub rest_api_port: Option<u16>,
        /// Use of the kernel's watchdog. Default: `automatic`.
        pub watchdog: Option<Watchdog>,
        /// Version of the package, exactly as the package source names it. Default: what it offers.
        #[schemars(length(min = 1))]
        pub version: Option<String>,
    }
}

/// How fast a dead primary is replaced, against how calmly a slow one is endured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Profile {
    /// ttl 20, loopWait 5, retryTimeout 5, primaryStartTimeout 15.
    Fast,
    /// ttl 30, loopWait 5, retryTimeout 10, primaryStartTimeout 25.
    Norm,
    /// ttl 60, loopWait 10, retryTimeout 20, primaryStartTimeout 45.
    Safe,
}

structure! {
    /// Synchronous replication.
    pub struct Synchronous {
        /// Default: `off`.
        pub mode: Option<SynchronousMode>,
        /// Rather refuse writes than be without a synchronous standby. Default: false.
        pub strict: Option<bool>,
        /// How many synchronous standbys. Default: 1.
        #[schemars(range(min = 1, max = 100))]
        pub node_count: Option<u32>,
    }
}

/// Patroni's `synchronous_mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum SynchronousMode {
    /// Asynchronous.
    Off,
    /// Patroni names the synchronous standbys.
    On,
    /// Any `nodeCount` of the standbys; needs Patroni 4.
    Quorum,
}

/// Use of the kernel's watchdog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Watchdog {
    /// Never.
    Off,
    /// If the device is there.
    Automatic,
    /// No leadership without it.
    Required,
}

structure! {
    /// What reconcile may do on its own, and when.
    pub struct Policy {
        /// What is done about drift. Default: `heal`.
        pub drift: Option<Drift>,
        /// The same for classes of things, where it differs from `drift`.
        pub drift_by_class: Option<DriftByClass>,
        /// Whether things made by reconcile that this file no longer names are removed; this
        /// release removes none either way. Default: false.
        pub prune: Option<bool>,
        /// Change nothing at all. Default: false.
        pub pause: Option<bool>,
        /// When a switchover is allowed. Default: `allowed`.
        pub switchover: Option<Permission>,
        /// When a restart is allowed. Default: `allowed`.
        pub restart: Option<Permission>,
        /// The windows that `inWindow` means.
        pub windows: Vec<Window>,
    }
}

structure! {
    /// What is done about drift, by class.
    pub struct DriftByClass {
        /// Packages of the core.
        pub packages: Option<Drift>,
        /// Files that reconcile writes.
        pub files: Option<Drift>,
        /// Units: etcd, Patroni, Docker.
        pub units: Option<Drift>,
        /// Patroni's dynamic configuration, `ALTER SYSTEM`, roles, databases and what is in them.
        pub postgresql: Option<Drift>,
        /// Nodes, network, configs, secrets and services of the Swarm.
        pub swarm: Option<Drift>,
    }
}

/// What is done about drift.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Drift {
    /// It is undone.
    Heal,
    /// It is reported.
    Report,
}

/// When something disruptive may be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Permission {
    /// At any time.
    Allowed,
    /// Inside one of `windows`, by the clock of the operator.
    InWindow,
    /// Never; it is held.
    Never,
}

structure! {
    /// A recurring maintenance window.
    pub struct Window {
        /// When it opens: minute, hour, day of the month, month, day of the week.
        #[schemars(extend("x-required" = true), length(min = 1))]
        pub cron: String,
        /// For how long it stays open: `90m`, `2h`.
        #[schemars(extend("x-required" = true), length(min = 1))]
        pub duration: String,
        /// IANA name of the time zone of `cron`, such as `Europe/Berlin`. Default: `UTC`.
        #[schemars(length(min = 1))]
        pub timezone: Option<String>,
    }
}
