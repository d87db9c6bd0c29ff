//! The Swarm: founding it, joining servers, its network, configs, secrets and services.

use std::collections::BTreeSet;

use reconcile_spec::valid::SwarmRole;

use super::{
    Change, HoldReason, Impact, Verb,
    draft::{Draft, Drafts, View},
};
use crate::{
    action::{Action, SwarmAction, SwarmFile},
    desired::swarm::OWNER_LABEL,
    model::{
        ConfigFact, HostName, LocalSwarmState, NodeFact, ObjectId, Observation, ServiceFact,
        ServiceSpec, SwarmFacts,
    },
};
use std::collections::BTreeMap;

/// Name of the claim on a server's Swarm membership.
pub(super) const CLAIM: &str = "swarm";

/// True for the step by which a server founds or joins the Swarm.
pub(super) fn enters(step: &Draft, host: &HostName) -> bool {
    matches!(
        &step.action,
        Action::Swarm(on, SwarmAction::Init { .. } | SwarmAction::Join { .. }) if on == host
    )
}

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

/// Plans the Swarm.
pub(super) fn plan(view: &View<'_>, drafts: &mut Drafts) {
    if view.desired.swarm.nodes.is_empty() {
        return;
    }
    let facts = match &view.observed.swarm {
        Observation::Known(facts) => facts.as_ref(),
        Observation::Unknown { reason } => {
            drafts.hold(ObjectId::Swarm, HoldReason::Unknown(reason.clone()));
            return;
        }
    };
    let Some(manager) = plan_nodes(view, facts, drafts) else { return };
    plan_network(view, facts, &manager, drafts);
    plan_files(view, facts, &manager, drafts);
    plan_services(view, facts, &manager, drafts);
    if let Some(facts) = facts {
        plan_retention(view, facts, &manager, drafts);
    }
}

/// Membership of every server. Returns the manager through which the rest is done.
fn plan_nodes(
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
fn engine_needs(view: &View<'_>, host: &HostName) -> Vec<ObjectId> {
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
        match docker {
            Observation::Unknown { reason } => {
                drafts.hold(object, HoldReason::Unknown(reason.clone()));
            }
            Observation::Known(Some(docker)) if docker.swarm.state == LocalSwarmState::Active => {
                if let Some(reason) = misplaced(facts, &docker.swarm.node_id, *role) {
                    drafts.hold(object, reason);
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

/// Why a member is not where it should be.
fn misplaced(facts: Option<&SwarmFacts>, node_id: &str, role: SwarmRole) -> Option<HoldReason> {
    let facts = facts?;
    let Some(node) = facts.nodes.get(node_id) else {
        return Some(HoldReason::Foreign(format!(
            "it is in another Swarm than {}",
            facts.cluster_id
        )));
    };
    if node.availability != "active" {
        let reason =
            format!("somebody set it to {}: no task of ours runs there", node.availability);
        return Some(HoldReason::Paused(reason));
    }
    let wanted = role == SwarmRole::Manager;
    (node.manager != wanted).then(|| {
        let is = if node.manager { "manager" } else { "worker" };
        HoldReason::NeedsPerson(format!(
            "it is a {is} and should be a {}; changing roles is not done by this release",
            role_word(role)
        ))
    })
}

fn plan_network(
    view: &View<'_>,
    facts: Option<&SwarmFacts>,
    manager: &HostName,
    drafts: &mut Drafts,
) {
    let desired = &view.desired.swarm.network;
    let object = ObjectId::Network(desired.name.clone());
    let Some(fact) = facts.and_then(|facts| facts.networks.get(&desired.name)) else {
        let action = SwarmAction::CreateNetwork(desired.clone());
        let draft = Draft::new(
            object,
            Verb::Create,
            "it does not exist",
            60,
            Action::Swarm(manager.clone(), action),
        );
        drafts.step(draft.needs([ObjectId::Swarm]).change(
            "driver",
            None,
            Some("overlay".to_owned()),
        ));
        return;
    };
    // A network that applications brought along serves as it is, if it can carry the front.
    if fact.driver != "overlay" || fact.scope != "swarm" {
        let reason = format!("a {} network of scope {} has that name", fact.driver, fact.scope);
        drafts.hold(object, HoldReason::Foreign(reason));
    } else if fact.labels.contains_key(OWNER_LABEL)
        && (fact.attachable, fact.encrypted) != (desired.attachable, desired.encrypted)
    {
        let reason = format!(
            "attachable is {} and encrypted {}; Docker cannot change a network, and applications are attached to it",
            fact.attachable, fact.encrypted
        );
        drafts.hold(object, HoldReason::NeedsPerson(reason));
    }
}

fn plan_files(
    view: &View<'_>,
    facts: Option<&SwarmFacts>,
    manager: &HostName,
    drafts: &mut Drafts,
) {
    let swarm = &view.desired.swarm;
    let none = BTreeMap::new();
    let mut plan_file = |file: &SwarmFile,
                         object: ObjectId,
                         there: &BTreeMap<String, ConfigFact>,
                         action: SwarmAction| {
        match there.get(&file.name) {
            None => {
                let draft = Draft::new(
                    object,
                    Verb::Create,
                    "it does not exist",
                    60,
                    Action::Swarm(manager.clone(), action),
                );
                let digest = format!("sha256:{}", &file.content.digest()[..12]);
                drafts.step(draft.needs([ObjectId::Swarm]).change("content", None, Some(digest)));
            }
            Some(fact) if !ours(view, &fact.labels) => {
                let reason = "one of that name exists without our label".to_owned();
                drafts.hold(object, HoldReason::Foreign(reason));
            }
            Some(_) => {}
        }
    };
    for file in &swarm.configs {
        let there = facts.map_or(&none, |facts| &facts.configs);
        let action = SwarmAction::CreateConfig(file.clone());
        plan_file(file, ObjectId::Config(file.name.clone()), there, action);
    }
    for file in &swarm.secrets {
        let there = facts.map_or(&none, |facts| &facts.secrets);
        let action = SwarmAction::CreateSecret(file.clone());
        plan_file(file, ObjectId::Secret(file.name.clone()), there, action);
    }
}

fn ours(view: &View<'_>, labels: &BTreeMap<String, String>) -> bool {
    labels.get(OWNER_LABEL) == Some(&view.desired.cluster)
}

fn plan_services(
    view: &View<'_>,
    facts: Option<&SwarmFacts>,
    manager: &HostName,
    drafts: &mut Drafts,
) {
    // Nodes that are up run a task each, and nodes that are about to enter will. A server that
    // cannot be brought in now gets its task whenever it comes.
    let up = |node: &&NodeFact| node.state == "ready" && node.availability == "active";
    let entering: Vec<&HostName> = view
        .desired
        .swarm
        .nodes
        .iter()
        .map(|(host, _)| host)
        .filter(|host| drafts.steps.iter().any(|step| enters(step, host) && !drafts.blocked(step)))
        .collect();
    let tasks = facts.map_or(0, |facts| facts.nodes.values().filter(up).count()) + entering.len();
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
        match facts.and_then(|facts| facts.services.get(&spec.name)) {
            None => drafts.step(create_service(&entering, manager, spec, tasks)),
            Some(fact) if !ours(view, &fact.spec.labels) => {
                let reason = "a service of that name exists without our label".to_owned();
                drafts.hold(object, HoldReason::Foreign(reason));
            }
            Some(fact) => plan_service(manager, spec, fact, tasks - entering.len(), drafts),
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
        let facts = view.host(host)?;
        super::stranger::stranger(view, host, facts, &[component], "docker.service")
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
        Action::Swarm(manager.clone(), SwarmAction::CreateService { spec, tasks }),
    )
    .change("image", None, Some(image))
    .change("tasks", None, Some(tasks.to_string()))
    .needs(needs)
}

fn plan_service(
    manager: &HostName,
    spec: ServiceSpec,
    fact: &ServiceFact,
    tasks: usize,
    drafts: &mut Drafts,
) {
    let object = ObjectId::Service(spec.name.clone());
    let changes = service_changes(&spec, &fact.spec);
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
        let running = fact.tasks.iter().filter(|task| task.state == "running").count();
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
    if spec.digest.is_none() {
        let reason = format!("the digest of {} could not be learnt from its registry", spec.image);
        drafts.hold(object, HoldReason::Unknown(reason));
        return;
    }
    let needs: BTreeSet<ObjectId> = spec
        .configs
        .iter()
        .map(|mount| ObjectId::Config(mount.source.clone()))
        .chain(spec.secrets.iter().map(|mount| ObjectId::Secret(mount.source.clone())))
        .collect();
    let action = SwarmAction::UpdateService { spec, version: fact.version, tasks };
    let mut draft =
        Draft::new(object, Verb::Update, "it differs", 600, Action::Swarm(manager.clone(), action))
            .impact(Impact::Restart)
            .needs(needs);
    draft.changes = changes;
    drafts.step(draft);
}

/// Field by field through the serialised form, so that no field can be forgotten.
pub(super) fn service_changes(desired: &ServiceSpec, observed: &ServiceSpec) -> Vec<Change> {
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

/// Removes configs and secrets of ours that no service uses, beyond those kept for a rollback.
fn plan_retention(view: &View<'_>, facts: &SwarmFacts, manager: &HostName, drafts: &mut Drafts) {
    let swarm = &view.desired.swarm;
    let used: BTreeSet<&str> = facts
        .services
        .values()
        .flat_map(|service| service.spec.configs.iter().chain(&service.spec.secrets))
        .map(|mount| mount.source.as_str())
        .collect();
    let bases = |files: &[SwarmFile]| -> BTreeSet<String> {
        files.iter().filter_map(|file| Some(file.name.rsplit_once('-')?.0.to_owned())).collect()
    };
    let desired: BTreeSet<&str> =
        swarm.configs.iter().chain(&swarm.secrets).map(|file| file.name.as_str()).collect();
    let superseded = |base: &str, there: &BTreeMap<String, ConfigFact>| -> Vec<String> {
        let mut names: Vec<_> = there
            .iter()
            .filter(|(name, fact)| {
                name.rsplit_once('-').is_some_and(|(prefix, _)| prefix == base)
                    && ours(view, &fact.labels)
                    && !used.contains(name.as_str())
                    && !desired.contains(name.as_str())
            })
            .collect();
        names.sort_by(|a, b| b.1.created_at.cmp(&a.1.created_at).then_with(|| a.0.cmp(b.0)));
        names.into_iter().skip(swarm.retention as usize).map(|(name, _)| name.clone()).collect()
    };
    let mut remove = |object: ObjectId, action: SwarmAction| {
        drafts.step(Draft::new(
            object,
            Verb::Remove,
            "superseded, unused and beyond retention",
            60,
            Action::Swarm(manager.clone(), action),
        ));
    };
    for base in bases(&swarm.configs) {
        for name in superseded(&base, &facts.configs) {
            remove(ObjectId::Config(name.clone()), SwarmAction::RemoveConfig { name });
        }
    }
    for base in bases(&swarm.secrets) {
        for name in superseded(&base, &facts.secrets) {
            remove(ObjectId::Secret(name.clone()), SwarmAction::RemoveSecret { name });
        }
    }
}
