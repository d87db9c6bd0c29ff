//! A pause: a person told all operators of a cluster to change nothing until some time.
//!
//! Each server keeps a note of it. The one with the highest number counts, so that a server which
//! was off while the pause was ended does not bring it back.

use serde::Serialize;

/// What a server has noted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PauseNote {
    /// Counts pauses and their ends.
    pub number: u64,
    /// Its end, in seconds since 1970 by the operator's clock; 0: it was ended.
    pub until: u64,
    /// Who asked for it, such as `anna@ops1`.
    pub by: String,
    /// Why; may be empty.
    pub reason: String,
}

impl PauseNote {
    /// Folder of the notes on a server.
    pub const FOLDER: &str = "/var/lib/reconcile";

    /// Where a server keeps the note of a cluster.
    pub fn path(cluster: &str) -> String {
        format!("{}/pause.{cluster}", Self::FOLDER)
    }

    /// The line that a server keeps.
    pub fn line(&self) -> String {
        let Self { number, until, by, reason } = self;
        format!("{number} {until} {by} {reason}")
    }

    /// The note in a line. One that cannot be read pauses, for somebody meant something by it.
    pub fn parse(line: &str, path: &str) -> Self {
        let mut words = line.trim_end().splitn(4, ' ');
        let mut number = || words.next()?.parse::<u64>().ok();
        match (number(), number()) {
            (Some(number), Some(until)) => Self {
                number,
                until,
                by: words.next().unwrap_or_default().to_owned(),
                reason: words.next().unwrap_or_default().to_owned(),
            },
            _ => Self {
                number: 0,
                until: u64::MAX,
                by: "somebody".to_owned(),
                reason: format!("{path} is damaged"),
            },
        }
    }

    /// True while it lasts.
    pub fn lasts(&self, now: u64) -> bool {
        now < self.until
    }
}

impl std::fmt::Display for PauseNote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "by {} until {}", self.by, crate::windows::written(self.until))?;
        if self.reason.is_empty() { Ok(()) } else { write!(f, ": {}", self.reason) }
    }
}
