//! `reconcile logs`: what a component wrote on all servers, as one stream in the order of time.

mod follow;
mod line;
mod merge;
mod service;

use std::{collections::BTreeSet, time::Duration};

use reconcile_core::{desired::Secrets, model::HostName};

use self::line::{Journal, Line, order, plain};
use super::{Prepared, converge::prepare};
use crate::{
    cli::{Cli, LogsArgs},
    failure::{Failure, Outcome},
    output, source,
};

const DEADLINE: Duration = Duration::from_secs(30);
/// Where there is Docker, its own unit can be asked for as well.
const ENGINE: &str = "docker";

/// How far back.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reach {
    pub(super) lines: u32,
    pub(super) seconds: Option<u64>,
}

/// What a component is on the servers.
enum Writer {
    /// A unit, on these servers.
    Unit(String, Vec<HostName>),
    /// A service of the Swarm; any of these managers can tell.
    Service(String, Vec<HostName>),
}

pub(super) async fn run(cli: &Cli, arguments: &LogsArgs) -> Result<Outcome, Failure> {
    let source = source::read_in_force_and_say(cli)?;
    let [spec] = source.clusters.as_slice() else {
        return Err(Failure::usage("logs are of one cluster").hint("choose it with --cluster"));
    };
    let prepared = prepare(spec, &source.base)?;
    let known = components(&prepared);
    if !known.contains(&arguments.component) {
        let known: Vec<_> = known.iter().map(String::as_str).collect();
        return Err(Failure::usage(format!("no component is called {}", arguments.component))
            .hint(format!("one of: {}", known.join(", "))));
    }
    if let Some(host) = &arguments.host
        && !prepared.desired.servers.contains_key(&HostName::new(host.as_str()))
    {
        let names: Vec<_> = prepared.desired.servers.keys().map(HostName::as_str).collect();
        return Err(Failure::usage(format!("the file has no server named {host}"))
            .hint(format!("one of: {}", names.join(", "))));
    }
    let reach = Reach { lines: arguments.lines, seconds: arguments.since };
    if arguments.follow {
        let host = arguments.host.as_deref();
        let writer = writer(&prepared, &arguments.component, host);
        return follow::follow(&prepared, &writer, host, reach).await;
    }
    let (text, faults) =
        collect(&prepared, &arguments.component, arguments.host.as_deref(), reach).await;
    output::print(&text)?;
    for fault in &faults {
        output::note(fault);
    }
    Ok(if faults.is_empty() { Outcome::Done } else { Outcome::Failed })
}

/// Names that can be asked for.
pub(super) fn components(prepared: &Prepared) -> BTreeSet<String> {
    let desired = &prepared.desired;
    let units = desired.servers.values().flat_map(|server| server.units.keys());
    let mut names: BTreeSet<_> =
        units.map(|unit| unit.trim_end_matches(".service").to_owned()).collect();
    names.extend(desired.swarm.services.iter().map(|service| short(&service.name).to_owned()));
    if !desired.swarm.nodes.is_empty() {
        names.insert(ENGINE.to_owned());
    }
    names
}

/// A service's name without its stack.
fn short(service: &str) -> &str {
    service.rsplit_once('_').map_or(service, |(_, name)| name)
}

fn writer(prepared: &Prepared, component: &str, host: Option<&str>) -> Writer {
    let desired = &prepared.desired;
    let managers = || desired.swarm.nodes.iter().map(|(host, _)| host.clone()).collect();
    let service = desired.swarm.services.iter().find(|service| short(&service.name) == component);
    if let Some(service) = service {
        return Writer::Service(service.name.clone(), managers());
    }
    let unit = format!("{component}.service");
    let hosts: Vec<HostName> = if component == ENGINE {
        managers()
    } else {
        let with = desired.servers.iter().filter(|(_, server)| server.units.contains_key(&unit));
        with.map(|(host, _)| host.clone()).collect()
    };
    let asked = hosts.into_iter().filter(|name| host.is_none_or(|host| name.as_str() == host));
    Writer::Unit(unit, asked.collect())
}

/// The lines of a component as text without secrets, and what could not be read.
pub(super) async fn collect(
    prepared: &Prepared,
    component: &str,
    host: Option<&str>,
    reach: Reach,
) -> (String, Vec<String>) {
    let (mut lines, mut faults) = (Vec::new(), Vec::new());
    match writer(prepared, component, host) {
        Writer::Unit(unit, hosts) => {
            let script = journal_script(&unit, reach);
            let looks = hosts.iter().map(|host| ask(prepared, host, component, &script));
            for (host, answer) in hosts.iter().zip(futures::future::join_all(looks).await) {
                match answer {
                    Ok(text) => {
                        let mut journal = Journal::of(host.as_str());
                        lines.extend(text.lines().filter_map(|line| journal.line(line)));
                    }
                    Err(fault) => faults.push(fault),
                }
            }
        }
        Writer::Service(service, managers) => {
            let script = service::script(&service, reach);
            for manager in &managers {
                match ask_service(prepared, manager, component, &script).await {
                    Ok(answer) => {
                        lines = answer.lines;
                        let missing = answer.missing.iter().filter(|one| {
                            host.is_none_or(|host| one.host.as_deref().is_none_or(|at| at == host))
                        });
                        faults = missing.map(|one| one.told(component)).collect();
                        break;
                    }
                    Err(fault) => faults.push(fault),
                }
            }
            let on = |line: &Line, host| line.origin.split(' ').next() == Some(host);
            lines.retain(|line| host.is_none_or(|host| on(line, host)));
        }
    }
    lines.sort_by(order);
    let text: String = lines.iter().map(Line::to_string).collect();
    (redact(&text, &prepared.secrets), faults)
}

/// Runs a script that only reads.
pub(super) async fn ask(
    prepared: &Prepared,
    host: &HostName,
    what: &str,
    script: &str,
) -> Result<String, String> {
    let (attempt, output) = look(prepared, host, what, script).await?;
    if output.status != 0 {
        let stdout = String::from_utf8_lossy(&output.stdout);
        let said = [output.stderr.trim(), stdout.trim()].into_iter().find(|text| !text.is_empty());
        let said = said.and_then(|text| text.lines().next_back()).unwrap_or("it said nothing");
        let said = redact(said, &prepared.secrets);
        return Err(format!("{attempt}: {}", plain(&said)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Asks a manager for a service's log; it may have only a part of it.
async fn ask_service(
    prepared: &Prepared,
    manager: &HostName,
    component: &str,
    script: &str,
) -> Result<service::Answer, String> {
    let (attempt, output) = look(prepared, manager, component, script).await?;
    service::answer(output.status, &String::from_utf8_lossy(&output.stdout))
        .map_err(|said| format!("{attempt}: {}", redact(&said, &prepared.secrets)))
}

async fn look(
    prepared: &Prepared,
    host: &HostName,
    what: &str,
    script: &str,
) -> Result<(String, reconcile_hosts::Output), String> {
    let attempt = format!("read the log of {what} on {host}");
    let output = prepared.fleet.look_with(host, &attempt, script, DEADLINE).await;
    output.map(|output| (attempt, output)).map_err(|error| error.to_string())
}

/// Names come from the desired state, whose rules keep them to letters, digits, `_`, `-` and `.`.
fn journal_script(unit: &str, reach: Reach) -> String {
    let since = reach.seconds.map_or_else(String::new, |seconds| format!(" --since=-{seconds}s"));
    format!(
        "journalctl --no-pager --quiet --output=short-unix --lines={}{since} --unit={unit}\n",
        reach.lines
    )
}

/// Puts the names of secrets where their values are.
pub(super) fn redact(text: &str, secrets: &Secrets) -> String {
    let mut values: Vec<_> = secrets.iter().map(|(name, value)| (name, value.expose())).collect();
    // A value may be the beginning of another.
    values.sort_by_key(|(_, value)| std::cmp::Reverse(value.len()));
    let mut text = text.to_owned();
    for (name, value) in values.into_iter().filter(|(_, value)| !value.is_empty()) {
        text = text.replace(value, &format!("<secret:{name}>"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use reconcile_core::model::SecretText;

    #[test]
    fn values_of_secrets_are_replaced_by_their_names() {
        let secrets = Secrets::from([
            ("short".to_owned(), SecretText::new("canary-4711-x")),
            ("long".to_owned(), SecretText::new("canary-4711-x-and-more")),
        ]);
        assert_eq!(
            redact("a canary-4711-x-and-more b canary-4711-x c", &secrets),
            "a <secret:long> b <secret:short> c"
        );
    }
}
