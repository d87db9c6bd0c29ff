//! Carrying out one action on one engine: what must hold before, the request, what must hold after.

mod files;
mod members;
mod network;
mod rollout;
mod service;

use std::time::Duration;

use reconcile_core::{
    action::SwarmAction,
    ports::{EffectError, Retry},
};
use tokio::time::{Instant, sleep, timeout};

use crate::{client::SwarmClient, engine::Engine, fault::Fault};

/// Pause between two looks at a node.
const LOOK: Duration = Duration::from_millis(300);

/// What an action is and where it runs, for its errors and its deadline.
struct Task<'a> {
    engine: &'a Engine,
    attempt: String,
    deadline: Instant,
}

/// Carries out `action` on `engine`; see [`SwarmClient::apply`].
pub(crate) async fn apply(
    client: &SwarmClient,
    engine: &Engine,
    action: &SwarmAction,
    deadline: Duration,
) -> Result<(), EffectError> {
    let task =
        Task { engine, attempt: attempt(engine, action), deadline: Instant::now() + deadline };
    let work = async {
        match action {
            SwarmAction::Init { advertise, labels } => {
                members::init(&task, advertise, labels).await
            }
            SwarmAction::Label { labels } => members::label(&task, labels).await,
            SwarmAction::Join { advertise, manager, via, remote } => {
                let via = client.engine(via, &task.attempt)?;
                members::join(&task, &via, advertise, *manager, remote).await
            }
            SwarmAction::SetRole { node_id, manager } => {
                members::set_role(&task, node_id, *manager).await
            }
            SwarmAction::Drain { node_id } => members::drain(&task, node_id).await,
            SwarmAction::Leave => members::leave(&task).await,
            SwarmAction::RemoveNode { node_id } => members::remove(&task, node_id).await,
            SwarmAction::CreateNetwork(network) => network::create(&task, network).await,
            SwarmAction::CreateConfig(file) => {
                files::create(&task, files::Kind::Config, file).await
            }
            SwarmAction::CreateSecret(file) => {
                files::create(&task, files::Kind::Secret, file).await
            }
            SwarmAction::RemoveConfig { name } => {
                files::remove(&task, files::Kind::Config, name).await
            }
            SwarmAction::RemoveSecret { name } => {
                files::remove(&task, files::Kind::Secret, name).await
            }
            SwarmAction::CreateService { spec, tasks } => {
                service::create(&task, spec, *tasks).await
            }
            SwarmAction::UpdateService { spec, version, tasks, waits, first: _, begins: _ } => {
                service::update(&task, spec, *version, *tasks, waits).await
            }
            SwarmAction::UpdateNode { node_id, services, steady_ms, updated: _, lost: _ } => {
                let steady = Duration::from_millis(*steady_ms);
                rollout::next(&task, node_id, services, steady).await
            }
            SwarmAction::AwaitService { name, tasks } => service::wait(&task, name, *tasks).await,
        }
    };
    // Those that wait look at the deadline themselves and say what was missing; the grace lets
    // their last look end.
    match timeout(deadline + LOOK, work).await {
        Ok(done) => done,
        Err(_) => {
            Err(task.error(format!("not done within {} s", deadline.as_secs()), Retry::Later))
        }
    }
}

/// See [`SwarmClient::go_back`].
pub(crate) async fn go_back(
    engine: &Engine,
    cluster: &str,
    deadline: Duration,
) -> Result<Vec<String>, EffectError> {
    let attempt = format!("take back what is half way in the services of cluster {cluster}");
    rollout::go_back(&Task { engine, attempt, deadline: Instant::now() + deadline }, cluster).await
}

fn attempt(engine: &Engine, action: &SwarmAction) -> String {
    let host = engine.host();
    match action {
        SwarmAction::Init { .. } => format!("found a Swarm on {host}"),
        SwarmAction::Label { .. } => format!("label the Swarm through {host}"),
        SwarmAction::Join { via, .. } => format!("join {host} to the Swarm of {via}"),
        SwarmAction::SetRole { node_id, .. } => format!("change the role of node {node_id}"),
        SwarmAction::Drain { node_id } => format!("drain node {node_id}"),
        SwarmAction::Leave => format!("take {host} out of the Swarm"),
        SwarmAction::RemoveNode { node_id } => format!("remove node {node_id}"),
        SwarmAction::CreateNetwork(network) => format!("create network {}", network.name),
        SwarmAction::CreateConfig(file) => format!("create config {}", file.name),
        SwarmAction::CreateSecret(file) => format!("create secret {}", file.name),
        SwarmAction::RemoveConfig { name } => format!("remove config {name}"),
        SwarmAction::RemoveSecret { name } => format!("remove secret {name}"),
        SwarmAction::CreateService { spec, .. } => format!("create service {}", spec.name),
        SwarmAction::UpdateService { spec, .. } => format!("update service {}", spec.name),
        SwarmAction::UpdateNode { node_id, .. } => format!("update the services on node {node_id}"),
        SwarmAction::AwaitService { name, .. } => format!("wait for service {name}"),
    }
}

impl Task<'_> {
    fn error(&self, cause: impl Into<String>, retry: Retry) -> EffectError {
        EffectError::new(Some(self.engine.host()), &self.attempt, cause, retry)
    }

    /// Turns a fault into this action's error.
    fn failed(&self) -> impl Fn(Fault) -> EffectError {
        |fault| fault.at(self.engine.host(), &self.attempt)
    }

    /// Waits a moment, or fails with `missing` where the deadline would pass meanwhile.
    async fn pause(&self, missing: &str) -> Result<(), EffectError> {
        if Instant::now() + LOOK >= self.deadline {
            return Err(self.error(missing, Retry::Later));
        }
        sleep(LOOK).await;
        Ok(())
    }
}
