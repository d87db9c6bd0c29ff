//! In which order nodes get what is new in a service: one node first, which is tried, then the others one by
//! one, and the primary's last.
//!
//! A global service has no order of its own. But Docker leaves the tasks of a node alone whose availability is
//! `pause`, through an update as well, and brings them up to date when it is `active` again. So all but the
//! first node are marked and paused before the update. What is left to do is read off the marks, so whoever
//! goes on after a kill goes on the same way; who leads is looked at anew before each node.
//!
//! Docker starts nothing on a node that waits. So one that has lost a task is let go at once, whatever else
//! is the matter, and one that is kept waiting is always a step or a hold.

use crate::{
    action::{Action, SwarmAction},
    desired::swarm::OWNER_LABEL,
    model::{HostName, NodeFact, ObjectId, ServiceFact, ServiceSpec, SwarmFacts},
    plan::{
        Change, HoldReason, Impact, Verb, arrange, counted,
        draft::{Draft, Drafts, View},
    },
    primary::primary,
};

/// Fields of a service whose change leaves its tasks as they are.
const CALM: [&str; 2] = ["labels", "update"];

/// Who gets an update first, and who later.
pub(super) struct Order {
    /// The servers that get it at once; empty where the order is Docker's.
    pub(super) first: Vec<HostName>,
    /// Ids of the nodes to be marked.
    pub(super) waits: Vec<String>,
    /// Nobody waits yet.
    pub(super) begins: bool,
    /// Their servers, in order.
    later: Vec<HostName>,
}

/// A node of ours.
struct Member<'a> {
    host: &'a HostName,
    id: &'a str,
    node: &'a NodeFact,
    /// All tasks of our services run there.
    whole: bool,
    /// The primary's.
    leads: bool,
}

impl Member<'_> {
    /// It has, or is yet to get, what is new; one that somebody drained meanwhile is held.
    fn waits(&self) -> bool {
        self.node.waits && self.node.availability != "drain"
    }
}

/// The nodes of ours that the managers know, the primary's last.
fn members<'a>(view: &View<'a>, facts: &'a SwarmFacts) -> Vec<Member<'a>> {
    let primary = primary(view.desired, view.observed).ok();
    let services = || ours(view, facts).map(|(_, service)| service);
    let nodes = view.desired.swarm.nodes.iter().map(|(host, _)| host);
    let mut members: Vec<_> = nodes
        .filter(|host| !view.leaves(host))
        .filter_map(|host| {
            let id = view.host(host)?.docker.present()?.swarm.node_id.as_str();
            let whole = services().all(|service| {
                let mut tasks = service.tasks.iter();
                tasks.any(|task| task.node_id == id && task.state == "running")
            });
            let leads = primary.as_ref() == Some(host);
            Some(Member { host, id, node: facts.nodes.get(id)?, whole, leads })
        })
        .collect();
    members.sort_by_key(|member| member.leads);
    members
}

/// Services of the file that there are.
fn ours<'a>(
    view: &View<'a>,
    facts: &'a SwarmFacts,
) -> impl Iterator<Item = (&'a str, &'a ServiceFact)> {
    let services = view.desired.swarm.services.iter();
    services.filter_map(|spec| Some((spec.name.as_str(), facts.services.get(&spec.name)?)))
}

/// Whom an update of a service cannot pass by: a node that waits while only the primary's, or none, takes
/// tasks. That one goes first.
pub(super) fn blocked(view: &View<'_>, facts: &SwarmFacts) -> Option<HostName> {
    let members = members(view, facts);
    let takes = members.iter().any(|member| member.node.takes_tasks() && !member.leads);
    let ready = |member: &&Member<'_>| member.waits() && member.node.state == "ready";
    let next = members.iter().find(ready).filter(|next| !takes && !next.leads)?;
    Some(next.host.clone())
}

/// The order for an update of a service.
pub(super) fn order(
    view: &View<'_>,
    facts: &SwarmFacts,
    spec: &ServiceSpec,
    changes: &[Change],
) -> Order {
    let members = members(view, facts);
    let (active, paused): (Vec<_>, Vec<_>) =
        members.iter().partition(|member| member.node.takes_tasks());
    let waiting = paused.iter().filter(|member| member.waits());
    let calm = changes.iter().all(|change| CALM.contains(&change.field.as_str()));
    if calm {
        return Order { first: Vec::new(), waits: Vec::new(), begins: false, later: Vec::new() };
    }
    // More than one at once is somebody's wish for another order.
    let rest = match active.split_first() {
        Some((_, rest)) if spec.update.parallelism == 1 => rest,
        _ => &[],
    };
    let mut later: Vec<_> = rest.iter().chain(waiting.clone()).collect();
    later.sort_by_key(|member| members.iter().position(|other| other.id == member.id));
    let now = &active[..active.len() - rest.len()];
    let hosts =
        |members: &[&Member<'_>]| members.iter().map(|member| member.host.clone()).collect();
    Order {
        first: if later.is_empty() { Vec::new() } else { hosts(now) },
        waits: rest.iter().map(|member| member.id.to_owned()).collect(),
        begins: !rest.is_empty() && waiting.clone().next().is_none(),
        later: later.into_iter().map(|member| member.host.clone()).collect(),
    }
}

impl Order {
    /// Why a service is updated, and where first.
    pub(super) fn told(&self) -> String {
        let names =
            |hosts: &[HostName]| hosts.iter().map(HostName::as_str).collect::<Vec<_>>().join(", ");
        if self.first.is_empty() || self.later.is_empty() {
            return "it differs".to_owned();
        }
        format!("on {} first, then {}", names(&self.first), names(&self.later))
    }
}

/// The next node to get what is new, once nothing is to be done to the services themselves. `drafts` are all
/// others, without what is only reported.
pub(in crate::plan) fn plan(view: &View<'_>, drafts: &mut Drafts) {
    let Some(facts) = view.observed.swarm.present() else { return };
    if facts.labels.get(OWNER_LABEL) != Some(&view.desired.cluster) {
        return;
    }
    let docker = |host: &HostName| Some(&view.host(host)?.docker.present()?.swarm);
    let managers = view.desired.swarm.nodes.iter().map(|(host, _)| host);
    let Some(manager) = managers.into_iter().find(|host| docker(host).is_some_and(|d| d.manager))
    else {
        return;
    };
    let members = members(view, facts);
    strays(view, facts, manager, &members, drafts);
    let free = |drafts: &Drafts, host: &HostName| {
        let object = ObjectId::SwarmNode(host.clone());
        let held = drafts.held.iter().any(|held| held.object == object);
        !held && !drafts.steps.iter().any(|step| step.object == object)
    };
    let services: Vec<String> = ours(view, facts).map(|(name, _)| name.to_owned()).collect();
    let rules = || view.desired.swarm.services.iter();
    let steady = rules().map(|service| service.update.monitor_ms).max().unwrap_or(0);
    let grace = rules().map(|service| service.stop_grace_ms).max().unwrap_or(0);
    let up = || members.iter().filter(|member| member.node.takes_tasks() && !member.node.waits);
    let step = |member: &Member<'_>, lost: bool, reason: String| {
        let ready = member.node.state == "ready";
        let action = SwarmAction::UpdateNode {
            node_id: member.id.to_owned(),
            services: if ready { services.clone() } else { Vec::new() },
            steady_ms: steady,
            updated: up().map(|member| member.host.clone()).collect(),
            lost,
        };
        let action = Action::Swarm(manager.clone(), action);
        let object = ObjectId::SwarmNode(member.host.clone());
        let before = Some(format!("{}, for an update", member.node.availability));
        let seconds = 240 + (steady + grace) / 1000;
        Draft::new(object, Verb::Update, reason, seconds, action).change(
            "availability",
            before,
            Some("active".to_owned()),
        )
    };
    let waiting: Vec<_> = members.iter().filter(|member| member.waits()).collect();
    // What it has left is replaced with it, so one after the other.
    let lost: Vec<_> = waiting.iter().filter(|member| !member.whole).collect();
    let mut free_and_lost = lost.iter().filter(|member| free(drafts, member.host));
    if let Some(first) = free_and_lost.next() {
        let object = ObjectId::SwarmNode(first.host.clone());
        let others: Vec<_> = free_and_lost.map(|member| member.host.clone()).collect();
        let reason = "it waits for an update, and Docker starts nothing there meanwhile";
        drafts.step(step(first, true, reason.to_owned()));
        for other in others {
            drafts.hold(ObjectId::SwarmNode(other), HoldReason::OneAtATime(object.clone()));
        }
    }
    let whole: Vec<_> =
        waiting.iter().filter(|member| member.whole && free(drafts, member.host)).collect();
    let Some((next, rest)) = whole.split_first() else { return };
    let before = waiting.iter().find(|member| member.whole && !free(drafts, member.host));
    let before = before.filter(|_| next.leads);
    let reason = to_come(view, facts, drafts)
        .or_else(|| Some(HoldReason::WaitsFor(ObjectId::SwarmNode(before?.host.clone()))));
    if reason.is_none() && lost.is_empty() {
        let left = rest.len();
        let mut reason = match left {
            0 => "the services' update comes to it last".to_owned(),
            _ => format!(
                "the services' update comes to it next, then to {}",
                counted(left, "more node")
            ),
        };
        let held = drafts.held.iter().any(|held| matches!(held.object, ObjectId::Service(_)));
        if held {
            reason.push_str("; what is held does not");
        }
        drafts.step(step(next, false, reason).impact(Impact::Restart));
    }
    let first = lost.first().map_or(next.host, |member| member.host);
    for member in &whole {
        if !free(drafts, member.host) {
            continue;
        }
        let reason = match &reason {
            Some(reason) => reason.clone(),
            None => HoldReason::OneAtATime(ObjectId::SwarmNode(first.clone())),
        };
        drafts.hold(ObjectId::SwarmNode(member.host.clone()), reason);
    }
}

/// What comes before the next node: a step on the services that is not held anyway, or Docker at work.
fn to_come(view: &View<'_>, facts: &SwarmFacts, drafts: &Drafts) -> Option<HoldReason> {
    let forbidden = |draft: &Draft| {
        draft.verb == Verb::Update
            && arrange::forbidden(&view.desired.policy, view.observed.at, draft.impact).is_some()
    };
    let mut steps = drafts.steps.iter().filter(|step| {
        matches!(step.object, ObjectId::Service(_)) && !drafts.blocked(step) && !forbidden(step)
    });
    if let Some(step) = steps.next() {
        return Some(HoldReason::OneAtATime(step.object.clone()));
    }
    let works = ["updating", "rollback_started"];
    let stopped = ["paused", "rollback_paused"];
    ours(view, facts).find_map(|(name, service)| {
        let state = service.update_state.as_str();
        if works.contains(&state) {
            return Some(HoldReason::WaitsFor(ObjectId::Service(name.to_owned())));
        }
        stopped.contains(&state).then(|| {
            let reason = format!("Docker stopped the update of {name}: the node keeps what it has");
            HoldReason::NeedsPerson(reason)
        })
    })
}

/// Nodes with our mark that are no members any more: the mark goes, and with it the pause that came with it.
/// Which nodes those are is known only while all servers of the file tell which node they are; till then they
/// are held.
fn strays(
    view: &View<'_>,
    facts: &SwarmFacts,
    manager: &HostName,
    members: &[Member<'_>],
    drafts: &mut Drafts,
) {
    let leaves = |id: &str| {
        let docker = |host: &HostName| view.host(host)?.docker.present();
        let mut leaving = view.desired.leaving.iter();
        leaving.any(|host| docker(host).is_some_and(|docker| docker.swarm.node_id == id))
    };
    let all_tell = view.desired.swarm.tell_their_nodes(view.observed);
    for (id, node) in facts.nodes.iter().filter(|(_, node)| node.waits && node.state == "ready") {
        let object = ObjectId::SwarmNode(HostName::new(&node.hostname));
        let known = members.iter().any(|member| member.id == id) || leaves(id);
        let steps = drafts.steps.iter().any(|step| step.object == object);
        if known || steps || drafts.held.iter().any(|held| held.object == object) {
            continue;
        }
        if !all_tell {
            let reason = "it waits for an update, and may be a server that does not tell its node";
            drafts.hold(object, HoldReason::Unknown(reason.to_owned()));
            continue;
        }
        let action = SwarmAction::UpdateNode {
            node_id: id.clone(),
            services: Vec::new(),
            steady_ms: 0,
            updated: Vec::new(),
            lost: false,
        };
        let reason = "it waits for an update, and the file does not name it any more";
        let action = Action::Swarm(manager.clone(), action);
        drafts.step(Draft::new(object, Verb::Update, reason, 60, action));
    }
}
