//! The commit that a desired state comes from, and one that is not taken.

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

/// A desired state that is not taken; the one before stays in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedSource {
    /// File or folder, as it was named.
    pub file: String,
    /// The commit, where it is known.
    pub revision: Option<Revision>,
    /// Why, for people: with lines of the file, in which what may be a secret is starred out.
    pub report: String,
}

impl std::fmt::Display for RefusedSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.revision {
            Some(revision) => write!(f, "{revision} is not taken:\n{}", self.report),
            None => f.write_str(&self.report),
        }
    }
}
