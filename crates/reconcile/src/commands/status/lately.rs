//! The last events for `reconcile status`, out of the journal that `reconcile events` shows whole.
//!
//! It is the journal of this machine: of an operator elsewhere, its page and `/status` tell.

use reconcile_engine::journal::{JournalError, read_last};
use serde::Serialize;
use serde_json::Value;

use super::super::events;
use crate::{cli::Cli, state};

/// As many are shown.
const SHOWN: usize = 5;

/// An event.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Happened {
    /// When, RFC 3339.
    at: String,
    /// How long ago, as of this look.
    age_seconds: u64,
    /// For people.
    pub(super) text: String,
}

impl Happened {
    /// How long ago, in few characters.
    pub(super) fn age(&self) -> String {
        match self.age_seconds {
            seconds @ 0..90 => format!("{seconds} s"),
            seconds @ 90..5_400 => format!("{} min", seconds / 60),
            seconds @ 5_400..172_800 => format!("{} h", seconds / 3_600),
            seconds => format!("{} days", seconds / 86_400),
        }
    }
}

/// The last events, as far as there is a journal here that can be read.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Lately {
    /// Newest last.
    Events(Vec<Happened>),
    /// Why they are not known. The status does not rest on them.
    EventsUnread(String),
}

/// None where no operator has kept a journal here.
pub(super) fn read(cli: &Cli, cluster: &str) -> Option<Lately> {
    // Where no place for a journal is known, there is none.
    let folder = state::folder(cli, cluster).ok()?;
    let entries = match read_last(&folder) {
        Ok(read) => read.entries,
        Err(error) => return Some(Lately::EventsUnread(told(&error))),
    };
    let shown = last(&entries, jiff::Timestamp::now().as_second());
    (!shown.is_empty()).then_some(Lately::Events(shown))
}

fn told(error: &JournalError) -> String {
    format!("the journal cannot be read: {error}")
}

/// What began is told by how it ended, where it did.
fn last(entries: &[Value], now: i64) -> Vec<Happened> {
    let mut shown = Vec::new();
    let mut ended: Vec<&Value> = Vec::new();
    for entry in entries.iter().rev() {
        match entry["kind"].as_str() {
            Some("finished") => ended.push(&entry["object"]),
            Some("waits") => continue,
            Some("started") => {
                if let Some(at) = ended.iter().position(|object| **object == entry["object"]) {
                    ended.remove(at);
                    continue;
                }
            }
            _ => {}
        }
        #[expect(clippy::cast_possible_truncation, reason = "seconds since 1970 fit for long")]
        let at = entry["at"].as_f64().unwrap_or_default() as i64;
        shown.push(Happened {
            at: events::at(entry),
            age_seconds: u64::try_from(now - at).unwrap_or(0),
            text: events::what(entry).lines().next().unwrap_or_default().to_owned(),
        });
        if shown.len() == SHOWN {
            break;
        }
    }
    shown.reverse();
    shown
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_last_few_are_told_once_each() {
        let step = |at: u32, kind: &str, object: &str| {
            json!({ "at": at, "kind": kind, "object": object, "verb": "update", "reason": "it differs",
                    "seconds": 0.5 })
        };
        let mut entries: Vec<_> = (0..20).map(|at| step(at, "skipped", "network/x")).collect();
        entries.push(json!({ "at": 100, "kind": "planned", "steps": 2, "held": [] }));
        entries.push(step(101, "started", "node1/file/a"));
        entries.push(step(101, "started", "node2/file/b"));
        entries.push(step(102, "finished", "node1/file/a"));
        entries.push(json!({ "at": 8_000, "kind": "as-desired" }));
        let told = last(&entries, 8_010);
        let told: Vec<_> = told.iter().map(|one| format!("{} | {}", one.age(), one.text)).collect();
        assert_eq!(
            told,
            [
                "2 h | skip  network/x",
                "2 h | plan  2 steps, 0 held",
                "2 h | start update node2/file/b: it differs",
                "2 h | ok    update node1/file/a (0.5 s)",
                "10 s | the cluster is as desired",
            ]
        );
        assert_eq!(last(&[], 1), []);
        // A clock that was set back is no reason to fail.
        assert_eq!(last(&[json!({ "at": 9, "kind": "as-desired" })], 1)[0].age(), "0 s");
    }
}
