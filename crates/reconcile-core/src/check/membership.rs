//! What may never be done to the membership of etcd and of the Swarm, whoever planned it.

use reconcile_spec::valid::SwarmRole;

use crate::{
    action::EtcdChange,
    desired::Desired,
    model::{ClaimKind, EtcdFact, EtcdMemberFact, HostName, Observed},
};

/// What the member of a server says, where that member is ours.
fn own<'a>(desired: &Desired, observed: &'a Observed, host: &HostName) -> Option<&'a EtcdFact> {
    let facts = observed.host(host)?;
    let ours = facts.manifest.claims(ClaimKind::DataDir, &desired.etcd.data_dir);
    facts.etcd.present().filter(|_| ours)
}

/// The server of a listed member.
fn server<'a>(desired: &'a Desired, member: &EtcdMemberFact) -> Option<&'a HostName> {
    let mut members = desired.etcd.members.iter();
    members.find(|(_, own)| member.peer_urls.contains(&own.peer_url)).map(|(host, _)| host)
}

/// Nothing of etcd lies or runs on a server, and it was never part of the cluster.
fn blank(desired: &Desired, observed: &Observed, host: &HostName) -> bool {
    let etcd = &desired.etcd;
    observed.host(host).is_some_and(|facts| {
        let data = facts.data_dirs.get(&etcd.data_dir);
        data.is_none_or(|directory| !directory.populated)
            && facts.etcd.is_absent()
            && !facts.manifest.claims(ClaimKind::EtcdFormed, &etcd.token)
    })
}

pub(super) fn check_etcd(
    desired: &Desired,
    observed: &Observed,
    host: &HostName,
    change: &EtcdChange,
    via: &[String],
    broken: &mut impl FnMut(&'static str),
) {
    let mut voices = desired.etcd.members.keys().filter_map(|host| own(desired, observed, host));
    let Some(voice) = voices.find(|etcd| etcd.healthy && !etcd.members.is_empty()) else {
        broken("the membership is changed only where a healthy member tells it");
        return;
    };
    let listed =
        |host: &HostName| voice.members.iter().find(|member| server(desired, member) == Some(host));
    let healthy = |host: &HostName| own(desired, observed, host).is_some_and(|etcd| etcd.healthy);
    let voters = || voice.members.iter().filter(|member| !member.learner);
    for member in &voice.members {
        match server(desired, member) {
            None => {
                broken("the membership is not changed beside a member that the file does not name");
            }
            Some(on) if member.learner || healthy(on) || blank(desired, observed, on) => {}
            Some(_) => broken("the membership is changed only while all who vote are well"),
        }
    }
    let well = voters().filter(|member| server(desired, member).is_some_and(healthy)).count();
    if well * 2 <= voters().count() {
        broken("the membership is changed only by a majority");
    }
    let urls = desired.etcd.members.iter().filter(|(host, _)| healthy(host));
    let urls: Vec<&String> = urls.map(|(_, member)| &member.client_url).collect();
    if via.len() < well || !via.iter().all(|url| urls.contains(&url)) {
        broken("every healthy member is asked again in the moment of the change");
    }
    if voice.members.iter().any(|member| member.client_urls.is_empty()) {
        broken("a member that was added has started before the next change");
    }
    match change {
        EtcdChange::Add { peer_url } => {
            let own_url = desired.etcd.members.get(host).map(|member| &member.peer_url);
            if own_url != Some(peer_url) || listed(host).is_some() {
                broken("a server is added as itself, and once");
            }
            if !blank(desired, observed, host) {
                broken("only a server without data of etcd is added");
            }
            if voice.members.iter().any(|member| member.learner) {
                broken("one learner at a time");
            }
            if well < voters().count() {
                broken("a dead member is removed before another is added");
            }
        }
        EtcdChange::Promote { id } => {
            if listed(host).is_none_or(|member| member.id != *id || !member.learner) {
                broken("only a learner gets a vote");
            }
        }
        EtcdChange::Forget { id } => {
            if listed(host).is_none_or(|member| member.id != *id) {
                broken("a member is removed for its own server");
            }
            if !blank(desired, observed, host) {
                broken(
                    "a member is forgotten only where its server is known to have nothing of it",
                );
            }
        }
    }
}

/// A node is removed only where the Swarm calls it down and the server at its address is known to be
/// another node, or none.
pub(super) fn check_removal(
    desired: &Desired,
    observed: &Observed,
    node_id: &str,
    broken: &mut impl FnMut(&'static str),
) {
    let Some(swarm) = observed.swarm.present() else {
        broken("a node is removed only from a Swarm that is known");
        return;
    };
    let label = crate::desired::swarm::OWNER_LABEL;
    if swarm.labels.get(label) != Some(&desired.cluster) {
        broken("a node of a Swarm that is not ours is not removed");
    }
    let Some(node) = swarm.nodes.get(node_id).filter(|node| node.state == "down") else {
        broken("only a node that is down is removed");
        return;
    };
    let servers = desired.servers.iter().filter(|(_, server)| server.advertise == node.address);
    let another = |host: &HostName| {
        let docker = observed.host(host).and_then(|facts| facts.docker.present());
        docker.is_some_and(|docker| docker.swarm.node_id != node_id)
    };
    if !servers.into_iter().any(|(host, _)| another(host)) {
        broken("a node is removed only where its server is known to be another one by now");
    }
    let managers = || swarm.nodes.values().filter(|node| node.manager);
    let reachable = managers().filter(|node| node.reachability == "reachable").count();
    if node.manager && reachable * 2 <= managers().count() {
        broken("a manager is removed only by a majority of managers");
    }
}

/// Managers come and go one at a time, while all of them answer, and one stays.
pub(super) fn check_role(
    desired: &Desired,
    observed: &Observed,
    node_id: &str,
    manager: bool,
    broken: &mut impl FnMut(&'static str),
) {
    let Some(swarm) = observed.swarm.present() else {
        broken("a role is changed only in a Swarm that is known");
        return;
    };
    let is = |host: &HostName| {
        let docker = observed.host(host).and_then(|facts| facts.docker.present());
        docker.is_some_and(|docker| docker.swarm.node_id == node_id)
    };
    let wanted = if manager { SwarmRole::Manager } else { SwarmRole::Worker };
    if !desired.swarm.nodes.iter().any(|(host, role)| is(host) && *role == wanted) {
        broken("a node's part becomes what the file says");
    }
    let managers = || swarm.nodes.iter().filter(|(_, node)| node.manager);
    if managers().any(|(_, node)| node.reachability != "reachable") {
        broken("a role is changed only while every manager answers");
    }
    if !manager && !managers().any(|(id, _)| id != node_id) {
        broken("the last manager stays");
    }
}
