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
    model::{HostName, SecretText},
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

/// The ways in of each server of the Swarm.
pub(crate) struct Rollout {
    cluster: String,
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
    /// It does not, and others of its kind do. `alone`: of the servers in question none does.
    AtFault {
        why: String,
        alone: bool,
    },
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

    /// What is to be said of them, compared with servers that are as before.
    fn verdict(&self, others: &Self) -> Verdict {
        let at_fault = || self.fails.iter().filter(|(kind, _)| others.holds.contains(*kind));
        let all_of_them = at_fault().find(|(kind, _)| !self.holds.contains(*kind));
        if let Some((_, why)) = all_of_them.or_else(|| at_fault().next()) {
            return Verdict::AtFault { why: why.clone(), alone: all_of_them.is_some() };
        }
        // Reads may have nowhere to go to, on every server alike.
        match self.fails.iter().find(|(kind, _)| kind.1) {
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
        Self {
            cluster: spec.name.to_string(),
            ways: ways.collect(),
            password: password.unwrap_or_else(|| SecretText::new("")),
        }
    }

    /// Carries out an action on the Swarm; one of a rollout with the trial that belongs to it. The server has
    /// been asked before whether somebody newer holds the lease; a trial takes longer than that is good for.
    pub(crate) async fn perform(
        &self,
        ssh: &Ssh,
        swarm: &SwarmClient,
        via: &HostName,
        action: &SwarmAction,
        deadline: Duration,
    ) -> Result<(), EffectError> {
        match action {
            SwarmAction::UpdateService { spec, first, begins: true, .. } => {
                // What comes of it could not be told.
                if let Verdict::AtFault { why, .. } = self.judge(ssh, first).await {
                    let cause = format!(
                        "{} comes first and does not serve as it is, while others do, so nothing new is begun there: {why}",
                        names(first)
                    );
                    let attempt = format!("update service {}", spec.name);
                    return Err(EffectError::new(Some(via), attempt, cause, Retry::Later));
                }
                ssh.guard(via).await?;
                swarm.apply(via, action, rest(deadline, PATIENCE)).await
            }
            SwarmAction::UpdateNode { updated, lost, .. } if !updated.is_empty() => {
                let verdict = self.judge(ssh, updated).await;
                ssh.guard(via).await?;
                let (why, alone) = match verdict {
                    Verdict::Serves => {
                        return swarm.apply(via, action, rest(deadline, PATIENCE)).await;
                    }
                    Verdict::AtFault { why, alone } => (why, alone),
                    // It says nothing against what is new, and the next node waits for a proof.
                    Verdict::Unproven(why) => (why, *lost),
                };
                let mut not_back = String::new();
                if alone {
                    match swarm.go_back(via, &self.cluster, rest(deadline, 2 * PATIENCE)).await {
                        Ok(services) if services.is_empty() => {}
                        Ok(services) => {
                            let cause = format!(
                                "taken back: {} has what is new and was not proven to serve with it: {why}",
                                names(updated)
                            );
                            let attempt = format!("update {}", services.join(", "));
                            return Err(EffectError::new(Some(via), attempt, cause, Retry::Soon));
                        }
                        Err(error) => not_back = format!("; not taken back: {}", error.cause),
                    }
                }
                if *lost && not_back.is_empty() {
                    return swarm.apply(via, action, rest(deadline, PATIENCE)).await;
                }
                let cause = format!(
                    "{} has the update and does not serve, so the others keep what they have until it does, or until the file is as it was: {why}{not_back}",
                    names(updated)
                );
                let attempt = "go on to the next node";
                Err(EffectError::new(Some(via), attempt, cause, Retry::Later))
            }
            _ => swarm.apply(via, action, deadline).await,
        }
    }

    /// Tries until all ways in of the servers serve, or until the time is over.
    async fn judge(&self, dialer: &dyn Dialer, servers: &[HostName]) -> Verdict {
        let start = Instant::now();
        let others: Vec<_> =
            self.ways.keys().filter(|host| !servers.contains(host)).cloned().collect();
        loop {
            let new = self.tried(dialer, servers).await;
            if new.fails.is_empty() {
                return Verdict::Serves;
            }
            let verdict = new.verdict(&self.tried(dialer, &others).await);
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
    fn a_server_is_at_fault_only_where_others_serve() {
        let fails = tried(&[("PgBouncer", true, false), ("HAProxy", true, true)]);
        let serve = tried(&[("PgBouncer", true, true), ("HAProxy", true, true)]);
        let down = tried(&[("PgBouncer", true, false), ("HAProxy", true, false)]);
        let why = || "PgBouncer fails".to_owned();
        assert_eq!(serve.verdict(&down), Verdict::Serves);
        assert_eq!(fails.verdict(&serve), Verdict::AtFault { why: why(), alone: true });
        // Nobody can write: that may be the primary.
        assert_eq!(fails.verdict(&down), Verdict::Unproven(why()));
        // Nobody is there to compare with.
        assert_eq!(fails.verdict(&Tried::default()), Verdict::Unproven(why()));
        // One server of those that have it serves: it is not what is new.
        let mut some = tried(&[("PgBouncer", true, false), ("HAProxy", true, true)]);
        some.holds.insert(("PgBouncer".to_owned(), true));
        assert_eq!(some.verdict(&serve), Verdict::AtFault { why: why(), alone: false });
        // In another way in none does.
        let mut both = tried(&[("HAProxy", true, false), ("PgBouncer", true, false)]);
        both.holds.insert(("HAProxy".to_owned(), true));
        assert_eq!(both.verdict(&serve), Verdict::AtFault { why: why(), alone: true });
    }

    #[test]
    fn reads_that_fail_everywhere_stop_nothing() {
        let no_reads = tried(&[("HAProxy", true, true), ("HAProxy", false, false)]);
        let all = tried(&[("HAProxy", true, true), ("HAProxy", false, true)]);
        assert_eq!(no_reads.verdict(&no_reads), Verdict::Serves);
        let why = "HAProxy fails".to_owned();
        assert_eq!(no_reads.verdict(&all), Verdict::AtFault { why, alone: true });
    }
}
