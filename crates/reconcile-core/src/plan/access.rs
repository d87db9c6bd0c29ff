//! A change of who gets into PostgreSQL: proven on one replica before any other server has it.
//!
//! The rules stand in patroni.yml, so it is the steps of that file that are looked at here. Where no
//! replica streams, the primary proves them in place. Where no primary runs (a cluster that is only
//! being made, or has no leader), nothing can be proven, and the files are written.

use super::{
    HoldReason, Impact, Verb,
    draft::{Draft, Drafts, View},
};
use crate::{
    action::{AccessTrial, Action, HostAction},
    desired::{
        access,
        patroni::{CONFIG, SOCKET_DIR, UNIT},
    },
    model::{AccessNote, AccessState, HostFacts, HostName, ObjectId, PatroniFact, PatroniRole},
};

/// Members that stay and are known.
fn staying<'a>(view: &View<'a>) -> impl Iterator<Item = (&'a HostName, &'a HostFacts)> {
    let members = view.desired.patroni.members.keys();
    members.filter(|host| !view.leaves(host)).filter_map(|host| Some((host, view.host(host)?)))
}

/// Our Patroni with a PostgreSQL that runs.
fn running<'a>(view: &View<'a>, facts: &'a HostFacts) -> Option<&'a PatroniFact> {
    let fact = facts.patroni.present()?;
    (super::patroni::ours(view, facts, fact) && fact.state == "running").then_some(fact)
}

fn streams(view: &View<'_>, facts: &HostFacts) -> bool {
    running(view, facts).is_some_and(|fact| fact.role == PatroniRole::Replica && fact.streaming)
}

/// The server has the desired rules in force, or is about to load them.
fn has_rules(view: &View<'_>, facts: &HostFacts) -> bool {
    let patroni = &view.desired.patroni;
    let fact = facts.files.get(&access::file(&patroni.data_dir));
    fact.is_some_and(|fact| fact.digest == patroni.access.file_digest)
}

/// The file that has the rules is as desired; for a Patroni that writes pg_hba.conf in another way.
fn has_file(view: &View<'_>, host: &HostName, facts: &HostFacts) -> bool {
    let managed = view.desired.servers.get(host).and_then(|server| server.files.get(CONFIG));
    let there = facts.files.get(CONFIG);
    managed.zip(there).is_some_and(|(managed, there)| there.digest == managed.file.content.digest())
}

fn noted(facts: &HostFacts, state: AccessState) -> Option<&AccessNote> {
    facts.access.as_ref().filter(|note| note.state == state)
}

/// A server proved the desired rules and has them, or the primary has them anyway.
fn proven(view: &View<'_>, primary: &HostName) -> bool {
    let digest = &view.desired.patroni.access.digest;
    staying(view).any(|(host, facts)| {
        let note = noted(facts, AccessState::Proven).is_some_and(|note| note.digest == *digest);
        let primary = host == primary && noted(facts, AccessState::Trying).is_none();
        let loaded = has_rules(view, facts);
        running(view, facts).is_some()
            && (note && (loaded || has_file(view, host, facts)) || primary && loaded)
    })
}

/// Why the rules must not be tried at all.
fn refusal(view: &View<'_>) -> Option<String> {
    let access = &view.desired.patroni.access;
    if let Some(reason) = lockout(view) {
        return Some(reason);
    }
    staying(view).find_map(|(host, facts)| {
        let note = noted(facts, AccessState::Refused).filter(|note| note.digest == access.digest)?;
        Some(format!(
            "the access rules were tried on {host} and taken back: {}; change postgresql.hba, or remove {} there to have them tried again",
            note.reason,
            AccessNote::PATH
        ))
    })
}

/// Who would be locked out, by the rules alone.
fn lockout(view: &View<'_>) -> Option<String> {
    let who = view.desired.patroni.access.locked_out()?;
    Some(format!("the access rules would lock out {who}; {}", access::REMEDY))
}

fn object(host: &HostName) -> ObjectId {
    ObjectId::File(host.clone(), CONFIG.to_owned())
}

/// Puts a trial in the place of one server's file and lets the others wait for it, or holds all.
pub(super) fn plan(view: &View<'_>, drafts: &mut Drafts) {
    let cluster = super::patroni::cluster(view);
    let unfinished = staying(view).find(|(_, facts)| noted(facts, AccessState::Trying).is_some());
    if let Some((host, facts)) = unfinished {
        let own = object(host);
        // What a trial left is no drift that somebody else brought about.
        drafts
            .held
            .retain(|held| held.object != own || !matches!(held.reason, HoldReason::Reported(_)));
        if drafts.held.iter().any(|held| held.object == own) {
            hold(view, drafts, None, &HoldReason::WaitsFor(own));
        } else {
            try_on(view, host, facts, drafts);
        }
        return;
    }
    // The rules name nobody who leaves, and he must be let in until he has left.
    if super::leaving::under_way(view) {
        return;
    }
    let Some((primary, _)) = cluster.primary else { return };
    let differs = |host: &HostName| drafts.steps.iter().any(|step| step.object == object(host));
    let concerned: Vec<_> = staying(view)
        .filter(|(host, facts)| {
            differs(host) && running(view, facts).is_some() && !has_rules(view, facts)
        })
        .collect();
    if concerned.is_empty() || proven(view, primary) {
        return;
    }
    if let Some(reason) = refusal(view) {
        hold(view, drafts, None, &HoldReason::NeedsPerson(reason));
        return;
    }
    let beside = || staying(view).filter(|(_, facts)| streams(view, facts));
    let free = |host: &HostName| drafts.held.iter().all(|held| held.object != object(host));
    // Where they are in force already nothing changes by trying them, and a file that is as desired
    // can be tried, too.
    let replica = beside()
        .find(|(host, facts)| free(host) && has_rules(view, facts))
        .or_else(|| concerned.iter().copied().find(|(_, facts)| streams(view, facts)))
        .or_else(|| beside().find(|(host, _)| free(host)));
    if let Some((host, facts)) = replica {
        try_on(view, host, facts, drafts);
    } else if let Some((host, _)) = beside().next() {
        // Its file is held.
        hold(view, drafts, None, &HoldReason::WaitsFor(object(host)));
    } else {
        // The primary's file may be held, or as desired and not in force.
        let in_place = concerned.iter().find(|(host, _)| *host == primary);
        if let Some((host, facts)) = in_place.or_else(|| concerned.first()) {
            try_on(view, host, facts, drafts);
        }
    }
}

/// The primary may be where nobody looks, and this replica the next: what it had is what it gets.
fn doubt(view: &View<'_>, drafts: &Drafts) -> bool {
    super::arrange::doubt(&drafts.held).is_some()
        || view.desired.servers.keys().any(|host| view.host(host).is_none())
}

/// Plans the trial on a server; everything else that the file is part of waits for it.
fn try_on(view: &View<'_>, host: &HostName, facts: &HostFacts, drafts: &mut Drafts) {
    let Some(server) = view.desired.servers.get(host) else { return };
    let Some(managed) = server.files.get(CONFIG) else { return };
    let patroni = &view.desired.patroni;
    let (wanted, member) = (&patroni.access, &patroni.members[host]);
    let cut_off = noted(facts, AccessState::Trying).is_some();
    let round = patroni.config["loop_wait"].as_u64().unwrap_or(10);
    let trial = AccessTrial {
        digest: wanted.digest.clone(),
        lines: wanted.lines.clone(),
        logins: wanted.logins.get(host).cloned().unwrap_or_default(),
        back: cut_off && (doubt(view, drafts) || lockout(view).is_some()),
        data_dir: patroni.data_dir.clone(),
        bin_dir: patroni.bin_dir.clone(),
        socket_dir: SOCKET_DIR.to_owned(),
        port: member.postgresql_port,
        primary: running(view, facts).is_some_and(|fact| fact.role != PatroniRole::Replica),
        notice_seconds: 2 * round + 10,
    };
    let seconds = 2 * trial.notice_seconds + 60 + trial.logins.len() as u64;
    let action = HostAction::TryAccess {
        file: managed.file.clone(),
        before: facts.files.get(CONFIG).map(|fact| fact.digest.clone()),
        trial: Box::new(trial),
    };
    let action = Action::Host(host.clone(), action);
    let reason = if cut_off {
        "a trial of access rules was cut off here"
    } else if has_rules(view, facts) {
        "the access rules that it has are proven first"
    } else if streams(view, facts) {
        "its access rules are tried on this replica first"
    } else {
        "its access rules are tried in place, as no replica streams"
    };
    let mut draft = Draft::new(object(host), Verb::Update, reason, seconds, action);
    if let Some(index) = drafts.steps.iter().position(|step| step.object == draft.object) {
        let old = drafts.steps.swap_remove(index);
        draft.changes = old.changes;
        // Only the rules are tried: a new password in the same file comes after them.
        draft.needs = old.needs;
        draft.needs.retain(|need| !matches!(need, ObjectId::Role(_)));
    }
    // The trial tells Patroni what it is still owed.
    let told = |step: &Draft| match &step.action {
        Action::Host(on, HostAction::Notify { unit, .. }) => on == host && unit == UNIT,
        _ => false,
    };
    drafts.steps.retain(|step| !told(step));
    hold(view, drafts, Some(&draft.object), &HoldReason::WaitsFor(draft.object.clone()));
    // What a trial left is not left for longer: this server may be promoted.
    drafts.step(draft.impact(if cut_off { Impact::None } else { Impact::Reload }));
}

/// Holds every server's file, and what changes along with one.
fn hold(view: &View<'_>, drafts: &mut Drafts, but: Option<&ObjectId>, reason: &HoldReason) {
    let file = |object: &ObjectId| matches!(object, ObjectId::File(_, path) if path == CONFIG);
    let (go, mut stay): (Vec<_>, Vec<_>) = std::mem::take(&mut drafts.steps)
        .into_iter()
        .partition(|step| file(&step.object) || but.is_some_and(|but| step.together.contains(but)));
    let held: Vec<ObjectId> = go.into_iter().map(|step| step.object).collect();
    for step in &mut stay {
        // A member that has lived with its old file need not wait for the new one.
        let ObjectId::PatroniMember(host) = &step.object else { continue };
        let own = object(host);
        let lived = view.host(host).is_some_and(|facts| {
            let data = facts.data_dirs.get(&view.desired.patroni.data_dir);
            data.is_some_and(|data| data.populated) && facts.files.contains_key(CONFIG)
        });
        if lived && held.contains(&own) {
            step.needs.remove(&own);
        }
    }
    drafts.steps = stay;
    for object in held {
        drafts.hold(object, reason.clone());
    }
}
