//! The commit that a desired state comes from.

use serde::{Deserialize, Serialize};

/// A commit, as people are shown it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Revision {
    /// Its full hash.
    pub commit: String,
    /// Name and address of its author.
    pub author: String,
    /// When it was committed, ISO 8601.
    pub time: String,
    /// First line of its message.
    pub subject: String,
}

impl std::fmt::Display for Revision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let short = self.commit.get(..12).unwrap_or(&self.commit);
        write!(f, "commit {short} \"{}\" by {}, {}", self.subject, self.author, self.time)
    }
}
