//! The utilities' part of the validated specification: poolers, front, router, and the Swarm
//! that carries them.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::{Bytes, Millis, NetworkName, StackName};

/// What runs a utility.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Runtime {
    /// Docker Swarm services.
    Swarm,
    /// systemd units; not accepted by this release.
    Systemd,
}

/// A container image by tag, digest, or both; never by a moving tag alone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageRef {
    /// Registry and repository as written, such as `haproxy` or `ghcr.io/acme/pgbouncer`.
    pub repository: String,
    /// Tag. At least one of tag and digest is set.
    pub tag: Option<String>,
    /// Digest, such as `sha256:…`.
    pub digest: Option<String>,
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl Serialize for ImageRef {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The connection poolers: one for writes, one for reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pgbouncer {
    /// What runs them.
    pub runtime: Runtime,
    /// Image of both services.
    pub image: ImageRef,
    /// TCP ports, on all addresses of every Swarm node.
    pub ports: PoolerPorts,
    /// When a server connection goes back to the pool.
    pub pool_mode: PoolMode,
    /// Most client connections of one pooler.
    pub max_client_conn: u32,
    /// Server connections per pair of user and database, of one pooler.
    pub default_pool_size: u32,
    /// Further settings of the section `[pgbouncer]`, without those that reconcile sets.
    pub parameters: BTreeMap<String, String>,
}

/// TCP ports of the poolers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolerPorts {
    /// Of the pooler for writes.
    pub write: u16,
    /// Of the pooler for reads.
    pub read: u16,
}

/// When a server connection goes back to the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum PoolMode {
    /// At the end of a transaction.
    Transaction,
    /// At the end of a session.
    Session,
    /// At the end of a statement.
    Statement,
}

impl PoolMode {
    /// The word in pgbouncer.ini.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Transaction => "transaction",
            Self::Session => "session",
            Self::Statement => "statement",
        }
    }
}

/// The front that applications talk to, and the router below the poolers that knows roles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Haproxy {
    /// What runs them.
    pub runtime: Runtime,
    /// Image of both services.
    pub image: ImageRef,
    /// TCP ports of the front in its own network namespace, seen on the overlay network only.
    pub ports: FrontPorts,
    /// TCP ports of the router on every Swarm node.
    pub router_ports: RouterPorts,
    /// Ports of the nodes that lead to the front.
    pub publish: Publish,
    /// Where reads go while no replica is fit.
    pub read_fallback: ReadFallback,
    /// A replica further behind gets no reads.
    pub max_lag: Bytes,
    /// Most connections of the front.
    pub maxconn: u32,
    /// Timeouts.
    pub timeouts: Timeouts,
    /// Rhythm of health checks.
    pub checks: Checks,
}

/// TCP ports of the front, on the overlay network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FrontPorts {
    /// Leads to the primary.
    pub write: u16,
    /// Leads to the replicas.
    pub read: u16,
    /// Statistics page.
    pub stats: u16,
}

/// TCP ports of the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RouterPorts {
    /// Leads to the primary; on loopback.
    pub primary: u16,
    /// Leads to the replicas; on loopback.
    pub replicas: u16,
    /// Tells the front whether this router has a primary; on all addresses.
    pub health: u16,
    /// Statistics; on loopback.
    pub stats: u16,
}

/// Ports that every Swarm node opens in host mode and leads to its front; none: not published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Publish {
    /// To the front's write port.
    pub write: Option<u16>,
    /// To the front's read port.
    pub read: Option<u16>,
    /// To the front's statistics page.
    pub stats: Option<u16>,
}

/// Where reads go while no replica is fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ReadFallback {
    /// To the primary.
    Primary,
    /// Nowhere; they fail.
    None,
}

/// HAProxy's timeouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Timeouts {
    /// For a connection to a server to be made.
    pub connect: Millis,
    /// For a silent client.
    pub client: Millis,
    /// For a silent server.
    pub server: Millis,
    /// For a health check's answer.
    pub check: Millis,
}

/// HAProxy's rhythm of health checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Checks {
    /// Between two checks of a server in a steady state.
    pub inter: Millis,
    /// Between two checks of a server in transition.
    pub fastinter: Millis,
    /// Between two checks of a server that is down.
    pub downinter: Millis,
    /// Successes after which a server is up.
    pub rise: u32,
    /// Failures after which a server is down.
    pub fall: u32,
}

/// The Docker Swarm and what reconcile runs in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Swarm {
    /// Name of the stack, the prefix of its services.
    pub stack: StackName,
    /// Name of the overlay network that applications share with the front.
    pub network: NetworkName,
    /// Subnet of that network in CIDR notation; none: Docker chooses.
    pub network_subnet: Option<String>,
    /// Whether containers outside of services may attach to it.
    pub attachable: bool,
    /// Whether its traffic is encrypted between nodes.
    pub encrypted: bool,
    /// How many superseded versions of configs and secrets are kept for rollbacks.
    pub config_retention: u32,
    /// Rules for all services.
    pub deploy: DeployRules,
}

/// How services are updated, restarted and stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeployRules {
    /// Rolling update.
    pub update: UpdateRules,
    /// Between the end of a task and its restart.
    pub restart_delay: Millis,
    /// Between the signal to stop and the kill.
    pub stop_grace: Millis,
}

/// Rolling update of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UpdateRules {
    /// Tasks at once.
    pub parallelism: u32,
    /// Between two batches.
    pub delay: Millis,
    /// For so long after its update a failing task counts as a failed update.
    pub monitor: Millis,
    /// What a failed update leads to.
    pub failure_action: FailureAction,
    /// Which of the old and the new task goes first.
    pub order: UpdateOrder,
}

/// What a failed update leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum FailureAction {
    /// Back to the former version.
    Rollback,
    /// Stop there.
    Pause,
    /// Go on.
    Continue,
}

/// Which of the old and the new task goes first. Host ports cannot be held by both, so the old
/// task always stops before the new one starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpdateOrder {
    /// Stop the old one, then start the new one.
    StopFirst,
}
