//! `reconcile events`: the journal, for people or machines.

use reconcile_core::{model::Revision, plan::counted};
use reconcile_engine::journal::{read_all, unfinished};
use serde_json::Value;

use crate::{
    cli::{Cli, EventsArgs, Format},
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
        if arguments.output == Format::Json {
            for entry in &entries[from..] {
                output::print(&format!("{entry}\n"))?;
            }
            continue;
        }
        for entry in &entries[from..] {
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

fn line(entry: &Value) -> String {
    format!("{} {}", at(entry), what(entry))
}

/// An entry in words, without its time.
pub(super) fn what(entry: &Value) -> String {
    let text = |key: &str| entry[key].as_str().unwrap_or_default();
    match text("kind") {
        "planned" => {
            let held = entry["held"].as_array().map_or(0, Vec::len);
            format!("plan  {} steps, {held} held", entry["steps"])
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
        "switchover-begins" => format!("switchover from {} to {}", text("from"), text("to")),
        "switchover-ends" if entry["error"].is_null() => {
            let held = entry["heldSeconds"].as_f64().unwrap_or_default();
            format!("ok    switchover to {}, clients waited {held:.1} s at most", text("to"))
        }
        "switchover-ends" | "switchover-unresumed" => {
            format!("FAIL  switchover: {}", text("error"))
        }
        kind => kind.to_owned(),
    }
}

/// The time of an entry, UTC to the millisecond.
pub(super) fn at(entry: &Value) -> String {
    #[expect(clippy::cast_possible_truncation, reason = "milliseconds since 1970 fit for long")]
    let millis = (entry["at"].as_f64().unwrap_or_default() * 1000.0).round() as i64;
    jiff::Timestamp::from_millisecond(millis)
        .map_or_else(|_| "-".to_owned(), |at| format!("{at:.3}"))
}
