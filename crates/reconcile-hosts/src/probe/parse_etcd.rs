//! The local etcd member by its JSON gateway. Its numbers are strings (64 bits do not fit a JSON
//! number), and fields that are zero or empty are left out.

use reconcile_core::{
    model::{EtcdFact, EtcdMemberFact, Listener, Observation},
    probe::ProbeRequest,
};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::{
    parse_net::{Http, http, json, listens},
    sections::Sections,
};

#[derive(Debug, Deserialize)]
struct Status {
    header: Header,
    #[serde(default)]
    version: String,
    #[serde(rename = "dbSize", default, deserialize_with = "text")]
    db_size: String,
    #[serde(default, deserialize_with = "text")]
    leader: String,
}

#[derive(Debug, Deserialize)]
struct Header {
    #[serde(default, deserialize_with = "text")]
    cluster_id: String,
    #[serde(default, deserialize_with = "text")]
    member_id: String,
}

#[derive(Debug, Deserialize)]
struct Health {
    #[serde(default, deserialize_with = "text")]
    health: String,
}

#[derive(Debug, Deserialize)]
struct List {
    #[serde(default)]
    members: Vec<Member>,
}

#[derive(Debug, Deserialize)]
struct Member {
    #[serde(rename = "ID", default, deserialize_with = "text")]
    id: String,
    #[serde(default)]
    name: String,
    #[serde(rename = "peerURLs", default)]
    peer_urls: Vec<String>,
    #[serde(rename = "clientURLs", default)]
    client_urls: Vec<String>,
    #[serde(rename = "isLearner", default)]
    learner: bool,
}

/// A string, number or boolean as text.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) => text,
        Value::Null => String::new(),
        other => other.to_string(),
    })
}

pub(super) fn etcd(
    request: &ProbeRequest,
    sections: &Sections,
    listeners: &[Listener],
) -> Observation<Option<EtcdFact>> {
    let Some(base) = &request.etcd else { return Observation::unknown("was not asked") };
    if !listens(listeners, base) {
        return Observation::Known(None);
    }
    match ask(sections, base) {
        Ok(fact) => Observation::Known(Some(fact)),
        Err(why) => Observation::unknown(why),
    }
}

fn ask(sections: &Sections, base: &str) -> Result<EtcdFact, String> {
    let status: Status =
        json(&http(sections, "etcd-status"), &format!("the etcd member at {base}"))?;
    // It answers 503 with the same JSON while it is not healthy.
    let healthy = match http(sections, "etcd-health") {
        Http::Answer(_, body) => {
            serde_json::from_slice::<Health>(body).is_ok_and(|health| health.health == "true")
        }
        Http::None(_) => false,
    };
    // etcd 3.4 answers from its own copy, whatever was asked for; the copy is not old while the
    // member is healthy, which takes a read through the quorum. Later versions ask the quorum.
    let list: Option<List> = if healthy || asks_the_quorum(&status.version) {
        json(&http(sections, "etcd-list"), "member list").ok()
    } else {
        None
    };
    let members = list.map(|list| list.members).unwrap_or_default().into_iter();
    let mut members: Vec<EtcdMemberFact> = members
        .map(|member| EtcdMemberFact {
            id: member.id,
            name: member.name,
            peer_urls: member.peer_urls,
            client_urls: member.client_urls,
            learner: member.learner,
        })
        .collect();
    members.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
    Ok(EtcdFact {
        version: status.version,
        cluster_id: status.header.cluster_id,
        member_id: status.header.member_id,
        leader_id: if status.leader == "0" { String::new() } else { status.leader },
        healthy,
        members,
        db_size_bytes: status.db_size.parse().unwrap_or(0),
    })
}

/// Whether a member list that asks to be linearizable is so: since 3.5.
fn asks_the_quorum(version: &str) -> bool {
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (3, 5)
}
