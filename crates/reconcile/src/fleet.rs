//! The real fleet: the SSH, Docker and PostgreSQL adapters behind the engine's one port.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use reconcile_cluster::{
    Endpoint, KeyEvents, Silence, answers_http, answers_postgresql, watch_keys,
};
use reconcile_core::{
    action::{Action, PatroniAction},
    desired::{
        Desired, Secrets,
        patroni::{self, REST_USER},
    },
    lease::{Ballot, Claimant, Vote, Voters},
    model::{HostFacts, HostName, PauseNote, SecretText, SwarmFacts},
    ports::{EffectError, Fleet, GUARD, Retry, Switching},
    probe::{ProbeRequest, SwarmRequest},
    verify::{Front, VerifyReport, VerifyRequest},
};
use reconcile_engine::switchover::RESTART;
use reconcile_hosts::{
    Following, HostEvents, HostTarget, JumpTarget, Program, Session, Ssh, Terminal,
};
use reconcile_spec::{
    ClusterSpec,
    secrets::PATRONI_RESTAPI,
    valid::{Component, Host},
};
use reconcile_swarm::{Hints, SwarmClient};

use crate::{base::Base, rollout::Rollout, switching::RealSwitching};

/// Servers, Swarm and database as they are.
pub(crate) struct RealFleet {
    ssh: Arc<Ssh>,
    targets: Vec<HostTarget>,
    swarm: Arc<SwarmClient>,
    patroni_urls: BTreeMap<HostName, String>,
    patroni_login: (String, SecretText),
    cluster: String,
    pooler_port: u16,
    servers: Vec<HostName>,
    etcd: BTreeMap<HostName, Endpoint>,
    patroni_keys: String,
    switching: RealSwitching,
    rollout: Rollout,
}

/// What clients come through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Router,
    /// Poolers, for writes and for reads.
    Pooler,
    ReadPooler,
    /// HAProxy, which hands on to the poolers of all nodes.
    Way,
}

impl Part {
    /// The name of its service, without the stack's.
    pub(crate) fn service(self) -> &'static str {
        match self {
            Self::Router => "router",
            Self::Pooler => "pgbouncer",
            Self::ReadPooler => "pgbouncer-read",
            Self::Way => "haproxy",
        }
    }

    /// Whether it is a pooler.
    pub(crate) fn pools(self) -> bool {
        matches!(self, Self::Pooler | Self::ReadPooler)
    }
}

/// Something that gives no sign of life.
pub(crate) struct Silent {
    pub(crate) part: Part,
    pub(crate) name: String,
    pub(crate) why: Silence,
}

impl RealFleet {
    /// Nothing is connected before it is needed, and what is connected to the same servers stays so.
    pub(crate) fn new(
        spec: &ClusterSpec,
        desired: &Desired,
        secrets: &Secrets,
        base: &Base,
        before: Option<&Self>,
    ) -> Self {
        let targets = spec.hosts.iter().map(|host| HostTarget {
            name: HostName::new(host.name.as_str()),
            address: host.address.to_string(),
            port: host.ssh.port,
            user: host.ssh.user.clone(),
            identity_file: host.ssh.identity_file.as_ref().map(|path| base.resolve(path)),
            agent: host.ssh.agent,
            jump: host.ssh.jump.as_ref().map(|jump| JumpTarget {
                host: jump.host.clone(),
                port: jump.port,
                user: jump.user.clone(),
                host_key: jump.host_key.clone(),
            }),
            host_key: host.ssh.host_key.clone(),
            known_hosts: host.ssh.known_hosts.as_ref().map(|path| base.resolve(path)),
            sudo: host.ssh.sudo,
        });
        let targets: Vec<_> = targets.collect();
        // The engine's client as well: its streams may be processes on the server, which end late.
        let same = before.filter(|before| before.targets == targets);
        let (ssh, swarm) = if let Some(same) = same {
            (Arc::clone(&same.ssh), Arc::clone(&same.swarm))
        } else {
            let ssh = Arc::new(Ssh::new(targets.iter().cloned()));
            let dialer = Arc::clone(&ssh) as Arc<dyn reconcile_dial::Dialer>;
            (ssh, Arc::new(SwarmClient::new(dialer)))
        };
        let members = &desired.patroni.members;
        let patroni_urls =
            members.iter().map(|(host, member)| (host.clone(), member.rest_url.clone())).collect();
        let password = secrets.get(PATRONI_RESTAPI).cloned().unwrap_or_else(|| SecretText::new(""));
        Self {
            switching: RealSwitching::new(spec, secrets, Arc::clone(&ssh)),
            rollout: Rollout::new(spec, secrets),
            swarm,
            ssh,
            targets,
            patroni_urls,
            cluster: desired.cluster.clone(),
            pooler_port: desired.swarm.pooler_port,
            servers: desired.servers.keys().cloned().collect(),
            etcd: spec.hosts_with(Component::Etcd).map(|host| etcd_member(spec, host)).collect(),
            patroni_keys: desired.patroni.directory(),
            patroni_login: (REST_USER.to_owned(), password),
        }
    }
}

impl RealFleet {
    /// Whether both go the same way to the servers.
    pub(crate) fn shares_connections(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.ssh, &other.ssh)
    }
}

/// The servers as voters on the lease.
pub(crate) struct Electorate {
    ssh: Arc<Ssh>,
    cluster: String,
    servers: Vec<HostName>,
}

impl Voters for Electorate {
    fn voters(&self) -> Vec<HostName> {
        self.servers.clone()
    }
    async fn vote(&self, voter: &HostName, ballot: &Ballot) -> Result<Vote, EffectError> {
        self.ssh.vote(voter, &self.cluster, ballot).await
    }
    fn carry(&self, claimant: &Claimant) {
        self.ssh.carry(&self.cluster, claimant);
    }
}

fn etcd_member(spec: &ClusterSpec, host: &Host) -> (HostName, Endpoint) {
    let name = HostName::new(host.name.as_str());
    let address = host.address.to_string();
    (name.clone(), Endpoint { host: name, address, port: spec.etcd.client_port })
}

impl RealFleet {
    /// Runs a script that only reads, and gives what it printed.
    pub(crate) async fn look_with(
        &self,
        host: &HostName,
        attempt: &str,
        script: &str,
        deadline: Duration,
    ) -> Result<reconcile_hosts::Output, EffectError> {
        self.ssh.run(host, attempt, script, deadline).await
    }

    /// Follows what a command writes.
    pub(crate) async fn follow(
        &self,
        host: &HostName,
        attempt: &str,
        words: &[String],
    ) -> Result<Following, EffectError> {
        self.ssh.follow(host, attempt, words).await
    }

    /// Starts a program that somebody talks to.
    pub(crate) async fn session(
        &self,
        host: &HostName,
        attempt: &str,
        program: &Program,
        terminal: Option<&Terminal>,
    ) -> Result<Session, EffectError> {
        self.ssh.session(host, attempt, program, terminal).await
    }

    /// Sends a signal to the process of one that has no terminal.
    pub(crate) async fn signal(
        &self,
        host: &HostName,
        pid: u32,
        name: &str,
    ) -> Result<(), EffectError> {
        self.ssh.signal(host, pid, name).await
    }

    /// Where the lease is asked for: every server of the file.
    pub(crate) fn electorate(&self) -> Electorate {
        Electorate {
            ssh: Arc::clone(&self.ssh),
            cluster: self.cluster.clone(),
            servers: self.servers.clone(),
        }
    }

    /// Who holds the lease, as far as a server knows.
    pub(crate) async fn lease_seen(&self, host: &HostName) -> Result<Vote, EffectError> {
        self.ssh.lease_seen(host, &self.cluster).await
    }

    /// What a server has noted of a pause.
    pub(crate) async fn pause_note(
        &self,
        host: &HostName,
    ) -> Result<Option<PauseNote>, EffectError> {
        self.ssh.pause_note(host, &self.cluster).await
    }

    /// Notes a pause, or its end, on a server.
    pub(crate) async fn note_pause(
        &self,
        host: &HostName,
        note: &PauseNote,
    ) -> Result<(), EffectError> {
        self.ssh.note_pause(host, &self.cluster, note).await
    }

    /// Effects from here on are refused by servers that know a newer holder of the lease.
    pub(crate) fn carry(&self, claimant: &Claimant) {
        self.ssh.carry(&self.cluster, claimant);
    }

    /// What of a node gives no sign of life: its router, its poolers, or its way in with the poolers behind it.
    pub(crate) async fn silent(&self, front: &Front, spec: &ClusterSpec) -> Vec<Silent> {
        let at = |port| Endpoint { host: front.host.clone(), address: front.address.clone(), port };
        let router = at(spec.haproxy.router_ports.health);
        let (write, read) = (at(spec.pgbouncer.ports.write), at(spec.pgbouncer.ports.read));
        let way = at(front.write_port);
        let dialer = self.ssh.as_ref();
        let signs = futures::join!(
            answers_http(dialer, &router, "/health"),
            answers_postgresql(dialer, &write),
            answers_postgresql(dialer, &read),
            answers_postgresql(dialer, &way),
        );
        let parts = [
            (Part::Router, "router", &router, signs.0),
            (Part::Pooler, "pooler for writes", &write, signs.1),
            (Part::ReadPooler, "pooler for reads", &read, signs.2),
            (Part::Way, front.through.as_str(), &way, signs.3),
        ];
        let silent = parts.into_iter().filter_map(|(part, name, at, sign)| {
            let why = sign.err()?;
            Some(Silent { part, name: format!("{name} (port {})", at.port), why })
        });
        silent.collect()
    }

    /// What changes on a server that a probe with `request` would look at.
    pub(crate) async fn server_events(
        &self,
        host: &HostName,
        request: &ProbeRequest,
    ) -> Result<HostEvents, EffectError> {
        self.ssh.events(host, request).await
    }

    /// Docker's events as the engine of a server tells them.
    pub(crate) async fn docker_events(&self, via: &HostName) -> Result<Hints, EffectError> {
        self.swarm.events(via).await
    }

    /// Changes of the keys by which Patroni's cluster is led, as an etcd member tells them.
    pub(crate) async fn key_events(&self, via: &HostName) -> Result<KeyEvents, EffectError> {
        let Some(member) = self.etcd.get(via) else {
            return Err(EffectError::new(
                Some(via),
                "watch etcd's keys",
                "the server has no etcd member",
                Retry::AfterChange,
            ));
        };
        watch_keys(self.ssh.as_ref(), member, &self.patroni_keys, &patroni::LEADING_KEYS).await
    }
}

impl Switching for RealFleet {
    async fn prepare(
        &self,
        leader: &HostName,
        restart: Option<&PatroniAction>,
    ) -> Result<(), EffectError> {
        // What follows goes to the poolers and to Patroni, which know no token.
        self.ssh.guard(leader).await?;
        self.switching.checkpoint(leader).await?;
        // Of a program that was replaced Patroni knows nothing.
        let noticed = !matches!(
            restart,
            Some(PatroniAction::RestartPrimary { runs, replaced: Some(_), .. }) if runs.is_empty()
        );
        if restart.is_some() && noticed {
            let url = self.patroni_urls.get(leader).map_or("", String::as_str);
            self.ssh.await_notice(leader, url).await?;
        }
        Ok(())
    }
    async fn reach(&self, node: &HostName) -> Result<(), EffectError> {
        self.switching.reach(node).await
    }
    async fn long_transactions(
        &self,
        member: &HostName,
        older_than: Duration,
    ) -> Result<Vec<String>, EffectError> {
        self.switching.long_transactions(member, older_than).await
    }
    async fn sessions(&self, node: &HostName) -> Result<Vec<String>, EffectError> {
        self.switching.sessions(node).await
    }
    async fn guard(&self, node: &HostName) -> Result<(), EffectError> {
        self.ssh.guard_pooler(node, &self.cluster, self.pooler_port, GUARD).await
    }
    async fn unguard(&self, node: &HostName) -> Result<(), EffectError> {
        self.ssh.unguard_pooler(node, &self.cluster).await
    }
    async fn pause(&self, node: &HostName) -> Result<(), EffectError> {
        self.switching.pause(node).await
    }
    async fn resume(&self, node: &HostName) -> Result<(), EffectError> {
        self.switching.resume(node).await
    }
    async fn request(&self, leader: &HostName, candidate: &HostName) -> Result<(), EffectError> {
        self.switching.request(leader, candidate).await
    }
    async fn restart(&self, leader: &HostName, how: &PatroniAction) -> Result<(), EffectError> {
        let url = self.patroni_urls.get(leader).map_or("", String::as_str);
        let (user, password) = &self.patroni_login;
        self.ssh.perform_patroni(leader, url, Some((user.as_str(), password)), how, RESTART).await
    }
    async fn is_primary(&self, member: &HostName) -> bool {
        self.switching.is_primary(member).await
    }
    async fn routed_to(&self, node: &HostName, member: &HostName) -> bool {
        self.switching.routed_to(node, member).await
    }
}

impl Fleet for RealFleet {
    type Switching = Self;

    fn now(&self) -> u64 {
        crate::state::now()
    }

    fn switching(&self) -> &Self {
        self
    }

    async fn observe_host(
        &self,
        host: &HostName,
        request: &ProbeRequest,
    ) -> Result<HostFacts, EffectError> {
        self.ssh.probe(host, request).await
    }

    async fn observe_swarm(
        &self,
        via: &HostName,
        request: &SwarmRequest,
    ) -> Result<SwarmFacts, EffectError> {
        self.swarm.observe(via, request).await
    }

    async fn perform(&self, action: &Action, deadline: Duration) -> Result<(), EffectError> {
        match action {
            Action::Host(host, action) => self.ssh.apply(host, action, deadline).await,
            Action::Patroni(host, action) => {
                let url = self.patroni_urls.get(host).map_or("", String::as_str);
                let (user, password) = &self.patroni_login;
                self.ssh
                    .perform_patroni(host, url, Some((user.as_str(), password)), action, deadline)
                    .await
            }
            Action::Swarm(host, action) => {
                // The Docker API knows no token, so the server is asked right before.
                self.ssh.guard(host).await?;
                self.rollout.perform(&self.ssh, &self.swarm, host, action, deadline).await
            }
        }
    }

    async fn verify(&self, request: &VerifyRequest) -> VerifyReport {
        reconcile_cluster::verify(self.ssh.as_ref(), request).await
    }

    fn round_trips(&self) -> BTreeMap<HostName, u64> {
        self.ssh.round_trips()
    }
}
