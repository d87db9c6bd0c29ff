//! One look at the Swarm: all lists at once, then what hangs on them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::{StreamExt, stream};
use reconcile_core::{
    model::{
        ConfigFact, GivenUp, NetworkFact, NodeFact, Observation, ServiceFact, ServiceMode,
        SwarmFacts, TaskFact,
    },
    probe::SwarmRequest,
};
use serde::Deserialize;
use serde_json::json;

use crate::{
    convert::{from_engine, made_from},
    engine::{Engine, filters},
    fault::Fault,
    labels::{CLUSTER, RESOLVED_IMAGE, WAITS},
    wire::{File, Network, Node, Service, Swarm, Task},
};

/// Longest wait for a registry: a look at everything else must not hang on it.
const REGISTRY: Duration = Duration::from_secs(10);

/// Asks `engine`, a manager's, for everything in `request`.
pub(crate) async fn observe(engine: &Engine, request: &SwarmRequest) -> Result<SwarmFacts, Fault> {
    let (swarm, nodes, networks, configs, secrets, (services, tasks)) = tokio::try_join!(
        engine.get::<Swarm>("/swarm"),
        nodes(engine),
        engine.get::<Vec<Network>>("/networks"),
        engine.get::<Vec<File>>("/configs"),
        engine.get::<Vec<File>>("/secrets"),
        // Tasks can be asked for only by the ids of services that exist.
        services_and_tasks(engine, request),
    )?;
    let names = network_names(engine, &networks, &services).await?;
    let services = service_facts(&services, &tasks, &nodes, &names)?;
    let images = images(engine, request, &services).await;
    Ok(SwarmFacts {
        cluster_id: swarm.id,
        labels: swarm.spec.labels,
        nodes: nodes.into_iter().map(|(id, node)| (id, node_fact(node))).collect(),
        networks: network_facts(networks),
        configs: file_facts(configs),
        secrets: file_facts(secrets),
        services: services
            .into_iter()
            .map(|known| (known.fact.spec.name.clone(), known.fact))
            .collect(),
        images,
    })
}

/// All services, and the tasks of those asked for.
async fn services_and_tasks(
    engine: &Engine,
    request: &SwarmRequest,
) -> Result<(Vec<Service>, Vec<Task>), Fault> {
    let services: Vec<Service> = engine.get("/services").await?;
    let asked: Vec<&str> = services
        .iter()
        .filter(|service| request.services.contains(service.name()))
        .map(|service| service.id.as_str())
        .collect();
    let tasks = tasks(engine, &asked).await?;
    Ok((services, tasks))
}

/// All nodes, by id.
pub(crate) async fn nodes(engine: &Engine) -> Result<BTreeMap<String, Node>, Fault> {
    let nodes: Vec<Node> = engine.get("/nodes").await?;
    Ok(nodes.into_iter().map(|node| (node.id.clone(), node)).collect())
}

/// All tasks, past ones included, of the services with these ids.
pub(crate) async fn tasks(engine: &Engine, services: &[&str]) -> Result<Vec<Task>, Fault> {
    if services.is_empty() {
        // Without a filter the engine would list the tasks of everybody.
        return Ok(Vec::new());
    }
    engine.get(&format!("/tasks{}", filters("service", services))).await
}

/// The digest that the registry holds for an image reference, as the engine sees it.
pub(crate) async fn resolve(
    engine: &Engine,
    image: &str,
    limit: Duration,
) -> Result<String, Fault> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        descriptor: Descriptor,
    }
    #[derive(Deserialize)]
    struct Descriptor {
        digest: String,
    }
    if let Some((_, digest)) = image.split_once('@') {
        return Ok(digest.to_owned());
    }
    let answer: Answer = engine.get_within(limit, &format!("/distribution/{image}/json")).await?;
    Ok(answer.descriptor.digest)
}

/// A service as known so far, with what its image was resolved from.
struct Known {
    fact: ServiceFact,
    ours: bool,
    resolved_from: Option<String>,
}

fn service_facts(
    services: &[Service],
    tasks: &[Task],
    nodes: &BTreeMap<String, Node>,
    networks: &BTreeMap<String, String>,
) -> Result<Vec<Known>, Fault> {
    services
        .iter()
        .map(|service| {
            let spec = from_engine(&service.spec, networks)
                .map_err(|error| Fault::Garbled(format!("service {}: {error}", service.name())))?;
            let global = spec.mode == ServiceMode::Global;
            let own = tasks.iter().filter(|task| task.service_id == service.id);
            let fact = ServiceFact {
                id: service.id.clone(),
                version: service.version.index,
                update_state: service.update_status.state.clone(),
                given_up: given_up(service, own.clone(), nodes, networks),
                tasks: task_facts(own, global, nodes),
                spec,
            };
            Ok(Known {
                fact,
                ours: service.label(CLUSTER).is_some(),
                resolved_from: service.label(RESOLVED_IMAGE).map(str::to_owned),
            })
        })
        .collect()
}

/// What an update tried that was rolled back: the newest task that was not made from what the service is
/// now, with the error where tasks like it broke. What cannot be read says nothing. Older ones are of
/// updates before; those of a pooler may have broken while the one before it held the port.
fn given_up<'a>(
    service: &Service,
    tasks: impl Iterator<Item = &'a Task>,
    nodes: &BTreeMap<String, Node>,
    networks: &BTreeMap<String, String>,
) -> Option<GivenUp> {
    if !service.update_status.state.starts_with("rollback") {
        return None;
    }
    let mut others: Vec<&Task> =
        tasks.filter(|task| !made_from(&task.spec, &service.spec["TaskTemplate"])).collect();
    others.sort_by_key(|task| std::cmp::Reverse(task.age_key()));
    let tried = others.first()?;
    let whole = json!({ "Name": service.name(), "TaskTemplate": tried.spec });
    let spec = from_engine(&whole, networks).ok()?;
    let alike = others.iter().filter(|task| made_from(&task.spec, &tried.spec));
    let at = |task: &Task| {
        nodes.get(&task.node_id).map_or(task.node_id.as_str(), Node::label).to_owned()
    };
    let cause = match alike.into_iter().find(|task| task.broke()) {
        Some(task) => format!("{}: {}: {}", at(task), task.status.state, task.status.reason()),
        None => format!("{}: it ran, and was taken back", at(tried)),
    };
    Some(GivenUp { spec, cause })
}

/// Reduces a service's tasks to the newest for each place: a node for a global service, else a
/// slot. One that does not run tells the last error seen at its place.
fn task_facts<'a>(
    tasks: impl Iterator<Item = &'a Task>,
    global: bool,
    nodes: &BTreeMap<String, Node>,
) -> Vec<TaskFact> {
    let mut places: BTreeMap<(&str, u64), Vec<&Task>> = BTreeMap::new();
    for task in tasks {
        let place = if global { (task.node_id.as_str(), 0) } else { ("", task.slot) };
        places.entry(place).or_default().push(task);
    }
    let mut facts: Vec<_> = places
        .into_values()
        .filter_map(|mut at_place| {
            at_place.sort_by_key(|task| task.age_key());
            let newest = at_place.last()?;
            let node = nodes.get(&newest.node_id);
            let runs = newest.status.state == "running";
            let stays = newest.wanted() || runs && node.is_some_and(Node::ready);
            if !stays {
                return None;
            }
            let mut fact = TaskFact {
                node_id: newest.node_id.clone(),
                state: newest.status.state.clone(),
                desired_state: newest.desired_state.clone(),
                message: newest.status.reason(),
            };
            if runs {
                // Swarm goes on saying `running` for a day on a node that it no longer hears of.
                if let Some(trouble) = not_ready(node) {
                    "unknown".clone_into(&mut fact.state);
                    fact.message = trouble;
                }
            } else if newest.status.err.is_empty()
                && let Some(broken) = at_place.iter().rev().find(|task| task.broke())
            {
                fact.message = format!("{}: {}", broken.status.state, broken.status.reason());
            }
            Some(fact)
        })
        .collect();
    facts.sort_by(|one, other| one.node_id.cmp(&other.node_id));
    facts
}

/// Why nothing can be said about tasks on a node; None where it is ready.
fn not_ready(node: Option<&Node>) -> Option<String> {
    match node {
        None => Some("its node is no longer in the Swarm".to_owned()),
        Some(node) if !node.ready() => Some(
            format!("node {} is {} {}", node.label(), node.status.state, node.status.message)
                .trim_end()
                .to_owned(),
        ),
        Some(_) => None,
    }
}

/// Names of all networks that services are attached to. Predefined ones such as `host` have an id
/// of their own in the Swarm that no list gives.
async fn network_names(
    engine: &Engine,
    networks: &[Network],
    services: &[Service],
) -> Result<BTreeMap<String, String>, Fault> {
    let mut names: BTreeMap<_, _> =
        networks.iter().map(|network| (network.id.clone(), network.name.clone())).collect();
    let attached = services.iter().flat_map(|service| {
        ["/TaskTemplate/Networks", "/Networks"].into_iter().flat_map(|path| {
            service.spec.pointer(path).and_then(|list| list.as_array()).into_iter().flatten()
        })
    });
    let targets: BTreeSet<String> =
        attached.filter_map(|attached| Some(attached["Target"].as_str()?.to_owned())).collect();
    for target in targets {
        if names.contains_key(&target) {
            continue;
        }
        let name = match engine.network_name(&target).await {
            Ok(name) => name,
            // Removed under the service by force: let the id stand, as a difference that shows.
            Err(fault) if fault.status() == Some(404) => target.clone(),
            Err(fault) => return Err(fault),
        };
        names.insert(target, name);
    }
    Ok(names)
}

/// A digest for each image asked for. A running service of ours holds on to the digest that its
/// reference had when it was written, so that a moved tag alone changes nothing.
async fn images(
    engine: &Engine,
    request: &SwarmRequest,
    services: &[Known],
) -> BTreeMap<String, Observation<String>> {
    let pinned = |image: &str, running: bool| {
        services
            .iter()
            .filter(|known| known.ours && known.resolved_from.as_deref() == Some(image))
            .filter(|known| !running || known.fact.tasks.iter().any(|task| task.state == "running"))
            .find_map(|known| known.fact.spec.digest.clone())
    };
    let look_up = |image: String| {
        let (held, stale) = (pinned(&image, true), pinned(&image, false));
        async move {
            if let Some(digest) = held {
                return (image, Observation::Known(digest));
            }
            let digest = match resolve(engine, &image, REGISTRY).await {
                Ok(digest) => Observation::Known(digest),
                Err(fault) => stale.map_or_else(
                    || Observation::unknown(format!("resolve image {image}: {fault}")),
                    Observation::Known,
                ),
            };
            (image, digest)
        }
    };
    let look_ups: Vec<_> = request.images.iter().cloned().map(look_up).collect();
    stream::iter(look_ups).buffer_unordered(4).collect().await
}

fn node_fact(node: Node) -> NodeFact {
    let status = node.status.addr;
    // An engine that has not settled on an address says 0.0.0.0; its managers' list knows better.
    let address = if status.is_empty() || status == "0.0.0.0" {
        let manager = &node.manager_status.addr;
        manager.rsplit_once(':').map_or(status, |(address, _)| address.to_owned())
    } else {
        status
    };
    NodeFact {
        hostname: node.description.hostname,
        address,
        manager: node.spec.role == "manager",
        availability: node.spec.availability,
        state: node.status.state,
        reachability: node.manager_status.reachability,
        leader: node.manager_status.leader,
        waits: node.spec.labels.contains_key(WAITS),
    }
}

/// The engine's own networks and the Swarm's; of two with one name the Swarm's counts.
fn network_facts(networks: Vec<Network>) -> BTreeMap<String, NetworkFact> {
    let mut facts: BTreeMap<String, NetworkFact> = BTreeMap::new();
    for network in networks {
        if facts.get(&network.name).is_some_and(|fact| fact.scope == "swarm") {
            continue;
        }
        facts.insert(network.name.clone(), network_fact(network));
    }
    facts
}

pub(crate) fn network_fact(network: Network) -> NetworkFact {
    NetworkFact {
        id: network.id,
        driver: network.driver,
        scope: network.scope,
        attachable: network.attachable,
        encrypted: network.options.contains_key("encrypted"),
        subnets: network.ipam.config.into_iter().map(|config| config.subnet).collect(),
        labels: network.labels,
    }
}

fn file_facts(files: Vec<File>) -> BTreeMap<String, ConfigFact> {
    files
        .into_iter()
        .map(|file| {
            let fact =
                ConfigFact { id: file.id, labels: file.spec.labels, created_at: file.created_at };
            (file.spec.name, fact)
        })
        .collect()
}
