//! The entry point: one client for all servers, with one pooled engine for each.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use reconcile_core::{
    action::SwarmAction,
    model::{HostName, SwarmFacts},
    ports::EffectError,
    probe::SwarmRequest,
};
use reconcile_dial::Dialer;

use crate::{apply, engine::Engine, events, observe};

/// Observes and changes the Swarm through the engines of its servers.
pub struct SwarmClient {
    dialer: Arc<dyn Dialer>,
    engines: Mutex<BTreeMap<HostName, Arc<Engine>>>,
}

impl SwarmClient {
    /// A client that reaches engines through `dialer`. Dials nothing yet.
    pub fn new(dialer: Arc<dyn Dialer>) -> Self {
        Self { dialer, engines: Mutex::default() }
    }

    /// Learns the Swarm's state from the manager `via`.
    ///
    /// A task that its node can no longer vouch for (the node is not ready) never counts as
    /// running: its state is `unknown`.
    pub async fn observe(
        &self,
        via: &HostName,
        request: &SwarmRequest,
    ) -> Result<SwarmFacts, EffectError> {
        let attempt = format!("observe the Swarm through {via}");
        let engine = self.engine(via, &attempt)?;
        // Boxed: seven requests side by side make a large future.
        Box::pin(observe::observe(&engine, request)).await.map_err(|fault| fault.at(via, attempt))
    }

    /// Carries out one action on the engine of `host` and waits until it took effect, at most for
    /// `deadline`.
    ///
    /// # Guarantees
    /// Idempotent. An error does not say that nothing happened: observe before deciding again.
    pub async fn apply(
        &self,
        host: &HostName,
        action: &SwarmAction,
        deadline: Duration,
    ) -> Result<(), EffectError> {
        let engine = self.engine(host, "reach the Docker engine")?;
        // Boxed: the largest of many actions sets the size.
        Box::pin(apply::apply(self, &engine, action, deadline)).await
    }

    /// Has the services of a cluster go back whose update came to some nodes while others still wait for it,
    /// and waits until they have, at most for `deadline`; gives their names. Only those of which the nodes
    /// that wait run what Docker would go back to.
    pub async fn go_back(
        &self,
        via: &HostName,
        cluster: &str,
        deadline: Duration,
    ) -> Result<Vec<String>, EffectError> {
        let engine = self.engine(via, "reach the Docker engine")?;
        Box::pin(apply::go_back(&engine, cluster, deadline)).await
    }

    /// Hints that something in the Swarm or on the engine of `via` changed. They say where to look
    /// and never what is: the stream may lose some, and ends when the connection does.
    pub async fn events(&self, via: &HostName) -> Result<events::Hints, EffectError> {
        let attempt = format!("follow the events of the engine on {via}");
        let engine = self.engine(via, &attempt)?;
        events::follow(&engine).await.map_err(|fault| fault.at(via, attempt))
    }

    /// The engine of `host`, shared by all calls.
    pub(crate) fn engine(
        &self,
        host: &HostName,
        attempt: &str,
    ) -> Result<Arc<Engine>, EffectError> {
        let mut engines = self.engines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(engine) = engines.get(host) {
            return Ok(Arc::clone(engine));
        }
        let engine =
            Engine::new(Arc::clone(&self.dialer), host).map_err(|fault| fault.at(host, attempt))?;
        let engine = Arc::new(engine);
        engines.insert(host.clone(), Arc::clone(&engine));
        Ok(engine)
    }
}
