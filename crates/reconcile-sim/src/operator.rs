//! One of several operators on the same fleet: its effects take time, carry its token, and are
//! refused where a server has seen a newer one. It can be stopped and go on later, as a process can.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use reconcile_core::{
    action::{Action, PatroniAction},
    lease::{Ballot, Claimant, Vote, Voter, Voters},
    model::{HostFacts, HostName, SwarmFacts},
    ports::{EffectError, Fleet, Retry, Switching},
    probe::{ProbeRequest, SwarmRequest},
    verify::{VerifyReport, VerifyRequest},
};
use tokio::time::Instant;

use crate::{Random, SimFleet, world::refused};

/// What all operators share: the fleet, and its servers' memory of leases.
pub struct Shared {
    /// The fleet.
    pub fleet: SimFleet,
    voters: Mutex<BTreeMap<HostName, Voter>>,
    /// Tokens of the effects that took place, in order.
    took_place: Mutex<Vec<u64>>,
    refused: Mutex<usize>,
    /// Tokens of the effects under way.
    under_way: Mutex<Vec<u64>>,
    overlaps: Mutex<Vec<String>>,
    began: Instant,
}

impl Shared {
    /// A fleet whose every server votes.
    pub fn new(fleet: SimFleet) -> Arc<Self> {
        let hosts = fleet.world().servers.keys().cloned().collect::<Vec<_>>();
        Arc::new(Self {
            fleet,
            voters: Mutex::new(hosts.into_iter().map(|host| (host, Voter::default())).collect()),
            took_place: Mutex::default(),
            refused: Mutex::default(),
            under_way: Mutex::default(),
            overlaps: Mutex::default(),
            began: Instant::now(),
        })
    }

    /// Tokens of the effects that took place, in order.
    pub fn took_place(&self) -> Vec<u64> {
        self.took_place.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many effects were refused for their token.
    pub fn refused(&self) -> usize {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Effects of two operators that were under way at once; there must be none.
    pub fn overlaps(&self) -> Vec<String> {
        self.overlaps.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn begins(&self, token: u64, host: &HostName) {
        self.took_place.lock().unwrap_or_else(PoisonError::into_inner).push(token);
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(other) = under_way.iter().find(|other| **other != token) {
            let text = format!("{token} begins on {host} during an effect of {other}");
            self.overlaps.lock().unwrap_or_else(PoisonError::into_inner).push(text);
        }
        under_way.push(token);
    }

    fn ends(&self, token: u64) {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = under_way.iter().position(|other| *other == token) {
            under_way.remove(place);
        }
    }

    fn with<T>(&self, host: &HostName, what: impl FnOnce(&mut Voter) -> T) -> Option<T> {
        let mut voters = self.voters.lock().unwrap_or_else(PoisonError::into_inner);
        voters.get_mut(host).map(what)
    }
}

/// An operator.
pub struct Operator {
    shared: Arc<Shared>,
    claimant: Mutex<Option<Claimant>>,
    random: Mutex<Random>,
    /// Before so many of a thousand effects the process is stopped, for up to a minute.
    stops: u64,
    stopped_until: Mutex<Instant>,
}

impl Operator {
    /// An operator whose pauses are drawn from `seed`.
    pub fn new(shared: &Arc<Shared>, seed: u64, stops: u64) -> Self {
        let random = Mutex::new(Random::new(seed));
        Self {
            shared: Arc::clone(shared),
            claimant: Mutex::default(),
            random,
            stops,
            stopped_until: Mutex::new(shared.began),
        }
    }

    /// The time until a message has arrived: nothing leaves a process that is stopped.
    async fn travel(&self, millis: u64) {
        let until = *self.stopped_until.lock().unwrap_or_else(PoisonError::into_inner);
        tokio::time::sleep_until(until).await;
        tokio::time::sleep(Duration::from_millis(self.draw(millis))).await;
    }

    fn draw(&self, below: u64) -> u64 {
        self.random.lock().unwrap_or_else(PoisonError::into_inner).below(below)
    }
}

/// An effect that has begun ends also when its operator is gone.
struct UnderWay<'a>(&'a Shared, &'a HostName, u64);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.with(self.1, Voter::end);
        self.0.ends(self.2);
    }
}

impl Operator {
    /// The token of an effect that is about to begin on `host`, unless the host refuses it.
    fn admitted(&self, host: &HostName) -> Result<u64, EffectError> {
        let who = self.claimant.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(who) = who else {
            return Err(refused(host, "act", "there is no lease", Retry::Later));
        };
        match self.shared.with(host, |voter| voter.begin(&who)) {
            Some(Err(cause)) => {
                *self.shared.refused.lock().unwrap_or_else(PoisonError::into_inner) += 1;
                Err(refused(host, "act", cause, Retry::Soon))
            }
            _ => Ok(who.token),
        }
    }
}

/// A transaction is fenced where it begins.
impl Switching for Operator {
    async fn prepare(
        &self,
        leader: &HostName,
        restart: Option<&PatroniAction>,
    ) -> Result<(), EffectError> {
        self.travel(50).await;
        self.admitted(leader)?;
        self.shared.with(leader, Voter::end);
        self.shared.fleet.prepare(leader, restart).await
    }
    async fn reach(&self, node: &HostName) -> Result<(), EffectError> {
        self.shared.fleet.reach(node).await
    }
    async fn long_transactions(
        &self,
        member: &HostName,
        older_than: Duration,
    ) -> Result<Vec<String>, EffectError> {
        self.shared.fleet.long_transactions(member, older_than).await
    }
    async fn sessions(&self, node: &HostName) -> Result<Vec<String>, EffectError> {
        self.shared.fleet.sessions(node).await
    }
    async fn guard(&self, node: &HostName) -> Result<(), EffectError> {
        self.admitted(node)?;
        self.shared.with(node, Voter::end);
        self.shared.fleet.guard(node).await
    }
    async fn unguard(&self, node: &HostName) -> Result<(), EffectError> {
        self.shared.fleet.unguard(node).await
    }
    async fn pause(&self, node: &HostName) -> Result<(), EffectError> {
        self.shared.fleet.pause(node).await
    }
    async fn resume(&self, node: &HostName) -> Result<(), EffectError> {
        self.shared.fleet.resume(node).await
    }
    async fn request(&self, leader: &HostName, candidate: &HostName) -> Result<(), EffectError> {
        self.shared.fleet.request(leader, candidate).await
    }
    async fn restart(&self, leader: &HostName, how: &PatroniAction) -> Result<(), EffectError> {
        Switching::restart(&self.shared.fleet, leader, how).await
    }
    async fn is_primary(&self, member: &HostName) -> bool {
        self.shared.fleet.is_primary(member).await
    }
    async fn routed_to(&self, node: &HostName, member: &HostName) -> bool {
        self.shared.fleet.routed_to(node, member).await
    }
}

impl Fleet for Operator {
    type Switching = Self;

    fn now(&self) -> u64 {
        self.shared.fleet.now()
    }

    fn switching(&self) -> &Self {
        self
    }

    async fn observe_host(
        &self,
        host: &HostName,
        request: &ProbeRequest,
    ) -> Result<HostFacts, EffectError> {
        self.travel(300).await;
        self.shared.fleet.observe_host(host, request).await
    }

    async fn observe_swarm(
        &self,
        via: &HostName,
        request: &SwarmRequest,
    ) -> Result<SwarmFacts, EffectError> {
        self.shared.fleet.observe_swarm(via, request).await
    }

    async fn perform(&self, action: &Action, deadline: Duration) -> Result<(), EffectError> {
        let (Action::Host(host, _) | Action::Patroni(host, _) | Action::Swarm(host, _)) = action;
        if self.draw(1000) < self.stops {
            let until = Instant::now() + Duration::from_millis(self.draw(60_000));
            *self.stopped_until.lock().unwrap_or_else(PoisonError::into_inner) = until;
        }
        self.travel(50).await;
        let token = self.admitted(host)?;
        let _under_way = UnderWay(&self.shared, host, token);
        self.shared.begins(token, host);
        tokio::time::sleep(Duration::from_millis(self.draw(3_000))).await;
        self.shared.fleet.perform(action, deadline).await
    }

    async fn verify(&self, request: &VerifyRequest) -> VerifyReport {
        self.shared.fleet.verify(request).await
    }

    fn round_trips(&self) -> BTreeMap<HostName, u64> {
        self.shared.fleet.round_trips()
    }
}

impl Voters for Operator {
    fn voters(&self) -> Vec<HostName> {
        self.shared.voters.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    async fn vote(&self, voter: &HostName, ballot: &Ballot) -> Result<Vote, EffectError> {
        self.travel(200).await;
        let now = u64::try_from(self.shared.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let vote = self.shared.with(voter, |state| state.vote(ballot, now));
        self.travel(200).await;
        vote.ok_or_else(|| refused(voter, "vote", "no such server", Retry::AfterChange))
    }

    fn carry(&self, claimant: &Claimant) {
        *self.claimant.lock().unwrap_or_else(PoisonError::into_inner) = Some(claimant.clone());
    }
}
