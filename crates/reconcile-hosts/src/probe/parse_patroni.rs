//! The local Patroni by its REST interface, of every version since 2.1.

use reconcile_core::{
    model::{Listener, Observation, PatroniFact, PatroniRole, ReplicationFact},
    probe::ProbeRequest,
};
use serde::Deserialize;
use serde_json::Value;

use super::{
    parse_net::{Http, http, json, listens},
    parse_sql,
    sections::Sections,
};

/// `GET /patroni`
#[derive(Debug, Deserialize)]
struct Member {
    #[serde(default)]
    state: String,
    #[serde(default)]
    role: String,
    #[serde(default)]
    server_version: u64,
    #[serde(default)]
    timeline: Option<u64>,
    #[serde(default)]
    pending_restart: bool,
    #[serde(default)]
    pause: bool,
    #[serde(default)]
    database_system_identifier: Option<String>,
    #[serde(default)]
    replication_state: Option<String>,
    #[serde(default)]
    xlog: Xlog,
    #[serde(default)]
    replication: Vec<Replication>,
    patroni: About,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Xlog {
    location: Option<u64>,
    replayed_location: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct About {
    #[serde(default)]
    version: String,
    #[serde(default)]
    scope: String,
    /// Since 3.0.
    #[serde(default)]
    name: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Replication {
    #[serde(default)]
    application_name: String,
    #[serde(default)]
    client_addr: Option<String>,
    #[serde(default)]
    state: Option<String>,
    #[serde(default)]
    sync_state: Option<String>,
}

/// `GET /cluster`
#[derive(Debug, Deserialize, Default)]
struct Cluster {
    #[serde(default)]
    members: Vec<Listed>,
}

#[derive(Debug, Deserialize)]
struct Listed {
    #[serde(default)]
    name: String,
    #[serde(default)]
    role: String,
    #[serde(default)]
    state: String,
    #[serde(default)]
    api_url: String,
    #[serde(default)]
    timeline: Option<u64>,
    /// Bytes, or the word `unknown`.
    #[serde(default)]
    lag: Value,
}

pub(super) fn patroni(
    request: &ProbeRequest,
    sections: &Sections,
    listeners: &[Listener],
) -> Observation<Option<PatroniFact>> {
    let Some(base) = &request.patroni else { return Observation::unknown("was not asked") };
    if !listens(listeners, base) {
        return Observation::Known(None);
    }
    match ask(sections, base) {
        Ok(fact) => Observation::Known(Some(fact)),
        Err(why) => Observation::unknown(why),
    }
}

fn ask(sections: &Sections, base: &str) -> Result<PatroniFact, String> {
    let what = format!("Patroni at {base}");
    // A member whose PostgreSQL does not run answers 503 with the same JSON.
    let answer = match http(sections, "patroni") {
        Http::Answer(503, body) => Http::Answer(200, body),
        other => other,
    };
    let member: Member = json(&answer, &what)?;
    let cluster: Cluster = json(&http(sections, "patroni-cluster"), &what).unwrap_or_default();
    let role = match member.role.as_str() {
        "master" | "primary" => PatroniRole::Primary,
        "replica" => PatroniRole::Replica,
        "standby_leader" => PatroniRole::StandbyLeader,
        _ => PatroniRole::Other,
    };
    let listed = own_entry(&cluster, member.patroni.name.as_deref(), base);
    Ok(PatroniFact {
        streaming: role == PatroniRole::Replica && streams(&member, listed, &cluster, sections),
        version: member.patroni.version,
        scope: member.patroni.scope,
        role,
        state: member.state,
        timeline: member.timeline.unwrap_or(0),
        system_identifier: member.database_system_identifier.unwrap_or_default(),
        server_version: member.server_version,
        pending_restart: member.pending_restart,
        replaced: sections.text("replaced").trim().parse().ok(),
        paused: member.pause,
        wal_position: member.xlog.location.or(member.xlog.replayed_location),
        lag_bytes: listed.and_then(|listed| listed.lag.as_u64()),
        members: cluster.members.iter().map(|listed| listed.name.clone()).collect(),
        replication: replication(member.replication),
        config: config(sections),
        settings: parse_sql::settings(sections),
        altered: parse_sql::altered(sections),
    })
}

/// This member in the cluster's list: by its own name where it tells it, else by its address.
fn own_entry<'a>(cluster: &'a Cluster, name: Option<&str>, base: &str) -> Option<&'a Listed> {
    let authority = |url: &str| {
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        rest.split('/').next().unwrap_or("").to_owned()
    };
    cluster.members.iter().find(|listed| match name {
        Some(name) => listed.name == name,
        None => authority(&listed.api_url) == authority(base),
    })
}

/// Whether a replica streams. Newer Patroni says so; else its WAL receiver, where PostgreSQL could
/// be asked; else the cluster's list, whose `running` on the leader's timeline is the best word
/// that Patroni before 3.1 has.
fn streams(
    member: &Member,
    listed: Option<&Listed>,
    cluster: &Cluster,
    sections: &Sections,
) -> bool {
    if let Some(state) = &member.replication_state {
        return state == "streaming";
    }
    if let Some(streaming) = parse_sql::receiver_streams(sections) {
        return streaming;
    }
    let leader = |listed: &&Listed| matches!(listed.role.as_str(), "leader" | "standby_leader");
    let timeline = cluster.members.iter().find(leader).and_then(|leader| leader.timeline);
    listed.is_some_and(|own| match own.state.as_str() {
        "streaming" => true,
        "running" => timeline.is_some() && own.timeline == timeline,
        _ => false,
    })
}

fn replication(rows: Vec<Replication>) -> Vec<ReplicationFact> {
    let mut facts: Vec<ReplicationFact> = rows
        .into_iter()
        .map(|row| ReplicationFact {
            application_name: row.application_name,
            address: row.client_addr.unwrap_or_default(),
            state: row.state.unwrap_or_default(),
            sync_state: row.sync_state.unwrap_or_default(),
        })
        .collect();
    facts.sort_by(|a, b| (&a.application_name, &a.address).cmp(&(&b.application_name, &b.address)));
    facts
}

/// The dynamic configuration with sorted keys, so that equal ones are equal texts.
fn config(sections: &Sections) -> Option<String> {
    let Http::Answer(200, body) = http(sections, "patroni-config") else { return None };
    let value: Value = serde_json::from_slice(body).ok()?;
    value.is_object().then(|| value.to_string())
}
