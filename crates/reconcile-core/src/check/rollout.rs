//! What may never be done to nodes for the sake of an order, whoever planned it.

use crate::{
    desired::Desired,
    model::{HostName, NodeFact, Observed, PatroniRole, SwarmFacts},
};

/// The server that is a node, if it is one of the file's that stays.
fn server<'a>(desired: &'a Desired, observed: &Observed, node_id: &str) -> Option<&'a HostName> {
    let is = |host: &&HostName| {
        let docker = observed.host(host).and_then(|facts| facts.docker.present());
        docker.is_some_and(|docker| docker.swarm.node_id == node_id)
    };
    let hosts = desired.swarm.nodes.iter().map(|(host, _)| host);
    hosts.into_iter().find(is).filter(|host| !desired.leaving.contains(*host))
}

/// Where two say that they are the primary, neither's word counts.
fn leads(desired: &Desired, observed: &Observed, host: &HostName) -> bool {
    let says = |host: &HostName| {
        let patroni = observed.host(host).and_then(|facts| facts.patroni.present());
        patroni.is_some_and(|fact| fact.role == PatroniRole::Primary && fact.state == "running")
    };
    says(host) && desired.patroni.members.keys().filter(|member| says(member)).count() == 1
}

fn whole(swarm: &SwarmFacts, desired: &Desired, node_id: &str) -> bool {
    let mut services = desired.swarm.services.iter().filter_map(|s| swarm.services.get(&s.name));
    services.all(|service| {
        let mut tasks = service.tasks.iter();
        tasks.any(|task| task.node_id == node_id && task.state == "running")
    })
}

/// Nodes that are to wait for an update.
pub(super) fn check_first(
    desired: &Desired,
    observed: &Observed,
    waits: &[String],
    broken: &mut impl FnMut(&'static str),
) {
    let Some(swarm) = observed.swarm.present() else {
        broken("a service is changed only in a Swarm that is known");
        return;
    };
    let takes = |node: &NodeFact| node.availability == "active" && node.state == "ready";
    for id in waits {
        if server(desired, observed, id).is_none() {
            broken("only a node of a server that stays is told to wait");
        }
        if !swarm.nodes.get(id).is_some_and(takes) {
            broken("only a node that takes tasks is told to wait");
        }
    }
    let first = || swarm.nodes.iter().filter(|(id, node)| takes(node) && !waits.contains(id));
    let leads = |id: &String| {
        server(desired, observed, id).is_some_and(|host| leads(desired, observed, host))
    };
    if !waits.is_empty() {
        if first().next().is_none() {
            broken("an update comes to some node at once");
        }
        if first().any(|(id, _)| leads(id)) {
            broken("an update does not come to the primary's node before others");
        }
    }
    let ours = |id: &String| server(desired, observed, id).is_some();
    let waiting = |(id, node): (&String, &NodeFact)| {
        node.waits && node.availability == "pause" && node.state == "ready" && ours(id)
    };
    let mut ours_first = first().filter(|(id, _)| ours(id)).peekable();
    if ours_first.peek().is_some()
        && ours_first.all(|(id, _)| leads(id))
        && swarm.nodes.iter().any(waiting)
    {
        broken("an update does not come to the primary's node before others");
    }
}

/// A node whose wait is ended.
pub(super) fn check_next(
    desired: &Desired,
    observed: &Observed,
    node_id: &str,
    broken: &mut impl FnMut(&'static str),
) {
    let Some(swarm) = observed.swarm.present() else {
        broken("a node is changed only in a Swarm that is known");
        return;
    };
    if !swarm.nodes.get(node_id).is_some_and(|node| node.waits) {
        broken("only a node that we had wait takes tasks again");
    }
    if server(desired, observed, node_id).is_none() && !desired.swarm.tell_their_nodes(observed) {
        broken("no node is taken for a stranger while a server does not tell which it is");
    }
    let whole = |id: &str| whole(swarm, desired, id);
    let ours = desired.swarm.services.iter().filter_map(|spec| swarm.services.get(&spec.name));
    let busy = ["updating", "rollback_started"];
    let disturbs = server(desired, observed, node_id).is_some() && whole(node_id);
    if disturbs && ours.into_iter().any(|service| busy.contains(&service.update_state.as_str())) {
        broken("an update comes to no further node while Docker replaces tasks");
    }
    let other = |(id, node): (&String, &NodeFact)| {
        id != node_id
            && node.waits
            && node.availability != "drain"
            && node.state == "ready"
            && whole(id)
            && server(desired, observed, id).is_some()
    };
    let last = server(desired, observed, node_id)
        .is_some_and(|host| leads(desired, observed, host))
        && swarm.nodes.get(node_id).is_some_and(|node| node.state == "ready")
        && whole(node_id);
    if last && swarm.nodes.iter().any(other) {
        broken("an update does not come to the primary's node before others");
    }
}
