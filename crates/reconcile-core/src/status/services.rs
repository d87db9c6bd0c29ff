//! The services of the Swarm and their tasks, as people see them.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Condition, Truth};
use crate::{
    desired::Desired,
    model::{HostName, Observed},
};

/// A service of the stack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceStatus {
    /// Name.
    pub name: String,
    /// Image that runs; the file's where none does.
    pub image: String,
    /// The file's image, where another one runs.
    pub desired_image: Option<String>,
    /// Running tasks; None while the Swarm is unknown.
    pub running: Option<usize>,
    /// Tasks wanted.
    pub wanted: usize,
    /// Its task on each server, as far as there is one.
    pub tasks: Vec<TaskStatus>,
}

/// A task of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskStatus {
    /// Server.
    pub host: HostName,
    /// `running`, `preparing`, `failed`, …
    pub state: String,
    /// It runs and gives no sign of life, by the last proof of service.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub silent: bool,
}

pub(super) fn utilities(services: &[ServiceStatus], unknown: Option<&str>) -> Condition {
    let kind = "UtilitiesHealthy";
    let all = services.len();
    if let Some(why) = unknown {
        let names: Vec<_> = services.iter().map(|service| service.name.as_str()).collect();
        let message = format!("not observed: {why}; expected: {}", names.join(", "));
        return Condition { kind, status: Truth::Unknown, reason: "SwarmUnknown", message };
    }
    let runs = |service: &ServiceStatus| service.running.unwrap_or(0);
    let (whole, lacking): (Vec<_>, Vec<_>) =
        services.iter().partition(|service| runs(service) >= service.wanted);
    let silent: Vec<_> = services
        .iter()
        .flat_map(|service| service.tasks.iter().map(move |task| (service, task)))
        .filter(|(_, task)| task.silent)
        .map(|(service, task)| format!("{} on {}", service.name, task.host))
        .collect();
    if lacking.is_empty() && !silent.is_empty() {
        let message = format!("no sign of life of {}", silent.join(", "));
        return Condition { kind, status: Truth::False, reason: "TasksSilent", message };
    }
    if lacking.is_empty() {
        let message = format!("{all} of {all} services run all their tasks");
        return Condition { kind, status: Truth::True, reason: "AllTasksRun", message };
    }
    let mut message = format!("{} of {all} services run all their tasks", whole.len());
    let (absent, partly): (Vec<_>, Vec<_>) =
        lacking.into_iter().partition(|service| runs(service) == 0);
    if !absent.is_empty() {
        let names: Vec<_> = absent.iter().map(|service| service.name.as_str()).collect();
        message.push_str(&format!("; missing: {}", names.join(", ")));
    }
    for service in partly {
        let (name, runs, wanted) = (&service.name, runs(service), service.wanted);
        message.push_str(&format!("; {name} runs {runs} of {wanted} tasks"));
    }
    Condition { kind, status: Truth::False, reason: "TasksMissing", message }
}

pub(super) fn services(desired: &Desired, observed: &Observed) -> Vec<ServiceStatus> {
    // Absent is known, and then nothing runs.
    let swarm = observed.swarm.known();
    let hosts: BTreeMap<&str, &HostName> = observed
        .hosts
        .iter()
        .filter_map(|(host, facts)| {
            let docker = facts.known()?.docker.present()?;
            Some((docker.swarm.node_id.as_str(), host))
        })
        .filter(|(node, _)| !node.is_empty())
        .collect();
    desired
        .swarm
        .services
        .iter()
        .map(|spec| {
            let fact = swarm.map(|swarm| swarm.as_ref()?.services.get(&spec.name));
            let tasks = || fact.flatten().into_iter().flat_map(|fact| &fact.tasks);
            ServiceStatus {
                name: spec.name.clone(),
                image: fact.flatten().map_or(&spec.image, |fact| &fact.spec.image).clone(),
                desired_image: fact
                    .flatten()
                    .filter(|fact| fact.spec.image != spec.image)
                    .map(|_| spec.image.clone()),
                // The Swarm calls the tasks of a dead node running for a while. Of a server that lets nobody
                // look its word is all there is.
                running: fact.map(|_| {
                    tasks()
                        .filter(|task| task.state == "running")
                        .filter(|task| {
                            hosts.contains_key(task.node_id.as_str()) || !observed.barred.is_empty()
                        })
                        .count()
                }),
                wanted: desired
                    .swarm
                    .nodes
                    .iter()
                    .filter(|(host, _)| !desired.leaves(host))
                    .count(),
                tasks: tasks()
                    .filter_map(|task| {
                        let host = hosts.get(task.node_id.as_str())?;
                        let (host, state) = ((*host).clone(), task.state.clone());
                        Some(TaskStatus { host, state, silent: false })
                    })
                    .collect(),
            }
        })
        .collect()
}
