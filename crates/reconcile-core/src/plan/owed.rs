//! What an operator that was cut off still owes a server: a unit that was not told of its new file,
//! a pooler that was not resumed. Both are observed there, so any operator makes them good.

use super::{
    Impact, Verb,
    draft::{Draft, Drafts, View},
    etcd,
};
use crate::{
    action::{Action, HostAction, UnitVerb},
    desired::{etcd::UNIT as ETCD, patroni::UNIT as PATRONI},
    model::{HostFacts, HostName, ObjectId, UnitFact},
};

/// Comes after files and members, whose own steps may tell a unit already.
pub(super) fn plan(view: &View<'_>, drafts: &mut Drafts) {
    for host in view.desired.servers.keys() {
        let Some(facts) = view.host(host).filter(|facts| view.unfit(facts).is_none()) else {
            continue;
        };
        plan_pooler(view, host, facts, drafts);
        plan_units(view, host, facts, drafts);
    }
}

/// No transaction of ours is under way while we plan, and nobody else's while we hold the lease.
fn plan_pooler(view: &View<'_>, host: &HostName, facts: &HostFacts, drafts: &mut Drafts) {
    if !facts.pooler_held {
        return;
    }
    let (cluster, port) = (view.desired.cluster.clone(), view.desired.swarm.pooler_port);
    let action = Action::Host(host.clone(), HostAction::ResumePooler { cluster, port });
    drafts.step(Draft::new(
        ObjectId::Pooler(host.clone()),
        Verb::Update,
        "its clients wait: a transaction is under way, or was cut off",
        30,
        action,
    ));
}

/// What a unit is to be told, and why.
fn due(unit: &str, fact: &UnitFact) -> Option<(UnitVerb, &'static str)> {
    // What was started since has read the new file.
    let owed = fact.owed.as_ref().filter(|owed| fact.started_at <= owed.since);
    // Patroni's restart is a restart of the member: roll.rs
    let outdated = fact.outdated && unit != PATRONI;
    match owed {
        _ if outdated => Some((UnitVerb::Restart, "it runs what was installed before")),
        Some(owed) => Some((owed.verb, "its file was replaced, and it was not told")),
        None => None,
    }
}

fn plan_units(view: &View<'_>, host: &HostName, facts: &HostFacts, drafts: &mut Drafts) {
    if view.leaves(host) {
        return;
    }
    for (unit, fact) in &facts.units {
        let Some((verb, reason)) = due(unit, fact) else { continue };
        let runs = match verb {
            UnitVerb::Reload => fact.active == "active",
            // etcd may wait for ever for what its new file would give it.
            _ => matches!(fact.active.as_str(), "active" | "activating" | "reloading"),
        };
        if !runs {
            continue;
        }
        let object = ObjectId::Unit(host.clone(), unit.clone());
        let told = |draft: &Draft| match &draft.action {
            Action::Host(on, HostAction::WriteFile { notify: Some((of, _)), .. }) => {
                on == host && of == unit
            }
            Action::Host(on, HostAction::TryAccess { .. }) => on == host && unit == PATRONI,
            _ => draft.object == object,
        };
        if drafts.steps.iter().any(told) {
            continue;
        }
        let restart = verb == UnitVerb::Restart;
        if restart
            && unit == ETCD
            && let Some(reason) = etcd::restart_forbidden(view, host)
        {
            drafts.hold(object, reason);
            continue;
        }
        let quorum = (restart && unit == ETCD).then(|| etcd::quorum(view, host)).flatten();
        let impact = match (restart, &quorum) {
            (true, Some(_)) => Impact::Restart,
            // A member outside the quorum takes nothing away.
            (true, None) => Impact::None,
            (false, _) => Impact::Reload,
        };
        let action = HostAction::Notify { unit: unit.clone(), verb, quorum };
        let draft = Draft::new(
            object,
            if restart { Verb::Restart } else { Verb::Update },
            reason,
            120,
            Action::Host(host.clone(), action),
        );
        drafts.step(draft.impact(impact));
    }
}
