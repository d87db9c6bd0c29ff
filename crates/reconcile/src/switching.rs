//! The poolers, Patroni and the routers of a real cluster, as a switchover needs them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use reconcile_cluster::{Console, Endpoint, Login, Method, StatusCode, exchange, servers_up};
use reconcile_core::{
    action::HostAction,
    desired::{
        Secrets,
        patroni::{REST_USER, SOCKET_DIR},
        pgbouncer::ADMIN_USER,
    },
    model::{Content, HostName, SecretText},
    ports::{EffectError, Retry},
};
use reconcile_hosts::Ssh;
use reconcile_spec::{
    ClusterSpec,
    secrets::{PATRONI_RESTAPI, PGBOUNCER_ADMIN},
};

/// It may take long where much is dirty, and nobody waits for it.
const CHECKPOINT: Duration = Duration::from_secs(60);

/// What a switchover touches.
pub(crate) struct RealSwitching {
    ssh: Arc<Ssh>,
    consoles: BTreeMap<HostName, Console>,
    patroni: BTreeMap<HostName, Endpoint>,
    routers: BTreeMap<HostName, Endpoint>,
    login: Login,
    postgresql_port: u16,
}

impl RealSwitching {
    /// Nothing is connected before it is needed.
    pub(crate) fn new(spec: &ClusterSpec, secrets: &Secrets, ssh: Arc<Ssh>) -> Self {
        let secret = |name: &str| secrets.get(name).cloned().unwrap_or_else(|| SecretText::new(""));
        let endpoint =
            |address: String, host: &HostName, port| Endpoint { host: host.clone(), address, port };
        let mut this = Self {
            ssh,
            consoles: BTreeMap::new(),
            patroni: BTreeMap::new(),
            routers: BTreeMap::new(),
            postgresql_port: spec.postgresql.port,
            login: (REST_USER.to_owned(), secret(PATRONI_RESTAPI)),
        };
        for host in &spec.hosts {
            let name = HostName::new(host.name.as_str());
            let address = host.address.to_string();
            let rest = endpoint(address.clone(), &name, spec.patroni.rest_api_port);
            this.patroni.insert(name.clone(), rest);
            let stats = spec.haproxy.router_ports.stats;
            this.routers.insert(name.clone(), endpoint("127.0.0.1".to_owned(), &name, stats));
            let console = Console {
                host: name.clone(),
                address,
                port: spec.pgbouncer.ports.write,
                user: ADMIN_USER.to_owned(),
                password: secret(PGBOUNCER_ADMIN),
            };
            this.consoles.insert(name, console);
        }
        this
    }
}

fn unknown(host: &HostName) -> EffectError {
    EffectError::new(Some(host), "find the server", "it is not in the file", Retry::AfterChange)
}

impl RealSwitching {
    /// `CHECKPOINT` of the primary.
    pub(crate) async fn checkpoint(&self, leader: &HostName) -> Result<(), EffectError> {
        let action = HostAction::Sql {
            socket_dir: SOCKET_DIR.to_owned(),
            port: self.postgresql_port,
            database: "postgres".to_owned(),
            sql: Content::open("CHECKPOINT;\n"),
        };
        self.ssh.apply(leader, &action, CHECKPOINT).await
    }

    /// A session on its console.
    pub(crate) async fn reach(&self, node: &HostName) -> Result<(), EffectError> {
        self.consoles.get(node).ok_or_else(|| unknown(node))?.reach(self.ssh.as_ref()).await
    }

    /// Transactions that are open for long.
    pub(crate) async fn long_transactions(
        &self,
        member: &HostName,
        older_than: Duration,
    ) -> Result<Vec<String>, EffectError> {
        let at = (SOCKET_DIR, self.postgresql_port);
        self.ssh.long_transactions(member, at, older_than).await
    }

    /// Pools whose clients keep their server connection.
    pub(crate) async fn sessions(&self, node: &HostName) -> Result<Vec<String>, EffectError> {
        self.consoles.get(node).ok_or_else(|| unknown(node))?.sessions(self.ssh.as_ref()).await
    }

    /// `PAUSE` of the write pooler on a node.
    pub(crate) async fn pause(&self, node: &HostName) -> Result<(), EffectError> {
        self.consoles.get(node).ok_or_else(|| unknown(node))?.pause(self.ssh.as_ref()).await
    }

    /// `RESUME` of it.
    pub(crate) async fn resume(&self, node: &HostName) -> Result<(), EffectError> {
        self.consoles.get(node).ok_or_else(|| unknown(node))?.resume(self.ssh.as_ref()).await
    }

    /// `POST /switchover`.
    pub(crate) async fn request(
        &self,
        leader: &HostName,
        candidate: &HostName,
    ) -> Result<(), EffectError> {
        let endpoint = self.patroni.get(leader).ok_or_else(|| unknown(leader))?;
        let body = serde_json::json!({
            "leader": leader.as_str(), "candidate": candidate.as_str(),
        });
        let (status, answer) = exchange(
            self.ssh.as_ref(),
            endpoint,
            Method::POST,
            "/switchover",
            Some(body.to_string()),
            Some(&self.login),
        )
        .await?;
        if status.is_success() {
            return Ok(());
        }
        Err(EffectError::new(
            Some(leader),
            format!("ask Patroni to hand over from {leader} to {candidate}"),
            format!("{status}: {}", String::from_utf8_lossy(&answer).trim()),
            // A 500 may be of a request that is written already.
            if status.is_client_error() || status == StatusCode::SERVICE_UNAVAILABLE {
                Retry::AfterChange
            } else {
                Retry::Later
            },
        ))
    }

    /// Whether the member says that it is the primary.
    pub(crate) async fn is_primary(&self, member: &HostName) -> bool {
        let Some(endpoint) = self.patroni.get(member) else { return false };
        let answer =
            exchange(self.ssh.as_ref(), endpoint, Method::OPTIONS, "/primary", None, None).await;
        matches!(answer, Ok((StatusCode::OK, _)))
    }

    /// Whether the router of `node` sends writes to `member` alone.
    pub(crate) async fn routed_to(&self, node: &HostName, member: &HostName) -> bool {
        let Some(endpoint) = self.routers.get(node) else { return false };
        let answer = exchange(self.ssh.as_ref(), endpoint, Method::GET, "/;csv", None, None).await;
        let Ok((StatusCode::OK, csv)) = answer else { return false };
        servers_up(&String::from_utf8_lossy(&csv), "primary") == [member.to_string()]
    }
}
