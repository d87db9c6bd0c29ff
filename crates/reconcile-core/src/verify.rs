//! The service proof: what to try end to end, and what came of it.

use serde::Serialize;

use crate::model::{HostName, SecretText};

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
