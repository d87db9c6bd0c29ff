//! The real fleet: the SSH, Docker and PostgreSQL adapters behind the engine's one port.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use reconcile_core::{
    action::Action,
    desired::{Desired, Secrets, patroni::REST_USER},
    model::{HostFacts, HostName, SecretText, SwarmFacts},
    ports::{EffectError, Fleet},
    probe::{ProbeRequest, SwarmRequest},
    verify::{VerifyReport, VerifyRequest},
};
use reconcile_hosts::{HostTarget, JumpTarget, Ssh};
use reconcile_spec::{ClusterSpec, secrets::PATRONI_RESTAPI};
use reconcile_swarm::SwarmClient;

use crate::{source::resolve, switching::RealSwitching};

/// Servers, Swarm and database as they are.
pub(crate) struct RealFleet {
    ssh: Arc<Ssh>,
    swarm: SwarmClient,
    patroni_urls: BTreeMap<HostName, String>,
    patroni_login: (String, SecretText),
    switching: RealSwitching,
}

impl RealFleet {
    /// Nothing is connected before it is needed.
    pub(crate) fn new(
        spec: &ClusterSpec,
        desired: &Desired,
        secrets: &Secrets,
        base: &Path,
    ) -> Self {
        let targets = spec.hosts.iter().map(|host| HostTarget {
            name: HostName::new(host.name.as_str()),
            address: host.address.to_string(),
            port: host.ssh.port,
            user: host.ssh.user.clone(),
            identity_file: host.ssh.identity_file.as_ref().map(|path| resolve(base, path)),
            agent: host.ssh.agent,
            jump: host.ssh.jump.as_ref().map(|jump| JumpTarget {
                host: jump.host.clone(),
                port: jump.port,
                user: jump.user.clone(),
                host_key: jump.host_key.clone(),
            }),
            host_key: host.ssh.host_key.clone(),
            known_hosts: host.ssh.known_hosts.as_ref().map(|path| resolve(base, path)),
            sudo: host.ssh.sudo,
        });
        let ssh = Arc::new(Ssh::new(targets));
        let members = &desired.patroni.members;
        let patroni_urls =
            members.iter().map(|(host, member)| (host.clone(), member.rest_url.clone())).collect();
        let password = secrets.get(PATRONI_RESTAPI).cloned().unwrap_or_else(|| SecretText::new(""));
        Self {
            switching: RealSwitching::new(spec, secrets, Arc::clone(&ssh)),
            swarm: SwarmClient::new(Arc::clone(&ssh) as Arc<dyn reconcile_dial::Dialer>),
            ssh,
            patroni_urls,
            patroni_login: (REST_USER.to_owned(), password),
        }
    }
}

impl RealFleet {
    /// What a switchover touches.
    pub(crate) fn switching(&self) -> &RealSwitching {
        &self.switching
    }

    /// Docker's events as a manager tells them, as hints that something may have changed.
    pub(crate) async fn events(
        &self,
        via: &HostName,
    ) -> Result<reconcile_swarm::Hints, EffectError> {
        self.swarm.events(via).await
    }
}

impl Fleet for RealFleet {
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
            Action::Swarm(host, action) => self.swarm.apply(host, action, deadline).await,
        }
    }

    async fn verify(&self, request: &VerifyRequest) -> VerifyReport {
        reconcile_cluster::verify(self.ssh.as_ref(), request).await
    }

    fn round_trips(&self) -> BTreeMap<HostName, u64> {
        self.ssh.round_trips()
    }
}
