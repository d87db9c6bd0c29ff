//! The Swarm: founding it, joining servers, its network, configs, secrets and services.

mod files;
mod nodes;
pub(super) mod rollout;
mod services;

use super::{
    HoldReason,
    draft::{Draft, Drafts, View},
};
use crate::{
    action::{Action, SwarmAction},
    model::{HostName, ObjectId, Observation},
};

/// Name of the claim on a server's Swarm membership.
pub(super) const CLAIM: &str = "swarm";

/// True for the step by which a server founds or joins the Swarm.
pub(super) fn enters(step: &Draft, host: &HostName) -> bool {
    matches!(
        &step.action,
        Action::Swarm(on, SwarmAction::Init { .. } | SwarmAction::Join { .. }) if on == host
    )
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
    let Some(manager) = nodes::plan_nodes(view, facts, drafts) else { return };
    files::plan_network(view, facts, &manager, drafts);
    files::plan_files(view, facts, &manager, drafts);
    services::plan_services(view, facts, &manager, drafts);
    if let Some(facts) = facts {
        files::plan_retention(view, facts, &manager, drafts);
    }
}
