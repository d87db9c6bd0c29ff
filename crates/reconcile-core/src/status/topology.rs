//! Conditions on who belongs to the cluster: servers that leave, and members that the file does not
//! have. They name things; nothing is decided by them.

use serde::Serialize;

use super::{Condition, Truth};
use crate::{
    desired::{Desired, etcd::UNIT as ETCD, patroni::UNIT as PATRONI, swarm::OWNER_LABEL},
    model::{ClaimKind, EtcdFact, HostFacts, HostName, Observed},
};

/// How far a server is that is to leave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Leaving {
    /// It has left and can be taken out of the file; its data are still there.
    pub left: bool,
    /// What is still to be done, in words; what is not known is not done.
    pub remains: Vec<&'static str>,
}

/// None for a server that stays.
pub(super) fn of(desired: &Desired, observed: &Observed, host: &HostName) -> Option<Leaving> {
    let remains = desired.leaves(host).then(|| remains(desired, observed, host))?;
    Some(Leaving { left: remains.is_empty(), remains })
}

/// How far servers are that are to leave.
pub(super) fn leaving(desired: &Desired, observed: &Observed) -> Condition {
    let condition =
        |status, reason, message| Condition { kind: "Leaving", status, reason, message };
    if desired.leaving.is_empty() {
        return condition(Truth::False, "NobodyLeaves", "no server is to leave".to_owned());
    }
    let (left, still): (Vec<_>, Vec<_>) =
        desired.leaving.iter().partition(|host| remains(desired, observed, host).is_empty());
    let names =
        |hosts: &[&HostName]| hosts.iter().map(|host| host.as_str()).collect::<Vec<_>>().join(", ");
    if still.is_empty() {
        let dirs = format!("{} and {}", desired.etcd.data_dir, desired.patroni.data_dir);
        let message = format!(
            "{} has left and can be taken out of the file; its data are still in {dirs} there",
            names(&left)
        );
        return condition(Truth::True, "HasLeft", message);
    }
    condition(Truth::True, "InProgress", format!("{} has not left yet", names(&still)))
}

fn off(facts: &HostFacts, unit: &str) -> bool {
    facts.units.get(unit).is_none_or(|unit| {
        matches!(&*unit.active, "inactive" | "failed") && unit.enabled != "enabled"
    })
}

/// A member of etcd that is ours and tells who the members are.
fn voice<'a>(desired: &Desired, observed: &'a Observed) -> Option<&'a EtcdFact> {
    desired.etcd.members.keys().find_map(|host| {
        let facts = observed.host(host)?;
        let ours = facts.manifest.claims(ClaimKind::DataDir, &desired.etcd.data_dir);
        facts.etcd.present().filter(|etcd| ours && etcd.healthy && !etcd.members.is_empty())
    })
}

/// What is left to do until a server has left.
fn remains(desired: &Desired, observed: &Observed, host: &HostName) -> Vec<&'static str> {
    let mut remains = Vec::new();
    let facts = observed.host(host);
    if facts.is_none() {
        remains.push("it does not answer");
    }
    if facts.is_some_and(|facts| !off(facts, PATRONI)) {
        remains.push("Patroni is not off");
    }
    let url = desired.etcd.members.get(host).map(|member| &member.peer_url);
    let listed = url.is_some_and(|url| {
        voice(desired, observed)
            .is_none_or(|etcd| etcd.members.iter().any(|member| member.peer_urls.contains(url)))
    });
    if listed {
        remains.push("etcd has it as a member");
    }
    if facts.is_some_and(|facts| !off(facts, ETCD)) {
        remains.push("etcd is not off");
    }
    let address = &desired.servers[host].advertise;
    let node = match observed.swarm.known() {
        Some(swarm) => swarm
            .as_ref()
            .is_some_and(|swarm| swarm.nodes.values().any(|node| node.address == *address)),
        None => desired.swarm.nodes.iter().any(|(node, _)| node == host),
    };
    if node {
        remains.push("the Swarm has it as a node");
    }
    remains
}

/// Members of etcd, Patroni and the Swarm that the file does not have.
pub(super) fn orphans(desired: &Desired, observed: &Observed) -> Condition {
    let mut found = Vec::new();
    for member in voice(desired, observed).map_or(&[][..], |etcd| &etcd.members) {
        let known = |own: &str| member.peer_urls.iter().any(|url| url == own);
        if !desired.etcd.members.values().any(|own| known(&own.peer_url)) {
            let urls = member.peer_urls.join(", ");
            found.push(format!("etcd member {} at {urls}", member.name));
        }
    }
    let ours =
        |facts: &&HostFacts| facts.manifest.claims(ClaimKind::DataDir, &desired.patroni.data_dir);
    let told = desired.patroni.members.keys().filter_map(|host| observed.host(host)).filter(ours);
    let told = told.filter_map(|facts| facts.patroni.present());
    for name in told.filter(|fact| fact.scope == desired.patroni.scope).flat_map(|f| &f.members) {
        let text = format!("Patroni member {name}");
        let named = desired.patroni.members.keys().any(|host| host.as_str() == name);
        if !named && !found.contains(&text) {
            found.push(text);
        }
    }
    let swarm = observed.swarm.present();
    for node in swarm
        .filter(|swarm| swarm.labels.get(OWNER_LABEL) == Some(&desired.cluster))
        .map_or(Vec::new(), |swarm| swarm.nodes.values().collect())
    {
        if !desired.servers.values().any(|server| server.advertise == node.address) {
            found.push(format!("Swarm node {} at {}, {}", node.hostname, node.address, node.state));
        }
    }
    let kind = "OrphanedMember";
    if found.is_empty() {
        let message = "every member is in the file".to_owned();
        return Condition { kind, status: Truth::False, reason: "NoneKnown", message };
    }
    let message = format!(
        "not in the file: {}; put the server back, with `leaving: true` where it is to go: nothing is removed unasked",
        found.join("; ")
    );
    Condition { kind, status: Truth::True, reason: "NotInFile", message }
}
