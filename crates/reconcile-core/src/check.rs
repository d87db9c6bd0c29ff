//! The independent checker of plans: what no plan may ever contain, whoever made it.
//!
//! It shares no code with the planner on purpose (but for where poolers run). The engine refuses a plan that fails here, and
//! every test of plans asserts that it passes.

mod access;
mod membership;
mod roll;
mod rollout;
mod upgrade;

use std::collections::{BTreeMap, BTreeSet};

use reconcile_spec::valid::Permission;

use crate::{
    action::{Action, EtcdQuorum, HostAction, PatroniGoal, SwarmAction, UnitVerb},
    desired::{Desired, patroni},
    model::{ClaimKind, HostFacts, HostName, ObjectId, Observation, Observed},
    plan::{Impact, Plan, Step, drift},
    windows,
};

/// A rule that a plan breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("step {step} ({object}): {rule}")]
pub struct Violation {
    /// Step by id; 0 for the plan as a whole.
    pub step: usize,
    /// The object.
    pub object: String,
    /// The rule.
    pub rule: &'static str,
}

/// Every rule that the plan breaks; empty for a plan that may be executed.
pub fn check(desired: &Desired, observed: &Observed, plan: &Plan) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut disruptive = 0;
    let held: BTreeSet<&ObjectId> = plan.held.iter().map(|held| &held.object).collect();
    let mut seen = BTreeMap::new();
    for (index, step) in plan.steps.iter().enumerate() {
        let mut broken = |rule| {
            violations.push(Violation { step: step.id, object: step.object.to_string(), rule });
        };
        if step.id != index + 1 {
            broken("steps are numbered in order");
        }
        if step.after.iter().any(|id| *id >= step.id || *id == 0) {
            broken("a step comes after all that it needs");
        }
        if seen.insert(&step.object, step.id).is_some() {
            broken("one step an object");
        }
        if held.contains(&step.object) {
            broken("a held object is not touched");
        }
        let resumes = matches!(step.object, ObjectId::Pooler(_));
        if observed.pause().is_some() && !resumes {
            broken("nothing is done while the cluster is paused");
        }
        if desired.only_looks.is_some() {
            broken("an operator that only looks does nothing");
        }
        if step.deadline_seconds == 0 {
            broken("every step has a deadline");
        }
        disruptive += usize::from(step.impact.disruptive());
        let allowed = match step.impact {
            Impact::None | Impact::Reload => Permission::Allowed,
            Impact::Restart => desired.policy.restart,
            Impact::Switchover => desired.policy.switchover,
        };
        let open = || windows::is_open(&desired.policy.windows, observed.at);
        let ends = step.action.ends_a_rollout();
        if !ends && allowed != Permission::Allowed && !(allowed == Permission::InWindow && open()) {
            broken("what the policy does not allow is not done");
        }
        let (Action::Host(host, _) | Action::Patroni(host, _) | Action::Swarm(host, _)) =
            &step.action;
        match observed.hosts.get(host) {
            Some(Observation::Known(facts)) => {
                if facts.manifest.cluster.as_ref().is_some_and(|name| *name != desired.cluster) {
                    broken("a server of another cluster is not touched");
                }
            }
            _ => broken("a server that could not be observed is not touched"),
        }
        match &step.action {
            Action::Host(host, action) => {
                check_host(desired, observed, plan, step, host, action, &mut broken);
            }
            Action::Swarm(host, action) => {
                check_swarm(desired, observed, host, action, &mut broken);
            }
            Action::Patroni(host, action) => {
                if !our_patroni(desired, observed, host) {
                    broken("a Patroni that is not ours is not configured");
                }
                roll::check(desired, observed, step, host, action, &mut broken);
            }
        }
    }
    if disruptive > 1 {
        violations.push(Violation {
            step: 0,
            object: "plan".to_owned(),
            rule: "at most one disruptive step",
        });
    }
    violations
}

fn check_host(
    desired: &Desired,
    observed: &Observed,
    plan: &Plan,
    step: &Step,
    host: &HostName,
    action: &HostAction,
    broken: &mut impl FnMut(&'static str),
) {
    let Some(facts) = observed.host(host) else { return };
    let claims = |kind, name: &str| facts.manifest.claims(kind, name);
    match action {
        HostAction::WriteFile { file, before, notify, quorum, .. } => {
            if before.is_some() && !claims(ClaimKind::File, &file.path) {
                broken("a file that is not ours is not overwritten");
            }
            let recorded = file.path == drift::RECORD && drift::reports(desired.policy.drift);
            let server = desired.servers.get(host);
            if !recorded && !server.is_some_and(|server| server.files.contains_key(&file.path)) {
                broken("only desired files are written");
            }
            if file.path == patroni::CONFIG {
                access::check_write(desired, observed, host, broken);
            }
            if let Some((unit, verb)) = notify {
                check_told(desired, observed, step, host, (unit, *verb, quorum.as_ref()), broken);
            }
        }
        HostAction::TryAccess { file, trial, .. } => {
            if !claims(ClaimKind::File, &file.path) {
                broken("a file that is not ours is not overwritten");
            }
            let on = (host, file.path.as_str());
            access::check_trial(desired, observed, plan, on, trial, broken);
        }
        HostAction::RemoveFile { path, .. } => {
            if !claims(ClaimKind::File, path) {
                broken("a file that is not ours is not removed");
            }
        }
        HostAction::Unit { unit, verb, .. } => {
            check_unit(desired, observed, step, (host, unit, *verb), broken);
        }
        HostAction::Notify { unit, verb, quorum } => {
            if facts.units.get(unit).is_none_or(|unit| unit.owed.is_none() && !unit.outdated) {
                broken("only a unit that is owed it is told of its file");
            }
            check_notify(desired, observed, step, host, (unit, *verb, quorum.is_some()), broken);
        }
        HostAction::ResumePooler { .. } => {
            if !facts.pooler_held {
                broken("only a pooler that was left paused is resumed");
            }
        }
        HostAction::StartEtcd { data_dir, initial_cluster_state, .. } => {
            let populated =
                facts.data_dirs.get(data_dir).is_some_and(|directory| directory.populated);
            if populated && !rejoins(desired, facts, initial_cluster_state) {
                broken("a member with data is not started as one without");
            }
            if initial_cluster_state == "new" {
                check_founding(desired, observed, data_dir, broken);
            }
        }
        HostAction::EtcdMembership { change, via, .. } => {
            membership::check_etcd(desired, observed, host, change, via, broken);
        }
        HostAction::StartPatroni { until, data_dir, .. } => {
            let populated =
                facts.data_dirs.get(data_dir).is_some_and(|directory| directory.populated);
            if populated && !claims(ClaimKind::DataDir, data_dir) {
                broken("Patroni is not started on somebody else's data");
            }
            if *until == PatroniGoal::Primary {
                check_new_database(desired, observed, plan, (host, data_dir), broken);
            }
        }
        HostAction::UpgradePackages { packages, outdates, replica } => {
            let what = (packages.as_slice(), outdates.as_slice(), replica.is_some());
            upgrade::check(desired, observed, step, host, what, broken);
        }
        HostAction::RestartPatroni { .. } => {
            roll::check_restart(desired, observed, step, host, broken);
        }
        HostAction::StopPatroni { .. } => {
            membership::check_stop(desired, observed, step, host, broken);
        }
        HostAction::Sql { .. } => {
            let made_here = plan.steps.iter().any(|other| {
                matches!(&other.action, Action::Host(on, HostAction::StartPatroni { .. }) if on == host)
            });
            if !made_here && !our_patroni(desired, observed, host) {
                broken("SQL runs only in a database that is ours");
            }
        }
        HostAction::InstallPackages { packages, replica, .. } => {
            let names: Vec<_> = packages.iter().map(|(name, _)| name.as_str()).collect();
            upgrade::check_finish(desired, observed, host, (&names, replica.is_some()), broken);
        }
        HostAction::Claim { .. }
        | HostAction::EnsureDirectory { .. }
        | HostAction::AwaitEtcd { .. } => {}
    }
}

/// A unit that is told of its new file in the same step.
fn check_told(
    desired: &Desired,
    observed: &Observed,
    step: &Step,
    host: &HostName,
    (unit, verb, quorum): (&str, UnitVerb, Option<&EtcdQuorum>),
    broken: &mut impl FnMut(&'static str),
) {
    if unit.starts_with("patroni") && verb != UnitVerb::Reload {
        broken("Patroni is never restarted by systemd");
    }
    if verb == UnitVerb::Restart && !step.impact.disruptive() {
        broken("a restart says that it is one");
    }
    if verb == UnitVerb::Restart && unit.starts_with("etcd") {
        check_quorum(desired, observed, host, broken);
        let asked = quorum.is_some_and(|quorum| {
            let voters = membership::voters(desired, observed);
            let others = voters.iter().filter(|voter| **voter != host).count();
            quorum.peers.len() == others
                && (quorum.peers.is_empty() || quorum.needed * 2 > voters.len())
        });
        if !asked && counts(observed, host) {
            broken("quorum is asked for again in the moment of a restart");
        }
    }
}

fn check_new_database(
    desired: &Desired,
    observed: &Observed,
    plan: &Plan,
    (host, data_dir): (&HostName, &str),
    broken: &mut impl FnMut(&'static str),
) {
    let everywhere_empty = desired.patroni.members.keys().all(|member| {
        observed.host(member).is_some_and(|facts| {
            facts.data_dirs.get(data_dir).is_none_or(|directory| !directory.populated)
        })
    });
    if !everywhere_empty {
        broken("a new database is made only where every host is known to have none");
    }
    let others = plan.steps.iter().any(|other| {
        matches!(
            &other.action,
            Action::Host(other, HostAction::StartPatroni { until: PatroniGoal::Primary, .. })
                if other != host
        )
    });
    if others {
        broken("one host makes the database");
    }
}

fn check_notify(
    desired: &Desired,
    observed: &Observed,
    step: &Step,
    host: &HostName,
    (unit, verb, asks): (&str, UnitVerb, bool),
    broken: &mut impl FnMut(&'static str),
) {
    if unit.starts_with("patroni") && verb != UnitVerb::Reload {
        broken("Patroni is never restarted by systemd");
    }
    if verb == UnitVerb::Restart && counts(observed, host) {
        if !step.impact.disruptive() {
            broken("a restart says that it is one");
        }
        check_quorum(desired, observed, host, broken);
        if !asks {
            broken("quorum is asked for again in the moment of a restart");
        }
    }
}

fn check_unit(
    desired: &Desired,
    observed: &Observed,
    step: &Step,
    (host, unit, verb): (&HostName, &str, UnitVerb),
    broken: &mut impl FnMut(&'static str),
) {
    if !matches!(verb, UnitVerb::Stop | UnitVerb::Restart) {
        return;
    }
    if unit.starts_with("patroni") {
        broken("Patroni is never stopped or restarted by systemd");
    }
    // What is left of a member that has left takes nothing away.
    let left = desired.leaves(host) && !membership::counted(desired, observed).contains(&host);
    if left && unit.starts_with("etcd") && verb == UnitVerb::Stop {
        let ours =
            |facts: &HostFacts| facts.manifest.claims(ClaimKind::DataDir, &desired.etcd.data_dir);
        if !observed.host(host).is_some_and(ours) {
            broken("an etcd that is not ours is not stopped");
        }
        return;
    }
    if !step.impact.disruptive() {
        broken("a restart says that it is one");
    }
    if unit.starts_with("etcd") {
        check_quorum(desired, observed, host, broken);
    }
}

/// What was cut off on its way into the cluster may be let in again: that asks the others, and forms
/// nothing.
fn rejoins(desired: &Desired, facts: &HostFacts, initial_cluster_state: &str) -> bool {
    let etcd = &desired.etcd;
    initial_cluster_state == "existing"
        && facts.manifest.claims(ClaimKind::DataDir, &etcd.data_dir)
        && !facts.manifest.claims(ClaimKind::EtcdFormed, &etcd.token)
}

/// A Patroni of our scope on a data directory that reconcile claimed.
fn our_patroni(desired: &Desired, observed: &Observed, host: &HostName) -> bool {
    let Some(facts) = observed.host(host) else { return false };
    facts.manifest.claims(ClaimKind::DataDir, &desired.patroni.data_dir)
        && facts.patroni.present().is_some_and(|fact| fact.scope == desired.patroni.scope)
}

/// A healthy member stops only where the others are a quorum without it, and one that is not
/// known never.
fn check_quorum(
    desired: &Desired,
    observed: &Observed,
    host: &HostName,
    broken: &mut impl FnMut(&'static str),
) {
    let healthy = |member: &HostName| {
        observed.host(member).is_some_and(|facts| {
            facts.manifest.claims(ClaimKind::DataDir, &desired.etcd.data_dir)
                && facts.etcd.present().is_some_and(|etcd| etcd.healthy)
        })
    };
    if observed.host(host).is_some_and(|facts| facts.etcd.known().is_none()) {
        broken("an etcd member that is not known is not restarted");
    }
    let claimed =
        |facts: &HostFacts| facts.manifest.claims(ClaimKind::DataDir, &desired.etcd.data_dir);
    if !observed.host(host).is_some_and(claimed) {
        broken("an etcd that is not ours is not restarted");
    }
    let members = membership::voters(desired, observed);
    let left = members.iter().filter(|member| **member != host && healthy(member)).count();
    if members.len() > 1 && counts(observed, host) && left * 2 <= members.len() {
        broken("a restart leaves etcd its quorum");
    }
}

/// A member that is part of a quorum, as far as it says.
fn counts(observed: &Observed, host: &HostName) -> bool {
    observed
        .host(host)
        .and_then(|facts| facts.etcd.present())
        .is_some_and(|etcd| etcd.healthy || !etcd.leader_id.is_empty())
}

fn check_founding(
    desired: &Desired,
    observed: &Observed,
    data_dir: &str,
    broken: &mut impl FnMut(&'static str),
) {
    for facts in desired.servers.keys().filter_map(|host| observed.host(host)) {
        let database = &desired.patroni.data_dir;
        let data = facts.data_dirs.get(database).is_some_and(|directory| directory.populated);
        if facts.manifest.claims.iter().any(|claim| claim.kind == ClaimKind::EtcdFormed)
            || (data && facts.manifest.claims(ClaimKind::DataDir, database))
        {
            broken("no etcd is founded for a cluster that has lived");
        }
    }
    for member in desired.etcd.members.keys() {
        let Some(facts) = observed.host(member) else {
            broken("etcd is founded only where every member's host is known");
            return;
        };
        if facts.manifest.claims(ClaimKind::EtcdFormed, &desired.etcd.token) {
            broken("etcd that has formed once is never founded again");
        }
        if facts.etcd.present().is_some_and(|etcd| etcd.healthy) {
            broken("etcd is not founded beside a healthy cluster");
        }
        let directory = facts.data_dirs.get(data_dir);
        if directory.is_some_and(|directory| directory.populated)
            && !facts.manifest.claims(ClaimKind::DataDir, data_dir)
        {
            broken("etcd is not founded beside somebody else's data");
        }
    }
}

fn check_swarm(
    desired: &Desired,
    observed: &Observed,
    host: &HostName,
    action: &SwarmAction,
    broken: &mut impl FnMut(&'static str),
) {
    let facts = observed.swarm.known().and_then(Option::as_ref);
    let label = crate::desired::swarm::OWNER_LABEL;
    let ours = |labels: Option<&BTreeMap<String, String>>| {
        labels.is_some_and(|labels| labels.get(label) == Some(&desired.cluster))
    };
    match action {
        SwarmAction::Init { .. } => {
            if !observed.swarm.is_absent() {
                broken("a Swarm is founded only where none is known to be");
            }
        }
        SwarmAction::UpdateNode { node_id, .. } => {
            rollout::check_next(desired, observed, node_id, broken);
        }
        SwarmAction::UpdateService { spec, version, waits, .. } => {
            rollout::check_first(desired, observed, waits, broken);
            let fact = facts.and_then(|facts| facts.services.get(&spec.name));
            if !ours(fact.map(|fact| &fact.spec.labels)) {
                broken("a service that is not ours is not changed");
            }
            if fact.is_none_or(|fact| fact.version != *version) {
                broken("a service is changed from the version that was observed");
            }
        }
        SwarmAction::RemoveConfig { name } => {
            if !ours(facts.and_then(|facts| facts.configs.get(name)).map(|fact| &fact.labels)) {
                broken("a config that is not ours is not removed");
            }
        }
        SwarmAction::RemoveSecret { name } => {
            if !ours(facts.and_then(|facts| facts.secrets.get(name)).map(|fact| &fact.labels)) {
                broken("a secret that is not ours is not removed");
            }
        }
        SwarmAction::RemoveNode { node_id } => {
            membership::check_removal(desired, observed, node_id, broken);
        }
        SwarmAction::SetRole { node_id, manager } => {
            membership::check_role(desired, observed, node_id, *manager, broken);
        }
        SwarmAction::Label { .. } => {
            if facts.is_none_or(|facts| facts.labels.contains_key(label)) {
                broken("a Swarm with an owner is not labelled anew");
            }
        }
        SwarmAction::Drain { node_id } => {
            membership::check_leaving_node(desired, observed, node_id, broken);
        }
        SwarmAction::Leave => {
            if !desired.leaves(host) {
                broken("only a server that is to leave leaves the Swarm");
            }
        }
        SwarmAction::Join { .. }
        | SwarmAction::CreateNetwork(_)
        | SwarmAction::CreateConfig(_)
        | SwarmAction::CreateSecret(_)
        | SwarmAction::CreateService { .. }
        | SwarmAction::AwaitService { .. } => {}
    }
}
