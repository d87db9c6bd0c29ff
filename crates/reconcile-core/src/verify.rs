//! The service proof: what to try end to end, and what came of it.

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

/// One proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Proof {
    /// What was proven, such as `write through HAProxy on node1`.
    pub what: String,
    /// Server concerned.
    pub host: Option<HostName>,
    /// Whether it held.
    pub holds: bool,
    /// How long it took, in milliseconds.
    pub millis: u64,
    /// What was seen: the serving address, or the error.
    pub detail: String,
}

/// All proofs of one verification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Default)]
#[serde(rename_all = "camelCase")]
pub struct VerifyReport {
    /// The proofs, in order of the request.
    pub proofs: Vec<Proof>,
}

impl VerifyReport {
    /// True if every proof holds and there is at least one.
    pub fn holds(&self) -> bool {
        !self.proofs.is_empty() && self.proofs.iter().all(|proof| proof.holds)
    }
}

/// What the observations themselves prove: one leader, replication streaming to every replica, all
/// etcd members healthy. They took no time of their own.
pub fn observed_proofs(desired: &Desired, observed: &Observed) -> Vec<Proof> {
    let proof = |what: String, host: Option<&HostName>, holds: bool, detail: String| Proof {
        what,
        host: host.cloned(),
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
