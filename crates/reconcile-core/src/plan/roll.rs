//! Restarts of PostgreSQL for parameters that need one, or for a program that was replaced, one member
//! at a time: replicas first, then a switchover, so that the old primary starts anew as a replica.
//!
//! A standby must have no less of some parameters than its primary *runs* with. So what is raised is
//! raised on the replicas first, and what is lowered is lowered on the primary first: there nobody
//! could take over with the new value, and it restarts in place while clients wait in the poolers.
//! Whatever else changes along with that is tried on the replicas before: Patroni starts a standby
//! with no less than its primary had, so that the lowered value does not keep it from starting.
//! All of this is decided from running values, never from what files say.

mod order;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

pub use order::{How, Restart};

use super::{
    Change, HoldReason, Impact, Verb,
    draft::{Draft, Drafts, View},
    patroni::{Cluster, cluster, ours},
};
use crate::{
    action::{Action, HostAction, PatroniAction},
    desired::{Desired, patroni::UNIT},
    model::{HostFacts, HostName, ObjectId, PatroniFact, PatroniRole, SettingFact},
    poolers::{PoolersError, poolers},
    setting::same,
};

/// What a standby must have no less of than its primary runs with, and what Patroni sets where
/// nothing is said.
const LIMITS: [(&str, &str); 5] = [
    ("max_connections", "100"),
    ("max_locks_per_transaction", "64"),
    ("max_prepared_transactions", "0"),
    ("max_wal_senders", "10"),
    ("max_worker_processes", "8"),
];
/// A replica further behind does not take over, and is not left behind by a restart.
const MAX_LAG_BYTES: u64 = 16 << 20;

fn parameters(desired: &Desired) -> BTreeMap<&str, &str> {
    let set = desired.patroni.config.pointer("/postgresql/parameters").and_then(Value::as_object);
    let set = set.into_iter().flatten();
    let said = set.filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)));
    LIMITS.into_iter().chain(said).collect()
}

/// Parameters whose running value has to be known.
pub(super) fn asked(desired: &Desired) -> BTreeSet<String> {
    parameters(desired).into_keys().map(str::to_owned).collect()
}

/// A member whose PostgreSQL does not run with what is desired.
struct Wanting<'a> {
    host: &'a HostName,
    changes: Vec<Change>,
    /// Parameters that differ, with what it runs with.
    runs: BTreeMap<String, String>,
    /// It is the primary, and its server leaves.
    leaves: bool,
    /// PostgreSQL itself runs a program that was replaced.
    replaced: Option<u32>,
    /// Its Patroni does.
    outdated: bool,
    /// It is the primary, and its programs are to be replaced when it is not.
    hands_over: bool,
}

impl Wanting<'_> {
    /// Something differs that is none of the limits.
    fn more_than_limits(&self) -> bool {
        if self.replaced.is_some() || self.outdated {
            return true;
        }
        let limit = |change: &Change| LIMITS.iter().any(|(name, _)| *name == change.field);
        self.changes.iter().any(|change| !limit(change))
    }
}

/// What is to be raised or lowered of the limits, by a member's running values.
struct Direction {
    raises: bool,
    lowers: bool,
}

fn direction(desired: &Desired, settings: &BTreeMap<String, SettingFact>) -> Option<Direction> {
    let parameters = parameters(desired);
    let mut direction = Direction { raises: false, lowers: false };
    for (name, _) in LIMITS {
        let runs: u64 = settings.get(name)?.value.parse().ok()?;
        let wanted: u64 = parameters.get(name)?.parse().ok()?;
        direction.raises |= wanted > runs;
        direction.lowers |= wanted < runs;
    }
    Some(direction)
}

fn changes(desired: &Desired, settings: &BTreeMap<String, SettingFact>) -> Vec<Change> {
    parameters(desired)
        .into_iter()
        .filter_map(|(name, wanted)| {
            let fact = settings.get(name).filter(|fact| !fact.altered && !same(wanted, fact))?;
            let unit = if fact.unit.is_empty() { "" } else { " × " };
            Some(Change {
                field: name.to_owned(),
                from: Some(format!("{}{unit}{}", fact.value, fact.unit)),
                to: Some(wanted.to_owned()),
            })
        })
        .collect()
}

fn members<'a>(view: &View<'a>) -> impl Iterator<Item = (&'a HostName, Option<&'a PatroniFact>)> {
    let view = View { desired: view.desired, observed: view.observed };
    view.desired.patroni.members.keys().filter_map(move |host| {
        let fact = view
            .host(host)
            .and_then(|facts| facts.patroni.present().filter(|fact| ours(&view, facts, fact)));
        // One that leaves counts as long as it leads. And as long as one leaves, nobody can copy from
        // it: who has no data yet comes later.
        let leads = fact.is_some_and(|fact| fact.role == PatroniRole::Primary);
        let counts =
            if view.leaves(host) { leads } else { !super::leaving::comes_later(&view, host) };
        counts.then_some((host, fact))
    })
}

/// The process of PostgreSQL that is to be restarted because its program was replaced.
pub(super) fn replaced(
    view: &View<'_>,
    host: &HostName,
    facts: &HostFacts,
    fact: &PatroniFact,
) -> Option<u32> {
    fact.replaced.filter(|_| super::upgrade::pinned_postgresql(view, host, facts))
}

pub(super) fn serves(fact: &PatroniFact) -> bool {
    fact.state == "running" && (fact.role == PatroniRole::Primary || fact.streaming)
}

/// Plans the next restart, or holds all with the reason.
pub(super) fn plan(view: &View<'_>, drafts: &mut Drafts) {
    let cluster = cluster(view);
    if cluster.split {
        return;
    }
    let moving = super::upgrade::hands_over(view);
    let wanting: Vec<Wanting<'_>> = members(view)
        .filter_map(|(host, fact)| {
            let fact = fact.filter(|fact| serves(fact))?;
            let facts = view.host(host)?;
            let changes = changes(view.desired, fact.settings.as_ref()?);
            let running = |change: &Change| {
                let value = fact.settings.as_ref()?.get(&change.field)?.value.clone();
                Some((change.field.clone(), value))
            };
            let runs = changes.iter().filter_map(running).collect();
            let leaves = view.leaves(host);
            let replaced = replaced(view, host, facts, fact);
            let outdated = facts.units.get(UNIT).is_some_and(|unit| unit.outdated);
            let hands_over = moving == Some(host);
            let anew = replaced.is_some() || outdated || hands_over;
            let wants = fact.pending_restart || !changes.is_empty() || leaves || anew;
            wants.then_some(Wanting { host, changes, runs, leaves, replaced, outdated, hands_over })
        })
        .collect();
    if wanting.is_empty() {
        return;
    }
    match next(view, &cluster, &wanting) {
        Ok((draft, restarts)) => {
            drafts.restarts = restarts;
            for other in &wanting {
                let object = ObjectId::Postgresql(other.host.clone());
                if object != draft.object {
                    drafts.hold(object, HoldReason::OneAtATime(draft.object.clone()));
                }
            }
            drafts.step(draft.needs([ObjectId::PatroniConfig]));
        }
        Err(reason) => {
            for member in &wanting {
                drafts.hold(ObjectId::Postgresql(member.host.clone()), reason.clone());
            }
        }
    }
}

/// The one restart or switchover that may be next, and all that are due from it on.
fn next(
    view: &View<'_>,
    cluster: &Cluster<'_>,
    wanting: &[Wanting<'_>],
) -> Result<(Draft, Vec<Restart>), HoldReason> {
    let Some((leader, primary)) = cluster.primary else {
        return Err(HoldReason::Unknown("no primary is known".to_owned()));
    };
    fit_to_be_disturbed(view)?;
    let mut directions = BTreeMap::new();
    for (host, fact) in members(view) {
        let settings = fact.and_then(|fact| fact.settings.as_ref());
        let direction = settings.and_then(|settings| direction(view.desired, settings));
        let Some(direction) = direction else {
            let reason = format!("PostgreSQL on {host} did not tell what it runs with");
            return Err(HoldReason::Unknown(reason));
        };
        directions.insert(host, direction);
    }
    let lowers = directions.get(leader).is_some_and(|direction| direction.lowers);
    let single = view.desired.patroni.members.len() == 1;
    let restarts = order::order(wanting, leader, &directions, lowers, lowers || single);
    // While the primary runs with more, a standby cannot have less: its restart would be in vain,
    // unless it is for something else.
    let first = wanting
        .iter()
        .filter(|member| member.host != leader)
        .find(|member| !lowers || directions[member.host].raises || member.more_than_limits());
    if let Some(replica) = first {
        return Ok((restart_replica(view, replica), restarts));
    }
    let Some(member) = wanting.iter().find(|member| member.host == leader) else {
        return Err(HoldReason::Unknown("which member is to be first".to_owned()));
    };
    let nodes = poolers(view.desired, view.observed).map_err(|error| match error {
        PoolersError::Unknown(reason) => HoldReason::Unknown(reason),
        PoolersError::Stopped(_) => HoldReason::Impossible(error.to_string()),
    })?;
    let alone = !member.leaves && single;
    let pending = primary.pending_restart || !member.changes.is_empty();
    if alone && member.outdated && !pending && member.replaced.is_none() {
        return Err(HoldReason::NeedsPerson(format!(
            "{UNIT} runs what was installed before, and no other server could take over; `systemctl restart {UNIT}` there when nobody minds"
        )));
    }
    if lowers || alone {
        return Ok((restart_primary(view, member, nodes, lowers), restarts));
    }
    let candidate = candidate(view, leader, primary)?;
    Ok((hand_over(member, candidate, nodes), restarts))
}

/// Why no member may be disturbed now, if so.
pub(super) fn fit_to_be_disturbed(view: &View<'_>) -> Result<(), HoldReason> {
    for (host, fact) in members(view) {
        match fact {
            None if view.host(host).is_none_or(|facts| facts.patroni.known().is_none()) => {
                let reason = format!("the member on {host} could not be observed");
                return Err(HoldReason::Unknown(reason));
            }
            Some(fact) if fact.paused => {
                let reason = "Patroni is paused; `patronictl resume` ends it".to_owned();
                return Err(HoldReason::Paused(reason));
            }
            Some(fact) if serves(fact) => {}
            None | Some(_) => {
                return Err(HoldReason::WaitsFor(ObjectId::PatroniMember(host.clone())));
            }
        }
    }
    let etcd = super::etcd::voters(view);
    let healthy = etcd
        .iter()
        .filter(|host| super::etcd::member(view, host).is_some_and(|member| member.healthy));
    if healthy.count() * 2 <= etcd.len() {
        let reason = "etcd has no quorum of members that are known to be healthy".to_owned();
        return Err(HoldReason::Quorum(reason));
    }
    Ok(())
}

/// Who takes over, or why nobody can. The first by name of those that are fit: which lags a few
/// bytes less changes from one look to the next.
fn candidate<'a>(
    view: &View<'a>,
    leader: &HostName,
    primary: &PatroniFact,
) -> Result<&'a HostName, HoldReason> {
    let synchronous = view.desired.patroni.config["synchronous_mode"] != Value::Bool(false);
    let mut reasons = Vec::new();
    for (host, fact) in members(view).filter(|(host, _)| *host != leader) {
        let Some(fact) = fact else { continue };
        let standby = primary.replication.iter().find(|row| row.application_name == host.as_str());
        let confirmed =
            standby.is_some_and(|row| matches!(row.sync_state.as_str(), "sync" | "quorum"));
        let lag = primary.wal_position.zip(fact.wal_position).map(|(p, r)| p.saturating_sub(r));
        let why = match lag {
            _ if fact.role != PatroniRole::Replica || fact.timeline != primary.timeline => {
                "is on another timeline".to_owned()
            }
            _ if fact.pending_restart => "waits for a restart itself".to_owned(),
            _ if synchronous && !confirmed => "is no synchronous standby".to_owned(),
            None => "did not tell how far it is".to_owned(),
            Some(lag) if lag > MAX_LAG_BYTES => format!("lags by {} MB", lag >> 20),
            Some(_) => return Ok(host),
        };
        reasons.push(format!("{host} {why}"));
    }
    Err(HoldReason::Quorum(format!("no replica is fit to take over: {}", reasons.join(", "))))
}

fn because(member: &Wanting<'_>) -> String {
    if member.leaves {
        return "its server leaves".to_owned();
    }
    if member.hands_over {
        return "its packages are to be replaced".to_owned();
    }
    let names: Vec<&str> = member.changes.iter().map(|change| change.field.as_str()).collect();
    match names[..] {
        [] if member.outdated => "Patroni runs what was installed before".to_owned(),
        [] if member.replaced.is_some() => "it runs what was installed before".to_owned(),
        [] => "a parameter waits for a restart".to_owned(),
        [one] => format!("{one} needs a restart"),
        _ => format!("{} need a restart", names.join(", ")),
    }
}

fn draft(
    member: &Wanting<'_>,
    verb: Verb,
    reason: String,
    seconds: u64,
    action: PatroniAction,
) -> Draft {
    draft_of(member, verb, reason, seconds, Action::Patroni(member.host.clone(), action))
}

fn draft_of(
    member: &Wanting<'_>,
    verb: Verb,
    reason: String,
    seconds: u64,
    action: Action,
) -> Draft {
    let object = ObjectId::Postgresql(member.host.clone());
    let mut draft = Draft::new(object, verb, reason, seconds, action);
    draft.changes.clone_from(&member.changes);
    draft
}

fn restart_replica(view: &View<'_>, member: &Wanting<'_>) -> Draft {
    let patroni = &view.desired.patroni;
    if member.outdated {
        // PostgreSQL goes down and up with it, and so needs no restart of its own.
        let action = HostAction::RestartPatroni {
            endpoint: patroni.members[member.host].rest_url.clone(),
            data_dir: patroni.data_dir.clone(),
            max_lag_bytes: MAX_LAG_BYTES,
        };
        let action = Action::Host(member.host.clone(), action);
        let draft = draft_of(member, Verb::Restart, because(member), 300, action);
        return draft.impact(Impact::Restart);
    }
    // Of a program that was replaced Patroni knows nothing.
    let rounds = if member.changes.is_empty() && member.replaced.is_some() { 0 } else { 2 };
    let action = PatroniAction::RestartReplica {
        runs: member.runs.clone(),
        replaced: member.replaced,
        notice_seconds: rounds * patroni.config["loop_wait"].as_u64().unwrap_or(10),
        data_dir: patroni.data_dir.clone(),
        max_lag_bytes: MAX_LAG_BYTES,
    };
    draft(member, Verb::Restart, because(member), 300, action).impact(Impact::Restart)
}

fn restart_primary(
    view: &View<'_>,
    member: &Wanting<'_>,
    nodes: Vec<HostName>,
    lowers: bool,
) -> Draft {
    let why = if lowers {
        "a replica cannot have less than its primary, so the primary restarts in place"
    } else {
        "no other server could take over"
    };
    let reason = format!("{}; {why}", because(member));
    let (runs, data_dir) = (member.runs.clone(), view.desired.patroni.data_dir.clone());
    let replaced = member.replaced;
    let action = PatroniAction::RestartPrimary { runs, replaced, data_dir, nodes };
    draft(member, Verb::Restart, reason, 120, action).impact(Impact::Restart)
}

fn hand_over(member: &Wanting<'_>, candidate: &HostName, nodes: Vec<HostName>) -> Draft {
    let then = if member.leaves { "" } else { "; it starts anew as a replica" };
    let reason = format!("{}{then}", because(member));
    let action = PatroniAction::HandOver { candidate: candidate.clone(), nodes };
    draft(member, Verb::HandOver, reason, 120, action).impact(Impact::Switchover).change(
        "primary",
        Some(member.host.to_string()),
        Some(candidate.to_string()),
    )
}
