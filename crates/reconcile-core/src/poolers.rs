//! Where poolers for writes run: who has to wait while the primary moves. A drained node has none,
//! and no clients.

use crate::{
    desired::Desired,
    model::{HostName, Observation, Observed, SwarmFacts},
};

/// Why the primary does not move now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PoolersError {
    /// A pooler may run where none is seen.
    #[error("{0}")]
    Unknown(String),
    /// A node that should have a pooler has none: it may come up in the middle, and not wait.
    #[error("the pooler on {0} does not run")]
    Stopped(HostName),
}

/// Whether the pooler for writes runs on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pooler {
    Runs,
    /// The node is drained.
    NotWanted,
    Stopped,
}

/// Nodes whose poolers wait while the primary moves, in the order of the file.
pub fn poolers(desired: &Desired, observed: &Observed) -> Result<Vec<HostName>, PoolersError> {
    let mut running = Vec::new();
    for (node, _) in &desired.swarm.nodes {
        match pooler(desired, observed, node).map_err(PoolersError::Unknown)? {
            Pooler::Runs => running.push(node.clone()),
            Pooler::NotWanted => {}
            Pooler::Stopped => return Err(PoolersError::Stopped(node.clone())),
        }
    }
    Ok(running)
}

/// Whether it is known that no pooler runs on a node, so that nobody waits in it.
pub fn stopped(desired: &Desired, observed: &Observed, node: &HostName) -> bool {
    matches!(pooler(desired, observed, node), Ok(Pooler::NotWanted | Pooler::Stopped))
}

fn pooler(desired: &Desired, observed: &Observed, node: &HostName) -> Result<Pooler, String> {
    let Some(facts) = observed.host(node) else {
        return Err(format!("{node} is not known, and neither is its pooler"));
    };
    let swarm: &SwarmFacts = match &observed.swarm {
        Observation::Known(Some(swarm)) => swarm,
        Observation::Known(None) => return Ok(Pooler::Stopped),
        Observation::Unknown { .. } => {
            return Err("the Swarm is not known, and neither is where poolers run".to_owned());
        }
    };
    let docker = match &facts.docker {
        Observation::Known(Some(docker)) => docker,
        Observation::Known(None) if desired.leaves(node) => return Ok(Pooler::NotWanted),
        Observation::Known(None) => return Ok(Pooler::Stopped),
        Observation::Unknown { .. } => {
            return Err(format!("Docker on {node} is not known, and neither is its pooler"));
        }
    };
    let id = docker.swarm.node_id.as_str();
    let ours = desired.swarm.services.iter().filter(|service| service.name.ends_with("_pgbouncer"));
    let tasks = ours.filter_map(|ours| swarm.services.get(&ours.name)).flat_map(|s| &s.tasks);
    if tasks.into_iter().any(|task| task.node_id == id && task.state == "running") {
        return Ok(Pooler::Runs);
    }
    match swarm.nodes.get(id) {
        Some(seen) if seen.availability == "drain" => Ok(Pooler::NotWanted),
        // Its containers may run on while the managers do not hear it.
        Some(seen) if seen.state != "ready" => {
            Err(format!("the Swarm does not hear {node}, and so its pooler is not known"))
        }
        // It has left the Swarm.
        None if desired.leaves(node) => Ok(Pooler::NotWanted),
        Some(_) | None => Ok(Pooler::Stopped),
    }
}
