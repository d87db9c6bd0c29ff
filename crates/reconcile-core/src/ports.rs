//! What the engine needs of the world: the one port between deciding and doing.
//!
//! The real fleet composes the SSH, Docker, Patroni and PostgreSQL adapters; the simulator is an
//! in-memory one. Nothing above this trait knows SSH or Docker.

use std::{collections::BTreeMap, future::Future, time::Duration};

use serde::Serialize;

use crate::{
    action::{Action, PatroniAction},
    model::{HostFacts, HostName, SwarmFacts},
    probe::{ProbeRequest, SwarmRequest},
    verify::{VerifyReport, VerifyRequest},
};

/// Whether and when it makes sense to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Retry {
    /// At once or in moments: a connection broke, a conflict of versions.
    Soon,
    /// After a while: a server is off, a deadline passed.
    Later,
    /// Only after somebody changed something: a wrong key, a refused login, a missing package.
    AfterChange,
}

/// Why an observation or effect failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(rename_all = "camelCase")]
#[error("{attempt}: {cause}")]
pub struct EffectError {
    /// The server concerned.
    pub host: Option<HostName>,
    /// What was tried on what, such as `install packages on node2`.
    pub attempt: String,
    /// The cause in plain words, in one line.
    pub cause: String,
    /// The last lines that the failing command wrote to standard error, secrets taken out.
    pub stderr: String,
    /// Whether to try again.
    pub retry: Retry,
}

impl EffectError {
    /// An error without captured output.
    pub fn new(
        host: Option<&HostName>,
        attempt: impl Into<String>,
        cause: impl Into<String>,
        retry: Retry,
    ) -> Self {
        Self {
            host: host.cloned(),
            attempt: attempt.into(),
            cause: cause.into(),
            stderr: String::new(),
            retry,
        }
    }
}

/// So long clients wait at most in a pooler whose operator is gone.
pub const GUARD: Duration = Duration::from_secs(15);

/// What a transaction on the primary needs of the world, effect by effect.
pub trait Switching: Send + Sync {
    /// While clients still work: a checkpoint, so that the one at the primary's end is short, and
    /// before a restart in place the wait until Patroni has noticed what it is for.
    fn prepare(
        &self,
        leader: &HostName,
        restart: Option<&PatroniAction>,
    ) -> impl Future<Output = Result<(), EffectError>> + Send;
    /// A session on the console of the write pooler on a node, and nothing more.
    fn reach(&self, node: &HostName) -> impl Future<Output = Result<(), EffectError>> + Send;
    /// Transactions that are open on a member's PostgreSQL for longer than that, in words: `PAUSE`
    /// would wait for those that came through a pooler, and a move of the primary cuts off the others.
    fn long_transactions(
        &self,
        member: &HostName,
        older_than: Duration,
    ) -> impl Future<Output = Result<Vec<String>, EffectError>> + Send;
    /// Pools of the write pooler on a node in which a client keeps its server connection until it
    /// leaves, in words: `PAUSE` would wait for that.
    fn sessions(
        &self,
        node: &HostName,
    ) -> impl Future<Output = Result<Vec<String>, EffectError>> + Send;
    /// Makes the node itself resume its write pooler [`GUARD`] from now, whatever becomes of us.
    /// Again: from then on.
    fn guard(&self, node: &HostName) -> impl Future<Output = Result<(), EffectError>> + Send;
    /// Takes that back.
    fn unguard(&self, node: &HostName) -> impl Future<Output = Result<(), EffectError>> + Send;
    /// `PAUSE` of the write pooler on a node; returns when its server connections are free.
    fn pause(&self, node: &HostName) -> impl Future<Output = Result<(), EffectError>> + Send;
    /// `RESUME` of the write pooler on a node; one that is not paused is success.
    fn resume(&self, node: &HostName) -> impl Future<Output = Result<(), EffectError>> + Send;
    /// `POST /switchover` from `leader` to `candidate`. Its answer comes late and is no news; an
    /// error with [`Retry::AfterChange`] is a refusal, any other says nothing of what Patroni does.
    fn request(
        &self,
        leader: &HostName,
        candidate: &HostName,
    ) -> impl Future<Output = Result<(), EffectError>> + Send;
    /// `POST /restart` of the primary as [`crate::action::PatroniAction::RestartPrimary`] has it.
    /// Answers when PostgreSQL takes connections again.
    fn restart(
        &self,
        leader: &HostName,
        restart: &PatroniAction,
    ) -> impl Future<Output = Result<(), EffectError>> + Send;
    /// Whether the member says that it is the primary.
    fn is_primary(&self, member: &HostName) -> impl Future<Output = bool> + Send;
    /// Whether the router of `node` sends writes to `member` and to nobody else.
    fn routed_to(&self, node: &HostName, member: &HostName) -> impl Future<Output = bool> + Send;
}

/// Everything that the engine can see and do.
pub trait Fleet: Send + Sync {
    /// The poolers, Patroni and the routers, effect by effect.
    type Switching: Switching;

    /// Seconds since 1970 by the operator's clock.
    fn now(&self) -> u64;

    /// What a transaction on the primary goes through.
    fn switching(&self) -> &Self::Switching;

    /// Learns all facts of a server in one round trip.
    fn observe_host(
        &self,
        host: &HostName,
        request: &ProbeRequest,
    ) -> impl Future<Output = Result<HostFacts, EffectError>> + Send;

    /// Learns the Swarm's state from the manager `via`.
    fn observe_swarm(
        &self,
        via: &HostName,
        request: &SwarmRequest,
    ) -> impl Future<Output = Result<SwarmFacts, EffectError>> + Send;

    /// Carries out one action and waits until it took effect, at most for `deadline`. Transactions
    /// ([`crate::action::PatroniAction::is_transaction`]) are the engine's, by way of [`Switching`].
    ///
    /// # Guarantees
    /// Idempotent. An error does not say that nothing happened: observe before deciding again.
    fn perform(
        &self,
        action: &Action,
        deadline: Duration,
    ) -> impl Future<Output = Result<(), EffectError>> + Send;

    /// Proves that the cluster serves, end to end.
    fn verify(&self, request: &VerifyRequest) -> impl Future<Output = VerifyReport> + Send;

    /// Round trips that probes took so far, by server; for proving that a pass takes one.
    fn round_trips(&self) -> BTreeMap<HostName, u64>;
}
