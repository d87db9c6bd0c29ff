//! What a cluster that lives cannot change step by step: where its data are, the ports by which its
//! parts know each other, the name of its stack. A file that asks for it is held as a whole, so that
//! no half of it comes about; only what is down is started meanwhile.

use std::collections::BTreeSet;

use super::{
    Held, HoldReason, Verb,
    draft::{Draft, Drafts, View},
};
use crate::{
    action::{Action, HostAction},
    desired::{etcd, patroni, swarm},
    model::{ClaimKind, HostFacts, HostName, ObjectId},
};

/// Holds everything that would carry out half of a change of identity.
pub(super) fn plan(view: &View<'_>, drafts: &mut Drafts) {
    let hosts = view.desired.servers.keys();
    let known = || hosts.clone().filter_map(|host| Some((host, view.host(host)?)));
    let moved = known()
        .find_map(|(host, facts)| data_moved(view, host, facts))
        .or_else(|| known().find_map(|(host, facts)| other_version(view, host, facts)))
        .or_else(|| known().find_map(|(host, facts)| port_moved(view, host, facts)))
        .or_else(|| known().find_map(|(host, facts)| stray_member(view, host, facts)))
        .map(|reason| (ObjectId::PatroniConfig, reason))
        .or_else(|| other_stack(view).map(|reason| (ObjectId::Swarm, reason)));
    let Some((object, reason)) = moved else { return };
    let reason = HoldReason::NeedsPerson(format!(
        "{reason}; this release does not change it on a living cluster: put it back in the file"
    ));
    let (stay, go): (Vec<_>, Vec<_>) = std::mem::take(&mut drafts.steps)
        .into_iter()
        .partition(|step| step.object != object && only_starts(step));
    drafts.steps = stay;
    drafts.held.retain(|held| held.object != object);
    let waits =
        |step: Draft| Held { object: step.object, reason: HoldReason::WaitsFor(object.clone()) };
    drafts.held.extend(go.into_iter().filter(|step| step.object != object).map(waits));
    drafts.hold(object.clone(), reason);
}

/// Steps that change nothing of what is configured.
fn only_starts(step: &Draft) -> bool {
    match (&step.action, step.verb) {
        (Action::Host(_, HostAction::Unit { .. }), Verb::Start)
        | (Action::Swarm(..), Verb::Await) => true,
        (Action::Host(_, HostAction::StartPatroni { .. }), verb) => verb == Verb::Await,
        _ => false,
    }
}

/// A data directory of ours that the file names otherwise now, or whose component it takes away
/// from the server: routers, rules and a new etcd would be made without what lives there.
fn data_moved(view: &View<'_>, host: &HostName, facts: &HostFacts) -> Option<String> {
    let desired = [
        view.desired.patroni.members.contains_key(host).then_some(&view.desired.patroni.data_dir),
        view.desired.etcd.members.contains_key(host).then_some(&view.desired.etcd.data_dir),
    ];
    let desired: BTreeSet<&String> = desired.into_iter().flatten().collect();
    let claimed: BTreeSet<&String> = facts
        .manifest
        .claims
        .iter()
        .filter(|claim| claim.kind == ClaimKind::DataDir)
        .map(|claim| &claim.name)
        .collect();
    let from = claimed.difference(&desired).next()?;
    let to = desired.difference(&claimed).next();
    let to = to.map_or("puts nothing there".to_owned(), |to| format!("says {to}"));
    Some(format!(
        "{host} holds data of this cluster in {from}, and the file {to} (once they are gone for good: echo 'release data-dir {from}' >> /var/lib/reconcile/manifest there)"
    ))
}

/// A database of another major version than the file's.
fn other_version(view: &View<'_>, host: &HostName, facts: &HostFacts) -> Option<String> {
    let patroni = &view.desired.patroni;
    let fact = facts.patroni.present().filter(|fact| fact.scope == patroni.scope)?;
    let running = fact.server_version / 10_000;
    let same = running == 0 || running == u64::from(patroni.version);
    (!same).then(|| {
        format!("PostgreSQL {running} runs on {host}, and the file says {}", patroni.version)
    })
}

/// A member of Patroni's cluster that the file does not name: it may be the primary.
fn stray_member(view: &View<'_>, host: &HostName, facts: &HostFacts) -> Option<String> {
    let patroni = &view.desired.patroni;
    if !facts.manifest.claims(ClaimKind::DataDir, &patroni.data_dir) {
        return None;
    }
    let fact = facts.patroni.present().filter(|fact| fact.scope == patroni.scope)?;
    let named = |name: &&String| patroni.members.keys().any(|host| host.as_str() == name.as_str());
    let stray = fact.members.iter().find(|name| !named(name))?;
    Some(format!("Patroni on {host} lists the member {stray}, which the file does not have"))
}

/// A port on which one of our processes listens and which the file names otherwise now.
fn port_moved(view: &View<'_>, host: &HostName, facts: &HostFacts) -> Option<String> {
    let ports = &view.desired.servers.get(host)?.ports;
    let units = [etcd::UNIT, patroni::UNIT];
    ports.iter().find_map(|(wanted, port)| {
        let theirs = |process: &String, unit: &String| {
            port.processes.contains(process) && units.contains(&unit.as_str())
        };
        let used: BTreeSet<u16> = facts
            .listeners
            .iter()
            .filter(|listener| theirs(&listener.process, &listener.unit))
            .map(|listener| listener.port)
            .collect();
        let stray = used.iter().find(|used| !ports.contains_key(used))?;
        (!used.contains(wanted)).then(|| {
            format!(
                "{} on {host} listens on port {stray}, and the file says {wanted}",
                port.component
            )
        })
    })
}

/// A stack of this cluster under another name.
fn other_stack(view: &View<'_>) -> Option<String> {
    let facts = view.observed.swarm.present()?;
    let wanted = view.desired.swarm.labels.get(swarm::STACK_LABEL)?;
    let labels = facts.configs.values().map(|config| &config.labels);
    let other = labels
        .filter(|labels| labels.get(swarm::OWNER_LABEL) == Some(&view.desired.cluster))
        .filter_map(|labels| labels.get(swarm::STACK_LABEL))
        .find(|stack| *stack != wanted)?;
    Some(format!("the services are in stack {other}, and the file says {wanted}"))
}
