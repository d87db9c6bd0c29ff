//! What was learnt of the world in one pass. Unknown is not absent.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{HostFacts, HostName, PauseNote, SwarmFacts, sha256_hex};

/// Something that was asked for: learnt, or not. Absence is a *known* value (`Known(None)`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Observation<T> {
    /// It was learnt.
    Known(T),
    /// It could not be learnt.
    Unknown {
        /// Why, in plain words.
        reason: String,
    },
}

impl<T> Observation<T> {
    /// An unknown with its reason.
    pub fn unknown(reason: impl Into<String>) -> Self {
        Self::Unknown { reason: reason.into() }
    }
    /// The value where it is known.
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Unknown { .. } => None,
        }
    }
    /// The reason where it is not known.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Known(_) => None,
            Self::Unknown { reason } => Some(reason),
        }
    }
}

impl<T> Observation<Option<T>> {
    /// The value where it is known to be there.
    pub fn present(&self) -> Option<&T> {
        self.known().and_then(Option::as_ref)
    }
    /// True only where it is known not to be there.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Known(None))
    }
}

/// All observations of one pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Observed {
    /// One entry for each server of the desired state.
    pub hosts: BTreeMap<HostName, Observation<HostFacts>>,
    /// The Swarm as one of its managers tells it. `Known(None)`: no server of ours is in a Swarm.
    pub swarm: Observation<Option<SwarmFacts>>,
    /// When, in seconds since 1970 by the operator's clock.
    pub at: u64,
    /// Servers that answer and let nobody look, as where the login is refused: nothing is known of what
    /// runs there, and nothing says that it does not.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub barred: BTreeSet<HostName>,
}

impl Observed {
    /// The facts of a server, where they are known.
    pub fn host(&self, host: &HostName) -> Option<&HostFacts> {
        self.hosts.get(host).and_then(Observation::known)
    }

    /// The pause that is in force.
    pub fn pause(&self) -> Option<&PauseNote> {
        let notes = self.hosts.values().filter_map(|facts| facts.known()?.pause.as_ref());
        notes.max().filter(|note| note.lasts(self.at))
    }

    /// Digest of all facts that a plan may rest on. Facts that move by themselves (free disk space,
    /// clock, lag, process ids) are left out, so that a saved plan stays valid while nothing
    /// that matters has moved.
    pub fn digest(&self) -> String {
        let mut steady = self.clone();
        steady.at = 0;
        for facts in steady.hosts.values_mut() {
            if let Observation::Known(facts) = facts {
                facts.drop_volatile();
            }
        }
        steady.sum()
    }

    /// Digest of what clients are served by, for knowing when a proof of service may hold no more. Other
    /// programs' ports that come and go, and what lies on disks, are left out.
    pub fn serving_digest(&self) -> String {
        let mut serving = self.clone();
        serving.at = 0;
        for facts in serving.hosts.values_mut() {
            if let Observation::Known(facts) = facts {
                facts.drop_volatile();
                facts.listeners.clear();
                facts.data_dirs.clear();
                facts.packages.clear();
            }
        }
        serving.sum()
    }

    fn sum(&self) -> String {
        // Plain data with string keys always serialises.
        sha256_hex(&serde_json::to_vec(self).unwrap_or_default())
    }
}
