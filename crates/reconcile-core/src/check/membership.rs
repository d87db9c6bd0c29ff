//! What may never be done to the membership of etcd and of the Swarm, whoever planned it.

use reconcile_spec::valid::SwarmRole;

use crate::{
    action::EtcdChange,
    desired::Desired,
    model::{ClaimKind, EtcdFact, EtcdMemberFact, HostFacts, HostName, Observed, PatroniRole},
    plan::{Impact, Step},
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
            Some(on) if on == host && matches!(change, EtcdChange::Leave { .. }) => {}
            Some(_) => broken("the membership is changed only while all who vote are well"),
        }
    }
    let well = voters().filter(|member| server(desired, member).is_some_and(healthy)).count();
    if well * 2 <= voters().count() {
        broken("the membership is changed only by a majority");
    }
    let urls = desired.etcd.members.iter().filter(|(host, _)| healthy(host));
    let urls: Vec<&String> = urls.map(|(_, member)| &member.client_url).collect();
    let leaves = matches!(change, EtcdChange::Leave { .. }) && healthy(host);
    if via.is_empty()
        || via.len() + usize::from(leaves) < well
        || !via.iter().all(|url| urls.contains(&url))
    {
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
        EtcdChange::Leave { id } => {
            if !desired.leaves(host) || listed(host).is_none_or(|member| member.id != *id) {
                broken("only a server that is to leave leaves etcd, and alone");
            }
            let patroni = observed.host(host).and_then(|facts| facts.patroni.known());
            if !matches!(patroni, Some(None)) {
                broken("a server leaves etcd when its Patroni has stopped");
            }
            let own_url = desired.etcd.members.get(host).map(|member| &member.client_url);
            if via.iter().any(|url| Some(url) == own_url) {
                broken("whoever leaves is not asked");
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

/// Members that count: those that stay, and those that leave unless a member that tells lists them no
/// more.
pub(super) fn counted<'a>(desired: &'a Desired, observed: &Observed) -> Vec<&'a HostName> {
    let voice = voice(desired, observed);
    let gone = |host: &HostName| {
        let listed = |etcd: &EtcdFact| {
            etcd.members.iter().any(|member| server(desired, member) == Some(host))
        };
        desired.leaves(host) && voice.is_some_and(|etcd| !listed(etcd))
    };
    desired.etcd.members.keys().filter(|host| !gone(host)).collect()
}

/// Those of them that have a vote, or may have: a quorum is one of these.
pub(super) fn voters<'a>(desired: &'a Desired, observed: &Observed) -> Vec<&'a HostName> {
    let voice = voice(desired, observed);
    let learns = |host: &HostName| {
        let is = |member: &EtcdMemberFact| member.learner && server(desired, member) == Some(host);
        voice.is_some_and(|etcd| etcd.members.iter().any(is))
    };
    counted(desired, observed).into_iter().filter(|host| !learns(host)).collect()
}

/// A healthy member that tells who the members are.
fn voice<'a>(desired: &Desired, observed: &'a Observed) -> Option<&'a EtcdFact> {
    desired.etcd.members.keys().find_map(|host| {
        let fact = own(desired, observed, host);
        fact.filter(|etcd| etcd.healthy && !etcd.members.is_empty())
    })
}

/// Patroni is stopped for good only on a server that leaves, never on the primary, and while all others
/// serve.
pub(super) fn check_stop(
    desired: &Desired,
    observed: &Observed,
    step: &Step,
    host: &HostName,
    broken: &mut impl FnMut(&'static str),
) {
    if !desired.leaves(host) {
        broken("Patroni is stopped only on a server that leaves");
    }
    let fact = |host: &HostName| {
        let ours = super::our_patroni(desired, observed, host);
        observed.host(host).and_then(|facts| facts.patroni.present()).filter(|_| ours)
    };
    let leads = |host: &HostName| fact(host).is_some_and(|fact| fact.role == PatroniRole::Primary);
    let members = || desired.patroni.members.keys();
    if leads(host) || members().filter(|host| leads(host)).count() != 1 {
        broken("Patroni is stopped only where another is the one primary");
    }
    let runs = observed.host(host).is_some_and(|facts| !facts.patroni.is_absent());
    if runs && step.impact != Impact::Restart {
        broken("a stop says that it is one");
    }
    let well = |host: &HostName| {
        fact(host).is_some_and(|fact| {
            fact.state == "running" && (fact.role == PatroniRole::Primary || fact.streaming)
        })
    };
    let others = |member: &HostName| {
        desired.leaves(member) || comes_later(desired, observed, member) || well(member)
    };
    if !members().all(others) {
        broken("a member is disturbed only while all others serve");
    }
    if members().filter_map(fact).any(|fact| fact.paused) {
        broken("no member is disturbed while Patroni is paused");
    }
}

/// A server that is known to have no database yet, while another one is to leave: nobody can copy from
/// who leaves.
pub(super) fn comes_later(desired: &Desired, observed: &Observed, host: &HostName) -> bool {
    let directory = &desired.patroni.data_dir;
    let empty = |facts: &HostFacts| {
        facts.data_dirs.get(directory).is_none_or(|directory| !directory.populated)
    };
    !desired.leaving.is_empty() && observed.host(host).is_some_and(empty)
}

/// Whether a server says that it is that node.
fn is_node(observed: &Observed, host: &HostName, node_id: &str) -> bool {
    let docker = observed.host(host).and_then(|facts| facts.docker.present());
    docker.is_some_and(|docker| docker.swarm.node_id == node_id)
}

/// Only the node of a server that is to leave is drained.
pub(super) fn check_leaving_node(
    desired: &Desired,
    observed: &Observed,
    node_id: &str,
    broken: &mut impl FnMut(&'static str),
) {
    if !desired.leaving.iter().any(|host| is_node(observed, host, node_id)) {
        broken("only the node of a server that is to leave is drained");
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
    let Some(node) = swarm.nodes.get(node_id) else {
        broken("only a node that is known is removed");
        return;
    };
    let servers = desired.servers.iter().filter(|(_, server)| server.advertise == node.address);
    let left = |host: &HostName| {
        desired.leaves(host)
            && observed.host(host).is_some_and(|facts| {
                facts.docker.known().is_some_and(|docker| {
                    docker.as_ref().is_none_or(|docker| docker.swarm.node_id.is_empty())
                })
            })
    };
    if node.state != "down" && !servers.clone().any(|(host, _)| left(host)) {
        broken("only a node that is down is removed");
    }
    let another = |host: &HostName| {
        let docker = observed.host(host).and_then(|facts| facts.docker.known());
        docker.is_some_and(|docker| {
            docker.as_ref().is_none_or(|docker| docker.swarm.node_id != node_id)
        })
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
    let wanted = if manager { SwarmRole::Manager } else { SwarmRole::Worker };
    let part = |host: &HostName, role: SwarmRole| {
        if desired.leaves(host) { !manager } else { role == wanted }
    };
    let nodes = desired.swarm.nodes.iter();
    let own = |host: &HostName| is_node(observed, host, node_id);
    if !nodes.into_iter().any(|(host, role)| own(host) && part(host, *role)) {
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
