//! The utilities' part of the file format: poolers, load balancer, Swarm.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Scalar;

/// What runs a utility.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Runtime {
    /// Docker Swarm.
    Swarm,
    /// systemd; refused by this release.
    Systemd,
}

structure! {
    /// The connection poolers: one service for writes and one for reads on every Swarm node.
    pub struct Pgbouncer {
        /// What runs them. Default: `swarm`.
        pub runtime: Option<Runtime>,
        /// Image with a fixed tag or a digest. Default: edoburu/pgbouncer:v1.25.2-p0.
        #[schemars(length(min = 1))]
        pub image: Option<String>,
        /// TCP ports on every Swarm node.
        pub ports: Option<PoolerPorts>,
        /// When a server connection goes back to the pool. Default: `transaction`.
        pub pool_mode: Option<PoolMode>,
        /// Most client connections of one pooler. Default: 10000.
        #[schemars(range(min = 1, max = 1_000_000))]
        pub max_client_conn: Option<u32>,
        /// Server connections per pair of user and database, of one pooler. Default: 25.
        #[schemars(range(min = 1, max = 100_000))]
        pub default_pool_size: Option<u32>,
        /// Further settings of pgbouncer.ini, over a few defaults. Those that reconcile sets
        /// itself are refused.
        pub parameters: BTreeMap<String, Scalar>,
    }
}

structure! {
    /// TCP ports of the poolers.
    pub struct PoolerPorts {
        /// For writes. Default: 6432.
        #[schemars(range(min = 1, max = 65535))]
        pub write: Option<u16>,
        /// For reads. Default: 6433.
        #[schemars(range(min = 1, max = 65535))]
        pub read: Option<u16>,
    }
}

/// When a server connection goes back to the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum PoolMode {
    /// At the end of a transaction.
    Transaction,
    /// At the end of a session.
    Session,
    /// At the end of a statement.
    Statement,
}

structure! {
    /// HAProxy, twice: the front that applications reach as `haproxy` on the overlay network,
    /// and the router below the poolers that knows who is primary.
    pub struct Haproxy {
        /// What runs it. Default: `swarm`.
        pub runtime: Option<Runtime>,
        /// Image with a fixed tag or a digest. Default: haproxy:3.3-alpine.
        #[schemars(length(min = 1))]
        pub image: Option<String>,
        /// TCP ports of the front on the overlay network; they take no port of the hosts.
        pub ports: Option<FrontPorts>,
        /// TCP ports of the router on every Swarm node.
        pub router_ports: Option<RouterPorts>,
        /// Ports of every Swarm node that lead to the front.
        pub publish: Option<Publish>,
        /// Where reads go while no replica is fit. Default: `primary`.
        pub read_fallback: Option<ReadFallback>,
        /// A replica further behind gets no reads. Default: 16MB.
        pub max_lag: Option<String>,
        /// Most connections of the front. Default: 10000.
        #[schemars(range(min = 1, max = 1_000_000))]
        pub maxconn: Option<u32>,
        /// Timeouts.
        pub timeouts: Option<Timeouts>,
        /// Rhythm of health checks. Their paths are Patroni's /primary and /replica.
        pub checks: Option<Checks>,
    }
}

structure! {
    /// TCP ports of the front on the overlay network.
    pub struct FrontPorts {
        /// Leads to the primary. Default: 5432.
        #[schemars(range(min = 1, max = 65535))]
        pub write: Option<u16>,
        /// Leads to the replicas. Default: 5433.
        #[schemars(range(min = 1, max = 65535))]
        pub read: Option<u16>,
        /// Statistics page. Default: 7000.
        #[schemars(range(min = 1, max = 65535))]
        pub stats: Option<u16>,
    }
}

structure! {
    /// TCP ports of the router on every Swarm node.
    pub struct RouterPorts {
        /// Leads to the primary; on loopback. Default: 5442.
        #[schemars(range(min = 1, max = 65535))]
        pub primary: Option<u16>,
        /// Leads to the replicas; on loopback. Default: 5443.
        #[schemars(range(min = 1, max = 65535))]
        pub replicas: Option<u16>,
        /// Answers the front's health checks; on all addresses. Default: 5444.
        #[schemars(range(min = 1, max = 65535))]
        pub health: Option<u16>,
        /// Statistics; on loopback. Default: 5445.
        #[schemars(range(min = 1, max = 65535))]
        pub stats: Option<u16>,
    }
}

structure! {
    /// Ports of every Swarm node, in host mode, that lead to the front; 0: not published.
    pub struct Publish {
        /// To the front's write port. Default: 15432; 5432 there is PostgreSQL's.
        #[schemars(range(min = 0, max = 65535))]
        pub write: Option<u16>,
        /// To the front's read port. Default: 5433.
        #[schemars(range(min = 0, max = 65535))]
        pub read: Option<u16>,
        /// To the front's statistics page. Default: 7000.
        #[schemars(range(min = 0, max = 65535))]
        pub stats: Option<u16>,
    }
}

/// Where reads go while no replica is fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ReadFallback {
    /// To the primary.
    Primary,
    /// Nowhere; they fail.
    None,
}

structure! {
    /// HAProxy's timeouts, such as `500ms`, `4s`, `24h`.
    pub struct Timeouts {
        /// For a connection to a server to be made. Default: 4s.
        pub connect: Option<String>,
        /// For a silent client. Default: 24h.
        pub client: Option<String>,
        /// For a silent server. Default: 24h.
        pub server: Option<String>,
        /// For a health check's answer. Default: 2s.
        pub check: Option<String>,
    }
}

structure! {
    /// Rhythm of HAProxy's health checks.
    pub struct Checks {
        /// Between two checks of a server in a steady state. Default: 1s.
        pub inter: Option<String>,
        /// Between two checks of a server in transition. Default: 500ms.
        pub fastinter: Option<String>,
        /// Between two checks of a server that is down. Default: 1s.
        pub downinter: Option<String>,
        /// Successes after which a server is up. Default: 2.
        #[schemars(range(min = 1, max = 100))]
        pub rise: Option<u32>,
        /// Failures after which a server is down. Default: 2.
        #[schemars(range(min = 1, max = 100))]
        pub fall: Option<u32>,
    }
}

structure! {
    /// The Docker Swarm and what reconcile runs in it.
    pub struct Swarm {
        /// Name of the stack. Default: db-utils.
        #[schemars(length(min = 1, max = 63))]
        pub stack: Option<String>,
        /// Name of the overlay network that applications share with HAProxy.
        /// Default: saasodoo-network.
        #[schemars(length(min = 1, max = 63))]
        pub network: Option<String>,
        /// Subnet of that network, such as `10.20.0.0/24`. Default: Docker chooses.
        #[schemars(length(min = 1))]
        pub network_subnet: Option<String>,
        /// Whether containers outside of services may attach to it. Default: true.
        pub attachable: Option<bool>,
        /// Whether its traffic is encrypted between nodes. Default: false.
        pub encrypted: Option<bool>,
        /// Names of the hosts that manage the Swarm. Default: the hosts with etcd, an odd number
        /// of them, at most five.
        pub managers: Option<Vec<String>>,
        /// How many superseded versions of configs and secrets are kept for rollbacks. Default: 3.
        #[schemars(range(min = 1, max = 100))]
        pub config_retention: Option<u32>,
        /// Rules for all services.
        pub deploy: Option<Deploy>,
    }
}

structure! {
    /// How services are updated, restarted and stopped.
    pub struct Deploy {
        /// Rolling update.
        pub update: Option<Update>,
        /// Between the end of a task and its restart. Default: 5s.
        pub restart_delay: Option<String>,
        /// Between the signal to stop and the kill. Default: 30s.
        pub stop_grace_period: Option<String>,
    }
}

structure! {
    /// Rolling update of a service.
    pub struct Update {
        /// Nodes at once. With 1 the order is: one node first, which must serve, the primary's last. With more it is Docker's own. Default: 1.
        #[schemars(range(min = 1, max = 100))]
        pub parallelism: Option<u32>,
        /// Between two batches, where the order is Docker's. Default: 10s.
        pub delay: Option<String>,
        /// For so long a new task must keep running before the next node's turn. Default: 20s.
        pub monitor: Option<String>,
        /// What a failed update leads to. Default: `rollback`.
        pub failure_action: Option<FailureAction>,
        /// Which of the old and the new task goes first. Default: `stop-first`.
        pub order: Option<UpdateOrder>,
    }
}

/// What a failed update leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum FailureAction {
    /// Back to the former version.
    Rollback,
    /// Stop there.
    Pause,
    /// Go on.
    Continue,
}

/// Which of the old and the new task goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum UpdateOrder {
    /// Stop the old one, then start the new one.
    StopFirst,
    /// Refused: both would need the same host port.
    StartFirst,
}
