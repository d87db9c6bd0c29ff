//! `reconcile events`: the journal, for people or machines.

use reconcile_engine::journal::{read, unfinished};
use serde_json::Value;

use crate::{
    cli::{Cli, EventsArgs, Format},
    failure::{Failure, Outcome},
    output, source, state,
};

pub(super) fn run(cli: &Cli, arguments: &EventsArgs) -> Result<Outcome, Failure> {
    let source = source::read(cli)?;
    for spec in &source.clusters {
        let folder = state::folder(cli, spec.name.as_str())?;
        let entries =
            read(&folder).map_err(|error| Failure::from_error("read the journal", &error))?;
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
        for entry in unfinished(&entries) {
            output::note(&format!(
                "stopped in the middle of {}; the next pass looks at it anew",
                entry["object"].as_str().unwrap_or_default()
            ));
        }
    }
    Ok(Outcome::Done)
}

fn line(entry: &Value) -> String {
    let text = |key: &str| entry[key].as_str().unwrap_or_default();
    let at = entry["at"].as_f64().unwrap_or_default();
    let what = match text("kind") {
        "planned" => format!("planned {} steps", entry["steps"]),
        "finished" if entry["error"].is_null() => {
            format!("ok    {} {}", text("verb"), text("object"))
        }
        "finished" => {
            format!("FAIL  {} {}: {}", text("verb"), text("object"), entry["error"]["cause"])
        }
        "started" => format!("start {} {}", text("verb"), text("object")),
        "skipped" => format!("skip  {}", text("object")),
        kind => kind.to_owned(),
    };
    format!("{at:.3} {} {what}", text("plan"))
}
