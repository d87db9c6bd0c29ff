//! A switchover, or a restart of the primary in place, as one transaction across the layers: pause
//! the poolers, ask Patroni, wait until every router sees the primary, resume. RESUME on every way
//! out.
//!
//! It asks; Patroni decides. Clients keep their connections and wait in the poolers meanwhile.

use std::{convert::Infallible, time::Duration};

use futures::future::join_all;
pub use reconcile_core::ports::Switching;
use reconcile_core::{
    action::{Action, PatroniAction},
    desired::Desired,
    model::{HostName, Observed, PatroniFact, PatroniRole},
    poolers::poolers,
    ports::{EffectError, GUARD, Retry},
};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    events::{Event, Listener},
    resume::resume_all,
};

/// A pooler whose console does not answer within this could not be resumed either.
pub const REACH: Duration = Duration::from_secs(5);
/// A pooler that has not gone quiet by then has a transaction that will not end soon. Clients of all
/// poolers wait meanwhile, so it is short.
pub const PAUSE: Duration = Duration::from_secs(2);
/// A transaction that is open for longer is asked about before anybody waits: it would not end in
/// time.
pub const LONG: Duration = PAUSE;
/// Patroni takes 1.5 s here; after this long clients are better served by the old primary.
pub const PROMOTION: Duration = Duration::from_secs(15);
/// Clients that wait are better off than clients that fail, as long as PgBouncer lets them wait
/// (`query_wait_timeout`, 120 s). Where PostgreSQL does not come up, Patroni lets a replica take over.
pub const RESTART: Duration = Duration::from_secs(90);
/// Routers look every second at most.
pub const ROUTERS: Duration = Duration::from_secs(8);
/// RESUME is tried for this long: a pooler that stays paused is an outage.
pub const RESUME: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);
/// A candidate further behind would keep clients waiting while it catches up.
const MAX_LAG_BYTES: u64 = 16 << 20;

/// What becomes of the primary, through which nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The primary now.
    pub leader: HostName,
    /// The primary to be. The same as now where it restarts in place.
    pub candidate: HostName,
    /// How it restarts in place; None: it hands over.
    pub restart: Option<PatroniAction>,
    /// Nodes on which a pooler runs, and a router.
    pub nodes: Vec<HostName>,
    /// Somebody said that long transactions and sessions are not to be asked about.
    pub regardless: bool,
}

/// How long each part took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// From the first PAUSE until the poolers were resumed: the longest that a client waited.
    pub held: Duration,
    /// From the request until the candidate was the primary (again).
    pub promotion: Duration,
}

/// Why nobody was switched, or what is wrong after it.
#[derive(Debug, thiserror::Error)]
pub enum SwitchoverError {
    /// It was not begun.
    #[error("not begun: {0}")]
    NotFit(String),
    /// Somebody's work would be cut off, or would keep everybody waiting in vain.
    #[error("not begun: {0}")]
    Busy(String),
    /// The poolers could not be paused in time; they are resumed.
    #[error("{node} could not be paused: {cause}; nothing was switched")]
    Pause {
        /// Node.
        node: HostName,
        /// Why.
        cause: String,
    },
    /// Patroni refused, or the candidate did not become the primary in time.
    #[error("{0}")]
    Patroni(String),
    /// The primary has moved, but not every router saw it in time.
    #[error("{candidate} is the primary, but the router of {node} does not send writes there")]
    Router {
        /// Node.
        node: HostName,
        /// New primary.
        candidate: HostName,
    },
    /// A pooler may still be paused.
    #[error("the pooler on {node} could not be resumed: {cause}")]
    Resume {
        /// Node.
        node: HostName,
        /// Why.
        cause: String,
    },
}

impl SwitchoverError {
    /// As the error of a step. Whatever it is, the world is to be looked at again first.
    pub fn of_step(&self, order: &Order) -> EffectError {
        let attempt = format!("{order}");
        EffectError::new(Some(&order.leader), attempt, self.to_string(), Retry::Later)
    }
}

impl Order {
    /// The order that an action asks for, if it is a transaction.
    pub fn of_action(action: &Action) -> Option<Self> {
        let Action::Patroni(leader, action) = action else { return None };
        let (candidate, restart, nodes) = match action {
            PatroniAction::HandOver { candidate, nodes } => (candidate, None, nodes),
            PatroniAction::RestartPrimary { nodes, .. } => (leader, Some(action.clone()), nodes),
            PatroniAction::PatchConfig { .. } | PatroniAction::RestartReplica { .. } => {
                return None;
            }
        };
        let (leader, candidate) = (leader.clone(), candidate.clone());
        Some(Self { leader, candidate, restart, nodes: nodes.clone(), regardless: false })
    }
}

impl std::fmt::Display for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { leader, candidate, .. } = self;
        if self.restart.is_some() {
            write!(f, "restart the primary on {leader}")
        } else {
            write!(f, "hand over from {leader} to {candidate}")
        }
    }
}

/// Decides who hands over to whom, or says why not now. Pure.
pub fn order(
    desired: &Desired,
    observed: &Observed,
    to: Option<&HostName>,
) -> Result<Order, SwitchoverError> {
    let unfit = |reason: String| Err(SwitchoverError::NotFit(reason));
    let patroni = |host: &HostName| observed.host(host).and_then(|facts| facts.patroni.present());
    let members = || desired.patroni.members.keys().filter_map(|host| Some((host, patroni(host)?)));
    let mut primaries =
        members().filter(|(_, fact)| fact.role == PatroniRole::Primary && fact.state == "running");
    let Some((leader, fact)) = primaries.next() else {
        return unfit("no primary is known".to_owned());
    };
    if primaries.next().is_some() {
        return unfit("more than one member says that it is the primary".to_owned());
    }
    if fact.paused {
        return unfit("Patroni is paused; somebody works on it".to_owned());
    }
    let etcd = |host: &HostName| observed.host(host).and_then(|facts| facts.etcd.present());
    // One that leaves and does not run may have left.
    let counts = |host: &&HostName| !desired.leaves(host) || etcd(host).is_some();
    let counted: Vec<&HostName> = desired.etcd.members.keys().filter(counts).collect();
    let healthy = counted.iter().filter(|host| etcd(host).is_some_and(|etcd| etcd.healthy));
    if healthy.count() * 2 <= counted.len() {
        return unfit("etcd has no quorum of members that are known to be healthy".to_owned());
    }
    let fit = |fact: &PatroniFact| {
        fact.role == PatroniRole::Replica
            && fact.streaming
            && fact.lag_bytes.is_none_or(|lag| lag <= MAX_LAG_BYTES)
    };
    let candidate = match to {
        Some(to) if desired.leaves(to) => return unfit(format!("{to} is to leave the cluster")),
        Some(to) if to == leader => return unfit(format!("{to} is the primary already")),
        Some(to) => match patroni(to) {
            Some(fact) if fit(fact) => to,
            Some(_) => return unfit(format!("{to} is no replica that streams without lag")),
            None => return unfit(format!("{to} is unknown or no member")),
        },
        None => match members()
            .filter(|(host, fact)| *host != leader && !desired.leaves(host) && fit(fact))
            .min_by_key(|(_, fact)| fact.lag_bytes.unwrap_or(0))
        {
            Some((host, _)) => host,
            None => return unfit("no replica streams without lag".to_owned()),
        },
    };
    let nodes =
        poolers(desired, observed).map_err(|error| SwitchoverError::NotFit(error.to_string()))?;
    let (leader, candidate) = (leader.clone(), candidate.clone());
    Ok(Order { leader, candidate, restart: None, nodes, regardless: false })
}

/// Carries out an order.
///
/// # Guarantees
/// Nobody waits unless every pooler's console answers. The poolers that were told to pause are
/// resumed on every way out of this function. If the operator is killed in it, each node resumes its
/// pooler by itself after [`GUARD`], and the next operator does so as soon as it looks.
///
/// # Cancellation
/// Not to be cancelled: run it in a task of its own.
pub async fn switch_over<S: Switching>(
    world: &S,
    order: &Order,
    listener: &dyn Listener,
) -> Result<Report, SwitchoverError> {
    let reached = join_all(order.nodes.iter().map(|node| async move {
        let cause = match timeout(REACH, world.reach(node)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer".to_owned(),
        };
        Err(SwitchoverError::Pause { node: node.clone(), cause })
    }))
    .await;
    // Before any client waits.
    reached.into_iter().collect::<Result<(), _>>()?;
    if let Err(error) = world.prepare(&order.leader, order.restart.as_ref()).await {
        // It only shortens the wait.
        tracing::warn!(%error, "not prepared to {order}");
    }
    ask_who_works(world, order).await?;
    listener.hear(&Event::SwitchBegins(order));
    if let Some(cause) = listener.failure() {
        let result = Err(SwitchoverError::NotFit(cause));
        listener.hear(&Event::SwitchEnds(order, &result));
        return result;
    }
    let guarded = guard(world, order).await;
    let started = Instant::now();
    let moved = match guarded {
        // While it goes on, the guards are put off; they are for an operator that is gone.
        Ok(()) => tokio::select! {
            moved = pause_and_move(world, order) => moved,
            never = keep_guarded(world, order) => match never {},
        },
        Err(error) => Err(error),
    };
    let resumed = resume_all(world, &order.nodes, RESUME).await;
    let held = started.elapsed();
    // A pooler that stays paused is the worse news of the two.
    let result = resumed.and(moved).map(|promotion| Report { held, promotion });
    listener.hear(&Event::SwitchEnds(order, &result));
    result
}

/// Who would have to be waited for, or be cut off, is learnt before anybody waits and not by waiting.
async fn ask_who_works<S: Switching>(world: &S, order: &Order) -> Result<(), SwitchoverError> {
    if order.regardless {
        return Ok(());
    }
    let unfit = |error: EffectError| SwitchoverError::NotFit(error.to_string());
    let late = |_| SwitchoverError::NotFit("who works in the database is not told".to_owned());
    let open = timeout(REACH, world.long_transactions(&order.leader, LONG));
    let sessions = join_all(order.nodes.iter().map(|node| timeout(REACH, world.sessions(node))));
    let (open, sessions) = futures::join!(open, sessions);
    let mut all = open.map_err(late)?.map_err(unfit)?;
    for sessions in sessions {
        all.extend(sessions.map_err(late)?.map_err(unfit)?);
    }
    if all.is_empty() { Ok(()) } else { Err(SwitchoverError::Busy(all.join("; "))) }
}

/// A switch on each node that resumes its pooler, should nobody else do it. Without one nobody is
/// paused.
async fn guard<S: Switching>(world: &S, order: &Order) -> Result<(), SwitchoverError> {
    let begun = Instant::now();
    let guarded = join_all(order.nodes.iter().map(|node| async move {
        let cause = match timeout(GUARD, world.guard(node)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer".to_owned(),
        };
        Err(SwitchoverError::Pause { node: node.clone(), cause })
    }))
    .await;
    guarded.into_iter().collect::<Result<(), _>>()?;
    // This process may have been stopped meanwhile, and the first guard gone off.
    if begun.elapsed() >= GUARD / 2 {
        return Err(SwitchoverError::NotFit("guarding the poolers took too long".to_owned()));
    }
    Ok(())
}

async fn keep_guarded<S: Switching>(world: &S, order: &Order) -> Infallible {
    loop {
        sleep(GUARD / 3).await;
        for (node, kept) in join_all(
            order
                .nodes
                .iter()
                .map(|node| async move { (node, timeout(GUARD / 3, world.guard(node)).await) }),
        )
        .await
        {
            match kept {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "the guard of {node} was not put off"),
                Err(_) => tracing::warn!("the guard of {node} was not put off: no answer"),
            }
        }
    }
}

async fn pause_and_move<S: Switching>(
    world: &S,
    order: &Order,
) -> Result<Duration, SwitchoverError> {
    let paused = join_all(order.nodes.iter().map(|node| async move {
        match timeout(PAUSE, world.pause(node)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                Err(SwitchoverError::Pause { node: node.clone(), cause: error.to_string() })
            }
            Err(_) => Err(SwitchoverError::Pause {
                node: node.clone(),
                cause: format!("a transaction lasts longer than {} s", PAUSE.as_secs()),
            }),
        }
    }))
    .await;
    paused.into_iter().collect::<Result<(), _>>()?;
    let asked = Instant::now();
    let candidate = &order.candidate;
    if let Some(restart) = &order.restart {
        restart_in_place(world, order, restart).await?;
    } else {
        promote(world, order).await?;
    }
    let promotion = asked.elapsed();
    let routed = join_all(order.nodes.iter().map(|node| async move {
        until(ROUTERS, || world.routed_to(node, candidate)).await.then_some(()).ok_or_else(|| {
            SwitchoverError::Router { node: node.clone(), candidate: candidate.clone() }
        })
    }))
    .await;
    routed.into_iter().collect::<Result<(), _>>()?;
    Ok(promotion)
}

/// Patroni's answer comes when PostgreSQL is up again; before it, a primary would be the old one.
async fn restart_in_place<S: Switching>(
    world: &S,
    order: &Order,
    restart: &PatroniAction,
) -> Result<(), SwitchoverError> {
    let refused = |cause: String| SwitchoverError::Patroni(format!("{order}: {cause}"));
    match timeout(RESTART, world.restart(&order.leader, restart)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(refused(error.to_string())),
        Err(_) => return Err(refused(format!("not done after {} s", RESTART.as_secs()))),
    }
    if until(PROMOTION, || world.is_primary(&order.leader)).await {
        return Ok(());
    }
    Err(refused(format!("it is not the primary {} s after it", PROMOTION.as_secs())))
}

async fn promote<S: Switching>(world: &S, order: &Order) -> Result<(), SwitchoverError> {
    let candidate = &order.candidate;
    let request = world.request(&order.leader, candidate);
    let arrived = until(PROMOTION, || world.is_primary(candidate));
    tokio::pin!(request, arrived);
    // Patroni's answer comes seconds after the candidate leads: only a refusal counts. What breaks
    // the channel does not stop Patroni.
    let (mut answered, mut lost) = (false, String::new());
    let promoted = loop {
        tokio::select! {
            promoted = &mut arrived => break promoted,
            answer = &mut request, if !answered => {
                answered = true;
                match answer {
                    Ok(()) => {}
                    Err(error) if error.retry == Retry::AfterChange => {
                        return Err(SwitchoverError::Patroni(error.to_string()));
                    }
                    Err(error) => lost = format!("; {error}"),
                }
            }
        }
    };
    if !promoted {
        return Err(SwitchoverError::Patroni(format!(
            "{candidate} is not the primary after {} s{lost}",
            PROMOTION.as_secs()
        )));
    }
    Ok(())
}

/// Asks until yes, at most for `limit`.
async fn until<F: Future<Output = bool>>(limit: Duration, mut ask: impl FnMut() -> F) -> bool {
    let started = Instant::now();
    while started.elapsed() < limit {
        if timeout(limit, ask()).await.unwrap_or(false) {
            return true;
        }
        sleep(POLL).await;
    }
    false
}
