//! Drift that the policy has reported and not undone.
//!
//! A difference is drift where the object was once as the file still wants it, and a change where
//! the file wants something else since. To tell them apart each server keeps a record of what was
//! last found as desired; it exists only where the policy reports anything. A server without one has
//! never been settled, so everything on it is a change.

use std::collections::{BTreeMap, BTreeSet};

use reconcile_spec::{
    masked,
    valid::{Drift, DriftModes, SwarmRole},
};
use serde::Serialize;

use super::{
    CONTENT, Change, DIFFERS, Held, HoldReason, LINE, Plan, Step, Verb, counted,
    draft::{Draft, Drafts, View},
};
use crate::{
    action::{Action, DesiredFile, HostAction},
    desired::Desired,
    model::{ClaimKind, Content, HostFacts, HostName, ObjectId, PatroniRole, sha256_hex},
};

/// The record of a server.
pub(crate) const RECORD: &str = "/var/lib/reconcile/settled";

/// Of a digest; enough to tell two wishes apart, and a record of a thousand objects stays readable.
const DIGITS: usize = 16;

/// Changes that a hold names; the rest is counted.
const NAMED: usize = 3;

/// Said for a setting's text that is not shown.
const TEXT: &str = "(text, not noted)";

/// Values of settings that are words of PostgreSQL's own, or nothing at all.
const WORDS: [&str; 16] = [
    "[]",
    "{}",
    "on",
    "off",
    "true",
    "false",
    "yes",
    "no",
    "none",
    "null",
    "minimal",
    "replica",
    "logical",
    "local",
    "remote_write",
    "remote_apply",
];
const UNITS: [&str; 13] = ["", "B", "kB", "MB", "GB", "TB", "us", "ms", "s", "min", "h", "d", "%"];

/// Characters of a value or line that are shown.
const LONGEST: usize = 80;

/// The engine's unit, as `servers.rs` starts it.
const ENGINE_UNIT: &str = "docker.service";

/// Digests of what is wanted, by object.
type Wanted = BTreeMap<ObjectId, String>;

/// Whether anything is only reported, so that records are kept.
pub(crate) fn reports(modes: DriftModes) -> bool {
    [modes.packages, modes.files, modes.units, modes.postgresql, modes.swarm]
        .contains(&Drift::Report)
}

/// Holds the drift that is only reported.
pub(super) fn plan(view: &View<'_>, drafts: &mut Drafts) {
    let modes = view.desired.policy.drift;
    if !reports(modes) {
        return;
    }
    let wanted = wanted(view.desired);
    let records = Records::of(view);
    let (drifted, stay): (Vec<_>, Vec<_>) =
        std::mem::take(&mut drafts.steps).into_iter().partition(|step| {
            mode(modes, &step.object) == Drift::Report
                && !step.action.ends_a_rollout()
                && records.is_drift(&wanted, &step.object)
        });
    drafts.steps = stay;
    for step in drifted {
        let reason =
            HoldReason::Reported(told(&step.object, step.verb, &step.changes, &step.reason));
        drafts.held.push(Held { object: step.object, reason });
    }
    for (host, _) in records.0.iter().filter(|(_, lines)| lines.is_none()) {
        let object = ObjectId::File((*host).clone(), RECORD.to_owned());
        let reason = format!(
            "{RECORD} cannot be read, so everything counts as drift; mend what differs, then remove it"
        );
        drafts.hold(object, HoldReason::NeedsPerson(reason));
    }
}

/// A difference of this object is drift that the policy has reported and not undone.
pub(super) fn only_reported(view: &View<'_>, object: &ObjectId) -> bool {
    mode(view.desired.policy.drift, object) == Drift::Report
        && Records::of(view).is_drift(&wanted(view.desired), object)
}

/// What is done about drift of an object.
fn mode(modes: DriftModes, object: &ObjectId) -> Drift {
    match class(object) {
        Some("packages") => modes.packages,
        Some("files") => modes.files,
        Some("units") => modes.units,
        Some("postgresql") => modes.postgresql,
        Some("swarm") => modes.swarm,
        _ => Drift::Heal,
    }
}

/// The class of an object as `policy.driftByClass` names it; None of what follows from the rest.
fn class(object: &ObjectId) -> Option<&'static str> {
    match object {
        ObjectId::Packages(_) | ObjectId::Upgrade(_) => Some("packages"),
        ObjectId::File(..) => Some("files"),
        ObjectId::Unit(..) | ObjectId::EtcdMember(_) | ObjectId::PatroniMember(_) => Some("units"),
        ObjectId::PatroniConfig
        | ObjectId::Role(_)
        | ObjectId::Database(_)
        | ObjectId::Extension(..)
        | ObjectId::PoolerLookup(_)
        | ObjectId::ProbeTable
        | ObjectId::AlterSystem(..) => Some("postgresql"),
        ObjectId::SwarmNode(_)
        | ObjectId::Network(_)
        | ObjectId::Config(_)
        | ObjectId::Secret(_)
        | ObjectId::Service(_) => Some("swarm"),
        ObjectId::Host(_)
        | ObjectId::Pooler(_)
        | ObjectId::EtcdCluster
        | ObjectId::Postgresql(_)
        | ObjectId::Swarm => None,
    }
}

/// What drifted, in one line, where a step undoes drift: the object, its class, what differs, and who
/// was there, as far as that is known. None of a step that waits, takes note, or follows from others.
pub fn drifted(step: &Step) -> Option<String> {
    let object = &step.object;
    let ours = matches!(object, ObjectId::File(_, path) if path == RECORD);
    let follows = matches!(step.verb, Verb::Await | Verb::Claim) || step.action.ends_a_rollout();
    let class = class(object).filter(|_| !ours && !follows)?;
    Some(format!("{object} ({class}): {}", told(object, step.verb, &step.changes, &step.reason)))
}

/// What a step would change, in one line as [`drifted`] says it; None where it says no more than that
/// something is to be done.
pub fn differs(step: &Step) -> Option<String> {
    drifted(step)?;
    let changes = step.verb != Verb::Create && !step.changes.is_empty();
    changes.then(|| told(&step.object, step.verb, &step.changes, &step.reason))
}

/// Changes of a step as they may be kept: what somebody wrote by hand may hold anything, and is left out.
pub fn kept(step: &Step) -> Vec<Change> {
    step.changes.iter().map(|change| spared(&step.object, change)).collect()
}

/// Changes of a step as a page may show them: the same, but a line that somebody wrote into a file is
/// there, for that is the difference; what its name tells to be a secret is not.
pub fn shown(step: &Step) -> Vec<Change> {
    let line = |change: &Change| Change {
        field: LINE.to_owned(),
        from: change.from.as_deref().map(masked),
        to: change.to.as_deref().map(masked),
    };
    let one = |change: &Change| {
        if change.field == LINE { line(change) } else { spared(&step.object, change) }
    };
    step.changes.iter().map(one).collect()
}

/// A plan as it may be sent to somebody: as [`kept`].
pub fn sent(plan: &Plan) -> Plan {
    let steps = plan.steps.iter().map(|step| Step { changes: kept(step), ..step.clone() });
    Plan {
        steps: steps.collect(),
        without_pause: plan.without_pause.as_deref().map(|plan| Box::new(sent(plan))),
        ..plan.clone()
    }
}

/// A change without what may be a secret, under a name that tells or one that does not.
fn spared(object: &ObjectId, change: &Change) -> Change {
    let field = change.field.as_str();
    if field == LINE {
        let from = match (&change.from, &change.to) {
            (Some(_), None) => Some("by hand, not noted".to_owned()),
            (from, _) => from.as_deref().map(masked),
        };
        return Change { field: field.to_owned(), from, to: change.to.as_deref().map(masked) };
    }
    let (name, free) = match object {
        ObjectId::AlterSystem(_, name) => (name.as_str(), true),
        ObjectId::PatroniConfig | ObjectId::Postgresql(_) => (field, true),
        ObjectId::Service(_) => (field, !matches!(field, "image" | "digest")),
        _ => (field, false),
    };
    let named = format!("{name}: ");
    let starred = |value: &String| {
        masked(&format!("{named}{value}")).chars().skip(named.chars().count()).collect::<String>()
    };
    let from = change
        .from
        .as_ref()
        .map(|value| if free && !is_plain(value) { TEXT.to_owned() } else { starred(value) });
    Change { field: field.to_owned(), from, to: change.to.as_ref().map(starred) }
}

/// A number, a size, a time, or a word that PostgreSQL knows: nothing that somebody could hide in it.
fn is_plain(value: &str) -> bool {
    let value = value.trim_matches('"');
    let digits = |c: char| c.is_ascii_digit() || c == '.';
    let number = value.strip_prefix('-').unwrap_or(value);
    let unit = number.trim_start_matches(digits);
    let unit_is_known = || {
        let unit = unit.strip_prefix(" × ").unwrap_or(unit).trim_start_matches(digits);
        UNITS.contains(&unit)
    };
    WORDS.contains(&value) || number.starts_with(digits) && unit_is_known()
}

/// The first changes of a step, in words.
fn told(object: &ObjectId, verb: Verb, changes: &[Change], reason: &str) -> String {
    let changes: Vec<_> = changes.iter().map(|change| spared(object, change)).collect();
    if verb == Verb::Create && changes.iter().all(|change| change.from.is_none()) {
        return reason.to_owned();
    }
    let short = |text: &str| match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    };
    let value = |value: &Option<String>| value.as_deref().map_or("none".to_owned(), short);
    // Where the lines are known, the digests say nothing more.
    let lines = changes.iter().any(|change| change.field == LINE);
    // A line by hand may hold anything, and this goes into logs: it is counted. Ours may be shown.
    let by_hand = |change: &&Change| change.field == LINE && change.to.is_none();
    let others = changes.iter().filter(by_hand).count();
    let mut shown =
        changes.iter().filter(|change| !(by_hand(change) || lines && change.field == CONTENT));
    let others = (others > 0).then(|| format!("has {} by hand", counted(others, "line")));
    let words: Vec<String> = others
        .into_iter()
        .chain(shown.by_ref().take(NAMED).map(|change| {
            match (change.field.as_str(), &change.from, &change.to) {
                (LINE, None, Some(line)) => format!("lacks the line `{}`", short(line)),
                (field, from, to) => {
                    format!("{field} is {}, not {}", value(from), value(to))
                }
            }
        }))
        .collect();
    let more = shown.count();
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    if words.is_empty() {
        return reason.to_owned();
    }
    let by = reason.strip_prefix(DIFFERS).unwrap_or_default();
    let told = words.join(", ") + &more + by;
    told.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// What the servers have recorded. `Some(None)`: there is a record that could not be read.
struct Records<'a>(BTreeMap<&'a HostName, Option<BTreeMap<&'a str, &'a str>>>);

impl<'a> Records<'a> {
    fn of(view: &View<'a>) -> Self {
        let record = |facts: &'a HostFacts| {
            let file = facts.files.get(RECORD)?;
            Some(file.text.as_deref().and_then(lines))
        };
        let hosts = view.desired.servers.keys();
        Self(hosts.filter_map(|host| Some((host, record(view.host(host)?)?))).collect())
    }

    /// True where an object was once found as it is wanted now; also where that is not known.
    fn is_drift(&self, wanted: &Wanted, object: &ObjectId) -> bool {
        if matches!(object, ObjectId::AlterSystem(..)) {
            return !self.0.is_empty();
        }
        let name = object.to_string();
        let settled = |record: &Option<BTreeMap<&str, &str>>| match record {
            None => true,
            // What is not wanted, such as a config that is cleared away, was never settled.
            Some(lines) => wanted
                .get(object)
                .is_some_and(|wanted| lines.get(name.as_str()) == Some(&wanted.as_str())),
        };
        match object.host() {
            Some(host) => self.0.get(host).is_some_and(settled),
            None => self.0.values().any(settled),
        }
    }
}

/// The lines of a record; None where one is damaged.
fn lines(text: &str) -> Option<BTreeMap<&str, &str>> {
    let line = |line: &'_ str| -> Option<(usize, usize)> {
        let (digest, object) = line.split_once(' ')?;
        let whole = digest.len() == DIGITS && digest.bytes().all(|b| b.is_ascii_hexdigit());
        (whole && !object.is_empty()).then_some((digest.len(), line.len()))
    };
    text.lines().map(|text| line(text).map(|(at, end)| (&text[at + 1..end], &text[..at]))).collect()
}

/// Whether it is known how an object is, as far as no hold says otherwise.
fn known(view: &View<'_>, held: &BTreeSet<&ObjectId>, object: &ObjectId) -> bool {
    let facts = || view.desired.servers.keys().filter_map(|host| view.host(host));
    if held.contains(object) {
        return false;
    }
    match object {
        ObjectId::EtcdMember(host) => {
            view.host(host).is_some_and(|facts| facts.etcd.known().is_some())
        }
        ObjectId::PatroniMember(host) => {
            view.host(host).is_some_and(|facts| facts.patroni.known().is_some())
        }
        ObjectId::PatroniConfig => facts().any(|facts| {
            let patroni = facts.patroni.present();
            patroni.is_some_and(|fact| fact.role == PatroniRole::Primary && fact.config.is_some())
        }),
        ObjectId::Role(_)
        | ObjectId::Database(_)
        | ObjectId::Extension(..)
        | ObjectId::PoolerLookup(_)
        | ObjectId::ProbeTable => facts().any(|facts| facts.sql.present().is_some()),
        ObjectId::SwarmNode(_)
        | ObjectId::Network(_)
        | ObjectId::Config(_)
        | ObjectId::Secret(_)
        | ObjectId::Service(_) => {
            view.observed.swarm.present().is_some() && !held.contains(&ObjectId::Swarm)
        }
        _ => object.host().is_none_or(|host| !held.contains(&ObjectId::Host(host.clone()))),
    }
}

/// Where nothing else is to be done, steps that write down, on each server, what is as desired now. What
/// is not, or is not known, keeps its line.
pub(super) fn record(view: &View<'_>, held: &[Held]) -> Vec<Draft> {
    let policy = &view.desired.policy;
    if !reports(policy.drift) || super::arrange::pause(view.desired, view.observed).is_some() {
        return Vec::new();
    }
    let (wanted, records) = (wanted(view.desired), Records::of(view));
    let held: BTreeSet<&ObjectId> = held.iter().map(|held| &held.object).collect();
    let mut steps = Vec::new();
    for host in view.desired.servers.keys() {
        let Some(facts) = view.host(host) else { continue };
        let before = match records.0.get(host) {
            Some(None) => continue,
            before => before.and_then(Option::as_ref),
        };
        let mut text = String::new();
        let mine = wanted.iter().filter(|(object, _)| {
            object.host().is_none_or(|at| at == host) && mode(policy.drift, object) == Drift::Report
        });
        for (object, digest) in mine {
            let name = object.to_string();
            let line = if known(view, &held, object) {
                Some(digest.as_str())
            } else {
                before.and_then(|lines| lines.get(name.as_str()).copied())
            };
            if let Some(digest) = line {
                text.push_str(&format!("{digest} {name}\n"));
            }
        }
        let content = Content::open(text);
        let fact = facts.files.get(RECORD);
        if fact.is_some_and(|fact| fact.digest == content.digest()) {
            continue;
        }
        let file = DesiredFile {
            path: RECORD.to_owned(),
            content,
            mode: 0o600,
            owner: "root".to_owned(),
            group: "root".to_owned(),
        };
        let action = HostAction::WriteFile {
            file,
            before: fact.map(|fact| fact.digest.clone()),
            claim: !facts.manifest.claims(ClaimKind::File, RECORD),
            notify: None,
            quorum: None,
            cluster: view.desired.cluster.clone(),
        };
        let object = ObjectId::File(host.clone(), RECORD.to_owned());
        let verb = if fact.is_some() { Verb::Update } else { Verb::Create };
        let reason = "what is as desired now, so that drift can be told from changes";
        steps.push(Draft::new(object, verb, reason, 60, Action::Host(host.clone(), action)));
    }
    steps
}

/// Everything that is wanted, by object.
fn wanted(desired: &Desired) -> Wanted {
    let mut wanted = Wanted::new();
    for (host, server) in &desired.servers {
        // That a server is to leave is a change of all that runs there.
        let leaves = desired.leaves(host);
        for object in [ObjectId::Packages(host.clone()), ObjectId::Upgrade(host.clone())] {
            wanted.insert(object, digest(&server.packages));
        }
        for (path, file) in &server.files {
            wanted.insert(ObjectId::File(host.clone(), path.clone()), digest(&file.file));
        }
        for (unit, managed) in &server.units {
            wanted.insert(ObjectId::Unit(host.clone(), unit.clone()), digest(&(managed, leaves)));
        }
        if server.swarm != SwarmRole::None {
            let engine = ObjectId::Unit(host.clone(), ENGINE_UNIT.to_owned());
            wanted.insert(engine, digest(&leaves));
        }
        let member = desired.etcd.members.get(host);
        wanted.insert(ObjectId::EtcdMember(host.clone()), digest(&(member, leaves)));
        let member = desired.patroni.members.get(host);
        wanted.insert(ObjectId::PatroniMember(host.clone()), digest(&(member, leaves)));
    }
    wanted.insert(ObjectId::PatroniConfig, digest(&desired.patroni.config));
    wanted.insert(ObjectId::ProbeTable, digest(&()));
    for (name, role) in &desired.sql.roles {
        wanted.insert(ObjectId::Role(name.clone()), digest(role));
    }
    for (name, database) in &desired.sql.databases {
        wanted.insert(ObjectId::Database(name.clone()), digest(database));
        for extension in &database.extensions {
            let object = ObjectId::Extension(name.clone(), extension.clone());
            wanted.insert(object, digest(&()));
        }
    }
    for name in &desired.sql.lookup_in {
        wanted.insert(ObjectId::PoolerLookup(name.clone()), digest(&()));
    }
    let swarm = &desired.swarm;
    for (host, role) in &swarm.nodes {
        wanted.insert(
            ObjectId::SwarmNode(host.clone()),
            digest(&(role, &swarm.labels, desired.leaves(host))),
        );
    }
    wanted.insert(ObjectId::Network(swarm.network.name.clone()), digest(&swarm.network));
    // Their names have the digest of their content.
    for file in &swarm.configs {
        wanted.insert(ObjectId::Config(file.name.clone()), digest(&()));
    }
    for file in &swarm.secrets {
        wanted.insert(ObjectId::Secret(file.name.clone()), digest(&()));
    }
    for service in &swarm.services {
        wanted.insert(ObjectId::Service(service.name.clone()), digest(service));
    }
    wanted
}

/// Secrets go in by their own digests.
fn digest(value: &impl Serialize) -> String {
    // Plain data with string keys always serialises.
    let mut digest = sha256_hex(&serde_json::to_vec(value).unwrap_or_default());
    digest.truncate(DIGITS);
    digest
}
