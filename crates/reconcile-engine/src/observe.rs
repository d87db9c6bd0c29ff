//! Observing: every server and the Swarm at once, each within a deadline. What fails is Unknown; an
//! answer that was lost or is late is asked for once more before that is concluded.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    time::Duration,
};

use futures::future::join_all;
use reconcile_core::{
    desired::Desired,
    model::{HostFacts, HostName, Observation, Observed, PatroniRole, SwarmFacts},
    plan::{probe_request, swarm_request, swarm_via},
    ports::{EffectError, Fleet, Retry},
    probe::ProbeRequest,
};
use tokio::time::{Instant, sleep, timeout};

/// A server that has not told its facts by then is unknown in this pass. A cold connection takes
/// well under a second and a probe about 0.2 s; a server that is off costs this much once a pass.
pub const HOST_DEADLINE: Duration = Duration::from_secs(10);
/// The same for the Swarm.
pub const SWARM_DEADLINE: Duration = Duration::from_secs(10);

/// A server that has not answered by then is asked once more beside that: a busy one may take as long,
/// and a lost answer never comes.
const LATE: Duration = Duration::from_secs(4);
/// A failure that took longer is no answer that was lost, but a server that is off.
const QUICK: Duration = Duration::from_secs(3);
/// Before a server is asked again that refused to be asked.
const PAUSE: Duration = Duration::from_millis(200);

/// Parts of a server that answered; under `SERVER` the server itself.
pub(crate) type Answered = BTreeSet<(HostName, &'static str)>;

const SERVER: &str = "server";

/// What answered in a look.
pub(crate) fn answered(observed: &Observed) -> Answered {
    let known = observed.hosts.iter().filter_map(|(host, facts)| Some((host, facts.known()?)));
    known
        .flat_map(|(host, facts)| {
            let parts = parts(facts).into_iter().filter(|(.., told)| *told == Told::There);
            let parts = parts.map(|(part, _)| part).chain([SERVER]);
            parts.map(|part| (host.clone(), part)).collect::<Vec<_>>()
        })
        .collect()
}

#[derive(PartialEq, Eq)]
enum Told {
    There,
    NotThere,
    Unknown,
}

/// What each part of a server told.
fn parts(facts: &HostFacts) -> [(&'static str, Told); 5] {
    fn told<T>(part: &Observation<Option<T>>) -> Told {
        match part {
            Observation::Known(Some(_)) => Told::There,
            Observation::Known(None) => Told::NotThere,
            Observation::Unknown { .. } => Told::Unknown,
        }
    }
    let config = match facts.patroni.present() {
        Some(patroni) if patroni.config.is_some() => Told::There,
        Some(patroni) if patroni.role == PatroniRole::Primary => Told::Unknown,
        Some(_) | None => Told::NotThere,
    };
    [
        ("docker", told(&facts.docker)),
        ("etcd", told(&facts.etcd)),
        ("patroni", told(&facts.patroni)),
        ("patroni's configuration", config),
        ("sql", told(&facts.sql)),
    ]
}

/// Parts that were asked for and did not answer.
fn silent(request: &ProbeRequest, facts: &HostFacts) -> impl Iterator<Item = &'static str> {
    let asked = [
        request.docker,
        request.etcd.is_some(),
        request.patroni.is_some(),
        request.patroni.is_some(),
        request.sql.is_some(),
    ];
    let silent = parts(facts).into_iter().zip(asked);
    silent.filter(|((_, told), asked)| *asked && *told == Told::Unknown).map(|((part, _), _)| part)
}

/// Observes all that plans for `desired` rest on; with the time that each server took to answer.
/// `before` is what answered in the look before: only what did is asked for twice, so that what is
/// silent for long slows down nothing. None: there was none.
pub(crate) async fn observe<F: Fleet>(
    fleet: &F,
    desired: &Desired,
    before: Option<&Answered>,
) -> (Observed, BTreeMap<HostName, Duration>) {
    let hosts = join_all(desired.servers.keys().map(|host| async move {
        let started = Instant::now();
        let facts = observe_host(fleet, desired, host, before).await;
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
        .filter(|(_, facts, _)| facts.is_ok())
        .map(|(host, _, took)| (host.clone(), *took))
        .collect();
    let mut barred = BTreeSet::new();
    let hosts: BTreeMap<HostName, Observation<HostFacts>> = hosts
        .into_iter()
        .map(|(host, facts, _)| match facts {
            Ok(facts) => (host, Observation::Known(facts)),
            Err(unseen) => {
                if unseen.barred {
                    barred.insert(host.clone());
                }
                (host, Observation::unknown(unseen.reason))
            }
        })
        .collect();
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
    (Observed { hosts, swarm, at: fleet.now(), barred }, answers)
}

/// Why nothing is known of a server.
struct Unseen {
    reason: String,
    /// It answers, and lets nobody look.
    barred: bool,
}

async fn observe_host<F: Fleet>(
    fleet: &F,
    desired: &Desired,
    host: &HostName,
    before: Option<&Answered>,
) -> Result<HostFacts, Unseen> {
    let request = probe_request(desired, host);
    let news = |part| before.is_none_or(|before| before.contains(&(host.clone(), part)));
    match timeout(HOST_DEADLINE, ask_twice(fleet, host, &request, news)).await {
        Ok(Ok(facts)) => Ok(facts),
        Ok(Err(error)) => {
            // What only somebody's change mends is no silence.
            Err(Unseen { reason: error.to_string(), barred: error.retry == Retry::AfterChange })
        }
        Err(_) => Err(Unseen {
            reason: format!("no answer within {} s", HOST_DEADLINE.as_secs()),
            barred: false,
        }),
    }
}

/// Asks a server, and where it does not tell what it told before, once more: looking changes nothing.
async fn ask_twice<F: Fleet>(
    fleet: &F,
    host: &HostName,
    request: &ProbeRequest,
    news: impl Fn(&'static str) -> bool,
) -> Result<HostFacts, EffectError> {
    let asked = Instant::now();
    let mut first = pin!(fleet.observe_host(host, request));
    let Ok(answer) = timeout(LATE, &mut first).await else {
        if !news(SERVER) {
            return first.await;
        }
        tracing::debug!(%host, "late, asked once more");
        let mut second = pin!(fleet.observe_host(host, request));
        return tokio::select! {
            answer = &mut first => match answer {
                Ok(facts) => Ok(facts),
                Err(_) => second.await,
            },
            answer = &mut second => match answer {
                Ok(facts) => Ok(facts),
                Err(_) => first.await,
            },
        };
    };
    match answer {
        Err(error) => {
            let lost = error.retry != Retry::AfterChange && asked.elapsed() < QUICK;
            if !(lost && news(SERVER)) {
                return Err(error);
            }
            tracing::debug!(%host, %error, "asked once more");
            sleep(PAUSE).await;
            fleet.observe_host(host, request).await
        }
        Ok(facts) => {
            if !silent(request, &facts).any(&news) {
                return Ok(facts);
            }
            tracing::debug!(%host, "told less than before, asked once more");
            let left = HOST_DEADLINE.saturating_sub(asked.elapsed() + PAUSE);
            match timeout(left, fleet.observe_host(host, request)).await {
                Ok(Ok(again))
                    if silent(request, &again).count() <= silent(request, &facts).count() =>
                {
                    Ok(again)
                }
                Ok(_) | Err(_) => Ok(facts),
            }
        }
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
