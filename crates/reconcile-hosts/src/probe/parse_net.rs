//! Listeners with their owners, the HTTP results, and the Docker engine.

use std::collections::BTreeMap;

use reconcile_core::{
    model::{DockerFact, Listener, LocalSwarm, LocalSwarmState, Observation},
    probe::ProbeRequest,
};
use serde::Deserialize;

use super::sections::Sections;
use crate::fault::{one_line, tail};

/// Every TCP listener, in order of port and address, each once.
pub(super) fn listeners(sections: &Sections) -> Result<Vec<Listener>, String> {
    let text = sections.required("listeners")?;
    if sections.status("ss") != Some(0) {
        let said = one_line(&tail(&sections.errors("ss"), 1));
        return Err(format!("ss (package iproute2) does not tell who listens: {said}"));
    }
    let mut cgroups: BTreeMap<u32, Vec<&str>> = BTreeMap::new();
    for row in text.lines().filter_map(|line| line.strip_prefix('@')) {
        if let Some((pid, path)) = row.split_once(' ')
            && let Ok(pid) = pid.parse()
        {
            cgroups.entry(pid).or_default().push(path);
        }
    }
    let mut listeners: Vec<Listener> = text
        .lines()
        .filter(|line| !line.starts_with('@'))
        .filter_map(|line| listener(line, &cgroups))
        .collect();
    listeners.sort();
    // Sockets of one service that share a port (SO_REUSEPORT) are one listener to us.
    listeners.dedup_by(|a, b| {
        (a.port, &a.address, &a.process, &a.unit) == (b.port, &b.address, &b.process, &b.unit)
    });
    Ok(listeners)
}

/// `LISTEN 0 128 0.0.0.0:22 0.0.0.0:* users:(("sshd",pid=120,fd=3))`
fn listener(line: &str, cgroups: &BTreeMap<u32, Vec<&str>>) -> Option<Listener> {
    let mut columns = line.split_ascii_whitespace().skip(3);
    let local = columns.next()?;
    let owner = line.split_once("users:((").map_or("", |(_, owner)| owner);
    let (address, port) = local.rsplit_once(':')?;
    let address = address.split('%').next().unwrap_or(address).trim_matches(['[', ']']);
    let process = owner.strip_prefix('"').and_then(|rest| rest.split_once('"')).map_or("", |p| p.0);
    let pid = owner.split_once("pid=").and_then(|(_, rest)| {
        rest.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok())
    });
    let unit = match pid.and_then(|pid| cgroups.get(&pid)) {
        // The proxy of a published port is Docker's, but the port is a container's.
        _ if process == "docker-proxy" => "docker".to_owned(),
        Some(paths) => unit_of(paths),
        None => String::new(),
    };
    Some(Listener {
        port: port.parse().ok()?,
        // `*`: an IPv6 socket that takes IPv4 as well.
        address: if address == "*" { "::".to_owned() } else { address.to_owned() },
        process: process.to_owned(),
        pid,
        unit,
    })
}

/// The systemd unit of a process by its cgroup paths (`0::/system.slice/ssh.service`), `docker` for
/// a container.
fn unit_of(paths: &[&str]) -> String {
    let path = |controllers: &str| {
        let rows = paths.iter().filter_map(|row| row.split_once(':').map(|(_, rest)| rest));
        rows.filter_map(|rest| rest.split_once(':'))
            .find(|row| row.0 == controllers)
            .map(|row| row.1)
    };
    // cgroup v1 keeps systemd's tree by name; v2 has one tree.
    let path = path("name=systemd").or_else(|| path("")).unwrap_or("");
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let is = |part: &str, kind: &str| part.rsplit_once('.').is_some_and(|(_, end)| end == kind);
    if parts
        .iter()
        .any(|part| *part == "docker" || (part.starts_with("docker-") && is(part, "scope")))
    {
        return "docker".to_owned();
    }
    let unit = parts.iter().rev().find(|part| is(part, "service") || is(part, "scope"));
    unit.map_or_else(String::new, |unit| (*unit).to_owned())
}

/// What came of one HTTP request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Http<'a> {
    /// An answer with its status and body.
    Answer(u16, &'a [u8]),
    /// No answer, and why.
    None(String),
}

/// The result that curl wrote down for `name`.
pub(super) fn http<'a>(sections: &'a Sections, name: &str) -> Http<'a> {
    if sections.bytes("http").is_none() {
        return Http::None("curl is not installed there, so it cannot be asked".to_owned());
    }
    let table = sections.text("http");
    let row = table.lines().find_map(|line| {
        let mut columns = line.splitn(3, '\t');
        let (code, file) = (columns.next()?, columns.next()?);
        (file == name).then(|| (code.to_owned(), columns.next().unwrap_or("").to_owned()))
    });
    let Some((code, error)) = row else {
        let said = one_line(&tail(&sections.text("http.err"), 1));
        return Http::None(if said.is_empty() { "it was not asked".to_owned() } else { said });
    };
    match (code.parse(), sections.bytes(name)) {
        (Ok(0), Some(body)) if error == "docker info failed" && !body.is_empty() => {
            Http::Answer(200, body)
        }
        (Ok(code @ 100..), body) => Http::Answer(code, body.unwrap_or_default()),
        _ if error.is_empty() => Http::None("it does not answer".to_owned()),
        _ => Http::None(one_line(&error)),
    }
}

/// Decodes a JSON answer with status 200.
pub(super) fn json<T: for<'de> Deserialize<'de>>(
    answer: &Http<'_>,
    what: &str,
) -> Result<T, String> {
    match answer {
        Http::Answer(200, body) => serde_json::from_slice(body)
            .map_err(|e| format!("{what} answered something that is not its JSON: {e}")),
        Http::Answer(code, body) => {
            let start: String = String::from_utf8_lossy(body).chars().take(120).collect();
            Err(format!("{what} answered with status {code}: {}", one_line(&start)))
        }
        Http::None(why) => Err(format!("{what}: {why}")),
    }
}

/// Port of a base URL such as `http://192.0.2.11:8008`.
pub(super) fn port_of(base: &str) -> Option<u16> {
    let authority = base.split_once("://").map_or(base, |(_, rest)| rest).split('/').next()?;
    authority.rsplit_once(':')?.1.parse().ok()
}

/// Whether anything listens where `base` points. On any address: a service that listens on another
/// one than it should is there, and cannot be asked.
pub(super) fn listens(listeners: &[Listener], base: &str) -> bool {
    port_of(base).is_none_or(|port| listeners.iter().any(|listener| listener.port == port))
}

/// The part of `/info` that matters.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Info {
    #[serde(default)]
    server_version: String,
    swarm: Option<SwarmInfo>,
    #[serde(default)]
    server_errors: Vec<String>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct SwarmInfo {
    #[serde(rename = "NodeID")]
    node_id: String,
    node_addr: String,
    local_node_state: String,
    control_available: bool,
    error: String,
    cluster: Option<ClusterInfo>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ClusterInfo {
    #[serde(rename = "ID", default)]
    id: String,
}

/// The Docker engine. Installed but not answering is unknown: it may be a member of a Swarm.
pub(super) fn docker(
    request: &ProbeRequest,
    sections: &Sections,
) -> Observation<Option<DockerFact>> {
    if !request.docker {
        return Observation::unknown("was not asked");
    }
    let has_socket = sections.bytes("docker.have").is_some();
    if !has_socket && sections.bytes("docker.installed").is_none() {
        return Observation::Known(None);
    }
    if !has_socket {
        return Observation::unknown("Docker is installed there and does not run");
    }
    let info: Info = match json(&http(sections, "docker"), "the Docker engine") {
        Ok(info) => info,
        // curl names a port of its own making.
        Err(why) if why.contains("connect to docker port") || why.contains("connect to server") => {
            return Observation::unknown("Docker does not run there: nobody answers at its socket");
        }
        Err(why) => return Observation::unknown(why),
    };
    if let Some(error) = info.server_errors.first() {
        return Observation::unknown(format!("the Docker engine: {}", one_line(error)));
    }
    let swarm = info.swarm.unwrap_or_default();
    let state = match swarm.local_node_state.as_str() {
        "inactive" => LocalSwarmState::Inactive,
        "pending" => LocalSwarmState::Pending,
        "active" => LocalSwarmState::Active,
        "error" => LocalSwarmState::Error,
        "locked" => LocalSwarmState::Locked,
        // No word at all is no news about a Swarm.
        other => {
            return Observation::unknown(format!("Docker's Swarm state is `{}`", one_line(other)));
        }
    };
    Observation::Known(Some(DockerFact {
        version: info.server_version,
        swarm: LocalSwarm {
            state,
            node_id: swarm.node_id,
            node_address: swarm.node_addr,
            cluster_id: swarm.cluster.map(|cluster| cluster.id).filter(|id| !id.is_empty()),
            manager: swarm.control_available,
            error: swarm.error,
        },
    }))
}
