//! What may never be done to a PostgreSQL that serves, whoever planned it.

use std::cmp::Ordering;

use super::our_patroni;
use crate::{
    action::PatroniAction,
    desired::{Desired, patroni::UNIT},
    model::{HostName, Observed, PatroniFact, PatroniRole},
    plan::{Impact, Step},
    poolers::poolers,
};

/// A standby does not replay while it has less of one of these than its primary. With what Patroni
/// sets where the file says nothing.
const SHARED: [(&str, u64); 5] = [
    ("max_connections", 100),
    ("max_prepared_transactions", 0),
    ("max_worker_processes", 8),
    ("max_wal_senders", 10),
    ("max_locks_per_transaction", 64),
];

/// What a member runs with.
fn runs(fact: &PatroniFact, name: &str) -> Option<u64> {
    fact.settings.as_ref()?.get(name)?.value.parse().ok()
}

/// Whether any of them is to go down (`Less`) or up (`Greater`) from what a member runs with; what is
/// not known may do both.
fn moves(desired: &Desired, fact: &PatroniFact, to: Ordering) -> bool {
    let parameters = &desired.patroni.config["postgresql"]["parameters"];
    SHARED.iter().any(|(name, default)| {
        let said = parameters[*name].as_str().and_then(|text| text.parse().ok());
        runs(fact, name).is_none_or(|runs| said.unwrap_or(*default).cmp(&runs) == to)
    })
}

fn lowered(desired: &Desired, fact: &PatroniFact) -> bool {
    moves(desired, fact, Ordering::Less)
}

fn raised(desired: &Desired, fact: &PatroniFact) -> bool {
    moves(desired, fact, Ordering::Greater)
}

/// Whether a member runs with another value of some parameter that a standby may have as it likes.
fn untried(desired: &Desired, fact: &PatroniFact) -> bool {
    let parameters = &desired.patroni.config["postgresql"]["parameters"];
    let shared = |name: &str| SHARED.iter().any(|(other, _)| *other == name);
    let settings = fact.settings.iter().flatten();
    settings.filter(|(name, fact)| !shared(name) && !fact.altered).any(|(name, fact)| {
        parameters[name].as_str().is_some_and(|wanted| !crate::setting::same(wanted, fact))
    })
}

/// Its Patroni runs what was installed before an upgrade.
pub(super) fn outdated(observed: &Observed, host: &HostName) -> bool {
    let unit = observed.host(host).and_then(|facts| facts.units.get(UNIT));
    unit.is_some_and(|unit| unit.outdated)
}

/// Something else than a parameter asks for a restart.
fn anew(observed: &Observed, host: &HostName) -> bool {
    let fact = observed.host(host).and_then(|facts| facts.patroni.present());
    outdated(observed, host) || fact.is_some_and(|fact| fact.replaced.is_some())
}

pub(super) fn well(fact: &PatroniFact) -> bool {
    let follows = fact.role == PatroniRole::Replica && fact.streaming;
    fact.state == "running" && (fact.role == PatroniRole::Primary || follows)
}

/// Restarting a replica's Patroni restarts the replica.
pub(super) fn check_restart(
    desired: &Desired,
    observed: &Observed,
    step: &Step,
    host: &HostName,
    broken: &mut impl FnMut(&'static str),
) {
    if !outdated(observed, host) {
        broken("only a Patroni that an upgrade has outdated is restarted");
    }
    if !our_patroni(desired, observed, host) {
        broken("a Patroni that is not ours is not restarted");
    }
    let action = PatroniAction::RestartReplica {
        runs: std::collections::BTreeMap::new(),
        replaced: None,
        notice_seconds: 0,
        data_dir: String::new(),
        max_lag_bytes: 0,
    };
    check(desired, observed, step, host, &action, broken);
}

pub(super) fn check(
    desired: &Desired,
    observed: &Observed,
    step: &Step,
    host: &HostName,
    action: &PatroniAction,
    broken: &mut impl FnMut(&'static str),
) {
    let impact = match action {
        PatroniAction::PatchConfig { .. } => return,
        PatroniAction::RestartReplica { .. } | PatroniAction::RestartPrimary { .. } => {
            Impact::Restart
        }
        PatroniAction::HandOver { .. } => Impact::Switchover,
    };
    if step.impact != impact {
        broken("a restart says that it is one");
    }
    let fact = |member: &HostName| {
        let ours = our_patroni(desired, observed, member);
        observed.host(member).and_then(|facts| facts.patroni.present()).filter(|_| ours)
    };
    // Whoever leaves counts no more, unless it leads.
    let leads_now =
        |member: &HostName| fact(member).is_some_and(|fact| fact.role == PatroniRole::Primary);
    let later = |member: &HostName| super::membership::comes_later(desired, observed, member);
    let counts = |member: &HostName| {
        if desired.leaves(member) { leads_now(member) } else { !later(member) }
    };
    let others =
        || desired.patroni.members.keys().filter(|member| *member != host && counts(member));
    if !others().all(|member| fact(member).is_some_and(well)) {
        broken("a member is disturbed only while all others serve");
    }
    if desired.patroni.members.keys().filter_map(fact).any(|fact| fact.paused) {
        broken("no member is disturbed while Patroni is paused");
    }
    let etcd = |member: &HostName| {
        let etcd = observed.host(member).and_then(|facts| facts.etcd.present());
        etcd.is_some_and(|etcd| etcd.healthy)
    };
    let members = super::membership::voters(desired, observed);
    if members.iter().filter(|member| etcd(member)).count() * 2 <= members.len() {
        broken("no member is disturbed without a quorum of etcd");
    }
    let Some(own) = fact(host) else { return };
    let leads =
        |member: &HostName| fact(member).is_some_and(|fact| fact.role == PatroniRole::Primary);
    let replicas = || others().filter_map(fact);
    match action {
        PatroniAction::PatchConfig { .. } => {}
        PatroniAction::RestartReplica { .. } => {
            if own.role != PatroniRole::Replica
                || others().filter(|member| leads(member)).count() != 1
            {
                broken("only a replica of the one primary is restarted as one");
            }
            let primary = others().find(|member| leads(member)).and_then(fact);
            if primary.is_some_and(|primary| lowered(desired, primary))
                && !anew(observed, host)
                && !raised(desired, own)
                && !untried(desired, own)
            {
                broken("what is lowered is lowered on the primary first");
            }
        }
        PatroniAction::HandOver { candidate, nodes } => {
            check_primary(desired, observed, own, nodes, others().any(leads), broken);
            let fit = others().any(|member| member == candidate)
                && !desired.leaves(candidate)
                && fact(candidate).is_some_and(|to| {
                    let behind = own
                        .wal_position
                        .zip(to.wal_position)
                        .map(|(from, to)| from.saturating_sub(to));
                    well(to)
                        && to.timeline == own.timeline
                        && behind.is_some_and(|bytes| bytes <= 64 << 20)
                });
            if !fit {
                broken("only a replica that is known to follow takes over");
            }
            if lowered(desired, own) {
                broken("what is lowered is lowered on the primary first");
            }
            let waits = |member| {
                fact(member).is_some_and(|replica| {
                    replica.pending_restart
                        || raised(desired, replica)
                        || outdated(observed, member)
                })
            };
            if others().any(waits) {
                broken("replicas are restarted before the primary");
            }
        }
        PatroniAction::RestartPrimary { nodes, .. } => {
            check_primary(desired, observed, own, nodes, others().any(leads), broken);
            if others().count() > 0 && !lowered(desired, own) {
                broken("the primary is restarted only where no replica can take over");
            }
            if replicas().any(|replica| raised(desired, replica)) {
                broken("what is raised is raised on the replicas first");
            }
            if replicas().any(|replica| untried(desired, replica)) {
                broken("what is new is tried on the replicas first");
            }
        }
    }
}

/// What holds for both transactions on the primary.
fn check_primary(
    desired: &Desired,
    observed: &Observed,
    own: &PatroniFact,
    nodes: &[HostName],
    another: bool,
    broken: &mut impl FnMut(&'static str),
) {
    if own.role != PatroniRole::Primary || another {
        broken("a transaction is on the one primary");
    }
    if poolers(desired, observed).as_deref() != Ok(nodes) {
        broken("every pooler that runs waits while the primary moves, and no other");
    }
}
