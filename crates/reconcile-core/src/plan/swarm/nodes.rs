//! Membership: founding the Swarm, joining servers, and whose Swarm it is.

use super::CLAIM;
use crate::{
    action::{Action, SwarmAction},
    desired::swarm::OWNER_LABEL,
    model::{DockerFact, HostName, LocalSwarmState, NodeFact, ObjectId, Observation, SwarmFacts},
    plan::{
        HoldReason, Impact, Verb,
        draft::{Draft, Drafts, View},
    },
};
use reconcile_spec::valid::SwarmRole;

/// True where the Swarm is what a founding of ours leaves that was cut off before the label: one
/// node, claimed, and nothing in it. Joins come after the label, so any other Swarm without
/// it was founded by somebody else, be it on a server that we claimed.
fn unfinished(view: &View<'_>, facts: &SwarmFacts) -> bool {
    let claimed = |host: &HostName| {
        view.host(host).is_some_and(|host| {
            host.manifest.claims(crate::model::ClaimKind::Swarm, CLAIM)
                && host
                    .docker
                    .present()
                    .is_some_and(|docker| facts.nodes.contains_key(&docker.swarm.node_id))
        })
    };
    let elsewhere = |host: &HostName| {
        view.host(host).and_then(|host| host.docker.present()).is_some_and(|docker| {
            docker.swarm.state != LocalSwarmState::Inactive
                && !facts.nodes.contains_key(&docker.swarm.node_id)
        })
    };
    let nodes = &view.desired.swarm.nodes;
    facts.nodes.len() == 1
        && facts.services.is_empty()
        && facts.configs.is_empty()
        && facts.secrets.is_empty()
        && nodes.iter().any(|(host, _)| claimed(host))
        && !nodes.iter().any(|(host, _)| elsewhere(host))
}

/// Membership of every server. Returns the manager through which the rest is done.
pub(super) fn plan_nodes(
    view: &View<'_>,
    facts: Option<&SwarmFacts>,
    drafts: &mut Drafts,
) -> Option<HostName> {
    let nodes = &view.desired.swarm.nodes;
    let inside = |host: &HostName| {
        view.host(host)
            .and_then(|facts| facts.docker.present())
            .filter(|docker| docker.swarm.state == LocalSwarmState::Active)
    };
    // A Swarm that already stands must be ours.
    if let Some(facts) = facts {
        let label = facts.labels.get(OWNER_LABEL);
        let ours =
            label == Some(&view.desired.cluster) || (label.is_none() && unfinished(view, facts));
        if !ours {
            let owner = label.map_or("nobody known".to_owned(), |name| format!("cluster {name}"));
            let reason = format!("Swarm {} belongs to {owner}", facts.cluster_id);
            drafts.hold(ObjectId::Swarm, HoldReason::Foreign(reason));
            return None;
        }
    }
    let standing = nodes
        .iter()
        .find(|(host, _)| inside(host).is_some_and(|docker| docker.swarm.manager))
        .map(|(host, _)| host.clone());
    let founder = nodes.iter().find(|(_, role)| *role == SwarmRole::Manager).map(|(host, _)| host);
    let manager = match (&standing, founder) {
        (Some(manager), _) => manager.clone(),
        (None, Some(founder)) => {
            if let Err(reason) = may_found(view) {
                drafts.hold(ObjectId::Swarm, reason);
                return None;
            }
            found(view, founder, drafts);
            founder.clone()
        }
        (None, None) => return None,
    };
    if let Some(facts) = facts.filter(|facts| !facts.labels.contains_key(OWNER_LABEL)) {
        let labels = view.desired.swarm.labels.clone();
        let draft = Draft::new(
            ObjectId::Swarm,
            Verb::Update,
            "it does not carry our label yet",
            60,
            Action::Swarm(manager.clone(), SwarmAction::Label { labels }),
        );
        drafts.step(draft.change("labels", None, Some(facts.cluster_id.clone())));
    }
    join_all(view, facts, &manager, standing.is_none(), drafts);
    if let Some(facts) = facts {
        change_role(view, facts, drafts);
    }
    Some(manager)
}

/// A Swarm is founded only when every manager's server is known to be in none.
fn may_found(view: &View<'_>) -> Result<(), HoldReason> {
    for (host, _) in &view.desired.swarm.nodes {
        let Some(facts) = view.host(host) else {
            return Err(HoldReason::Unknown(format!(
                "{host} may be in a Swarm already; one is founded only when every server is known"
            )));
        };
        match &facts.docker {
            Observation::Unknown { reason } => {
                return Err(HoldReason::Unknown(format!("Docker on {host}: {reason}")));
            }
            Observation::Known(Some(docker)) if docker.swarm.state != LocalSwarmState::Inactive => {
                return Err(HoldReason::Foreign(format!(
                    "{host} is in a Swarm of which no manager of ours answers"
                )));
            }
            Observation::Known(_) => {}
        }
    }
    Ok(())
}

fn node_needs(host: &HostName) -> [ObjectId; 2] {
    [ObjectId::Packages(host.clone()), ObjectId::Host(host.clone())]
}

fn found(view: &View<'_>, founder: &HostName, drafts: &mut Drafts) {
    let action = SwarmAction::Init {
        advertise: view.desired.servers[founder].advertise.clone(),
        labels: view.desired.swarm.labels.clone(),
    };
    let draft = Draft::new(
        ObjectId::Swarm,
        Verb::Create,
        "no server is in a Swarm yet",
        60,
        Action::Swarm(founder.clone(), action),
    );
    // Before the engine is there its own need for packages decides; with it, nothing waits for apt.
    drafts.step(
        draft.change("founder", None, Some(founder.to_string())).needs(engine_needs(view, founder)),
    );
}

/// With an engine in place a server need not wait for its packages to join.
pub(super) fn engine_needs(view: &View<'_>, host: &HostName) -> Vec<ObjectId> {
    let engine = view.host(host).is_some_and(|facts| facts.docker.present().is_some());
    let [packages, claim] = node_needs(host);
    if engine { vec![claim] } else { vec![packages, claim] }
}

fn join_all(
    view: &View<'_>,
    facts: Option<&SwarmFacts>,
    manager: &HostName,
    founding: bool,
    drafts: &mut Drafts,
) {
    // Managers join one after the other: each join is a change of the managers' quorum.
    let mut previous: Option<HostName> = None;
    for (host, role) in &view.desired.swarm.nodes {
        if founding && host == manager {
            continue;
        }
        let object = ObjectId::SwarmNode(host.clone());
        let Some(docker) = view.host(host).map(|facts| &facts.docker) else { continue };
        if view.leaves(host) {
            leave(view, facts, host, docker.known(), drafts);
            continue;
        }
        match docker {
            Observation::Unknown { reason } => {
                drafts.hold(object, HoldReason::Unknown(reason.clone()));
            }
            Observation::Known(Some(docker)) if docker.swarm.state == LocalSwarmState::Active => {
                let own = &docker.swarm.node_id;
                if let Some(reason) = misplaced(facts, own) {
                    drafts.hold(object, reason);
                } else if let Some(facts) = facts {
                    drafts.steps.extend(forget(view, facts, host, own, manager));
                }
            }
            Observation::Known(Some(docker)) if docker.swarm.state != LocalSwarmState::Inactive => {
                let reason =
                    format!("the engine says {:?}: {}", docker.swarm.state, docker.swarm.error);
                drafts.hold(object, HoldReason::NeedsPerson(reason));
            }
            Observation::Known(_) => {
                let action = SwarmAction::Join {
                    advertise: view.desired.servers[host].advertise.clone(),
                    manager: *role == SwarmRole::Manager,
                    via: manager.clone(),
                    remote: vec![format!("{}:2377", view.desired.servers[manager].advertise)],
                };
                let draft = Draft::new(
                    object,
                    Verb::Join,
                    "it is in no Swarm",
                    90,
                    Action::Swarm(host.clone(), action),
                )
                .change("role", None, Some(role_word(*role).to_owned()))
                .needs(engine_needs(view, host))
                .needs([ObjectId::Swarm])
                .needs(previous.take().map(ObjectId::SwarmNode));
                drafts.step(draft);
                if *role == SwarmRole::Manager {
                    previous = Some(host.clone());
                }
            }
        }
    }
}

fn role_word(role: SwarmRole) -> &'static str {
    match role {
        SwarmRole::Manager => "manager",
        SwarmRole::Worker => "worker",
        SwarmRole::None => "none",
    }
}

/// A node that this server was before it was set up anew, or before it left the Swarm. It has joined
/// anew, so nothing of the old one can come back.
fn forget(
    view: &View<'_>,
    facts: &SwarmFacts,
    host: &HostName,
    own: &str,
    manager: &HostName,
) -> Option<Draft> {
    let address = &view.desired.servers[host].advertise;
    let old = |(id, node): &(&String, &NodeFact)| {
        *id != own && node.address == *address && node.state == "down"
    };
    facts.nodes.get(own).filter(|node| node.state == "ready")?;
    let (id, node) = facts.nodes.iter().find(old)?;
    let reachable = |node: &&NodeFact| node.manager && node.reachability == "reachable";
    let managers = facts.nodes.values().filter(|node| node.manager).count();
    let majority = facts.nodes.values().filter(reachable).count() * 2 > managers;
    if node.manager && !majority {
        return None;
    }
    let action = SwarmAction::RemoveNode { node_id: id.clone() };
    let draft = Draft::new(
        ObjectId::SwarmNode(host.clone()),
        Verb::Remove,
        "the server is another node by now",
        60,
        Action::Swarm(manager.clone(), action),
    );
    Some(draft.change("node", Some(format!("{id} (down)")), None))
}

/// Takes a node that leaves out of the Swarm: drained, demoted, gone, forgotten, each when the one
/// before is seen.
fn leave(
    view: &View<'_>,
    facts: Option<&SwarmFacts>,
    host: &HostName,
    docker: Option<&Option<DockerFact>>,
    drafts: &mut Drafts,
) {
    let Some(facts) = facts else { return };
    let object = ObjectId::SwarmNode(host.clone());
    let Some(docker) = docker else {
        let reason = "its engine does not answer".to_owned();
        drafts.hold(object, HoldReason::Unknown(reason));
        return;
    };
    let own = docker.as_ref().map_or("", |docker| docker.swarm.node_id.as_str());
    let stays = |node: &&HostName| {
        let docker = view.host(node).and_then(|facts| facts.docker.present());
        !view.leaves(node) && docker.is_some_and(|docker| docker.swarm.manager)
    };
    let nodes = || view.desired.swarm.nodes.iter().map(|(host, _)| host);
    let Some(via) = nodes().find(stays) else {
        let reason = "no manager that stays answers".to_owned();
        drafts.hold(object, HoldReason::Quorum(reason));
        return;
    };
    let draft = |verb, reason: &str, seconds, on: &HostName, action| {
        let action = Action::Swarm(on.clone(), action);
        Draft::new(object.clone(), verb, reason, seconds, action)
    };
    let step = if let Some(node) = facts.nodes.get(own) {
        let id = own.to_owned();
        if node.availability != "drain" {
            let action = SwarmAction::Drain { node_id: id };
            let before = Some(node.availability.clone());
            draft(Verb::Update, "the server leaves", 120, via, action)
                .impact(Impact::Restart)
                .change("availability", before, Some("drain".to_owned()))
        } else if node.manager {
            let mut managers = facts.nodes.values().filter(|node| node.manager);
            if let Some(lost) = managers.find(|node| node.reachability != "reachable") {
                let reason = format!("the manager {} does not answer the others", lost.hostname);
                drafts.hold(object, HoldReason::Quorum(reason));
                return;
            }
            let promoted = |(host, role): &&(HostName, SwarmRole)| {
                *role == SwarmRole::Manager && !view.leaves(host) && !manages(view, host)
            };
            if let Some((other, _)) = view.desired.swarm.nodes.iter().find(promoted) {
                drafts.hold(object, HoldReason::WaitsFor(ObjectId::SwarmNode(other.clone())));
                return;
            }
            let action = SwarmAction::SetRole { node_id: id, manager: false };
            let (from, to) = (Some("manager".to_owned()), Some("worker".to_owned()));
            draft(Verb::Update, "the server leaves", 60, via, action).change("role", from, to)
        } else {
            draft(Verb::Remove, "the server leaves", 60, host, SwarmAction::Leave)
        }
    } else {
        let address = &view.desired.servers[host].advertise;
        // In another Swarm by now? Then the entry here must have gone down by itself.
        let old = |(_, node): &(&String, &NodeFact)| {
            node.address == *address && (own.is_empty() || node.state == "down")
        };
        let Some((id, node)) = facts.nodes.iter().find(old) else { return };
        let action = SwarmAction::RemoveNode { node_id: id.clone() };
        let before = Some(format!("{id} ({})", node.state));
        draft(Verb::Remove, "the server has left the Swarm", 60, via, action)
            .change("node", before, None)
    };
    drafts.step(step);
}

/// Whether a server is a manager by its own word.
fn manages(view: &View<'_>, host: &HostName) -> bool {
    let docker = view.host(host).and_then(|facts| facts.docker.present());
    docker.is_some_and(|docker| docker.swarm.manager)
}

/// Promotes or demotes a node whose part in the file has changed: one at a time while every manager
/// answers, promotions first, and nobody through itself.
fn change_role(view: &View<'_>, facts: &SwarmFacts, drafts: &mut Drafts) {
    let busy = |object: &ObjectId| matches!(object, ObjectId::SwarmNode(_));
    if drafts.steps.iter().any(|step| busy(&step.object)) {
        return;
    }
    let own = |host: &HostName| {
        let docker = view.host(host)?.docker.present()?;
        let id = docker.swarm.node_id.as_str();
        facts.nodes.get(id).map(|node| (id, node))
    };
    let misfits: Vec<_> = view
        .desired
        .swarm
        .nodes
        .iter()
        .filter_map(|(host, role)| {
            let (id, node) = own(host).filter(|_| !view.leaves(host))?;
            let wanted = *role == SwarmRole::Manager;
            (node.manager != wanted && node.state == "ready").then_some((host, id, wanted))
        })
        .collect();
    let first = misfits.iter().find(|(.., wanted)| *wanted).or_else(|| misfits.first());
    let Some((target, id, wanted)) = first else { return };
    let object = ObjectId::SwarmNode((*target).clone());
    let mut managers = facts.nodes.values().filter(|node| node.manager);
    if let Some(lost) = managers.find(|node| node.reachability != "reachable") {
        let reason = format!("the manager {} does not answer the others", lost.hostname);
        drafts.hold(object, HoldReason::Quorum(reason));
        return;
    }
    let stays =
        |host: &HostName| host != *target && own(host).is_some_and(|(_, node)| node.manager);
    let nodes = view.desired.swarm.nodes.iter().map(|(host, _)| host);
    let Some(via) = nodes.into_iter().find(|host| stays(host)) else { return };
    let word = |manager: bool| if manager { "manager" } else { "worker" };
    let action = SwarmAction::SetRole { node_id: (*id).to_owned(), manager: *wanted };
    let draft = Draft::new(
        object,
        Verb::Update,
        "its part in the Swarm is another in the file",
        60,
        Action::Swarm(via.clone(), action),
    );
    let (from, to) = (word(!wanted).to_owned(), word(*wanted).to_owned());
    drafts.step(draft.change("role", Some(from), Some(to)));
}

/// Why a member is not where it should be.
fn misplaced(facts: Option<&SwarmFacts>, node_id: &str) -> Option<HoldReason> {
    let facts = facts?;
    let Some(node) = facts.nodes.get(node_id) else {
        return Some(HoldReason::Foreign(format!(
            "it is in another Swarm than {}",
            facts.cluster_id
        )));
    };
    let what_for = match node.availability.as_str() {
        "active" => return None,
        // That was us.
        "pause" if node.waits => return None,
        "pause" => "its tasks run on, and none is started or updated there",
        _ => "no task of ours runs there",
    };
    let back = format!("docker node update --availability active {}", node.hostname);
    let set = &node.availability;
    Some(HoldReason::Paused(format!(
        "somebody set it to {set}: {what_for}; `{back}` on a manager ends it"
    )))
}
