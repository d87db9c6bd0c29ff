//! The service proof: what to try end to end, and what came of it.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::{
    desired::Desired,
    model::{HostName, Observed, PatroniRole, SecretText},
};

/// What to prove.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifyRequest {
    /// The nodes with a front to go through, with the address and ports to dial *on that node*.
    pub fronts: Vec<Front>,
    /// Role for the probe.
    pub role: String,
    /// Its password.
    pub password: SecretText,
    /// Database that holds the probe table `reconcile.probe (node text primary key, token text, at timestamptz)`.
    pub database: String,
    /// Commit a row and read it back through the read port; else the write is rolled back, so
    /// that a pass which changes nothing leaves no trace.
    pub commit: bool,
    /// A word that makes this proof's rows its own.
    pub token: String,
}

/// One node's way in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Front {
    /// Server through which to dial.
    pub host: HostName,
    /// Address as the server dials it.
    pub address: String,
    /// Port for writes.
    pub write_port: u16,
    /// Port for reads; None where none is published.
    pub read_port: Option<u16>,
    /// What the ports are, in words, such as `HAProxy`.
    pub through: String,
}

/// What a way in is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Way {
    /// Writes.
    Write,
    /// Reads.
    Read,
}

/// One proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Proof {
    /// What was proven, such as `write through HAProxy on node1`.
    pub what: String,
    /// Server concerned.
    pub host: Option<HostName>,
    /// Of a client's way in, through that server: what for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub way: Option<Way>,
    /// Whether it held.
    pub holds: bool,
    /// How long it took, in milliseconds.
    pub millis: u64,
    /// What was seen: the serving address, or the error.
    pub detail: String,
}

impl Proof {
    /// What it is about: a write that is kept and one that is rolled back go the same way.
    pub fn about(&self) -> String {
        match (self.way, &self.host) {
            (Some(way), Some(host)) => format!("{way:?} {host}"),
            _ => self.what.clone(),
        }
    }
}

/// All proofs of one verification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Default)]
#[serde(rename_all = "camelCase")]
pub struct VerifyReport {
    /// The proofs, in order of the request.
    pub proofs: Vec<Proof>,
}

/// How far the cluster serves its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serves {
    /// Every proof holds.
    Wholly,
    /// Every way in serves, and something else does not hold.
    InDoubt,
    /// Some ways in serve, others do not.
    Partly,
    /// No way in serves.
    Not,
}

impl VerifyReport {
    /// True if every proof holds and there is at least one.
    pub fn holds(&self) -> bool {
        !self.proofs.is_empty() && self.proofs.iter().all(|proof| proof.holds)
    }

    /// How far it serves.
    pub fn serves(&self) -> Serves {
        let (good, bad) = self.ways();
        match (good.len(), bad.len()) {
            _ if self.holds() => Serves::Wholly,
            (0, 0) if self.proofs.is_empty() => Serves::Not,
            (_, 0) => Serves::InDoubt,
            (0, _) if self.good(Way::Write) + self.good(Way::Read) == 0 => Serves::Not,
            _ => Serves::Partly,
        }
    }

    /// How many ways in of a kind serve.
    fn good(&self, way: Way) -> usize {
        self.proofs.iter().filter(|proof| proof.way == Some(way) && proof.holds).count()
    }

    /// The servers through which all serves, and those through which something does not.
    fn ways(&self) -> (BTreeSet<&HostName>, BTreeSet<&HostName>) {
        let ways = || self.proofs.iter().filter(|proof| proof.way.is_some());
        let bad: BTreeSet<_> =
            ways().filter(|proof| !proof.holds).filter_map(|proof| proof.host.as_ref()).collect();
        let all = ways().filter_map(|proof| proof.host.as_ref());
        (all.filter(|host| !bad.contains(host)).collect(), bad)
    }

    /// What does not serve and what does, in one sentence; what fails is named once, the rest counted.
    pub fn told(&self) -> String {
        let (good, bad) = self.ways();
        let all = good.len() + bad.len();
        let names = |hosts: &BTreeSet<&HostName>| {
            hosts.iter().map(|host| host.as_str()).collect::<Vec<_>>().join(", ")
        };
        let mut failed: Vec<_> = self.proofs.iter().filter(|proof| !proof.holds).collect();
        // A way in that fails tells clients more than what it may come of.
        failed.sort_by_key(|proof| proof.way.is_none());
        let why = failed.first().map_or_else(String::new, |proof| {
            let more = failed.len() - 1;
            let more = if more > 0 { format!(" (and {more} more)") } else { String::new() };
            format!("{}: {}{more}", proof.what, proof.detail)
        });
        match self.serves() {
            Serves::Wholly => "all ways in serve".to_owned(),
            Serves::InDoubt if all == 0 => why,
            Serves::InDoubt => format!("{all} of {all} ways in serve, but {why}"),
            Serves::Not if self.proofs.is_empty() => "nothing could be proven".to_owned(),
            Serves::Not => format!("none of {all} ways in serves: {why}"),
            Serves::Partly if !good.is_empty() => {
                let does = if good.len() == 1 { "serves" } else { "serve" };
                format!(
                    "{} of {all} ways in {does} ({}), {} not: {why}",
                    good.len(),
                    names(&good),
                    names(&bad),
                )
            }
            Serves::Partly if self.good(Way::Write) == 0 => {
                format!(
                    "no way in takes writes, {} of {all} serve reads: {why}",
                    self.good(Way::Read)
                )
            }
            Serves::Partly => format!("none of {all} ways in serves wholly: {why}"),
        }
    }
}

/// What the observations themselves prove: one leader, replication streaming to every replica, all
/// etcd members healthy. They took no time of their own.
pub fn observed_proofs(desired: &Desired, observed: &Observed) -> Vec<Proof> {
    let proof = |what: String, host: Option<&HostName>, holds: bool, detail: String| Proof {
        what,
        host: host.cloned(),
        way: None,
        holds,
        millis: 0,
        detail,
    };
    let mut proofs = Vec::new();
    let members = desired.patroni.members.keys();
    let facts = members.filter_map(|host| {
        observed.host(host).and_then(|facts| facts.patroni.present()).map(|fact| (host, fact))
    });
    let primaries: Vec<_> = facts
        .filter(|(_, fact)| fact.role == PatroniRole::Primary && fact.state == "running")
        .collect();
    if !desired.patroni.members.is_empty() {
        let names: Vec<_> = primaries.iter().map(|(host, _)| host.as_str()).collect();
        let holds = primaries.len() == 1;
        let detail = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        proofs.push(proof("one leader".to_owned(), None, holds, detail));
    }
    if let [(leader, fact)] = primaries.as_slice() {
        let stays = |member: &&HostName| member != leader && !desired.leaves(member);
        for replica in desired.patroni.members.keys().filter(stays) {
            let standby = fact
                .replication
                .iter()
                .find(|standby| standby.application_name == replica.as_str());
            let state = standby.map_or("not connected", |standby| standby.state.as_str());
            proofs.push(proof(
                format!("replication from {leader} to {replica}"),
                Some(replica),
                state == "streaming",
                state.to_owned(),
            ));
        }
    }
    for host in desired.etcd.members.keys().filter(|host| !desired.leaves(host)) {
        let healthy = observed
            .host(host)
            .and_then(|facts| facts.etcd.present())
            .is_some_and(|etcd| etcd.healthy);
        let detail = if healthy { "healthy" } else { "not healthy" };
        proofs.push(proof(format!("etcd member {host}"), Some(host), healthy, detail.to_owned()));
    }
    proofs
}
