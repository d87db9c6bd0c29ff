//! Whether a server whose containers were just replaced serves: only then an update goes on to the next.
//! Docker calls a task healthy that keeps running. Here each way in is gone through as clients do.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::future::join_all;
use reconcile_core::{
    action::SwarmAction,
    desired::{
        Secrets,
        postgresql::{PROBE_DATABASE, PROBE_ROLE},
    },
    model::{HostName, SecretText, ServiceSpec},
    ports::{EffectError, Retry},
    verify::{Front, Proof, VerifyRequest, Way},
};
use reconcile_dial::Dialer;
use reconcile_hosts::Ssh;
use reconcile_spec::{ClusterSpec, secrets::RECONCILE_PROBE};
use reconcile_swarm::SwarmClient;
use tokio::time::{Instant, sleep};

/// How long what is new may take until it serves: a router needs some rounds of checks.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(500);
/// Time for Docker to go back on one node, besides that for the old task's end and the watch over the new.
const BACK: Duration = Duration::from_secs(60);

/// The ways in of each server of the Swarm.
pub(crate) struct Rollout {
    ways: BTreeMap<HostName, Vec<Front>>,
    password: SecretText,
}

/// A way in of some server: what it goes through, and what it is for.
type Kind = (String, bool);

/// What came of the ways in of some servers, by kind.
#[derive(Default)]
struct Tried {
    holds: BTreeSet<Kind>,
    fails: BTreeMap<Kind, String>,
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Serves,
    /// It does not, and others of its kind do.
    AtFault(String),
    /// It does not, nor do others.
    Unproven(String),
}

impl Tried {
    fn add(&mut self, front: &Front, proof: &Proof) {
        let kind = (front.through.clone(), proof.way == Some(Way::Write));
        if proof.holds {
            self.holds.insert(kind);
        } else {
            self.fails.entry(kind).or_insert(format!("{}: {}", proof.what, proof.detail));
        }
    }

    /// What is to be said of them, compared with servers that are as before. `known`: what failed on
    /// them before anything was changed.
    fn verdict(&self, others: &Self, known: &BTreeSet<Kind>) -> Verdict {
        let mut news = self.fails.iter().filter(|(kind, _)| !known.contains(*kind));
        if let Some((_, why)) = news.find(|(kind, _)| others.holds.contains(*kind)) {
            return Verdict::AtFault(why.clone());
        }
        // Reads may have nowhere to go to, on every server alike.
        let doubt = |(kind, _): &(&Kind, &String)| kind.1 || others.holds.contains(*kind);
        match self.fails.iter().find(doubt) {
            Some((_, why)) => Verdict::Unproven(why.clone()),
            None => Verdict::Serves,
        }
    }
}

impl Rollout {
    pub(crate) fn new(spec: &ClusterSpec, secrets: &Secrets) -> Self {
        let publish = &spec.haproxy.publish;
        let pooler = &spec.pgbouncer.ports;
        let ways = spec.swarm_hosts().map(|host| {
            let front = |through: &str, write_port, read_port| Front {
                host: HostName::new(host.name.as_str()),
                address: host.address.to_string(),
                write_port,
                read_port,
                through: through.to_owned(),
            };
            let way = publish.write.map(|write| front("HAProxy", write, publish.read));
            let own = front("PgBouncer", pooler.write, Some(pooler.read));
            (HostName::new(host.name.as_str()), way.into_iter().chain([own]).collect())
        });
        let password = secrets.get(RECONCILE_PROBE).cloned();
        Self { ways: ways.collect(), password: password.unwrap_or_else(|| SecretText::new("")) }
    }

    /// Carries out an action on the Swarm; one of a rollout with the trial that belongs to it. The server has
    /// been asked before whether somebody newer holds the lease.
    pub(crate) async fn perform(
        &self,
        ssh: &Ssh,
        swarm: &SwarmClient,
        via: &HostName,
        action: &SwarmAction,
        deadline: Duration,
    ) -> Result<(), EffectError> {
        match action {
            SwarmAction::UpdateService { spec, first, .. } if !first.is_empty() => {
                let known = self.before(ssh, via, spec, first).await?;
                let back =
                    Duration::from_millis(spec.stop_grace_ms + spec.update.monitor_ms) + BACK;
                swarm.apply(via, action, rest(deadline, 2 * PATIENCE + back)).await?;
                match self.judge(ssh, first, &known).await {
                    Verdict::Serves => Ok(()),
                    // It says nothing against what is new, and the next node waits for a proof.
                    Verdict::Unproven(why) => {
                        tracing::debug!(service = spec.name, why, "not proven yet");
                        Ok(())
                    }
                    Verdict::AtFault(why) => {
                        // Somebody newer may have it in hand by now.
                        ssh.guard(via).await?;
                        let cause = match swarm.take_back(via, spec, back).await {
                            Ok(()) => format!(
                                "taken back: {} came first and did not serve with it, while others did: {why}",
                                names(first)
                            ),
                            Err(error) => format!(
                                "{} came first and does not serve with it, while others do: {why}; not taken back: {}",
                                names(first),
                                error.cause
                            ),
                        };
                        Err(EffectError::new(Some(via), attempt(spec), cause, Retry::AfterChange))
                    }
                }
            }
            SwarmAction::UpdateNode { updated, .. } if !updated.is_empty() => {
                match self.judge(ssh, updated, &BTreeSet::new()).await {
                    Verdict::Serves => swarm.apply(via, action, rest(deadline, PATIENCE)).await,
                    Verdict::AtFault(why) | Verdict::Unproven(why) => {
                        let cause = format!(
                            "{} has the update and does not serve, so the others keep what they have until it does, or until the file is as it was: {why}",
                            names(updated)
                        );
                        let attempt = "go on to the next node";
                        Err(EffectError::new(Some(via), attempt, cause, Retry::Later))
                    }
                }
            }
            _ => swarm.apply(via, action, deadline).await,
        }
    }

    /// What of the first servers does not serve as they are. Where others do nothing new is begun: what comes
    /// of it could not be told.
    async fn before(
        &self,
        ssh: &Ssh,
        via: &HostName,
        spec: &ServiceSpec,
        first: &[HostName],
    ) -> Result<BTreeSet<Kind>, EffectError> {
        match self.judge(ssh, first, &BTreeSet::new()).await {
            Verdict::Serves => Ok(BTreeSet::new()),
            Verdict::Unproven(_) => Ok(self.tried(ssh, first).await.fails.into_keys().collect()),
            Verdict::AtFault(why) => {
                let cause = format!(
                    "{} comes first and does not serve as it is, while others do, so nothing new is begun there: {why}",
                    names(first)
                );
                Err(EffectError::new(Some(via), attempt(spec), cause, Retry::Later))
            }
        }
    }

    /// Tries until all ways in of the servers serve, or until the time is over.
    async fn judge(
        &self,
        dialer: &dyn Dialer,
        servers: &[HostName],
        known: &BTreeSet<Kind>,
    ) -> Verdict {
        let start = Instant::now();
        let others: Vec<_> =
            self.ways.keys().filter(|host| !servers.contains(host)).cloned().collect();
        loop {
            let new = self.tried(dialer, servers).await;
            if new.fails.is_empty() {
                return Verdict::Serves;
            }
            let verdict = new.verdict(&self.tried(dialer, &others).await, known);
            if verdict == Verdict::Serves || start.elapsed() >= PATIENCE {
                return verdict;
            }
            sleep(PAUSE).await;
        }
    }

    async fn tried(&self, dialer: &dyn Dialer, servers: &[HostName]) -> Tried {
        let fronts = servers.iter().filter_map(|host| self.ways.get(host)).flatten();
        let tried = fronts.map(async |front| {
            let request = VerifyRequest {
                unseen: Vec::new(),
                fronts: vec![front.clone()],
                role: PROBE_ROLE.to_owned(),
                password: self.password.clone(),
                database: PROBE_DATABASE.to_owned(),
                commit: false,
                token: "rollout".to_owned(),
            };
            (front, reconcile_cluster::verify(dialer, &request).await.proofs)
        });
        let mut all = Tried::default();
        for (front, proofs) in join_all(tried).await {
            for proof in proofs {
                all.add(front, &proof);
            }
        }
        all
    }
}

/// What is left of a deadline for Docker when that much is kept for the trial.
fn rest(deadline: Duration, kept: Duration) -> Duration {
    deadline.saturating_sub(kept).max(deadline / 2)
}

fn attempt(spec: &ServiceSpec) -> String {
    format!("update service {}", spec.name)
}

fn names(hosts: &[HostName]) -> String {
    hosts.iter().map(HostName::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(ways: &[(&str, bool, bool)]) -> Tried {
        let mut tried = Tried::default();
        for (through, write, holds) in ways {
            let kind = ((*through).to_owned(), *write);
            if *holds {
                tried.holds.insert(kind);
            } else {
                tried.fails.insert(kind, format!("{through} fails"));
            }
        }
        tried
    }

    #[test]
    fn a_server_is_at_fault_only_where_others_serve_and_it_did_before() {
        let none = BTreeSet::new();
        let fails = tried(&[("PgBouncer", true, false), ("HAProxy", true, true)]);
        let serve = tried(&[("PgBouncer", true, true), ("HAProxy", true, true)]);
        let down = tried(&[("PgBouncer", true, false), ("HAProxy", true, false)]);
        let why = || "PgBouncer fails".to_owned();
        assert_eq!(serve.verdict(&down, &none), Verdict::Serves);
        assert_eq!(fails.verdict(&serve, &none), Verdict::AtFault(why()));
        // Nobody can write: that may be the primary.
        assert_eq!(fails.verdict(&down, &none), Verdict::Unproven(why()));
        // Nobody is there to compare with.
        assert_eq!(fails.verdict(&Tried::default(), &none), Verdict::Unproven(why()));
        // It was so before: not taken back, and not gone on with.
        let known = BTreeSet::from([("PgBouncer".to_owned(), true)]);
        assert_eq!(fails.verdict(&serve, &known), Verdict::Unproven(why()));
    }

    #[test]
    fn reads_that_fail_everywhere_stop_nothing() {
        let none = BTreeSet::new();
        let no_reads = || tried(&[("HAProxy", true, true), ("HAProxy", false, false)]);
        let all = tried(&[("HAProxy", true, true), ("HAProxy", false, true)]);
        assert_eq!(no_reads().verdict(&no_reads(), &none), Verdict::Serves);
        assert_eq!(no_reads().verdict(&all, &none), Verdict::AtFault("HAProxy fails".to_owned()));
    }
}
