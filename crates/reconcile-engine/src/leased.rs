//! A fleet whose effects need the lease.

use std::{collections::BTreeMap, ops::Deref, sync::Arc, time::Duration};

use reconcile_core::{
    action::{Action, PatroniAction},
    model::{HostFacts, HostName, SwarmFacts},
    ports::{EffectError, Fleet, Switching},
    probe::{ProbeRequest, SwarmRequest},
    verify::{VerifyReport, VerifyRequest},
};

use crate::lease::Held;

/// A fleet (or a pointer to one), and the lease under which it is changed.
pub struct Leased<P> {
    /// The fleet.
    pub fleet: P,
    /// The lease.
    pub held: Arc<Held>,
}

impl<P> Fleet for Leased<P>
where
    P: Deref + Send + Sync,
    P::Target: Fleet + Sized,
{
    type Switching = Self;

    fn switching(&self) -> &Self {
        self
    }
    fn now(&self) -> u64 {
        self.fleet.now()
    }
    async fn observe_host(
        &self,
        host: &HostName,
        request: &ProbeRequest,
    ) -> Result<HostFacts, EffectError> {
        self.fleet.observe_host(host, request).await
    }
    async fn observe_swarm(
        &self,
        via: &HostName,
        request: &SwarmRequest,
    ) -> Result<SwarmFacts, EffectError> {
        self.fleet.observe_swarm(via, request).await
    }
    async fn perform(&self, action: &Action, deadline: Duration) -> Result<(), EffectError> {
        let (Action::Host(host, _) | Action::Patroni(host, _) | Action::Swarm(host, _)) = action;
        self.held.check(Some(host))?;
        self.fleet.perform(action, deadline).await
    }
    async fn verify(&self, request: &VerifyRequest) -> VerifyReport {
        self.fleet.verify(request).await
    }
    fn round_trips(&self) -> BTreeMap<HostName, u64> {
        self.fleet.round_trips()
    }
}

/// What pauses and moves needs the lease; what resumes never does, for clients wait.
impl<P> Switching for Leased<P>
where
    P: Deref + Send + Sync,
    P::Target: Fleet + Sized,
{
    async fn prepare(
        &self,
        leader: &HostName,
        restart: Option<&PatroniAction>,
    ) -> Result<(), EffectError> {
        self.held.check(Some(leader))?;
        self.fleet.switching().prepare(leader, restart).await
    }
    async fn reach(&self, node: &HostName) -> Result<(), EffectError> {
        self.fleet.switching().reach(node).await
    }
    async fn long_transactions(
        &self,
        member: &HostName,
        older_than: Duration,
    ) -> Result<Vec<String>, EffectError> {
        self.fleet.switching().long_transactions(member, older_than).await
    }
    async fn sessions(&self, node: &HostName) -> Result<Vec<String>, EffectError> {
        self.fleet.switching().sessions(node).await
    }
    async fn guard(&self, node: &HostName) -> Result<(), EffectError> {
        self.held.check(Some(node))?;
        self.fleet.switching().guard(node).await
    }
    async fn unguard(&self, node: &HostName) -> Result<(), EffectError> {
        self.fleet.switching().unguard(node).await
    }
    async fn pause(&self, node: &HostName) -> Result<(), EffectError> {
        self.held.check(Some(node))?;
        self.fleet.switching().pause(node).await
    }
    async fn resume(&self, node: &HostName) -> Result<(), EffectError> {
        self.fleet.switching().resume(node).await
    }
    async fn request(&self, leader: &HostName, candidate: &HostName) -> Result<(), EffectError> {
        self.held.check(Some(leader))?;
        self.fleet.switching().request(leader, candidate).await
    }
    async fn restart(&self, leader: &HostName, how: &PatroniAction) -> Result<(), EffectError> {
        self.held.check(Some(leader))?;
        self.fleet.switching().restart(leader, how).await
    }
    async fn is_primary(&self, member: &HostName) -> bool {
        self.fleet.switching().is_primary(member).await
    }
    async fn routed_to(&self, node: &HostName, member: &HostName) -> bool {
        self.fleet.switching().routed_to(node, member).await
    }
}
