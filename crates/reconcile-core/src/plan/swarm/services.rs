//! Services: making them, keeping them as desired, and waiting for their tasks.

use std::collections::{BTreeMap, BTreeSet};

use super::{enters, files::ours, rollout};
use crate::{
    action::{Action, SwarmAction},
    model::{
        HostName, NodeFact, ObjectId, ServiceFact, ServiceMode, ServiceSpec, SwarmFacts, TaskFact,
        UpdateRule,
    },
    plan::{
        Change, HoldReason, Impact, Verb,
        draft::{Draft, Drafts, View},
    },
};

pub(super) fn plan_services(
    view: &View<'_>,
    facts: Option<&SwarmFacts>,
    manager: &HostName,
    drafts: &mut Drafts,
) {
    // Nodes that are up run a task each, and nodes that are about to enter will. A server that
    // cannot be brought in now gets its task whenever it comes.
    let entering: Vec<&HostName> = view
        .desired
        .swarm
        .nodes
        .iter()
        .map(|(host, _)| host)
        .filter(|host| drafts.steps.iter().any(|step| enters(step, host) && !drafts.blocked(step)))
        .collect();
    let up =
        facts.map_or(0, |facts| facts.nodes.values().filter(|node| node.takes_tasks()).count());
    let tasks = up + entering.len();
    for spec in &view.desired.swarm.services {
        let object = ObjectId::Service(spec.name.clone());
        if let Some(reason) = port_stranger(view, spec) {
            drafts.hold(object, reason);
            continue;
        }
        let resolved = facts
            .and_then(|facts| facts.images.get(&spec.image))
            .and_then(|digest| digest.known().cloned());
        let spec = ServiceSpec { digest: spec.digest.clone().or(resolved), ..spec.clone() };
        match facts.and_then(|facts| Some((facts, facts.services.get(&spec.name)?))) {
            None => drafts.step(create_service(&entering, manager, spec, tasks)),
            Some((_, fact)) if !ours(view, &fact.spec.labels) => {
                let reason = "a service of that name exists without our label".to_owned();
                drafts.hold(object, HoldReason::Foreign(reason));
            }
            Some((facts, fact)) => plan_service(view, facts, manager, spec, fact, drafts),
        }
    }
}

/// A process that holds a port which the service needs on some node.
fn port_stranger(view: &View<'_>, spec: &ServiceSpec) -> Option<HoldReason> {
    let component = if spec.name.ends_with("_haproxy") {
        "HAProxy's published port"
    } else if spec.name.ends_with("_router") {
        "HAProxy's router"
    } else {
        "PgBouncer"
    };
    view.desired.swarm.nodes.iter().find_map(|(host, _)| {
        let facts = view.host(host).filter(|_| !view.leaves(host))?;
        crate::plan::stranger::stranger(view, host, facts, &[component], "docker.service")
    })
}

fn service_needs(entering: &[&HostName], spec: &ServiceSpec) -> BTreeSet<ObjectId> {
    let mut needs: BTreeSet<ObjectId> = BTreeSet::from([ObjectId::Swarm]);
    needs.extend(spec.configs.iter().map(|mount| ObjectId::Config(mount.source.clone())));
    needs.extend(spec.secrets.iter().map(|mount| ObjectId::Secret(mount.source.clone())));
    needs.extend(spec.networks.iter().map(|network| ObjectId::Network(network.network.clone())));
    needs.extend(entering.iter().map(|host| ObjectId::SwarmNode((*host).clone())));
    needs
}

fn create_service(
    entering: &[&HostName],
    manager: &HostName,
    spec: ServiceSpec,
    tasks: usize,
) -> Draft {
    let needs = service_needs(entering, &spec);
    let image = match &spec.digest {
        Some(digest) => format!("{}@{digest}", spec.image),
        None => spec.image.clone(),
    };
    Draft::new(
        ObjectId::Service(spec.name.clone()),
        Verb::Create,
        "it does not exist",
        120,
        Action::Swarm(manager.clone(), SwarmAction::CreateService { spec: Box::new(spec), tasks }),
    )
    .change("image", None, Some(image))
    .change("tasks", None, Some(tasks.to_string()))
    .needs(needs)
}

fn plan_service(
    view: &View<'_>,
    facts: &SwarmFacts,
    manager: &HostName,
    spec: ServiceSpec,
    fact: &ServiceFact,
    drafts: &mut Drafts,
) {
    let object = ObjectId::Service(spec.name.clone());
    let changes = service_changes(&spec, &fact.spec);
    let tasks = facts.nodes.values().filter(|node| node.takes_tasks()).count();
    if matches!(fact.update_state.as_str(), "updating" | "rollback_started") {
        let action = SwarmAction::AwaitService { name: spec.name.clone(), tasks };
        let why = "Docker is still replacing its tasks";
        let action = Action::Swarm(manager.clone(), action);
        drafts.step(Draft::new(object, Verb::Await, why, 600, action));
        return;
    }
    if matches!(fact.update_state.as_str(), "paused" | "rollback_paused") && changes.is_empty() {
        let reason = format!(
            "Docker paused its update: some tasks are still the old ones; docker service update --force {} goes on",
            spec.name
        );
        drafts.hold(object, HoldReason::NeedsPerson(reason));
        return;
    }
    if changes.is_empty() {
        // Those of a node that takes none by now run on, and say nothing of the others.
        let counts = |task: &&TaskFact| {
            let node = facts.nodes.get(&task.node_id);
            task.state == "running" && node.is_none_or(NodeFact::takes_tasks)
        };
        let running = fact.tasks.iter().filter(counts).count();
        if running < tasks {
            let action = SwarmAction::AwaitService { name: spec.name.clone(), tasks };
            let draft = Draft::new(
                object,
                Verb::Await,
                "not all of its tasks run",
                120,
                Action::Swarm(manager.clone(), action),
            );
            drafts.step(draft.change(
                "running tasks",
                Some(running.to_string()),
                Some(tasks.to_string()),
            ));
        }
        return;
    }
    if let Some(cause) = given_up(&spec, fact) {
        let reason = format!(
            "Docker or reconcile rolled this very change back ({cause}), so it is not tried again by itself: change the file, or `docker service update --force {}` makes another try",
            spec.name
        );
        drafts.hold(object, HoldReason::NeedsPerson(reason));
        return;
    }
    if spec.digest.is_none() {
        let why = facts.images.get(&spec.image).and_then(|digest| digest.reason());
        let why = why.map_or_else(String::new, |why| format!(": {why}"));
        let reason = format!(
            "the digest of {} could not be learnt from its registry{why}; is the tag right?",
            spec.image
        );
        drafts.hold(object, HoldReason::Unknown(reason));
        return;
    }
    let needs: BTreeSet<ObjectId> = spec
        .configs
        .iter()
        .map(|mount| ObjectId::Config(mount.source.clone()))
        .chain(spec.secrets.iter().map(|mount| ObjectId::Secret(mount.source.clone())))
        .collect();
    if let Some(next) = rollout::blocked(view, facts) {
        drafts.hold(object, HoldReason::OneAtATime(ObjectId::SwarmNode(next)));
        return;
    }
    let order = rollout::order(view, facts, &spec, &changes);
    let reason = order.told();
    let seconds = 600.max(300 + 2 * (spec.stop_grace_ms + spec.update.monitor_ms) / 1000);
    let action = SwarmAction::UpdateService {
        spec: Box::new(spec),
        version: fact.version,
        tasks: tasks - order.waits.len(),
        waits: order.waits,
        first: order.first,
        begins: order.begins,
    };
    let mut draft =
        Draft::new(object, Verb::Update, reason, seconds, Action::Swarm(manager.clone(), action))
            .impact(Impact::Restart)
            .needs(needs);
    draft.changes = changes;
    drafts.step(draft);
}

/// How a container like this one broke, where Docker went back from it. It is Docker that remembers:
/// by its history of tasks until something else is tried.
fn given_up<'a>(spec: &ServiceSpec, fact: &'a ServiceFact) -> Option<&'a str> {
    let container = |spec: &ServiceSpec| ServiceSpec {
        digest: None,
        labels: BTreeMap::new(),
        ports: Vec::new(),
        networks: Vec::new(),
        dnsrr: false,
        constraints: Vec::new(),
        mode: ServiceMode::Global,
        update: UpdateRule {
            failure_action: String::new(),
            order: String::new(),
            parallelism: 0,
            delay_ms: 0,
            monitor_ms: 0,
        },
        restart_delay_ms: 0,
        ..spec.clone()
    };
    let wanted = container(spec);
    let same_image = |tried: &ServiceSpec| spec.digest.is_none() || tried.digest == spec.digest;
    let rolled_back =
        matches!(fact.update_state.as_str(), "rollback_completed" | "rollback_paused");
    let tried = fact.given_up.as_ref().filter(|_| rolled_back)?;
    let same = same_image(&tried.spec) && container(&tried.spec) == wanted;
    same.then_some(tried.cause.as_str())
}

/// Field by field through the serialised form, so that no field can be forgotten.
fn service_changes(desired: &ServiceSpec, observed: &ServiceSpec) -> Vec<Change> {
    let fields = |spec: &ServiceSpec| match serde_json::to_value(spec) {
        Ok(serde_json::Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
    let (mut desired, mut observed) = (fields(desired), fields(observed));
    if desired.get("digest").is_some_and(serde_json::Value::is_null)
        && desired.get("image") == observed.get("image")
    {
        desired.remove("digest");
        observed.remove("digest");
    }
    desired
        .into_iter()
        .filter_map(|(field, to)| {
            let from = observed.get(&field).cloned();
            (from.as_ref() != Some(&to)).then(|| Change {
                field,
                from: from.map(|value| value.to_string()),
                to: Some(to.to_string()),
            })
        })
        .collect()
}
