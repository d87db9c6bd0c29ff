//! What makes `--watch` look at once instead of at the next tick of its timer: events of the
//! servers, of Docker, and of the keys by which Patroni's cluster is led.
//!
//! They carry no data. Whatever is missed while a stream is down the timer finds; that it is down
//! is said, and that it is back is itself a trigger, for a server that returns must not wait.

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use futures::StreamExt as _;
use rand::RngExt as _;
use reconcile_cluster::KeyEvents;
use reconcile_core::{
    model::HostName,
    plan::probe_request,
    ports::{EffectError, Retry},
};
use reconcile_hosts::{HostEvent, HostEvents};
use reconcile_swarm::Hints;
use tokio::{sync::mpsc, task::JoinHandle, time::Instant};

use crate::{commands::Prepared, output::say};

/// Pause before a stream is opened again, first and longest. A server that is off answers nothing
/// for 5 s besides, so it is noticed within 10 s of its return.
const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(5);
/// A stream that lasted so long was a good one.
const GOOD: Duration = Duration::from_secs(10);

/// The streams of one desired state. Dropped, they end.
#[derive(Default)]
pub(crate) struct Triggers {
    tasks: Vec<JoinHandle<()>>,
    /// What they were opened for.
    of: Option<(Arc<Prepared>, String)>,
}

impl Drop for Triggers {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Follows everything that can tell of a change. Streams that tell of the same go on: to open them
/// anew keeps the servers busy in the very moment in which a change is to be made.
pub(crate) fn follow(
    prepared: &Arc<Prepared>,
    dirty: &mpsc::Sender<()>,
    before: Triggers,
) -> Triggers {
    let what = what(prepared);
    if let Some((old, heard)) = &before.of
        && *heard == what
        && old.fleet.shares_connections(&prepared.fleet)
    {
        return before;
    }
    drop(before);
    let desired = &prepared.desired;
    let servers = desired.servers.keys().cloned().map(Origin::Server);
    let engines = desired.swarm.nodes.iter().map(|(host, _)| Origin::Docker(host.clone()));
    let members = desired.etcd.members.keys().cloned().map(Origin::Keys);
    let origins = servers.chain(engines).chain(members);
    let start = |origin| tokio::spawn(keep(origin, Arc::clone(prepared), dirty.clone()));
    let tasks = origins.map(start).collect();
    Triggers { tasks, of: Some((Arc::clone(prepared), what)) }
}

/// All that the streams depend on: what is looked at, not what it should be like.
fn what(prepared: &Prepared) -> String {
    let desired = &prepared.desired;
    let servers = desired.servers.keys().map(|host| {
        let mut request = probe_request(desired, host);
        for file in &mut request.files {
            file.expect.clear();
        }
        (host, request)
    });
    let servers: Vec<_> = servers.collect();
    let nodes: Vec<_> = desired.swarm.nodes.iter().map(|(host, _)| host).collect();
    format!("{servers:?} {nodes:?} {:?} {}", desired.etcd.members, desired.patroni.directory())
}

/// Where events come from.
enum Origin {
    /// Units, files and packages of a server.
    Server(HostName),
    /// A server's Docker engine.
    Docker(HostName),
    /// An etcd member.
    Keys(HostName),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(host) => write!(f, "events of {host}"),
            Self::Docker(host) => write!(f, "Docker's events on {host}"),
            Self::Keys(host) => write!(f, "changes of Patroni's keys on {host}"),
        }
    }
}

/// An open stream.
enum Feed {
    Server(Box<HostEvents>),
    Docker(HostName, Box<Hints>),
    Keys(Box<KeyEvents>),
}

impl Origin {
    async fn open(&self, prepared: &Prepared) -> Result<Feed, EffectError> {
        let fleet = &prepared.fleet;
        Ok(match self {
            Self::Server(host) => {
                let request = probe_request(&prepared.desired, host);
                Feed::Server(Box::new(fleet.server_events(host, &request).await?))
            }
            Self::Docker(host) => {
                Feed::Docker(host.clone(), Box::new(fleet.docker_events(host).await?))
            }
            Self::Keys(host) => Feed::Keys(Box::new(fleet.key_events(host).await?)),
        })
    }
}

impl Feed {
    async fn next(&mut self) -> Result<HostEvent, EffectError> {
        match self {
            Self::Server(events) => events.next().await,
            Self::Keys(events) => events.next().await.map(HostEvent::Changed),
            Self::Docker(host, hints) => match hints.next().await {
                Some(hint) => {
                    Ok(HostEvent::Changed(format!("{} {} {}", hint.kind, hint.name, hint.action)))
                }
                None => Err(EffectError::new(
                    Some(host),
                    format!("follow the events of the engine on {host}"),
                    "the stream ended",
                    Retry::Soon,
                )),
            },
        }
    }
}

/// Keeps a stream open, and makes each of its events a trigger.
async fn keep(origin: Origin, prepared: Arc<Prepared>, dirty: mpsc::Sender<()>) {
    let pull = || {
        // A full channel holds a trigger already.
        let _held = dirty.try_send(());
    };
    // Before etcd and Docker are there, that they tell nothing is no news.
    let mut expected = matches!(origin, Origin::Server(_));
    let mut told = false;
    let mut deaf = BTreeSet::new();
    let mut failures = 0_u32;
    loop {
        let error = match origin.open(&prepared).await {
            Ok(mut feed) => {
                if told {
                    say(&format!("{origin} are heard again"));
                    told = false;
                }
                if failures > 0 {
                    pull();
                }
                expected = true;
                let opened = Instant::now();
                let error = loop {
                    match feed.next().await {
                        Ok(HostEvent::Changed(what)) => {
                            tracing::debug!(%origin, what, "trigger");
                            pull();
                        }
                        Ok(HostEvent::Deaf(what)) => {
                            if deaf.insert(what.clone()) {
                                say(&format!("of the {origin} not all are heard: {what}"));
                            }
                        }
                        Err(error) => break error,
                    }
                };
                pull();
                if opened.elapsed() >= GOOD {
                    failures = 0;
                }
                error
            }
            Err(error) => error,
        };
        tracing::debug!(%origin, %error, "stream ended");
        failures += 1;
        // One break is mended at once and costs nothing.
        if failures == 2 && expected && !told {
            say(&format!("{origin} are not heard, the timer finds what changes: {}", error.cause));
            told = true;
        }
        let pause = FIRST.saturating_mul(1 << failures.min(8).saturating_sub(1)).min(LONGEST);
        let jitter: f64 = rand::rng().random();
        tokio::time::sleep(pause.mul_f64(1.0 - jitter / 4.0)).await;
    }
}
