//! RESUME of poolers that a transaction left paused. Their clients wait until it is done, and the
//! operator tries on in every pass; nothing else waits for it.

use std::time::Duration;

use futures::future::join_all;
use reconcile_core::{
    desired::Desired,
    model::{HostName, Observed},
    poolers::stopped,
    ports::{GUARD, Switching},
};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    events::{Event, Listener},
    switchover::{RESTART, SwitchoverError},
};

/// A pooler that cannot be reached for so long is left to the next pass.
pub const RESUME_LEFT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(200);
/// What Patroni was asked for is begun within so long, if it ever heard of it: a primary that is still
/// the old one then stays it.
const HEARD: Duration = Duration::from_secs(3);
/// Clients wait no longer for the end of a transaction whose operator is gone.
pub const SETTLES: Duration = Duration::from_secs(8);

/// A transaction that began and of which no end is noted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owed {
    /// The primary to be.
    pub candidate: String,
    /// Nodes whose poolers were told to pause; None where the journal does not tell.
    pub nodes: Option<Vec<HostName>>,
    /// The primary when it began, and when that was, in seconds since 1970; None where its operator
    /// noted how it ended for the primary.
    pub begun: Option<(HostName, u64)>,
}

impl Owed {
    /// Nodes to resume: those that were paused and can be reached by way of the file.
    fn nodes(&self, desired: &Desired) -> Vec<HostName> {
        let all = desired.swarm.nodes.iter().map(|(host, _)| host);
        all.filter(|host| self.nodes.as_ref().is_none_or(|nodes| nodes.contains(host)))
            .cloned()
            .collect()
    }
}

/// Waits until Patroni has done what the operator of a transaction asked for before it was killed: whoever is
/// let go in the middle of it works on a primary that is about to be stopped, and sees an error. `age`
/// is how long ago it began.
pub async fn await_end<S: Switching>(world: &S, desired: &Desired, owed: &Owed, age: Duration) {
    let Some((leader, _)) = owed.begun.as_ref().filter(|_| age < GUARD + RESTART) else { return };
    let candidate = HostName::new(&owed.candidate);
    let nodes = owed.nodes(desired);
    let moved = async {
        let mut still = None;
        loop {
            let led = async |member: &HostName| {
                timeout(POLL * 5, world.is_primary(member)).await.unwrap_or(false)
            };
            if *leader != candidate && led(&candidate).await {
                let routed = nodes.iter().map(|node| world.routed_to(node, &candidate));
                if join_all(routed).await.into_iter().all(|routed| routed) {
                    return;
                }
            }
            if led(leader).await {
                if still.get_or_insert_with(Instant::now).elapsed() >= HEARD {
                    return;
                }
            } else {
                still = None;
            }
            sleep(POLL).await;
        }
    };
    if timeout(SETTLES, moved).await.is_err() {
        tracing::warn!(
            "what was asked of Patroni is not over; the poolers are resumed all the same"
        );
    }
}

/// Resumes what is owed, if anything. Gives the nodes that could not be resumed, with the cause.
pub async fn resume_owed<S: Switching>(
    world: &S,
    desired: &Desired,
    listener: &dyn Listener,
) -> Vec<SwitchoverError> {
    let Some(owed) = listener.owes_resume() else { return Vec::new() };
    let failed = resume_each(world, &owed.nodes(desired), RESUME_LEFT).await;
    if failed.is_empty() {
        listener.hear(&Event::Resumed);
    }
    for error in &failed {
        tracing::warn!(%error, "left to the next pass");
    }
    failed
}

/// Nobody waits in a pooler that does not run: it comes up unpaused.
pub fn forget_stopped(
    desired: &Desired,
    observed: &Observed,
    failed: &[SwitchoverError],
    listener: &dyn Listener,
) {
    let gone = |error: &SwitchoverError| match error {
        SwitchoverError::Resume { node, .. } => stopped(desired, observed, node),
        _ => false,
    };
    if !failed.is_empty() && failed.iter().all(gone) {
        listener.hear(&Event::Resumed);
    }
}

/// Resumes every pooler, each tried until it is done or `limit` has passed.
pub async fn resume_all<S: Switching>(
    world: &S,
    nodes: &[HostName],
    limit: Duration,
) -> Result<(), SwitchoverError> {
    resume_each(world, nodes, limit).await.into_iter().next().map_or(Ok(()), Err)
}

async fn resume_each<S: Switching>(
    world: &S,
    nodes: &[HostName],
    limit: Duration,
) -> Vec<SwitchoverError> {
    let resumed = join_all(nodes.iter().map(|node| async move {
        let started = Instant::now();
        loop {
            let cause = match timeout(limit, world.resume(node)).await {
                Ok(Ok(())) => {
                    // It only ends sooner what would end by itself.
                    if !matches!(timeout(limit, world.unguard(node)).await, Ok(Ok(()))) {
                        tracing::warn!("the guard of the pooler on {node} is left to run out");
                    }
                    return None;
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer".to_owned(),
            };
            if started.elapsed() >= limit {
                return Some(SwitchoverError::Resume { node: node.clone(), cause });
            }
            sleep(POLL).await;
        }
    }))
    .await;
    resumed.into_iter().flatten().collect()
}
