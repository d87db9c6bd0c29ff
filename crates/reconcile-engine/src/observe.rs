//! Observing: every server and the Swarm at once, each within a deadline. What fails is Unknown.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use futures::future::join_all;
use reconcile_core::{
    desired::Desired,
    model::{HostFacts, HostName, Observation, Observed, SwarmFacts},
    plan::{probe_request, swarm_request, swarm_via},
    ports::{EffectError, Fleet},
};
use tokio::time::timeout;

/// A server that has not told its facts by then is unknown in this pass. A cold connection takes
/// well under a second and a probe about 0.2 s; a server that is off costs this much once a pass.
pub const HOST_DEADLINE: Duration = Duration::from_secs(10);
/// The same for the Swarm.
pub const SWARM_DEADLINE: Duration = Duration::from_secs(10);

/// Observes all that plans for `desired` rest on; with the time that each server took to answer.
pub async fn observe<F: Fleet>(
    fleet: &F,
    desired: &Desired,
) -> (Observed, BTreeMap<HostName, Duration>) {
    let hosts = join_all(desired.servers.keys().map(|host| async move {
        let started = Instant::now();
        let facts = observe_host(fleet, desired, host).await;
        (host.clone(), facts, started.elapsed())
    }));
    // The first manager is most likely the one to ask, so ask it while the servers are asked.
    let guess = desired.swarm.nodes.first().map(|(host, _)| host);
    let early = async {
        match guess {
            Some(host) => Some(observe_swarm(fleet, desired, host).await),
            None => None,
        }
    };
    let (hosts, early) = tokio::join!(hosts, early);
    let answers = hosts
        .iter()
        .filter(|(_, facts, _)| facts.known().is_some())
        .map(|(host, _, took)| (host.clone(), *took))
        .collect();
    let hosts: BTreeMap<HostName, Observation<HostFacts>> =
        hosts.into_iter().map(|(host, facts, _)| (host, facts)).collect();
    let swarm = match swarm_via(desired, &hosts) {
        Observation::Known(None) => Observation::Known(None),
        Observation::Unknown { reason } => Observation::Unknown { reason },
        Observation::Known(Some(via)) => {
            let answer = match early.filter(|_| guess == Some(&via)) {
                Some(Ok(facts)) => Ok(facts),
                Some(Err(_)) | None => observe_swarm(fleet, desired, &via).await,
            };
            match answer {
                Ok(facts) => Observation::Known(Some(facts)),
                Err(error) => Observation::unknown(error.to_string()),
            }
        }
    };
    (Observed { hosts, swarm, at: fleet.now() }, answers)
}

async fn observe_host<F: Fleet>(
    fleet: &F,
    desired: &Desired,
    host: &HostName,
) -> Observation<HostFacts> {
    let request = probe_request(desired, host);
    match timeout(HOST_DEADLINE, fleet.observe_host(host, &request)).await {
        Ok(Ok(facts)) => Observation::Known(facts),
        Ok(Err(error)) => Observation::unknown(error.to_string()),
        Err(_) => Observation::unknown(format!("no answer within {} s", HOST_DEADLINE.as_secs())),
    }
}

async fn observe_swarm<F: Fleet>(
    fleet: &F,
    desired: &Desired,
    via: &HostName,
) -> Result<SwarmFacts, EffectError> {
    let request = swarm_request(desired);
    match timeout(SWARM_DEADLINE, fleet.observe_swarm(via, &request)).await {
        Ok(answer) => answer,
        Err(_) => Err(EffectError::new(
            Some(via),
            format!("ask the Swarm through {via}"),
            format!("no answer within {} s", SWARM_DEADLINE.as_secs()),
            reconcile_core::ports::Retry::Later,
        )),
    }
}
