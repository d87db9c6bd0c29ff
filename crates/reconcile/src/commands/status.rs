//! `reconcile status`: conditions, servers, services, holds.

mod lately;
mod operator;
mod watch;

use std::collections::BTreeMap;

use comfy_table::{Table, presets};
use reconcile_core::{
    model::{HostName, Revision},
    plan::Held,
    ports::Fleet as _,
    status::{Condition, Maintenance, Status, Truth, status},
    verify::{Proof, VerifyReport},
    windows::written,
};
use reconcile_engine::look;
use serde::Serialize;

use self::{lately::Lately, operator::Operator};
use super::converge::{Prepared, prepare, prove, unsafe_plan};
use crate::{
    cli::{Cli, Format, StatusArgs},
    failure::{Failure, Outcome},
    output,
    source::{self, Refused, Source},
};

/// The status, and what it cost.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    #[serde(flatten)]
    status: &'a Status,
    /// The commit that is in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    commit: Option<&'a Revision>,
    /// Why it is not the newest, or not the file as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    source_refused: Option<&'a str>,
    /// The same in words for people.
    #[serde(skip)]
    refused: Option<&'a Refused>,
    /// Who keeps it so, as the servers know it.
    operator: &'a Operator,
    /// The last events of the journal on this machine, newest last.
    #[serde(flatten)]
    lately: Option<Lately>,
    /// Round trips that learning the facts of each server took.
    round_trips: BTreeMap<HostName, u64>,
}

pub(super) async fn run(cli: &Cli, arguments: &StatusArgs) -> Result<Outcome, Failure> {
    if arguments.watch {
        return watch::watch(cli, arguments).await;
    }
    let source = source::read_in_force(cli)?;
    let mut well = true;
    for spec in &source.clusters {
        let prepared = prepare(spec, &source.base)?;
        let shown = round(cli, &prepared, &source, arguments).await?;
        well &= shown.well;
        output::print(&shown.status)?;
    }
    Ok(if well { Outcome::Done } else { Outcome::Held })
}

/// One look at a cluster.
struct Round {
    /// As it is to be printed.
    status: String,
    /// The cluster is known to be ready, and the newest desired state is not refused.
    well: bool,
}

async fn round(
    cli: &Cli,
    prepared: &Prepared,
    source: &Source,
    arguments: &StatusArgs,
) -> Result<Round, Failure> {
    let pass =
        look(&prepared.fleet, &prepared.desired, &()).await.map_err(|error| unsafe_plan(&error))?;
    let proof =
        if arguments.no_proof { None } else { Some(prove(prepared, &pass.observed, false).await) };
    let mut status = status(&prepared.desired, &pass.observed, &pass.plan, proof);
    status.conditions.push(Condition::source(source.refused.as_ref().map(Refused::told)));
    let operator = operator::ask(prepared, &status).await;
    let well = well(&status.conditions);
    let shown = Shown {
        status: &status,
        commit: source.revision.as_ref(),
        source_refused: source.refused.as_ref().map(|refused| refused.report.as_str()),
        refused: source.refused.as_ref(),
        operator: &operator,
        lately: lately::read(cli, &prepared.desired.cluster),
        round_trips: prepared.fleet.round_trips(),
    };
    let status = if arguments.watch && arguments.output == Format::Json {
        // One object a line.
        let json = serde_json::to_string(&shown);
        json.map_err(|error| Failure::from_error("write JSON", &error))? + "\n"
    } else {
        output::as_text(arguments.output, &shown, |wide| text(&shown, wide))?
    };
    Ok(Round { status, well })
}

/// What cannot be told of the cluster is not well either, or a monitor would be quiet while nobody can look;
/// a proof that was not asked for is missed by nobody.
fn well(conditions: &[Condition]) -> bool {
    conditions.iter().all(|one| match one.kind {
        "Ready" => one.status == Truth::True || one.reason == "NotProven",
        "SourceInForce" => one.status != Truth::False,
        _ => true,
    })
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.to_vec());
    table
}

fn trimmed(table: &Table) -> String {
    table.lines().map(|line| line.trim().to_owned() + "\n").collect()
}

/// The table of conditions with the colour of each; a terminal that wants none gets none.
fn coloured(table: &str, conditions: &[Condition]) -> String {
    let mut lines = table.lines();
    let mut text = lines.next().map_or_else(String::new, |header| format!("{header}\n"));
    for (line, Condition { kind, status, .. }) in lines.zip(conditions) {
        let colour = match (*kind, *status) {
            (_, Truth::Unknown) => "33",
            ("Reconciling", Truth::False) => "39",
            (kind, status) if status == Condition::wanted(kind) => "32",
            // These are somebody's will, and pass.
            ("Reconciling" | "Leaving", _) => "36",
            ("Paused" | "OrphanedMember" | "LockedOut", _) => "33",
            _ => "31",
        };
        let word = format!("{status:?}");
        let painted = format!("\x1b[{colour}m{word}\x1b[0m");
        text.push_str(&line.replacen(&word, &painted, 1));
        text.push('\n');
    }
    text
}

/// The status as text.
fn text(shown: &Shown<'_>, wide: bool) -> String {
    let status = shown.status;
    // Why a server is unknown is said once, below the servers; elsewhere it is only named.
    let unknown: Vec<_> =
        status.hosts.iter().filter_map(|host| host.unreachable.as_ref()).collect();
    let brief = |text: &str, where_it_is: &str| {
        unknown.iter().fold(text.to_owned(), |text, why| text.replace(why.as_str(), where_it_is))
    };
    let mut text = format!("Cluster {}\n", status.cluster);
    if let Some(commit) = shown.commit {
        text.push_str(&format!("{commit}\n"));
    }
    text.push_str(&brief(&shown.operator.line(), "see below"));
    if let Some(refused) = shown.refused {
        text.push_str(&format!("{}:\n{}\n", refused.title(), refused.report.trim_end()));
    }
    text.push('\n');
    let mut conditions = table(&["CONDITION", "STATUS", "REASON", "MESSAGE"]);
    for condition in &status.conditions {
        let truth = format!("{:?}", condition.status);
        let message = brief(&condition.message, "see below");
        conditions.add_row([condition.kind, &truth, condition.reason, &message]);
    }
    text.push_str(&coloured(&trimmed(&conditions), &status.conditions));
    text.push_str(&hosts(status));
    let mut services = table(&["SERVICE", "TASKS", "IMAGE"]);
    for service in &status.services {
        let running = service.running.map_or_else(|| "?".to_owned(), |running| running.to_string());
        let tasks = format!("{running}/{}", service.wanted);
        let desired = service.desired_image.as_ref();
        let desired = desired.map_or_else(String::new, |image| format!(" (to be {image})"));
        services.add_row([service.name.clone(), tasks, format!("{}{desired}", service.image)]);
    }
    text.push('\n');
    text.push_str(&trimmed(&services));
    if !status.pending.is_empty() {
        text.push_str(&format!("\nPending ({}):\n", status.pending.len()));
        for step in status.pending.iter().take(if wide { usize::MAX } else { 10 }) {
            text.push_str(&format!("  {step}\n"));
        }
    }
    if let Some(maintenance) = &status.maintenance {
        text.push_str(&format!("\nMaintenance window: {}\n", window(maintenance)));
    }
    text.push_str(&brief(&waiting(status), "see above"));
    if let Some(proof) = &status.proof {
        text.push_str("\nService proof:\n");
        text.push_str(&if wide { all_proofs(proof) } else { lacking(proof) });
    }
    match &shown.lately {
        Some(Lately::Events(events)) => {
            text.push_str("\nLast events, of the journal on this machine:\n");
            for event in events {
                text.push_str(&format!("  {:>8}  {}\n", event.age(), event.text));
            }
        }
        Some(Lately::EventsUnread(why)) => text.push_str(&format!("\n{why}\n")),
        None => {}
    }
    text
}

/// Each proof.
fn all_proofs(report: &VerifyReport) -> String {
    let mut text = String::new();
    for proof in &report.proofs {
        let why = proof.comes_of.as_ref().map(|why| format!("; {why}"));
        let why = why.unwrap_or_default();
        let (mark, millis) = (mark(proof), proof.millis);
        text.push_str(&format!("  {mark} {}: {}{why} ({millis} ms)\n", proof.what, proof.detail));
    }
    text
}

fn mark(proof: &Proof) -> &'static str {
    match proof {
        _ if proof.holds => "ok  ",
        _ if proof.untried => "?   ",
        _ => "FAIL",
    }
}

/// What does not hold: first what others come of, with those.
fn lacking(report: &VerifyReport) -> String {
    if report.holds() {
        return format!("  all {} hold (-o wide shows each)\n", report.proofs.len());
    }
    let lacking = || report.proofs.iter().filter(|proof| !proof.holds);
    let mut causes: Vec<String> = Vec::new();
    for cause in lacking().filter_map(|proof| proof.comes_of.clone()) {
        if !causes.contains(&cause) {
            causes.push(cause);
        }
    }
    let mut text = String::new();
    for cause in &causes {
        let of: Vec<_> = lacking().filter(|proof| proof.comes_of.as_ref() == Some(cause)).collect();
        let fails = of.iter().any(|proof| proof.fails());
        let (mark, so) = if fails { ("FAIL", "so it is with") } else { ("?   ", "so not tried") };
        let what: Vec<_> = of.iter().map(|proof| proof.what.as_str()).collect();
        text.push_str(&format!("  {mark} {cause}; {so}: {}\n", what.join(", ")));
    }
    for proof in lacking().filter(|proof| proof.comes_of.is_none()) {
        let line = proof.line();
        if !causes.contains(&line) {
            text.push_str(&format!("  {} {line} ({} ms)\n", mark(proof), proof.millis));
        }
    }
    text
}

/// What is not done now: steps that a pause holds, what is queued, what is held.
fn waiting(status: &Status) -> String {
    let mut text = String::new();
    let by_pause = |held: &Held| status.paused.iter().any(|step| step.object == held.object);
    if !status.paused.is_empty() {
        text.push_str(&format!("\nHeld by the pause ({}):\n", status.paused.len()));
        for step in &status.paused {
            let differs = step.differs.as_ref().map(|differs| format!(": {differs}"));
            let differs = differs.unwrap_or_default();
            text.push_str(&format!("  {} {}{differs}\n", step.verb.word(), step.object));
        }
    }
    let held: Vec<_> = status.held.iter().filter(|held| !by_pause(held)).collect();
    let queued: Vec<_> = status.queued.iter().collect();
    for (title, list) in [("Queued", queued), ("Held", held)] {
        if !list.is_empty() {
            text.push_str(&format!("\n{title} ({}):\n", list.len()));
        }
        for held in list {
            text.push_str(&format!("  {}: {}\n", held.object, held.reason));
        }
    }
    text
}

/// The table of servers, and what is to be said of single ones.
fn hosts(status: &Status) -> String {
    let mut rows = table(&[
        "HOST",
        "ADDRESS",
        "ETCD",
        "POSTGRESQL",
        "STATE",
        "TIMELINE",
        "LAG",
        "SWARM",
        "TASKS",
    ]);
    for host in &status.hosts {
        let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        rows.add_row([
            host.name.to_string(),
            host.address.clone(),
            host.etcd.clone(),
            host.role.clone(),
            host.state.clone(),
            or_dash(host.timeline.map(|timeline| timeline.to_string())),
            or_dash(host.lag_bytes.map(|lag| format!("{lag} B"))),
            host.swarm.clone(),
            or_dash(host.tasks.map(|tasks| tasks.to_string())),
        ]);
    }
    let mut text = format!("\n{}", trimmed(&rows));
    for host in &status.hosts {
        if let Some(reason) = &host.unreachable {
            text.push_str(&format!("{} is unknown: {reason}\n", host.name));
        }
        if let Some(leaving) = &host.leaving {
            let how = if leaving.left {
                "has left and can be taken out of the file".to_owned()
            } else {
                format!("is to leave: {}", leaving.remains.join(", "))
            };
            text.push_str(&format!("{} {how}\n", host.name));
        }
    }
    text
}

/// What is to be known of maintenance windows, in a line.
fn window(maintenance: &Maintenance) -> String {
    let mut parts = vec![match (maintenance.open, maintenance.closes_at) {
        (true, Some(closes)) => format!("open until {}", written(closes)),
        (true, None) => "open".to_owned(),
        (false, _) => "closed".to_owned(),
    }];
    parts.push(match &maintenance.opens {
        Some(opens) => format!("the next opens {opens}"),
        None => "none ever opens".to_owned(),
    });
    match maintenance.waiting.as_slice() {
        [] => parts.push("nothing waits for it".to_owned()),
        [one] => parts.push(format!("{one} waits for it")),
        [first, rest @ ..] => parts.push(format!("{first} and {} more wait for it", rest.len())),
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use reconcile_core::status::NotTaken;

    use super::*;

    #[test]
    fn what_is_not_known_to_serve_by_the_newest_state_is_not_well() {
        let because =
            |status, reason| Condition { kind: "Ready", status, reason, message: String::new() };
        let ready = |status| because(status, "Serving");
        let source = |unread| Condition::source(Some(NotTaken { reason: "a slip", unread }));
        assert!(well(&[ready(Truth::True), Condition::source(None)]));
        let looked_at = because(Truth::Unknown, "NotProven");
        assert!(well(&[looked_at, Condition::source(None)]), "nobody asked for a proof");
        assert!(!well(&[because(Truth::Unknown, "HostUnknown"), Condition::source(None)]));
        assert!(!well(&[ready(Truth::True), source(false)]), "the newest is refused");
        assert!(well(&[ready(Truth::True), source(true)]), "nobody knows of a newer one");
        assert!(!well(&[ready(Truth::False), Condition::source(None)]));
    }
}
