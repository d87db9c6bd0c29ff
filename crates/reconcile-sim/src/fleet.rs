//! The port to the simulated world: looks and effects pass through the faults of the run.

use std::{
    collections::BTreeMap,
    future::{Future, pending, poll_fn},
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
    time::Duration,
};

use reconcile_core::{
    action::{Action, PatroniAction},
    model::{HostFacts, HostName, SwarmFacts},
    ports::{EffectError, Fleet, Retry, Switching},
    probe::{ProbeRequest, SwarmRequest},
    verify::{Proof, VerifyReport, VerifyRequest, Way},
};

use crate::{
    Crash, Faults, Position, Random, World,
    server::{Reach, Section},
    world::refused,
};

/// A fleet in memory.
#[derive(Debug)]
pub struct SimFleet(Mutex<State>);

#[derive(Debug)]
struct State {
    world: World,
    faults: Faults,
    random: Option<Random>,
    effects: Vec<String>,
    reads: u64,
    /// The world at the last look, by what was looked at.
    last_looks: BTreeMap<String, World>,
    round_trips: BTreeMap<HostName, u64>,
    crashed: bool,
    wakers: Vec<Waker>,
}

impl SimFleet {
    /// A fleet without faults.
    pub fn new(world: World) -> Self {
        Self::with_faults(world, Faults::default())
    }

    /// A fleet with faults.
    pub fn with_faults(world: World, faults: Faults) -> Self {
        Self(Mutex::new(State {
            random: faults.shuffle.map(Random::new),
            world,
            faults,
            effects: Vec::new(),
            reads: 0,
            last_looks: BTreeMap::new(),
            round_trips: BTreeMap::new(),
            crashed: false,
            wakers: Vec::new(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A test that panicked while it held the lock has failed anyway.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of the world as it is now.
    pub fn world(&self) -> World {
        self.state().world.clone()
    }

    /// Changes the world behind the operator's back.
    pub fn change(&self, change: impl FnOnce(&mut World)) {
        let mut state = self.state();
        change(&mut state.world);
        state.world.settle();
    }

    /// Faults from here on; effects and looks are counted anew.
    pub fn fail(&self, faults: Faults) {
        let mut state = self.state();
        state.random = faults.shuffle.map(Random::new);
        state.faults = faults;
        state.effects.clear();
        state.reads = 0;
    }

    /// The operator starts again; faults that are left (by number) stay.
    pub fn restart(&self) {
        let mut state = self.state();
        state.crashed = false;
        state.faults.crash = None;
    }

    /// No faults from here on.
    pub fn heal(&self) {
        let mut state = self.state();
        state.crashed = false;
        state.faults = Faults::default();
    }

    /// What was carried out or tried so far, in order.
    pub fn effects(&self) -> Vec<String> {
        self.state().effects.clone()
    }

    /// How many looks there were so far.
    pub fn reads(&self) -> u64 {
        self.state().reads
    }

    /// Resolves when the operator has died; it must then be dropped.
    pub fn crashed(&self) -> impl Future<Output = ()> + '_ {
        poll_fn(|context| {
            let mut state = self.state();
            if state.crashed {
                return Poll::Ready(());
            }
            state.wakers.push(context.waker().clone());
            Poll::Pending
        })
    }

    /// Gives others a turn, as often as the run's shuffle says.
    async fn turn(&self) {
        let turns = self.state().random.as_mut().map_or(0, |random| random.below(6));
        for _ in 0..turns {
            let mut passed = false;
            poll_fn(|context| {
                if std::mem::replace(&mut passed, true) {
                    return Poll::Ready(());
                }
                context.waker().wake_by_ref();
                Poll::Pending
            })
            .await;
        }
    }
}

impl State {
    fn die(&mut self) {
        self.crashed = true;
        self.wakers.drain(..).for_each(Waker::wake);
    }

    /// The world that a look at `what` sees, or the error of a look that fails.
    fn look(&mut self, host: &HostName, what: String) -> Result<World, EffectError> {
        self.reads += 1;
        *self.round_trips.entry(host.clone()).or_default() += 1;
        if self.faults.failed_reads.contains(&self.reads) {
            return Err(refused(host, format!("look at {what}"), "connection reset", Retry::Soon));
        }
        let now = self.world.clone();
        if self.faults.frozen.contains(host) {
            return Ok(self.last_looks.entry(what).or_insert(now).clone());
        }
        let before = self.last_looks.insert(what, now.clone());
        let stale = self.faults.stale_reads.contains(&self.reads);
        Ok(before.filter(|_| stale).unwrap_or(now))
    }

    fn perform(&mut self, action: &Action) -> Option<Result<(), EffectError>> {
        let (Action::Host(host, _) | Action::Patroni(host, _) | Action::Swarm(host, _)) = action;
        self.effect(host, describe(action), |world, cut| world.apply(action, cut))
    }

    /// One effect with the faults of its number; None where the operator dies of it.
    fn effect(
        &mut self,
        host: &HostName,
        what: String,
        apply: impl FnOnce(&mut World, bool) -> Result<(), EffectError>,
    ) -> Option<Result<(), EffectError>> {
        let number = self.effects.len() as u64 + 1;
        self.effects.push(what);
        if let Some(host) = self.faults.reboots.get(&number) {
            self.world.reboot(host.as_str());
        }
        let lost = |attempt: &str| refused(host, attempt, "the answer was lost", Retry::Soon);
        if let Some(Crash { position, .. }) = self.faults.crash.filter(|c| c.effect == number) {
            // What came of it dies with the operator.
            match position {
                Position::Before => {}
                Position::Inside => drop(apply(&mut self.world, true)),
                Position::Late => {
                    self.world.late = true;
                    drop(apply(&mut self.world, false));
                    self.world.late = false;
                }
                Position::After => drop(apply(&mut self.world, false)),
            }
            self.die();
            return None;
        }
        if self.faults.refusals.contains(&number) {
            return Some(Err(refused(host, "connect", "connection refused", Retry::Soon)));
        }
        if self.faults.halves.contains(&number) {
            return Some(apply(&mut self.world, true).and(Err(lost("run the script"))));
        }
        let result = apply(&mut self.world, false);
        if self.faults.lost_answers.contains(&number) {
            return Some(result.and(Err(lost("hear of the effect"))));
        }
        Some(result)
    }
}

/// Kind and object of an action, without its content.
fn describe(action: &Action) -> String {
    let text = match action {
        Action::Host(host, action) => format!("{host} {action:?}"),
        Action::Patroni(host, action) => format!("{host} {action:?}"),
        Action::Swarm(host, action) => format!("{host} {action:?}"),
    };
    text.chars().take(160).collect()
}

impl SimFleet {
    /// One effect of a transaction. Cut off in the middle it is not begun.
    async fn part(
        &self,
        host: &HostName,
        what: &str,
        apply: impl FnOnce(&mut World) -> Result<(), EffectError> + Send,
    ) -> Result<(), EffectError> {
        self.turn().await;
        if self.state().crashed {
            pending::<()>().await;
        }
        let result = self.state().effect(host, format!("{host} {what}"), |world, cut| {
            world.reachable(host)?;
            if cut { Ok(()) } else { apply(world) }
        });
        match result {
            Some(result) => result,
            None => pending().await,
        }
    }
}

impl Switching for SimFleet {
    async fn prepare(
        &self,
        leader: &HostName,
        _: Option<&PatroniAction>,
    ) -> Result<(), EffectError> {
        self.part(leader, "CHECKPOINT", |_| Ok(())).await
    }

    async fn reach(&self, node: &HostName) -> Result<(), EffectError> {
        self.turn().await;
        if self.state().crashed {
            pending::<()>().await;
        }
        let state = self.state();
        state.world.reachable(node)?;
        state.world.console(node)
    }

    async fn long_transactions(
        &self,
        member: &HostName,
        _: Duration,
    ) -> Result<Vec<String>, EffectError> {
        self.turn().await;
        if self.state().crashed {
            pending::<()>().await;
        }
        let state = self.state();
        state.world.reachable(member)?;
        Ok(state.world.transactions.clone())
    }

    async fn sessions(&self, node: &HostName) -> Result<Vec<String>, EffectError> {
        self.turn().await;
        if self.state().crashed {
            pending::<()>().await;
        }
        let state = self.state();
        state.world.reachable(node)?;
        Ok(state.world.sessions.get(node).cloned().into_iter().collect())
    }

    async fn guard(&self, node: &HostName) -> Result<(), EffectError> {
        self.part(node, "guard", |world| {
            world.guarded.insert(node.clone());
            Ok(())
        })
        .await
    }

    async fn unguard(&self, node: &HostName) -> Result<(), EffectError> {
        self.part(node, "unguard", |world| {
            world.guarded.remove(node);
            Ok(())
        })
        .await
    }

    async fn pause(&self, node: &HostName) -> Result<(), EffectError> {
        self.part(node, "PAUSE", |world| world.hold_clients(node, true)).await
    }

    async fn resume(&self, node: &HostName) -> Result<(), EffectError> {
        self.part(node, "RESUME", |world| world.hold_clients(node, false)).await
    }

    async fn request(&self, leader: &HostName, candidate: &HostName) -> Result<(), EffectError> {
        let what = format!("hand over to {candidate}");
        self.part(leader, &what, |world| world.hand_over(leader, candidate)).await
    }

    async fn restart(&self, leader: &HostName, how: &PatroniAction) -> Result<(), EffectError> {
        let PatroniAction::RestartPrimary { runs, replaced, .. } = how else { return Ok(()) };
        let restart = |world: &mut World| world.restart_primary(leader, runs, replaced.is_some());
        self.part(leader, "restart the primary", restart).await
    }

    async fn is_primary(&self, member: &HostName) -> bool {
        self.turn().await;
        if self.state().crashed {
            pending::<()>().await;
        }
        self.state().world.primary_on(member).is_some()
    }

    async fn routed_to(&self, _: &HostName, member: &HostName) -> bool {
        self.is_primary(member).await
    }
}

impl Fleet for SimFleet {
    type Switching = Self;

    fn now(&self) -> u64 {
        self.state().world.now
    }

    fn switching(&self) -> &Self {
        self
    }

    async fn observe_host(
        &self,
        host: &HostName,
        request: &ProbeRequest,
    ) -> Result<HostFacts, EffectError> {
        self.turn().await;
        if self.state().crashed {
            pending::<()>().await;
        }
        let seen = self.state().look(host, host.to_string())?;
        let attempt = format!("connect to {host}");
        // Whether it answers is a matter of now, also where what it says is old.
        let reach = self.state().world.servers.get(host).map(|now| (now.reach.clone(), now.power));
        match reach {
            Some((Reach::Answers, true)) => {}
            Some((Reach::Refuses(reason), true)) => {
                return Err(refused(host, attempt, reason, Retry::AfterChange));
            }
            _ => pending::<()>().await,
        }
        seen.facts(host, request)
            .ok_or_else(|| refused(host, attempt, "no such server", Retry::AfterChange))
    }

    async fn observe_swarm(
        &self,
        via: &HostName,
        request: &SwarmRequest,
    ) -> Result<SwarmFacts, EffectError> {
        self.turn().await;
        if self.state().crashed {
            pending::<()>().await;
        }
        let seen = self.state().look(via, format!("the Swarm through {via}"))?;
        let hidden = |world: &World| {
            world.servers.get(via).is_none_or(|server| {
                !server.power
                    || server.reach != Reach::Answers
                    || server.unknown.contains(&Section::Docker)
            })
        };
        if hidden(&self.state().world) {
            pending::<()>().await;
        }
        seen.swarm_facts(via, request).map_err(|cause| {
            refused(via, format!("ask the Swarm through {via}"), cause, Retry::Soon)
        })
    }

    async fn perform(&self, action: &Action, _: Duration) -> Result<(), EffectError> {
        self.turn().await;
        if self.state().crashed {
            pending::<()>().await;
        }
        let result = self.state().perform(action);
        match result {
            Some(result) => result,
            None => pending().await,
        }
    }

    async fn verify(&self, request: &VerifyRequest) -> VerifyReport {
        let world = self.world();
        let primaries: usize = world.census().values().map(|(primaries, _)| primaries).sum();
        let proofs = request.fronts.iter().map(|front| Proof {
            what: format!("write through {} on {}", front.through, front.host),
            host: Some(front.host.clone()),
            way: Some(Way::Write),
            holds: primaries == 1
                && world
                    .container_listeners(&front.host)
                    .iter()
                    .any(|l| l.port == front.write_port),
            millis: 1,
            detail: format!("{primaries} primaries"),
            ..Proof::default()
        });
        VerifyReport { proofs: proofs.collect() }
    }

    fn round_trips(&self) -> BTreeMap<HostName, u64> {
        self.state().round_trips.clone()
    }
}
