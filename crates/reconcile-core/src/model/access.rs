//! What a server has noted of the last trial of access rules on it.

use serde::Serialize;

/// The note. It outlives a crash of the server, so that a trial that was cut off is finished.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessNote {
    /// How far the trial got.
    pub state: AccessState,
    /// The rules, by [`crate::desired::DesiredAccess::digest`].
    pub digest: String,
    /// Why they were refused; else empty.
    pub reason: String,
}

/// How far a trial got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum AccessState {
    /// Begun: the rules may be in force here, and nothing is proven.
    Trying,
    /// Everybody who must get in does.
    Proven,
    /// Somebody did not, and the server is back on its old rules.
    Refused,
}

impl AccessState {
    /// The word in the note.
    pub fn word(self) -> &'static str {
        match self {
            Self::Trying => "trying",
            Self::Proven => "proven",
            Self::Refused => "refused",
        }
    }
}

impl AccessNote {
    /// Where a server keeps it: one line, `STATE DIGEST REASON`.
    pub const PATH: &str = "/var/lib/reconcile/access";

    /// The note in a line; None for what is no note.
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.trim().splitn(3, ' ');
        let word = words.next()?;
        let states = [AccessState::Trying, AccessState::Proven, AccessState::Refused];
        let state = states.into_iter().find(|state| state.word() == word)?;
        let digest = words.next()?.to_owned();
        Some(Self { state, digest, reason: words.next().unwrap_or_default().to_owned() })
    }
}
