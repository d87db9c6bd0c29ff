//! Patroni: initialising the database on one host once, replicas after it, and keeping the
//! dynamic configuration. Who leads is Patroni's decision alone.

use serde_json::{Map, Value};

use super::{
    HoldReason, Verb,
    draft::{Draft, Drafts, View},
};
use crate::{
    action::{Action, HostAction, PatroniAction, PatroniGoal, UnitVerb},
    desired::patroni::{CONFIG, UNIT, UNIT_FILE},
    model::{Claim, ClaimKind, HostFacts, HostName, ObjectId, PatroniFact, PatroniRole},
};

/// What is known of Patroni's cluster as a whole.
pub(super) struct Cluster<'a> {
    /// The one running primary.
    pub(super) primary: Option<(&'a HostName, &'a PatroniFact)>,
    /// More than one member says that it is the primary.
    pub(super) split: bool,
    /// Certain that there is no database yet: every host is known and no data directory holds any.
    pub(super) fresh: bool,
    unknown: Option<&'a HostName>,
}

pub(super) fn cluster<'a>(view: &View<'a>) -> Cluster<'a> {
    let patroni = &view.desired.patroni;
    let facts =
        || patroni.members.keys().filter_map(|host| view.host(host).map(|facts| (host, facts)));
    let mut primaries = facts().filter_map(|(host, facts)| {
        let fact = facts.patroni.present().filter(|fact| ours(view, facts, fact))?;
        (fact.role == PatroniRole::Primary && fact.state == "running").then_some((host, fact))
    });
    let primary = primaries.next();
    let split = primaries.next().is_some();
    // Where two say so, nobody is asked and nothing is written.
    let primary = primary.filter(|_| !split);
    let unknown = patroni.members.keys().find(|host| view.host(host).is_none());
    let populated = facts().any(|(_, facts)| {
        facts.data_dirs.get(&patroni.data_dir).is_some_and(|directory| directory.populated)
    });
    Cluster { primary, split, fresh: unknown.is_none() && !populated && primary.is_none(), unknown }
}

/// A Patroni that reconcile started: it claimed the data directory before. Any other is somebody
/// else's, whatever it leads.
pub(super) fn ours(view: &View<'_>, facts: &HostFacts, fact: &PatroniFact) -> bool {
    let patroni = &view.desired.patroni;
    fact.scope == patroni.scope && facts.manifest.claims(ClaimKind::DataDir, &patroni.data_dir)
}

/// Plans Patroni.
pub(super) fn plan(view: &View<'_>, drafts: &mut Drafts) {
    let cluster = cluster(view);
    if cluster.split {
        let reason = "more than one member says that it is the primary".to_owned();
        drafts.hold(ObjectId::PatroniConfig, HoldReason::NeedsPerson(reason));
        return;
    }
    for host in view.desired.patroni.members.keys() {
        let Some(facts) = view.host(host) else { continue };
        if view.leaves(host) {
            super::leaving::plan_patroni(view, &cluster, host, facts, drafts);
        } else {
            plan_member(view, &cluster, host, facts, drafts);
        }
    }
    plan_config(view, &cluster, drafts);
}

fn plan_member(
    view: &View<'_>,
    cluster: &Cluster<'_>,
    host: &HostName,
    facts: &HostFacts,
    drafts: &mut Drafts,
) {
    let patroni = &view.desired.patroni;
    let object = ObjectId::PatroniMember(host.clone());
    let populated =
        facts.data_dirs.get(&patroni.data_dir).is_some_and(|directory| directory.populated);
    if populated && !facts.manifest.claims(ClaimKind::DataDir, &patroni.data_dir) {
        let reason = format!("{} holds data that reconcile did not put there", patroni.data_dir);
        drafts.hold(object, HoldReason::Foreign(reason));
        return;
    }
    if let Some(reason) =
        super::stranger::stranger(view, host, facts, &["Patroni", "PostgreSQL"], UNIT)
    {
        drafts.hold(object, reason);
        return;
    }
    let fact = facts.patroni.present();
    if let Some(fact) = fact.filter(|fact| !ours(view, facts, fact)) {
        let reason = format!("a Patroni of scope {} runs there", fact.scope);
        drafts.hold(object, HoldReason::Foreign(reason));
        return;
    }
    let unit = facts.units.get(UNIT);
    let active = unit.is_some_and(|unit| unit.active == "active");
    let serving = active
        && fact.is_some_and(|fact| {
            fact.state == "running"
                && (matches!(fact.role, PatroniRole::Primary | PatroniRole::StandbyLeader)
                    || fact.streaming)
        });
    if serving {
        if unit.is_some_and(|unit| unit.enabled != "enabled") {
            let action =
                HostAction::Unit { unit: UNIT.to_owned(), verb: UnitVerb::Keep, enable: true };
            let before = unit.map(|unit| unit.enabled.clone());
            drafts.step(
                Draft::new(
                    ObjectId::Unit(host.clone(), UNIT.to_owned()),
                    Verb::Update,
                    "it would not start at boot",
                    60,
                    Action::Host(host.clone(), action),
                )
                .change("at boot", before, Some("enabled".to_owned())),
            );
        }
        return;
    }
    match goal(view, cluster, host, populated) {
        Ok(until) => drafts.step(start(view, cluster, host, populated, until, active)),
        Err(reason) => drafts.hold(object, reason),
    }
}

/// What the member is to become, or why it may not be started.
fn goal(
    view: &View<'_>,
    cluster: &Cluster<'_>,
    host: &HostName,
    populated: bool,
) -> Result<PatroniGoal, HoldReason> {
    if cluster.primary.is_some_and(|(primary, _)| primary != host) {
        return Ok(PatroniGoal::Replica);
    }
    if populated {
        return Ok(PatroniGoal::Either);
    }
    if let Some(unknown) = cluster.unknown {
        return Err(HoldReason::Unknown(format!(
            "{unknown} may hold the database; a new one is made only when every host is known"
        )));
    }
    if cluster.fresh && view.desired.patroni.bootstrap.as_ref() == Some(host) {
        return Ok(PatroniGoal::Primary);
    }
    Ok(PatroniGoal::Replica)
}

fn start(
    view: &View<'_>,
    cluster: &Cluster<'_>,
    host: &HostName,
    populated: bool,
    until: PatroniGoal,
    active: bool,
) -> Draft {
    let patroni = &view.desired.patroni;
    let action = HostAction::StartPatroni {
        endpoint: patroni.members[host].rest_url.clone(),
        data_dir: patroni.data_dir.clone(),
        claims: vec![Claim { kind: ClaimKind::DataDir, name: patroni.data_dir.clone() }],
        until,
    };
    let etcd = view.desired.etcd.members.keys().map(|host| ObjectId::EtcdMember(host.clone()));
    let mut draft = Draft::new(
        ObjectId::PatroniMember(host.clone()),
        if active { Verb::Await } else { Verb::Start },
        match (active, populated) {
            (true, _) => "it does not serve yet",
            (false, true) => "it does not run",
            (false, false) => "it has no data yet",
        },
        if until == PatroniGoal::Replica { 900 } else { 240 },
        Action::Host(host.clone(), action),
    )
    .change(
        "role",
        (populated && !active).then(|| "stopped".to_owned()),
        Some(
            match until {
                PatroniGoal::Primary => "primary of a new database",
                PatroniGoal::Replica => "replica",
                PatroniGoal::Either => "as Patroni decides",
            }
            .to_owned(),
        ),
    )
    .needs([ObjectId::Packages(host.clone()), ObjectId::File(host.clone(), UNIT_FILE.to_owned())]);
    // While somebody leaves, the files of those who stay wait for him. A member that has lived with the
    // old one must not wait along: he is not let go before it is back.
    let ours = |facts: &HostFacts| {
        facts.files.contains_key(CONFIG) && facts.manifest.claims(ClaimKind::File, CONFIG)
    };
    let suits = populated && view.host(host).is_some_and(ours);
    if !(suits && super::leaving::under_way(view)) {
        draft = draft.needs([ObjectId::File(host.clone(), CONFIG.to_owned())]);
    }
    // A server that is new to the primary's rules could not copy from it.
    if let Some((primary, _)) =
        cluster.primary.filter(|(primary, _)| !populated && *primary != host)
    {
        draft = draft.needs([ObjectId::File(primary.clone(), CONFIG.to_owned())]);
    }
    // A standing quorum of etcd is enough to start on; a cluster that is only forming is not.
    let quorum_stands = view
        .desired
        .etcd
        .members
        .keys()
        .any(|member| super::etcd::member(view, member).is_some_and(|etcd| etcd.healthy));
    if !quorum_stands {
        draft = draft.needs(etcd);
    }
    if until == PatroniGoal::Replica && cluster.primary.is_none() {
        let others = patroni.members.keys().filter(|member| *member != host).filter(|member| {
            cluster.fresh && patroni.bootstrap.as_ref() == Some(*member)
                || view.host(member).is_some_and(|facts| {
                    facts
                        .data_dirs
                        .get(&patroni.data_dir)
                        .is_some_and(|directory| directory.populated)
                })
        });
        draft = draft.needs(others.map(|member| ObjectId::PatroniMember(member.clone())));
    }
    draft
}

/// Keys of the desired dynamic configuration that differ, as a patch; keys that we do not set
/// are left alone.
fn patch(desired: &Value, observed: &Value) -> Option<Value> {
    match (desired, observed) {
        (Value::Object(desired), Value::Object(observed)) => {
            let differing: Map<_, _> = desired
                .iter()
                .filter_map(|(key, value)| match observed.get(key) {
                    Some(current) => patch(value, current).map(|patch| (key.clone(), patch)),
                    None => Some((key.clone(), value.clone())),
                })
                .collect();
            (!differing.is_empty()).then_some(Value::Object(differing))
        }
        (desired, observed) => (plain(desired) != plain(observed)).then(|| desired.clone()),
    }
}

/// The desired configuration with null for every PostgreSQL parameter that is set and not desired:
/// Patroni removes those. All parameters are the file's; other keys that we do not set are left alone.
fn with_removals(desired: &Value, observed: &Value) -> Value {
    let mut desired = desired.clone();
    let path = "/postgresql/parameters";
    let set = observed.pointer(path).and_then(Value::as_object);
    if let (Some(wanted), Some(set)) =
        (desired.pointer_mut(path).and_then(Value::as_object_mut), set)
    {
        for name in set.keys() {
            wanted.entry(name.clone()).or_insert(Value::Null);
        }
    }
    desired
}

/// Scalars by their text: Patroni takes `300` and `"300"`, `true` and `"on"` for the same.
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(true) => "on".to_owned(),
        Value::Bool(false) => "off".to_owned(),
        other => other.to_string(),
    }
}

fn plan_config(view: &View<'_>, cluster: &Cluster<'_>, drafts: &mut Drafts) {
    let Some((host, fact)) = cluster.primary else { return };
    if fact.paused {
        let reason = "Patroni is paused: nobody takes over when the primary fails; `patronictl resume` ends it".to_owned();
        drafts.hold(ObjectId::PatroniConfig, HoldReason::Paused(reason));
        return;
    }
    let Some(config) = fact.config.as_deref() else {
        let reason = format!("Patroni on {host} did not tell its configuration");
        drafts.hold(ObjectId::PatroniConfig, HoldReason::Unknown(reason));
        return;
    };
    let Ok(observed) = serde_json::from_str::<Value>(config) else {
        let reason = format!("the configuration that Patroni on {host} tells is no JSON");
        drafts.hold(ObjectId::PatroniConfig, HoldReason::Unknown(reason));
        return;
    };
    let Some(patch) = patch(&with_removals(&view.desired.patroni.config, &observed), &observed)
    else {
        return;
    };
    // What PostgreSQL runs with after a parameter's removal is Patroni's to say, a round later.
    let removes = patch.pointer("/postgresql/parameters").and_then(Value::as_object);
    let removes = removes.is_some_and(|set| set.values().any(Value::is_null));
    let round = observed["loop_wait"].as_u64().unwrap_or(10);
    let settle = if removes { round + 2 } else { 0 };
    let mut draft = Draft::new(
        ObjectId::PatroniConfig,
        Verb::Update,
        "the dynamic configuration differs",
        60,
        Action::Patroni(
            host.clone(),
            PatroniAction::PatchConfig { patch: patch.to_string(), settle_seconds: settle },
        ),
    )
    .impact(super::Impact::Reload);
    let mut leaves = Vec::new();
    flatten("", &patch, &mut leaves);
    for (path, value) in leaves {
        let pointer = format!("/{}", path.replace('.', "/"));
        let before = observed.pointer(&pointer).map(plain);
        draft = draft.change(path, before, Some(value));
    }
    drafts.step(draft);
}

fn flatten(prefix: &str, value: &Value, leaves: &mut Vec<(String, String)>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                flatten(&path, value, leaves);
            }
        }
        other => leaves.push((prefix.to_owned(), plain(other))),
    }
}
