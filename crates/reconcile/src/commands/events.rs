//! `reconcile events`: the journal, for people or machines.

use std::collections::BTreeMap;

use reconcile_core::{model::Revision, plan::counted};
use reconcile_engine::journal::{read_all, unfinished};
use serde_json::Value;

use crate::{
    cli::{Cli, EventsArgs, EventsFormat, Format},
    failure::{Failure, Outcome},
    output, source, state,
};

pub(super) fn run(cli: &Cli, arguments: &EventsArgs) -> Result<Outcome, Failure> {
    let source = source::read_in_force_and_say(cli)?;
    for spec in &source.clusters {
        let folder = state::folder(cli, spec.name.as_str())?;
        let read =
            read_all(&folder).map_err(|error| Failure::from_error("read the journal", &error))?;
        let entries = read.entries;
        let from = entries.len().saturating_sub(arguments.last);
        match arguments.output {
            EventsFormat::Text => {}
            EventsFormat::Json => {
                for entry in &entries[from..] {
                    output::print(&format!("{entry}\n"))?;
                }
                continue;
            }
            EventsFormat::Yaml => {
                output::print(&output::as_text(Format::Yaml, &&entries[from..], |_| {
                    String::new()
                })?)?;
                continue;
            }
        }
        for entry in folded(&entries[from..]) {
            output::print(&(line(entry) + "\n"))?;
        }
        if read.torn > 0 {
            output::note(&format!(
                "{} of the journal cannot be read: reconcile was killed, or the disk was full, while it was written",
                counted(read.torn, "line")
            ));
        }
        let working = state::locked(&folder);
        for entry in unfinished(&entries) {
            let object = entry["object"].as_str().unwrap_or_default();
            output::note(&if working {
                format!("{object} is being worked on")
            } else {
                format!("{object} was cut off in the middle; the next pass looks at it anew")
            });
        }
    }
    Ok(Outcome::Done)
}

/// For people: a wait that sees the same in pass after pass is told once.
fn folded(entries: &[Value]) -> Vec<&Value> {
    let mut shown: Vec<Option<&Value>> = Vec::new();
    let (mut begun, mut waits) = (BTreeMap::new(), BTreeMap::new());
    for entry in entries {
        let object = entry["object"].as_str().unwrap_or_default();
        match entry["kind"].as_str() {
            Some("started") => drop(begun.insert(object, shown.len())),
            Some("finished") => drop(waits.remove(object)),
            Some("waits") => {
                let start = begun.remove(object);
                let seen = &entry["seen"]["cause"];
                if waits.insert(object, seen) == Some(seen) {
                    if let Some(start) = start {
                        shown[start] = None;
                    }
                    continue;
                }
            }
            _ => {}
        }
        shown.push(Some(entry));
    }
    shown.into_iter().flatten().collect()
}

fn line(entry: &Value) -> String {
    format!("{} {}", at(entry), what(entry))
}

/// An entry in words, without its time.
pub(super) fn what(entry: &Value) -> String {
    let text = |key: &str| entry[key].as_str().unwrap_or_default();
    match text("kind") {
        "planned" => {
            let held = entry["held"].as_array().map_or(0, Vec::len);
            let steps = entry["steps"].as_u64().and_then(|steps| usize::try_from(steps).ok());
            format!("plan  {}, {held} held", counted(steps.unwrap_or_default(), "step"))
        }
        "started" => format!("start {} {}: {}", text("verb"), text("object"), text("reason")),
        "finished" if entry["error"].is_null() => {
            let seconds = entry["seconds"].as_f64().unwrap_or_default();
            format!("ok    {} {} ({seconds:.1} s)", text("verb"), text("object"))
        }
        "finished" => {
            let cause = entry["error"]["cause"].as_str().unwrap_or_default();
            format!("FAIL  {} {}: {cause}", text("verb"), text("object"))
        }
        "skipped" => format!("skip  {}", text("object")),
        "as-desired" => "the cluster is as desired".to_owned(),
        "source-ahead" => {
            "a newer desired state was read; the steps at hand are the last".to_owned()
        }
        "source-changed" => serde_json::from_value::<Revision>(entry["commit"].clone())
            .map_or_else(
                |_| "the desired state was read".to_owned(),
                |commit| format!("in force: {commit}"),
            ),
        "refused" => {
            // Where the first line only says which commit, the next one says why.
            let mut lines = text("report").lines().map(str::trim);
            let first = lines.next().unwrap_or_default();
            let why = lines.next().filter(|_| first.ends_with("is not taken:")).unwrap_or_default();
            format!("the desired state was refused: {}", format!("{first} {why}").trim_end())
        }
        "switchover-begins" => format!("begin {}", switched(entry)),
        "switchover-ends" if entry["error"].is_null() => {
            let held = entry["heldSeconds"].as_f64().unwrap_or_default();
            format!("ok    {}, clients waited {held:.1} s at most", switched(entry))
        }
        "switchover-ends" | "switchover-unresumed" => {
            format!("FAIL  {}: {}", switched(entry), text("error"))
        }
        "waits" => {
            let cause = entry["seen"]["cause"].as_str().unwrap_or_default();
            format!("wait  {}: {cause}", text("object"))
        }
        "drift" => {
            let left = entry["left"].as_str().map(|why| format!(" [left: {why}]"));
            format!("drift {}{}", text("told"), left.unwrap_or_default())
        }
        "proof-failed" => format!("FAIL  proof of service: {}", text("told")),
        "primary" => text("told").to_owned(),
        "proof-unknown" => format!("?     proof of service: {}", text("told")),
        "proof-holds" => format!("ok    proof of service: {}", text("told")),
        "plan-refused" => format!("FAIL  nothing was done: {}", text("error")),
        kind => kind.to_owned(),
    }
}

/// A transaction on the primary, as what it is.
fn switched(entry: &Value) -> String {
    match (entry["from"].as_str(), entry["to"].as_str()) {
        (Some(from), Some(to)) if from == to => format!("restart of the primary {to} in place"),
        (Some(from), Some(to)) => format!("switchover from {from} to {to}"),
        _ => "switchover".to_owned(),
    }
}

/// The time of an entry, UTC to the millisecond.
pub(super) fn at(entry: &Value) -> String {
    #[expect(clippy::cast_possible_truncation, reason = "milliseconds since 1970 fit for long")]
    let millis = (entry["at"].as_f64().unwrap_or_default() * 1000.0).round() as i64;
    jiff::Timestamp::from_millisecond(millis)
        .map_or_else(|_| "-".to_owned(), |at| format!("{at:.3}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_waited_for_is_told_once() {
        let step = |kind: &str, object: &str| json!({ "kind": kind, "object": object });
        let waits = |object: &str, cause: &str| json!({ "kind": "waits", "object": object, "seen": { "cause": cause } });
        let mut entries = Vec::new();
        for _ in 0..3 {
            entries.extend([step("started", "a"), step("started", "b")]);
            entries.extend([waits("a", "1 of 3"), waits("b", "copies")]);
        }
        entries.extend([step("started", "a"), waits("a", "2 of 3")]);
        entries.extend([step("started", "a"), step("finished", "a"), step("started", "b")]);
        let told = folded(&entries);
        let told: Vec<_> = told.iter().map(|entry| what(entry)).collect();
        let begins = |object: &str| format!("start  {object}: ");
        assert_eq!(
            told,
            [
                &begins("a"),
                &begins("b"),
                "wait  a: 1 of 3",
                "wait  b: copies",
                &begins("a"),
                "wait  a: 2 of 3",
                &begins("a"),
                "ok     a (0.0 s)",
                &begins("b"),
            ]
        );
    }

    #[test]
    fn each_kind_is_told_as_what_it_is() {
        let told = |entry: Value| what(&entry);
        let switch = |kind: &str, to: &str| json!({ "kind": kind, "from": "node1", "to": to });
        assert_eq!(
            told(switch("switchover-begins", "node2")),
            "begin switchover from node1 to node2"
        );
        assert_eq!(
            told(switch("switchover-begins", "node1")),
            "begin restart of the primary node1 in place"
        );
        let mut ended = switch("switchover-ends", "node1");
        ended["heldSeconds"] = json!(2.04);
        assert_eq!(
            told(ended.clone()),
            "ok    restart of the primary node1 in place, clients waited 2.0 s at most"
        );
        ended["error"] = json!("cut off");
        assert_eq!(told(ended), "FAIL  restart of the primary node1 in place: cut off");
        let resumed = json!({ "kind": "switchover-ends", "error": "the poolers are resumed" });
        assert_eq!(told(resumed), "FAIL  switchover: the poolers are resumed");
        let waits = json!({ "kind": "waits", "object": "etcd/cluster",
                            "seen": { "cause": "2 of 3 members are healthy" } });
        assert_eq!(told(waits), "wait  etcd/cluster: 2 of 3 members are healthy");
        let drift = |left: Value| {
            told(json!({ "kind": "drift", "told": "node2:/etc/x (files): differs", "left": left }))
        };
        assert_eq!(drift(Value::Null), "drift node2:/etc/x (files): differs");
        assert_eq!(drift(json!("paused")), "drift node2:/etc/x (files): differs [left: paused]");
        let proof = |kind: &str| told(json!({ "kind": kind, "told": "1 of 2 ways in serves" }));
        assert_eq!(proof("proof-failed"), "FAIL  proof of service: 1 of 2 ways in serves");
        assert_eq!(proof("proof-holds"), "ok    proof of service: 1 of 2 ways in serves");
        let refused = json!({ "kind": "plan-refused", "error": "two steps disturb" });
        assert_eq!(told(refused), "FAIL  nothing was done: two steps disturb");
    }
}
