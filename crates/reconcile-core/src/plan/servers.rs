//! Servers: may they be worked on at all, their packages and files.

use reconcile_spec::valid::SwarmRole;

use super::{
    CONTENT, DIFFERS, HoldReason, Impact, LINE, Verb,
    draft::{Draft, Drafts, View},
};
use crate::{
    action::{Action, HostAction, UnitVerb},
    desired::{
        DesiredServer, ManagedFile, etcd, patroni,
        server::{ENGINE_PACKAGE, PACKAGE_DISK, POLICY, POLICY_TEXT},
    },
    model::{
        Claim, ClaimKind, FileFact, FileKind, HostFacts, HostName, ObjectId, Observation,
        sha256_hex,
    },
};

/// Below this much free space nothing is installed: the packages of a whole server take about
/// 400 MB, and a full root file system takes the database down.
const MIN_FREE_BYTES: u64 = 1 << 30;

/// Plans the claims of what other steps are about to make; comes after all others.
pub(super) fn plan_claims(view: &View<'_>, drafts: &mut Drafts) {
    for (name, server) in &view.desired.servers {
        if let Some(facts) = view.host(name) {
            plan_claim(view, name, server, facts, drafts);
        }
    }
}

/// Plans packages and files of every server.
pub(super) fn plan(view: &View<'_>, drafts: &mut Drafts) {
    for (name, server) in &view.desired.servers {
        match view.observed.hosts.get(name) {
            Some(Observation::Known(facts)) => {
                if let Some(reason) = view.unfit(facts) {
                    drafts.hold(ObjectId::Host(name.clone()), reason);
                } else {
                    if !view.leaves(name) {
                        plan_packages(view, name, server, facts, drafts);
                    }
                    plan_engine(name, server, facts, drafts);
                    for file in server.files.values() {
                        plan_file(view, name, file, facts, drafts);
                    }
                }
            }
            Some(Observation::Unknown { reason }) => {
                drafts.hold(ObjectId::Host(name.clone()), HoldReason::Unknown(reason.clone()));
            }
            None => {
                let reason = HoldReason::Unknown("it was not observed".to_owned());
                drafts.hold(ObjectId::Host(name.clone()), reason);
            }
        }
    }
}

/// Files that already are as desired but unclaimed become ours without being written, and a
/// server's membership in the Swarm is noted where it is about to come about: a claim without
/// its effect would make a stranger's Swarm look like ours.
fn plan_claim(
    view: &View<'_>,
    name: &HostName,
    server: &DesiredServer,
    facts: &HostFacts,
    drafts: &mut Drafts,
) {
    let mut claims: Vec<Claim> = server
        .files
        .values()
        .filter(|managed| {
            let path = &managed.file.path;
            facts.files.get(path).is_some_and(|fact| same(managed, fact))
                && !facts.manifest.claims(ClaimKind::File, path)
        })
        .map(|managed| Claim { kind: ClaimKind::File, name: managed.file.path.clone() })
        .collect();
    let joins = !facts.manifest.claims(ClaimKind::Swarm, super::swarm::CLAIM)
        && drafts.steps.iter().any(|step| super::swarm::enters(step, name));
    if joins {
        claims.push(Claim { kind: ClaimKind::Swarm, name: super::swarm::CLAIM.to_owned() });
    }
    if claims.is_empty() {
        return;
    }
    let cluster = view.desired.cluster.clone();
    let named = claims.iter().map(|claim| claim.name.clone()).collect::<Vec<_>>().join(", ");
    let action = Action::Host(name.clone(), HostAction::Claim { cluster, claims });
    drafts.step(
        Draft::new(
            ObjectId::Host(name.clone()),
            Verb::Claim,
            "noted as ours before it is made",
            30,
            action,
        )
        .change("manifest", None, Some(named)),
    );
}

/// An engine that we installed and that does not answer was not started yet: a run was cut off
/// between the two, or it was stopped since.
fn plan_engine(name: &HostName, server: &DesiredServer, facts: &HostFacts, drafts: &mut Drafts) {
    let ours = facts.manifest.claims(ClaimKind::Package, ENGINE_PACKAGE);
    if server.swarm == SwarmRole::None || facts.docker.reason().is_none() || !ours {
        return;
    }
    let unit = "docker.service".to_owned();
    let action = HostAction::Unit { unit: unit.clone(), verb: UnitVerb::Start, enable: true };
    drafts.step(Draft::new(
        ObjectId::Unit(name.clone(), unit),
        Verb::Start,
        "the engine does not answer",
        120,
        Action::Host(name.clone(), action),
    ));
}

fn plan_packages(
    view: &View<'_>,
    name: &HostName,
    server: &DesiredServer,
    facts: &HostFacts,
    drafts: &mut Drafts,
) {
    let object = ObjectId::Packages(name.clone());
    let mut wanted = Vec::new();
    let mut draft_changes = Vec::new();
    for package in &server.packages {
        let installed = facts.packages.get(&package.name).filter(|fact| fact.complete);
        // Another version than the pinned one: upgrade.rs
        if installed.is_none() {
            wanted.push((package.name.clone(), package.version.clone()));
            draft_changes.push((package.name.clone(), package.version.clone()));
        }
    }
    let engine = server.swarm != SwarmRole::None && facts.docker.is_absent();
    if engine {
        wanted.push((ENGINE_PACKAGE.to_owned(), None));
        draft_changes.push((ENGINE_PACKAGE.to_owned(), None));
    }
    if wanted.is_empty() {
        plan_policy(view, name, facts, drafts);
        return;
    }
    if !server.install {
        let names: Vec<_> = wanted.iter().map(|(name, _)| name.as_str()).collect();
        let reason =
            format!("packages.source is `preinstalled` and {} is missing", names.join(", "));
        drafts.hold(object, HoldReason::NeedsPerson(reason));
        return;
    }
    if let Some(reason) = no_space(facts) {
        drafts.hold(object, reason);
        return;
    }
    let replica = match super::upgrade::finish(view, name, server, facts) {
        Ok(replica) => replica,
        Err(reason) => {
            drafts.hold(object, reason);
            return;
        }
    };
    let claims = wanted
        .iter()
        .map(|(name, _)| Claim { kind: ClaimKind::Package, name: name.clone() })
        .collect();
    // A package enables its unit, and a reboot would start it before its turn: etcd without
    // data and as `existing`, Patroni without a claim. What is in use already is left alone.
    let idle = |unit: &&String| {
        facts.units.get(*unit).is_none_or(|fact| fact.enabled != "enabled" && fact.main_pid == 0)
    };
    let silence = std::iter::once("postgresql.service".to_owned())
        .chain(server.units.keys().filter(idle).cloned())
        .collect();
    let action = HostAction::InstallPackages {
        packages: wanted,
        cluster: view.desired.cluster.clone(),
        claims,
        silence,
        start: if engine { vec!["docker.service".to_owned()] } else { Vec::new() },
        replica,
    };
    let first = server.files.values().filter(|file| file.before_packages);
    let needs = first.map(|file| ObjectId::File(name.clone(), file.file.path.clone()));
    let mut draft = Draft::new(
        object,
        Verb::Create,
        "packages are missing",
        900,
        Action::Host(name.clone(), action),
    )
    .needs(needs);
    for (package, version) in draft_changes {
        draft =
            draft.change(package, None, Some(version.unwrap_or_else(|| "candidate".to_owned())));
    }
    drafts.step(draft);
}

/// Why nothing is installed where there is no room for it.
pub(super) fn no_space(facts: &HostFacts) -> Option<HoldReason> {
    let disk = facts.disks.get(PACKAGE_DISK).filter(|disk| disk.free_bytes < MIN_FREE_BYTES)?;
    let free = disk.free_bytes >> 20;
    Some(HoldReason::NeedsPerson(format!("{PACKAGE_DISK} has {free} MB free, 1024 MB are needed")))
}

/// A power cut while packages were installed leaves behind what keeps every package of the server from
/// starting its services. What is not ours to the letter stays.
fn plan_policy(view: &View<'_>, name: &HostName, facts: &HostFacts, drafts: &mut Drafts) {
    let ours = sha256_hex(POLICY_TEXT.as_bytes());
    if facts.files.get(POLICY).is_none_or(|fact| fact.digest != ours) {
        return;
    }
    let action = HostAction::InstallPackages {
        packages: Vec::new(),
        cluster: view.desired.cluster.clone(),
        claims: Vec::new(),
        silence: Vec::new(),
        start: Vec::new(),
        replica: None,
    };
    let draft = Draft::new(
        ObjectId::Packages(name.clone()),
        Verb::Remove,
        "an installation that was cut off left it behind",
        60,
        Action::Host(name.clone(), action),
    );
    drafts.step(draft.change(POLICY, Some("reconcile's".to_owned()), None));
}

/// False only where a unit is known not to run: it reads its file when it starts.
fn runs(facts: &HostFacts, unit: &str) -> bool {
    facts.units.get(unit).is_some_and(|fact| !matches!(&*fact.active, "inactive" | "failed"))
}

/// True where a file is as desired.
/// Why a file is written anew, and what is known of who made that necessary.
fn differs(fact: &FileFact) -> String {
    fact.changed.as_ref().map_or_else(|| DIFFERS.to_owned(), |by| format!("{DIFFERS}; {by}"))
}

fn same(managed: &ManagedFile, fact: &FileFact) -> bool {
    let file = &managed.file;
    fact.kind == FileKind::File
        && fact.digest == file.content.digest()
        && fact.mode == file.mode
        && fact.owner == file.owner
        && fact.group == file.group
}

/// Somebody else's service that a new file would change at its next start: one that runs from a unit
/// that is not ours, or would at the next boot on data that are not ours. A unit in
/// /etc/systemd/system shadows the package's.
fn foreign_unit(view: &View<'_>, managed: &ManagedFile, facts: &HostFacts) -> Option<HoldReason> {
    let path = managed.file.path.as_str();
    let (unit, unit_file, data) = [
        (etcd::UNIT, etcd::UNIT_FILE, &view.desired.etcd.data_dir),
        (patroni::UNIT, patroni::UNIT_FILE, &view.desired.patroni.data_dir),
    ]
    .into_iter()
    .find(|(unit, unit_file, _)| {
        path == *unit_file || managed.notify.as_ref().is_some_and(|(told, _)| told == unit)
    })?;
    let fact = facts.units.get(unit)?;
    if facts.manifest.claims(ClaimKind::File, unit_file) {
        return None;
    }
    let theirs = facts.data_dirs.get(data).is_some_and(|dir| dir.populated)
        && !facts.manifest.claims(ClaimKind::DataDir, data);
    let what = if fact.main_pid != 0 {
        "runs"
    } else if fact.enabled == "enabled" && theirs {
        "starts at boot"
    } else {
        return None;
    };
    Some(HoldReason::Foreign(format!(
        "{unit} {what} here already, and {path} would change what it does"
    )))
}

fn plan_file(
    view: &View<'_>,
    name: &HostName,
    managed: &ManagedFile,
    facts: &HostFacts,
    drafts: &mut Drafts,
) {
    let file = &managed.file;
    let object = ObjectId::File(name.clone(), file.path.clone());
    let fact = facts.files.get(&file.path);
    if fact.is_some_and(|fact| same(managed, fact)) {
        return;
    }
    if let Some(fact) = fact {
        if fact.kind != FileKind::File {
            let reason = format!("{} is no regular file", file.path);
            drafts.hold(object, HoldReason::Foreign(reason));
            return;
        }
        if !facts.manifest.claims(ClaimKind::File, &file.path) {
            let reason = format!(
                "{} exists with other content; move it away if reconcile may write it",
                file.path
            );
            drafts.hold(object, HoldReason::Foreign(reason));
            return;
        }
    }
    if fact.is_none()
        && let Some(reason) = foreign_unit(view, managed, facts)
    {
        drafts.hold(object, reason);
        return;
    }
    let digest = file.content.digest();
    let peers_alone = file.path == crate::desired::etcd::ENV
        && fact
            .and_then(|fact| fact.text.as_deref())
            .zip(file.content.shown())
            .is_some_and(|(before, after)| super::etcd::same_but_peers(before, after));
    let changed = fact.is_some_and(|fact| fact.digest != digest) && !peers_alone;
    let notify = managed.notify.clone().filter(|(unit, _)| changed && runs(facts, unit));
    let impact = match notify {
        Some((_, UnitVerb::Restart)) => Impact::Restart,
        Some(_) => Impact::Reload,
        None => Impact::None,
    };
    if impact.disruptive()
        && let Some(reason) = super::etcd::restart_forbidden(view, name)
    {
        drafts.hold(object, reason);
        return;
    }
    let verb = if fact.is_some() { Verb::Update } else { Verb::Create };
    let reason = fact.map_or_else(|| "it does not exist".to_owned(), differs);
    let action = HostAction::WriteFile {
        file: file.clone(),
        before: fact.map(|fact| fact.digest.clone()),
        claim: !facts.manifest.claims(ClaimKind::File, &file.path),
        quorum: impact.disruptive().then(|| super::etcd::quorum(view, name)).flatten(),
        notify,
        cluster: view.desired.cluster.clone(),
    };
    let mut draft = Draft::new(
        object,
        verb,
        reason,
        if impact.disruptive() { 120 } else { 60 },
        Action::Host(name.clone(), action),
    )
    .impact(impact);
    if !managed.before_packages {
        draft = draft.needs([ObjectId::Packages(name.clone())]);
    }
    if fact.is_some() && file.path == crate::desired::patroni::CONFIG {
        let roles = super::sql::INITIAL_ROLES;
        draft = draft.needs(roles.map(|role| ObjectId::Role(role.to_owned())));
    }
    drafts.step(describe(draft, managed, fact));
}

/// Field by field, and line by line where the text may be shown.
fn describe(mut draft: Draft, managed: &ManagedFile, fact: Option<&FileFact>) -> Draft {
    let file = &managed.file;
    let short = |digest: &str| Some(format!("sha256:{}", &digest[..digest.len().min(12)]));
    let digest = file.content.digest();
    if fact.is_none_or(|fact| fact.digest != digest) {
        draft = draft.change(CONTENT, fact.and_then(|fact| short(&fact.digest)), short(&digest));
    }
    if let (Some(before), Some(after)) =
        (fact.and_then(|fact| fact.text.as_deref()), file.content.shown())
    {
        let diff = similar::TextDiff::from_lines(before, after);
        for change in diff.iter_all_changes() {
            let line = change.value().trim_end().to_owned();
            match change.tag() {
                similar::ChangeTag::Delete => draft = draft.change(LINE, Some(line), None),
                similar::ChangeTag::Insert => draft = draft.change(LINE, None, Some(line)),
                similar::ChangeTag::Equal => {}
            }
        }
    }
    let Some(fact) = fact else { return draft };
    if fact.mode != file.mode {
        let octal = |mode: u32| Some(format!("{mode:04o}"));
        draft = draft.change("mode", octal(fact.mode), octal(file.mode));
    }
    if (&fact.owner, &fact.group) != (&file.owner, &file.group) {
        let from = format!("{}:{}", fact.owner, fact.group);
        let to = format!("{}:{}", file.owner, file.group);
        draft = draft.change("owner", Some(from), Some(to));
    }
    draft
}
