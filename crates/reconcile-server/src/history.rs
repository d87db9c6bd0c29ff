//! What changed between two looks, in words, and the last of it.

use std::collections::{BTreeMap, VecDeque};

use reconcile_core::{status, verify::VerifyReport};

use crate::{
    clock, convert,
    document::{Condition, Document, Entry, Held, Host, Level, Maintenance, Service},
};

/// Entries that are kept.
const MOST: usize = 200;

/// The last entries.
#[derive(Default)]
pub(crate) struct History(VecDeque<Entry>);

impl History {
    pub(crate) fn push(&mut self, entry: Entry) {
        self.0.push_back(entry);
        if self.0.len() > MOST {
            self.0.pop_front();
        }
    }

    pub(crate) fn all(&self) -> Vec<Entry> {
        self.0.iter().cloned().collect()
    }
}

pub(crate) fn entry(kind: &'static str, level: Level, text: impl Into<String>) -> Entry {
    Entry { at: clock::now(), kind, level, text: text.into() }
}

/// What does not hold of the last proof of service, as it was told: each is told when it begins and when it
/// ends, and not with each proof in between.
#[derive(Default)]
pub(crate) struct Doubts(BTreeMap<String, String>);

impl Doubts {
    pub(crate) fn proved(&mut self, report: &VerifyReport) -> Vec<Entry> {
        let mut now = BTreeMap::new();
        for proof in report.proofs.iter().filter(|proof| !proof.holds) {
            // What comes of one thing is one doubt; a time or a count in the words makes no other.
            let about = proof.comes_of.clone().unwrap_or_else(|| proof.about());
            let ends = proof.comes_of.clone().unwrap_or_else(|| proof.what.clone());
            let (level, word) =
                if proof.untried { (Level::Warn, "not known") } else { (Level::Bad, "not proven") };
            now.entry(about).or_insert((level, format!("{word}: {}", proof.cause()), ends));
        }
        let mut entries = Vec::new();
        for (level, text, _) in
            now.iter().filter(|(about, _)| !self.0.contains_key(*about)).map(|(_, told)| told)
        {
            entries.push(entry("proof", *level, text.clone()));
        }
        for (_, ends) in self.0.iter().filter(|(about, _)| !now.contains_key(*about)) {
            entries.push(entry("proof", Level::Good, format!("no longer so: {ends}")));
        }
        self.0 = now.into_iter().map(|(about, (_, _, ends))| (about, ends)).collect();
        entries
    }
}

/// What a new look tells that the old one did not.
pub(crate) fn changes(old: &Document, new: &Document) -> Vec<Entry> {
    let mut entries = Vec::new();
    let known: BTreeMap<_, _> = old.hosts.iter().map(|host| (&host.name, host)).collect();
    for host in &new.hosts {
        if let Some(before) = known.get(&host.name) {
            host_changes(before, host, &mut entries);
        }
    }
    let known: BTreeMap<_, _> = old.services.iter().map(|one| (&one.name, one)).collect();
    for service in &new.services {
        if let Some(before) = known.get(&service.name) {
            entries.extend(service_change(before, service));
        }
    }
    entries.extend(window_change(old.maintenance.as_ref(), new.maintenance.as_ref()));
    hold_changes(&old.plan.held, &new.plan.held, &mut entries);
    condition_changes(&old.conditions, &new.conditions, &mut entries);
    entries
}

fn host_changes(old: &Host, new: &Host, entries: &mut Vec<Entry>) {
    let name = &new.name;
    match (&old.unreachable, &new.unreachable) {
        (None, Some(reason)) => {
            let (level, how) = if new.answers {
                (Level::Warn, "cannot be looked at")
            } else {
                (Level::Bad, "does not answer")
            };
            entries.push(entry("host", level, format!("{name} {how}: {reason}")));
        }
        (Some(_), None) => {
            entries.push(entry("host", Level::Good, format!("{name} answers again")));
        }
        _ => {}
    }
    if new.unreachable.is_some() {
        return;
    }
    let left = |host: &Host| host.leaving.as_ref().map(|leaving| leaving.left);
    match (left(old), left(new)) {
        (None, Some(false)) => {
            entries.push(entry("host", Level::Info, format!("{name} is to leave")));
        }
        (None | Some(false), Some(true)) => {
            let text = format!("{name} has left and can be taken out of the file");
            entries.push(entry("host", Level::Good, text));
        }
        _ => {}
    }
    let parts = [
        ("etcd", &old.etcd, &new.etcd),
        ("PostgreSQL", &old.role, &new.role),
        ("Swarm", &old.swarm, &new.swarm),
    ];
    for (part, before, now) in parts.into_iter().filter(|(_, before, now)| before != now) {
        let level = match now.as_str() {
            "leader" | "member" | "primary" | "replica" | "manager" | "worker" => Level::Good,
            "-" => Level::Info,
            "unknown" | "drain" | "pause" => Level::Warn,
            _ => Level::Bad,
        };
        entries.push(entry("host", level, format!("{part} on {name}: {before} → {now}")));
    }
}

fn service_change(old: &Service, new: &Service) -> Option<Entry> {
    if old.running == new.running {
        return None;
    }
    let count = |service: &Service| {
        service.running.map_or_else(|| "?".to_owned(), |running| running.to_string())
    };
    let level = match new.running {
        None => Level::Warn,
        Some(running) if running >= new.wanted => Level::Good,
        Some(_) => Level::Bad,
    };
    let text = format!("{} tasks: {} → {} of {}", new.name, count(old), count(new), new.wanted);
    Some(entry("service", level, text))
}

/// A maintenance window that opened or closed.
fn window_change(old: Option<&Maintenance>, new: Option<&Maintenance>) -> Option<Entry> {
    let (old, new) = (old?, new?);
    let text = match (old.open, new.open) {
        (false, true) => "a maintenance window is open".to_owned(),
        (true, false) => match &new.opens {
            Some(opens) => format!("the maintenance window closed; the next opens {opens}"),
            None => "the maintenance window closed".to_owned(),
        },
        _ => return None,
    };
    Some(entry("window", Level::Info, text))
}

fn hold_changes(old: &[Held], new: &[Held], entries: &mut Vec<Entry>) {
    let same = |a: &Held, b: &Held| a.object == b.object && a.message == b.message;
    for held in new.iter().filter(|held| !old.iter().any(|other| same(held, other))) {
        let text = format!("held {}: {}", held.object, held.message);
        entries.push(entry("hold", Level::Warn, text));
    }
    for held in old.iter().filter(|held| !new.iter().any(|other| other.object == held.object)) {
        entries.push(entry("hold", Level::Info, format!("no longer held: {}", held.object)));
    }
}

/// Conditions whose status is another now.
pub(crate) fn condition_changes(old: &[Condition], new: &[Condition], entries: &mut Vec<Entry>) {
    for condition in new {
        let before = old.iter().find(|before| before.kind == condition.kind);
        let Some(before) = before.filter(|before| before.status != condition.status) else {
            continue;
        };
        let wanted = convert::truth(status::Condition::wanted(&condition.kind));
        let level = match (condition.status, condition.kind.as_str()) {
            ("Unknown", _) => Level::Warn,
            (status, _) if status == wanted => Level::Good,
            // These are somebody's will.
            (_, "Reconciling" | "Leaving" | "Paused") => Level::Info,
            (_, "OrphanedMember" | "LockedOut") => Level::Warn,
            _ => Level::Bad,
        };
        let text = format!(
            "{}: {} → {} ({})",
            condition.kind, before.status, condition.status, condition.message
        );
        entries.push(entry("condition", level, text));
    }
}
