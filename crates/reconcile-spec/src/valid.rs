//! The validated specification: every default filled in, every name parsed, every rule held.
//!
//! The rest of the program consumes these types only. They are plain data; the one way to a
//! [`ValidSpec`] is [`crate::load`], so whoever holds one need not check again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::Serialize;

use crate::cron::Cron;
pub use crate::names::{
    ClusterName, DatabaseName, ExtensionName, HostName, NameError, NetworkName, RoleName,
    SchemaName, SecretName, StackName,
};
pub use crate::ports::{BindAddress, Claimant, PortClaim, Protocol, port_claims};
pub use crate::quantity::{Bytes, Millis};
pub use crate::secrets::{SecretRequirement, required_secrets};

mod postgresql;
mod utilities;

pub use postgresql::{
    Database, HbaMethod, HbaRule, HbaType, Initdb, Listen, Postgresql, Role, SecretRef,
};
pub use utilities::{
    Checks, DeployRules, FailureAction, FrontPorts, Haproxy, ImageRef, Pgbouncer, PoolMode,
    PoolerPorts, Publish, ReadFallback, RouterPorts, Runtime, Swarm, Timeouts, UpdateOrder,
    UpdateRules,
};

/// A cluster's specification that passed every rule of [`crate::load`].
///
/// It reads as the [`ClusterSpec`] that it wraps; it cannot be built or changed from outside,
/// so a function that takes one need not doubt it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct ValidSpec(ClusterSpec);

impl ValidSpec {
    /// Only for the last step of validation.
    pub(crate) fn sealed(spec: ClusterSpec) -> Self {
        Self(spec)
    }

    /// The plain data, to change it (tests and simulations); the proof of validity is lost.
    pub fn into_inner(self) -> ClusterSpec {
        self.0
    }
}

impl std::ops::Deref for ValidSpec {
    type Target = ClusterSpec;

    fn deref(&self) -> &ClusterSpec {
        &self.0
    }
}

/// One PostgreSQL cluster: its hosts and all that runs on them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterSpec {
    /// Name of the cluster, and Patroni's scope.
    pub name: ClusterName,
    /// Labels of the cluster, for people and for selecting.
    pub labels: BTreeMap<String, String>,
    /// Where secrets come from.
    pub secrets: SecretsSource,
    /// The servers, in the order of the file.
    pub hosts: Vec<Host>,
    /// Where the core's software comes from.
    pub packages: Packages,
    /// The consensus store.
    pub etcd: Etcd,
    /// The failover manager.
    pub patroni: Patroni,
    /// The database.
    pub postgresql: Postgresql,
    /// The connection poolers.
    pub pgbouncer: Pgbouncer,
    /// The front (load balancer) and the router (role check).
    pub haproxy: Haproxy,
    /// The Swarm that carries poolers, front and router.
    pub swarm: Swarm,
    /// What reconcile may do on its own, and when.
    pub policy: Policy,
}

impl ClusterSpec {
    /// Hosts that are not to leave, in the order of the file.
    pub fn staying(&self) -> impl Iterator<Item = &Host> {
        self.hosts.iter().filter(|host| !host.leaving)
    }

    /// Hosts that are to leave, in the order of the file.
    pub fn leaving(&self) -> impl Iterator<Item = &Host> {
        self.hosts.iter().filter(|host| host.leaving)
    }

    /// Hosts that stay and run `component`, in the order of the file.
    pub fn hosts_with(&self, component: Component) -> impl Iterator<Item = &Host> {
        self.staying().filter(move |host| host.components.contains(&component))
    }

    /// Hosts that stay and take part in the Swarm, in the order of the file.
    pub fn swarm_hosts(&self) -> impl Iterator<Item = &Host> {
        self.staying().filter(|host| host.swarm != SwarmRole::None)
    }

    /// Hosts that stay and manage the Swarm, in the order of the file.
    pub fn swarm_managers(&self) -> impl Iterator<Item = &Host> {
        self.staying().filter(|host| host.swarm == SwarmRole::Manager)
    }

    /// The host of that name.
    pub fn host(&self, name: &str) -> Option<&Host> {
        self.hosts.iter().find(|host| host.name == *name)
    }
}

/// Where the values of secrets are looked up; the specification holds only names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum SecretsSource {
    /// A YAML file of `name: value`, in clear or encrypted with age or SOPS, its path relative to
    /// the specification.
    File(String),
    /// Environment variables: this prefix, then the name in upper case with `_` for `-`.
    Env(String),
    /// A program and its arguments whose standard output is such a YAML file.
    Exec(Vec<String>),
}

/// A server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Host {
    /// Name; also its etcd and Patroni member name.
    pub name: HostName,
    /// The address by which the other hosts reach it, and on which its services listen.
    pub address: IpAddr,
    /// How it is reached.
    pub ssh: Ssh,
    /// Labels, for people, and passed to the Swarm node.
    pub labels: BTreeMap<String, String>,
    /// Which parts of the core run here; empty for a host that only carries containers.
    pub components: BTreeSet<Component>,
    /// Its part in the Swarm.
    pub swarm: SwarmRole,
    /// The address that it advertises to the Swarm's other nodes.
    pub advertise_address: IpAddr,
    /// It is to leave the cluster.
    pub leaving: bool,
}

/// A part of the core, run by systemd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Component {
    /// A member of the etcd cluster.
    Etcd,
    /// Patroni with its PostgreSQL.
    Patroni,
}

/// A host's part in the Swarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum SwarmRole {
    /// Takes part in the Swarm's consensus and runs tasks.
    Manager,
    /// Runs tasks.
    Worker,
    /// Is no node of the Swarm.
    None,
}

/// How a host is reached by SSH, resolved from the host's own and the common settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ssh {
    /// Login user.
    pub user: String,
    /// TCP port of the server's sshd.
    pub port: u16,
    /// Path of the private key; `~/` is the operator's home.
    pub identity_file: Option<String>,
    /// Whether the SSH agent is asked for keys.
    pub agent: bool,
    /// The host to go through, if any.
    pub jump: Option<Jump>,
    /// The pinned host key in OpenSSH's public key text: `ssh-ed25519 AAAA…`.
    pub host_key: Option<String>,
    /// Path of a known_hosts file, relative to the specification. At least one of this and
    /// `host_key` is set.
    pub known_hosts: Option<String>,
    /// Whether commands that need root go through `sudo -n`.
    pub sudo: bool,
}

/// An SSH jump host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Jump {
    /// Name or address.
    pub host: String,
    /// TCP port of its sshd.
    pub port: u16,
    /// Login user; the target's user unless said otherwise.
    pub user: String,
    /// Its pinned host key; without one the `known_hosts` of the [`Ssh`] decides.
    pub host_key: Option<String>,
}

/// Where the core's software comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Packages {
    /// The source.
    pub source: PackageSource,
}

/// A source of packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum PackageSource {
    /// The package sources that apt knows on the host.
    Apt,
    /// Nothing is installed; what is missing is reported.
    Preinstalled,
}

/// The etcd cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Etcd {
    /// TCP port for clients, on the host's address and on loopback.
    pub client_port: u16,
    /// TCP port for the other members, on the host's address.
    pub peer_port: u16,
    /// Absolute path of the data directory.
    pub data_dir: String,
    /// `initial-cluster-token`: keeps clusters that share hosts by mistake apart.
    pub token: String,
    /// Heartbeat of the leader, milliseconds.
    pub heartbeat_ms: u64,
    /// Silence after which a member stands for election, milliseconds; at least five heartbeats.
    pub election_ms: u64,
    /// History that etcd keeps before compacting it.
    pub auto_compaction_retention: Millis,
    /// Size at which etcd stops accepting writes.
    pub quota_backend: Bytes,
    /// Version of the package, exactly as the package source names it; none: what it offers.
    pub version: Option<String>,
}

/// Patroni.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Patroni {
    /// The profile that the four times below come from unless they were said singly.
    pub profile: Profile,
    /// Lease of the leader, seconds.
    pub ttl: u32,
    /// Pause between two rounds, seconds.
    pub loop_wait: u32,
    /// Patience with etcd and PostgreSQL before giving up leadership, seconds.
    /// `loop_wait + 2 * retry_timeout <= ttl` holds.
    pub retry_timeout: u32,
    /// Time that a crashed primary gets to come back before a failover, seconds.
    pub primary_start_timeout: u32,
    /// A replica further behind is no candidate for failover.
    pub maximum_lag_on_failover: Bytes,
    /// Keep the primary while etcd is away and all members answer.
    pub failsafe_mode: bool,
    /// Repair a diverged former primary with `pg_rewind`.
    pub use_pg_rewind: bool,
    /// Synchronous replication.
    pub synchronous: Synchronous,
    /// TCP port of the REST API, on the host's address.
    pub rest_api_port: u16,
    /// Use of the kernel's watchdog.
    pub watchdog: Watchdog,
    /// Version of the package, exactly as the package source names it; none: what it offers.
    pub version: Option<String>,
}

/// How fast a dead primary is replaced, against how calmly a slow one is endured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Profile {
    /// ttl 20, loop_wait 5, retry_timeout 5, primary_start_timeout 15.
    Fast,
    /// ttl 30, loop_wait 5, retry_timeout 10, primary_start_timeout 25.
    Norm,
    /// ttl 60, loop_wait 10, retry_timeout 20, primary_start_timeout 45.
    Safe,
}

/// Synchronous replication.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Synchronous {
    /// Patroni's `synchronous_mode`.
    pub mode: SynchronousMode,
    /// Rather refuse writes than be without a synchronous standby.
    pub strict: bool,
    /// How many synchronous standbys.
    pub node_count: u32,
}

/// Patroni's `synchronous_mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum SynchronousMode {
    /// Asynchronous.
    Off,
    /// Patroni names the synchronous standbys.
    On,
    /// Any `node_count` of the standbys (Patroni 4).
    Quorum,
}

/// Use of the kernel's watchdog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Watchdog {
    /// Never.
    Off,
    /// If the device is there.
    Automatic,
    /// No leadership without it.
    Required,
}

/// What reconcile may do on its own, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    /// What is done about drift.
    pub drift: DriftModes,
    /// Whether owned things that the specification no longer names are removed.
    pub prune: bool,
    /// Whether nothing at all is changed.
    pub pause: bool,
    /// When a switchover is allowed.
    pub switchover: Permission,
    /// When a restart is allowed.
    pub restart: Permission,
    /// The windows that [`Permission::InWindow`] means.
    pub windows: Vec<Window>,
}

/// What is done about drift, by class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DriftModes {
    /// Packages.
    pub packages: Drift,
    /// Files.
    pub files: Drift,
    /// Units.
    pub units: Drift,
    /// Patroni's dynamic configuration, `ALTER SYSTEM`, roles, databases and what is in them.
    pub postgresql: Drift,
    /// Nodes, network, configs, secrets and services of the Swarm.
    pub swarm: Drift,
}

impl DriftModes {
    /// The same for all classes.
    pub fn all(drift: Drift) -> Self {
        Self { packages: drift, files: drift, units: drift, postgresql: drift, swarm: drift }
    }
}

/// What is done about drift.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Drift {
    /// Undone.
    Heal,
    /// Only reported.
    Report,
}

/// When something disruptive may be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Permission {
    /// At any time.
    Allowed,
    /// Inside a window of the policy.
    InWindow,
    /// Never; it is held until a person asks for it.
    Never,
}

/// A recurring maintenance window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Window {
    /// When it opens.
    pub cron: Cron,
    /// For how long it stays open, seconds; more than none, at most a week.
    pub duration_s: u64,
    /// IANA name of the time zone in which `cron` counts.
    pub timezone: String,
}
