//! Servers that leave: what runs there is stopped in an order in which nobody misses it. The primary is
//! handed over, Patroni stopped, etcd's member removed and stopped, the node drained, demoted and taken
//! out of the Swarm. Data and files stay where they are. The others' files and routes follow when
//! Patroni there has stopped, not before: until then it may be what they lead to.

use super::{
    HoldReason, Impact, Verb,
    draft::{Draft, Drafts, View},
    patroni::Cluster,
};
use crate::{
    action::{Action, HostAction, UnitVerb},
    desired::{etcd, patroni},
    model::{ClaimKind, HostFacts, HostName, ObjectId, PatroniRole},
};

/// A unit neither runs nor starts at boot.
fn off(facts: &HostFacts, unit: &str) -> bool {
    facts.units.get(unit).is_none_or(|unit| {
        matches!(&*unit.active, "inactive" | "failed") && unit.enabled != "enabled"
    })
}

fn runs(facts: &HostFacts, unit: &str) -> bool {
    facts.units.get(unit).is_some_and(|unit| !matches!(&*unit.active, "inactive" | "failed"))
}

/// Our Patroni is known to be stopped on a server.
pub(super) fn patroni_gone(view: &View<'_>, host: &HostName) -> bool {
    let data_dir = &view.desired.patroni.data_dir;
    view.host(host).is_some_and(|facts| {
        off(facts, patroni::UNIT) || !facts.manifest.claims(ClaimKind::DataDir, data_dir)
    })
}

/// A server without data yet, while another one leaves.
pub(super) fn comes_later(view: &View<'_>, host: &HostName) -> bool {
    let data_dir = &view.desired.patroni.data_dir;
    let empty = |facts: &HostFacts| facts.data_dirs.get(data_dir).is_none_or(|dir| !dir.populated);
    let leaving = &view.desired.leaving;
    let living = leaving.iter().any(|host| !patroni_gone(view, host));
    living && !view.leaves(host) && view.host(host).is_some_and(empty)
}

/// Stops Patroni on a server that leaves, unless it leads or another member is not well.
pub(super) fn plan_patroni(
    view: &View<'_>,
    cluster: &Cluster<'_>,
    host: &HostName,
    facts: &HostFacts,
    drafts: &mut Drafts,
) {
    if patroni_gone(view, host) {
        return;
    }
    let object = ObjectId::PatroniMember(host.clone());
    let leads = |role| matches!(role, PatroniRole::Primary | PatroniRole::StandbyLeader);
    let refusal = match facts.patroni.known() {
        None => Some(HoldReason::Unknown(
            facts.patroni.reason().unwrap_or("it was not observed").to_owned(),
        )),
        Some(Some(fact)) if leads(fact.role) => {
            Some(HoldReason::WaitsFor(ObjectId::Postgresql(host.clone())))
        }
        Some(_) if cluster.primary.is_none() => {
            Some(HoldReason::Unknown("no primary is known".to_owned()))
        }
        Some(_) => super::roll::fit_to_be_disturbed(view).err(),
    };
    if let Some(reason) = refusal {
        drafts.hold(object, reason);
        return;
    }
    let endpoint = view.desired.patroni.members[host].rest_url.clone();
    let running = runs(facts, patroni::UNIT);
    let draft = Draft::new(
        object,
        Verb::Stop,
        "the server leaves; its data stay where they are",
        120,
        Action::Host(host.clone(), HostAction::StopPatroni { endpoint }),
    )
    .impact(if running { Impact::Restart } else { Impact::None });
    drafts.step(draft.change("role", Some("replica".to_owned()), None));
}

/// Stops what is left of etcd on a server that leaves, when its member is gone.
pub(super) fn plan_etcd(
    view: &View<'_>,
    listed: bool,
    host: &HostName,
    facts: &HostFacts,
    drafts: &mut Drafts,
) {
    let ours = facts.manifest.claims(ClaimKind::DataDir, &view.desired.etcd.data_dir);
    if listed || !ours || off(facts, etcd::UNIT) {
        return;
    }
    let unit = etcd::UNIT.to_owned();
    let before = facts.units.get(&unit).map(|unit| format!("{} ({})", unit.active, unit.enabled));
    let action = HostAction::Unit { unit: unit.clone(), verb: UnitVerb::Stop, enable: false };
    let draft = Draft::new(
        ObjectId::Unit(host.clone(), unit),
        Verb::Stop,
        "it is no member any more",
        120,
        Action::Host(host.clone(), action),
    );
    drafts.step(draft.change("state", before, Some("inactive (disabled)".to_owned())));
}

/// Somebody leaves whose Patroni is not known to be stopped.
pub(super) fn under_way(view: &View<'_>) -> bool {
    let members = &view.desired.patroni.members;
    view.desired.leaving.iter().any(|host| members.contains_key(host) && !patroni_gone(view, host))
}

/// What would cut off a server that leaves waits until its Patroni has stopped.
pub(super) fn hold_back(view: &View<'_>, drafts: &mut Drafts) {
    let lives = |host: &&HostName| {
        view.desired.patroni.members.contains_key(*host) && !patroni_gone(view, host)
    };
    let living: Vec<ObjectId> = view
        .desired
        .leaving
        .iter()
        .filter(lives)
        .map(|host| ObjectId::PatroniMember(host.clone()))
        .collect();
    let cuts = |object: &ObjectId| match object {
        ObjectId::File(_, path) => path == patroni::CONFIG,
        ObjectId::Service(_) => true,
        _ => false,
    };
    let Some(first) = living.first() else { return };
    // Held and not queued behind it: a step that disturbs something runs when nothing else is to do.
    let (go, stay): (Vec<_>, Vec<_>) =
        std::mem::take(&mut drafts.steps).into_iter().partition(|step| cuts(&step.object));
    drafts.steps = stay;
    for step in go {
        drafts.hold(step.object, HoldReason::WaitsFor(first.clone()));
    }
}
