//! Newer versions of packages that the file pins: one server at a time, replicas before the primary,
//! and the next server only when all that runs on the one before runs what was installed there.
//!
//! Installing replaces programs and restarts nothing. What has to be started anew is seen afterwards,
//! from a note or from the process itself, and restarted by `owed.rs` and `roll.rs`, each in its own
//! order. The primary's programs are not replaced under it: it hands over before.

use super::{
    HoldReason, Impact, Verb,
    draft::{Draft, Drafts, View},
    patroni::{cluster, ours},
    roll, servers,
};
use crate::{
    action::{Action, HostAction},
    desired::{DesiredServer, etcd, patroni, server::DesiredPackage},
    model::{ClaimKind, HostFacts, HostName, ObjectId, PatroniRole},
    version,
};

/// From this version on etcd has no v2 interface, by which Patroni is told to speak to it.
const ETCD_WITHOUT_V2: (u32, u32) = (3, 6);

/// A package with its installed version and the pinned one.
struct Change<'a> {
    name: &'a str,
    from: &'a str,
    to: &'a str,
}

/// What is to be upgraded on a server.
struct Upgrade<'a> {
    host: &'a HostName,
    server: &'a DesiredServer,
    changes: Vec<Change<'a>>,
}

impl Upgrade<'_> {
    /// It replaces what the member of the database runs.
    fn of_the_database(&self) -> bool {
        self.changes.iter().any(|change| !etcd::PACKAGES.contains(&change.name))
    }
}

/// The package that brings the program of a unit.
fn package_of(unit: &str) -> Option<&'static str> {
    match unit {
        etcd::UNIT => Some(etcd::PACKAGES[0]),
        patroni::UNIT => Some(patroni::PACKAGES[0]),
        _ => None,
    }
}

/// The installed package of PostgreSQL itself is the one that the file pins. What was installed by
/// somebody else and is pinned by nobody is not ours to bring into force.
pub(super) fn pinned_postgresql(view: &View<'_>, host: &HostName, facts: &HostFacts) -> bool {
    let name = format!("postgresql-{}", view.desired.patroni.version);
    let server = view.desired.servers.get(host);
    server
        .and_then(|server| server.packages.iter().find(|package| package.name == name))
        .is_some_and(|package| {
            facts.packages.get(&name).is_some_and(|fact| {
                fact.complete && package.version.as_deref() == Some(fact.version.as_str())
            })
        })
}

/// The member that runs a package's programs. Where it is not ours yet, they may be somebody else's.
fn member_of(
    view: &View<'_>,
    host: &HostName,
    package: &str,
    facts: &HostFacts,
) -> Option<ObjectId> {
    let (data_dir, member) = if etcd::PACKAGES.contains(&package) {
        (&view.desired.etcd.data_dir, ObjectId::EtcdMember(host.clone()))
    } else {
        (&view.desired.patroni.data_dir, ObjectId::PatroniMember(host.clone()))
    };
    (!facts.manifest.claims(ClaimKind::DataDir, data_dir)).then_some(member)
}

/// What is to be upgraded on a server, or why not.
fn changes<'a>(
    view: &View<'_>,
    host: &HostName,
    server: &'a DesiredServer,
    facts: &'a HostFacts,
) -> Result<Vec<Change<'a>>, HoldReason> {
    let mut changes = Vec::new();
    for package in &server.packages {
        let installed = facts.packages.get(&package.name).filter(|fact| fact.complete);
        let (Some(fact), Some(to)) = (installed, package.version.as_deref()) else { continue };
        let (name, from) = (package.name.as_str(), fact.version.as_str());
        if from == to {
            continue;
        }
        let person = |why: &str| {
            Err(HoldReason::NeedsPerson(format!("{name} is at {from} and pinned to {to}; {why}")))
        };
        match version::compare(from, to) {
            std::cmp::Ordering::Less => {}
            // apt takes them for the same.
            std::cmp::Ordering::Equal => continue,
            std::cmp::Ordering::Greater => {
                return person("data may not go back to what an older version understands");
            }
        }
        if name == etcd::PACKAGES[0] {
            let old = version::major_minor(from);
            let new = version::major_minor(to);
            match (old, new) {
                (_, Some(new)) if new >= ETCD_WITHOUT_V2 => {
                    return person("it has no v2 interface any more, which Patroni is told to use");
                }
                (Some((a, b)), Some((c, d))) if a == c && d <= b + 1 => {}
                _ => return person("etcd goes up by one minor version at a time"),
            }
        }
        if let Some(member) = member_of(view, host, name, facts) {
            return Err(HoldReason::WaitsFor(member));
        }
        changes.push(Change { name, from, to });
    }
    if changes.is_empty() {
        return Ok(changes);
    }
    if !server.install {
        let names: Vec<_> = changes.iter().map(|change| change.name).collect();
        return Err(HoldReason::NeedsPerson(format!(
            "packages.source is `preinstalled` and {} is older than pinned",
            names.join(", ")
        )));
    }
    match servers::no_space(facts) {
        Some(reason) => Err(reason),
        None => Ok(changes),
    }
}

/// What is to be upgraded where; the first is the next. Those that cannot be are in the other list.
fn all<'a>(view: &View<'a>) -> (Vec<Upgrade<'a>>, Vec<(&'a HostName, HoldReason)>) {
    let (mut upgrades, mut held) = (Vec::new(), Vec::new());
    for (host, server) in &view.desired.servers {
        let Some(facts) = view.host(host).filter(|_| !view.leaves(host)) else { continue };
        match changes(view, host, server, facts) {
            Ok(changes) if changes.is_empty() => {}
            Ok(changes) => upgrades.push(Upgrade { host, server, changes }),
            Err(reason) => held.push((host, reason)),
        }
    }
    upgrades.sort_by_key(|upgrade| place(view, upgrade.host));
    (upgrades, held)
}

/// A member that does not serve may be waiting for just this; the primary's server is the last.
fn place(view: &View<'_>, host: &HostName) -> u8 {
    if leads(view, host) {
        2
    } else {
        u8::from(member_serves(view, host) && etcd_serves(view, host))
    }
}

fn leads(view: &View<'_>, host: &HostName) -> bool {
    cluster(view).primary.is_some_and(|(primary, _)| primary == host)
}

/// Why a member's programs stay though it is not seen to lead: one that calls itself the primary leads
/// again as soon as it runs, and where two say so nobody knows who does.
fn disputed(view: &View<'_>, host: &HostName) -> Option<HoldReason> {
    if cluster(view).split {
        let reason = "more than one member says that it is the primary".to_owned();
        return Some(HoldReason::NeedsPerson(reason));
    }
    let facts = view.host(host)?;
    let fact = facts.patroni.present().filter(|fact| ours(view, facts, fact))?;
    (fact.role == PatroniRole::Primary && !leads(view, host))
        .then(|| HoldReason::WaitsFor(ObjectId::PatroniMember(host.clone())))
}

fn member_serves(view: &View<'_>, host: &HostName) -> bool {
    !view.desired.patroni.members.contains_key(host)
        || view.host(host).is_some_and(|facts| {
            let fact = facts.patroni.present().filter(|fact| ours(view, facts, fact));
            fact.is_some_and(roll::serves)
        })
}

fn etcd_serves(view: &View<'_>, host: &HostName) -> bool {
    !view.desired.etcd.members.contains_key(host)
        || super::etcd::member(view, host).is_some_and(|member| member.healthy)
}

/// Whether packages of the database are half installed on a member of ours that has others beside it: an
/// upgrade was cut off, and finishing it replaces what the member runs.
fn half_installed(
    view: &View<'_>,
    host: &HostName,
    server: &DesiredServer,
    facts: &HostFacts,
) -> bool {
    let members = &view.desired.patroni.members;
    let half = |package: &DesiredPackage| {
        !etcd::PACKAGES.contains(&package.name.as_str())
            && facts.packages.get(&package.name).is_some_and(|fact| !fact.complete)
    };
    members.contains_key(host)
        && members.keys().any(|member| member != host && !view.leaves(member))
        && facts.manifest.claims(ClaimKind::DataDir, &view.desired.patroni.data_dir)
        && server.packages.iter().any(half)
}

/// Packages that are half installed are finished, but not under a primary that could hand over: whoever
/// it was when the upgrade began, another may lead by now. Gives whom to ask in the moment of it.
pub(super) fn finish(
    view: &View<'_>,
    host: &HostName,
    server: &DesiredServer,
    facts: &HostFacts,
) -> Result<Option<String>, HoldReason> {
    if !half_installed(view, host, server, facts) {
        return Ok(None);
    }
    if leads(view, host) {
        fit(view, host)?;
        return Err(HoldReason::OneAtATime(ObjectId::Postgresql(host.clone())));
    }
    if let Some(reason) = disputed(view, host) {
        let starts = facts.patroni.present().is_some_and(|fact| fact.state == "starting");
        return Err(match reason {
            // It may wait for these very packages.
            HoldReason::WaitsFor(ObjectId::PatroniMember(_)) if !starts => {
                HoldReason::NeedsPerson(format!(
                    "packages of the database are half installed, and {host} calls itself the primary without \
                 leading: `dpkg --configure -a` there finishes them"
                ))
            }
            other => other,
        });
    }
    Ok(view.desired.patroni.members.get(host).map(|member| member.rest_url.clone()))
}

/// The primary whose half installed packages are to be finished.
fn unfinished<'a>(view: &View<'a>) -> Option<&'a HostName> {
    let (host, facts) =
        cluster(view).primary.and_then(|(host, _)| Some((host, view.host(host)?)))?;
    let (host, server) = view.desired.servers.get_key_value(host)?;
    let reported = super::drift::only_reported(view, &ObjectId::Packages(host.clone()));
    let ready = server.install && servers::no_space(facts).is_none() && !reported;
    let stays = ready && !view.leaves(host);
    (stays && half_installed(view, host, server, facts) && fit(view, host).is_ok()).then_some(host)
}

/// The primary whose programs are to be replaced next: it hands over before.
pub(super) fn hands_over<'a>(view: &View<'a>) -> Option<&'a HostName> {
    if let Some(host) = unfinished(view) {
        return Some(host);
    }
    let (upgrades, _) = all(view);
    let next = upgrades.first()?;
    let others = view
        .desired
        .patroni
        .members
        .keys()
        .any(|member| member != next.host && !view.leaves(member));
    let object = ObjectId::Upgrade(next.host.clone());
    // Clients do not wait for an upgrade that then is not made.
    let made = super::arrange::forbidden(&view.desired.policy, view.observed.at, Impact::Restart)
        .is_none()
        && !super::drift::only_reported(view, &object);
    let ready = made && next.of_the_database() && others && fit(view, next.host).is_ok();
    (ready && leads(view, next.host)).then_some(next.host)
}

/// Plans the next server's upgrade.
pub(super) fn plan(view: &View<'_>, drafts: &mut Drafts) {
    let (upgrades, held) = all(view);
    for (host, reason) in held {
        drafts.hold(ObjectId::Upgrade(host.clone()), reason);
    }
    let Some(next) = upgrades.first() else { return };
    let object = ObjectId::Upgrade(next.host.clone());
    let waits = |host: &HostName, reason: HoldReason, drafts: &mut Drafts| {
        drafts.hold(ObjectId::Upgrade(host.clone()), reason);
    };
    let replaced = || replica(view, next).and_then(|_| disputed(view, next.host));
    let first = match fit(view, next.host).and_then(|()| replaced().map_or(Ok(()), Err)) {
        Err(reason) => {
            for upgrade in &upgrades {
                waits(upgrade.host, reason.clone(), drafts);
            }
            return;
        }
        Ok(()) if hands_over(view) == Some(next.host) => {
            let first = ObjectId::Postgresql(next.host.clone());
            waits(next.host, HoldReason::OneAtATime(first.clone()), drafts);
            first
        }
        Ok(()) => {
            drafts.step(draft(view, next));
            object
        }
    };
    for upgrade in &upgrades[1..] {
        waits(upgrade.host, HoldReason::OneAtATime(first.clone()), drafts);
    }
}

/// Where the programs that are replaced must not be the primary's, since another could take over.
fn replica(view: &View<'_>, upgrade: &Upgrade<'_>) -> Option<String> {
    let members = &view.desired.patroni.members;
    let others = members.keys().any(|member| member != upgrade.host && !view.leaves(member));
    let member = members.get(upgrade.host).filter(|_| others && upgrade.of_the_database())?;
    Some(member.rest_url.clone())
}

fn draft(view: &View<'_>, upgrade: &Upgrade<'_>) -> Draft {
    let host = upgrade.host;
    let pairs = upgrade.changes.iter();
    let brought = |unit: &&String| {
        let package = package_of(unit);
        upgrade.changes.iter().any(|change| Some(change.name) == package)
    };
    let action = HostAction::UpgradePackages {
        packages: pairs.map(|change| (change.name.to_owned(), change.to.to_owned())).collect(),
        outdates: upgrade.server.units.keys().filter(brought).cloned().collect(),
        replica: replica(view, upgrade),
    };
    let first = upgrade.server.files.values().filter(|file| file.before_packages);
    let needs = first.map(|file| ObjectId::File(host.clone(), file.file.path.clone()));
    let mut draft = Draft::new(
        ObjectId::Upgrade(host.clone()),
        Verb::Update,
        "older than the file says",
        900,
        Action::Host(host.clone(), action),
    )
    .impact(Impact::Restart)
    .needs(needs)
    .needs([ObjectId::Packages(host.clone())]);
    for change in &upgrade.changes {
        draft = draft.change(change.name, Some(change.from.to_owned()), Some(change.to.to_owned()));
    }
    draft
}

/// Why nothing may be replaced on a server now: all others have to serve, with nothing to be restarted.
fn fit(view: &View<'_>, host: &HostName) -> Result<(), HoldReason> {
    let others = || view.desired.servers.keys().filter(|other| *other != host);
    for other in others().filter(|other| !view.leaves(other)) {
        let Some(facts) = view.host(other) else {
            return Err(HoldReason::WaitsFor(ObjectId::Host(other.clone())));
        };
        let whole = |package: &DesiredPackage| {
            facts.packages.get(&package.name).is_some_and(|fact| fact.complete)
        };
        if !view.desired.servers[other].packages.iter().all(whole) {
            return Err(HoldReason::WaitsFor(ObjectId::Packages(other.clone())));
        }
        if let Some((unit, _)) = facts.units.iter().find(|(_, fact)| fact.outdated) {
            let object = if unit == patroni::UNIT {
                ObjectId::Postgresql(other.clone())
            } else {
                ObjectId::Unit(other.clone(), unit.clone())
            };
            return Err(HoldReason::OneAtATime(object));
        }
        let fact = facts.patroni.present();
        if fact.is_some_and(|fact| roll::replaced(view, other, facts, fact).is_some()) {
            return Err(HoldReason::OneAtATime(ObjectId::Postgresql(other.clone())));
        }
        if !etcd_serves(view, other) {
            return Err(HoldReason::WaitsFor(ObjectId::EtcdMember(other.clone())));
        }
        if !member_serves(view, other) {
            return Err(HoldReason::WaitsFor(ObjectId::PatroniMember(other.clone())));
        }
    }
    let paused = |other: &HostName| {
        let facts = view.host(other);
        facts.and_then(|facts| facts.patroni.present()).is_some_and(|fact| fact.paused)
    };
    if view.desired.patroni.members.keys().any(paused) {
        let reason = "Patroni is paused; `patronictl resume` ends it".to_owned();
        return Err(HoldReason::Paused(reason));
    }
    let etcd = view.desired.etcd.members.contains_key(host);
    match etcd.then(|| super::etcd::restart_forbidden(view, host)).flatten() {
        Some(reason) => Err(reason),
        None => Ok(()),
    }
}
