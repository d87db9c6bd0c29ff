//! The journal: append-only, one JSON line for each thing that happened, synced before an effect.
//!
//! After a crash it tells which step was under way. Plans never rest on it: they rest on what is
//! observed. It holds no secret, for steps and errors serialise without any. What cannot be noted is
//! not done.

mod file;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

pub use file::{Entries, FULL, KEPT, read_all, read_last};

use reconcile_core::{
    desired::Desired,
    leads::Leads,
    model::{HostName, sha256_hex},
    plan::{Plan, kept},
    verify::{Proof, VerifyReport},
};
use serde_json::{Value, json};

use crate::{
    events::{Event, Listener},
    resume::Owed,
    settled::Drifts,
    switchover::{Order, Report, SwitchoverError},
};

/// Name of the file.
pub const FILE: &str = "journal.jsonl";

/// Objects that have drifted at once, each noted for itself; the rest is counted.
const MOST_DRIFT: usize = 20;

/// A journal that could not be opened, written or read.
#[derive(Debug, thiserror::Error)]
#[error("{attempt} {}: {source}", path.display())]
pub struct JournalError {
    attempt: &'static str,
    path: PathBuf,
    source: std::io::Error,
}

/// The plan that was noted last. One that is made again in the next pass is not noted again.
#[derive(Default)]
struct Noted {
    /// Its steps and holds, in short.
    is: String,
    /// Digest that its steps are noted with.
    name: String,
}

/// An open journal. It hears events and hands them on to another listener.
pub struct Journal<'a> {
    file: Mutex<file::Log>,
    path: PathBuf,
    plan: Mutex<Noted>,
    next: &'a dyn Listener,
    failure: Mutex<Option<String>>,
    drifts: Mutex<Drifts>,
    leads: Mutex<Leads>,
    /// What failed in the last proof of service that was noted; None: it held.
    fails: Mutex<Option<Value>>,
    /// Poolers may be paused by a transaction that did not end.
    owes: Mutex<Option<Owed>>,
}

impl<'a> Journal<'a> {
    /// Opens the journal in `folder`, made if it is missing, readable by its owner only.
    pub fn open(folder: &Path, next: &'a dyn Listener) -> Result<Self, JournalError> {
        let path = folder.join(FILE);
        let fail = |attempt| {
            let path = path.clone();
            move |source| JournalError { attempt, path, source }
        };
        std::fs::create_dir_all(folder).map_err(fail("make the folder of"))?;
        let file = file::Log::open(folder).map_err(fail("open"))?;
        let entries = read_all(folder)?.entries;
        Ok(Self {
            file: Mutex::new(file),
            path: path.clone(),
            plan: Mutex::default(),
            next,
            failure: Mutex::default(),
            drifts: Mutex::default(),
            leads: Mutex::default(),
            fails: Mutex::new(failing(&entries)),
            owes: Mutex::new(open_switchover(&entries)),
        })
    }

    /// Takes up what another process noted in the same folder meanwhile: a transaction that it left open is
    /// ours to end. Only for who holds the lease, before that it may be under way.
    pub fn catch_up(&self) -> Result<(), JournalError> {
        if let Some(folder) = self.path.parent() {
            let noted = open_switchover(&read_all(folder)?.entries);
            // What could not be written is known to this process only.
            if noted.is_some() || self.failure().is_none() {
                self.owe(noted);
            }
        }
        Ok(())
    }

    fn append(&self, kind: &str, mut entry: Value, sync: bool) {
        entry["at"] = json!(since_1970().as_secs_f64());
        entry["kind"] = json!(kind);
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let written = file.append(&entry.to_string(), sync);
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        *failure = written.err().map(|error| {
            tracing::error!(path = %self.path.display(), %error, "the journal cannot be written");
            format!("the journal {} cannot be written: {error}", self.path.display())
        });
    }

    fn planned(&self, plan: &Plan) {
        let steps: Vec<_> =
            plan.steps.iter().map(|step| (&step.object, step.verb, &step.changes)).collect();
        let text = json!({ "desired": plan.desired_digest, "steps": steps, "held": plan.held });
        let is = sha256_hex(text.to_string().as_bytes());
        let mut noted = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.is == is {
            return;
        }
        let name =
            sha256_hex(format!("{}{}", plan.desired_digest, plan.observed_digest).as_bytes());
        *noted = Noted { is, name: name[..12].to_owned() };
        let name = noted.name.clone();
        drop(noted);
        if plan.is_converged() {
            self.append("as-desired", json!({ "cluster": plan.cluster }), false);
            return;
        }
        let entry = json!({
            "plan": name, "cluster": plan.cluster, "steps": plan.steps.len(),
            "queued": plan.queued().count(), "held": plan.stalled().collect::<Vec<_>>(),
        });
        self.append("planned", entry, false);
    }

    /// Notes what has drifted, when it comes up.
    fn drifted(&self, desired: &Desired, plan: &Plan) {
        let mut drifts = self.drifts.lock().unwrap_or_else(PoisonError::into_inner);
        let news = drifts.looked(desired, plan);
        drop(drifts);
        let more = news.len().saturating_sub(MOST_DRIFT);
        let last = news.len().min(MOST_DRIFT);
        for (number, drift) in news.iter().take(MOST_DRIFT).enumerate() {
            let entry = json!({ "object": drift.object, "told": drift.told, "left": drift.left });
            self.append("drift", entry, number + 1 == last && more == 0);
        }
        if more > 0 {
            self.append("drift", json!({ "told": format!("and {more} more objects") }), true);
        }
    }

    /// Notes a proof of service that fails otherwise than the last one, and the first that holds again.
    fn proven(&self, report: &VerifyReport) {
        let failed = report.proofs.iter().filter(|proof| !proof.holds);
        let about: BTreeSet<_> = failed.clone().map(Proof::about).collect();
        let now = (!report.holds()).then(|| json!(about));
        let mut fails = self.fails.lock().unwrap_or_else(PoisonError::into_inner);
        if *fails == now {
            return;
        }
        fails.clone_from(&now);
        drop(fails);
        match now {
            Some(about) => {
                let failed: Vec<_> = failed.collect();
                let entry = json!({ "told": report.told(), "fails": about, "failed": failed });
                let kind = if report.fails() { "proof-failed" } else { "proof-unknown" };
                self.append(kind, entry, true);
            }
            None => self.append("proof-holds", json!({ "told": report.told() }), true),
        }
    }

    fn switch_ends(&self, order: &Order, result: &Result<Report, SwitchoverError>) {
        let kind = match result {
            Err(SwitchoverError::Resume { .. }) => "switchover-unresumed",
            Ok(_) | Err(_) => "switchover-ends",
        };
        let unresumed = || Owed { begun: None, ..owed(order) };
        self.owe((kind != "switchover-ends").then(unresumed));
        let entry = json!({
            "nodes": order.nodes, "inPlace": order.restart.is_some(),
            "from": order.leader.as_str(), "to": order.candidate.as_str(),
            "error": result.as_ref().err().map(ToString::to_string),
            "heldSeconds": result.as_ref().ok().map(|report| report.held.as_secs_f64()),
        });
        self.append(kind, entry, true);
    }

    fn owe(&self, owed: Option<Owed>) {
        *self.owes.lock().unwrap_or_else(PoisonError::into_inner) = owed;
    }

    fn plan(&self) -> String {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner).name.clone()
    }
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

impl Listener for Journal<'_> {
    fn hear(&self, event: &Event<'_>) {
        match event {
            Event::Planned(plan) => self.planned(plan),
            // The intent must be on disk before the effect is in the world.
            Event::StepStarted(step) => {
                let entry = json!({
                    "plan": self.plan(), "step": step.id, "object": step.object,
                    "verb": step.verb, "changes": kept(step), "reason": step.reason,
                });
                self.append("started", entry, true);
            }
            Event::StepFinished { step, result, took } => {
                let entry = json!({
                    "plan": self.plan(), "step": step.id, "object": step.object,
                    "verb": step.verb, "seconds": took.as_secs_f64(),
                    "error": result.as_ref().err(),
                });
                self.append("finished", entry, true);
            }
            Event::StepWaits { step, seen } => {
                let entry = json!({
                    "plan": self.plan(), "step": step.id, "object": step.object, "seen": seen,
                });
                self.append("waits", entry, false);
            }
            Event::SwitchBegins(order) => {
                self.owe(Some(owed(order)));
                let entry = json!({
                    "from": order.leader.as_str(), "to": order.candidate.as_str(),
                    "nodes": order.nodes, "inPlace": order.restart.is_some(),
                });
                self.append("switchover-begins", entry, true);
            }
            Event::SwitchEnds(order, result) => self.switch_ends(order, result),
            Event::Resumed => {
                self.owe(None);
                let entry = json!({ "error": "cut off; the poolers are resumed" });
                self.append("switchover-ends", entry, true);
            }
            Event::StepSkipped(step) => {
                let entry = json!({ "plan": self.plan(), "step": step.id, "object": step.object });
                self.append("skipped", entry, false);
            }
            Event::SourceBroken(refused) => {
                self.append("refused", json!({ "report": refused.to_string() }), true);
            }
            Event::SourceAhead => self.append("source-ahead", json!({}), false),
            Event::SourceChanged(revision) => {
                let entry =
                    revision.map_or_else(|| json!({}), |commit| json!({ "commit": commit }));
                self.append("source-changed", entry, false);
            }
            Event::PassRefused(error) => {
                self.append("plan-refused", json!({ "error": error.to_string() }), true);
            }
            Event::Looked { desired, observed, plan } => {
                let mut leads = self.leads.lock().unwrap_or_else(PoisonError::into_inner);
                let led = leads.looked(desired, observed);
                drop(leads);
                if let Some(led) = led {
                    self.append("primary", json!({ "told": led.told() }), true);
                }
                self.drifted(desired, plan);
            }
            Event::Verified(report) => self.proven(report),
            Event::PassStarted(_)
            | Event::Observed { .. }
            | Event::PassEnded { .. }
            | Event::Tick
            | Event::Verifying => {}
        }
        self.next.hear(event);
    }

    fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn owes_resume(&self) -> Option<Owed> {
        self.owes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn owed(order: &Order) -> Owed {
    Owed {
        candidate: order.candidate.to_string(),
        nodes: Some(order.nodes.clone()),
        begun: Some((order.leader.clone(), since_1970().as_secs())),
    }
}

/// What failed in the last proof that was noted.
fn failing(entries: &[Value]) -> Option<Value> {
    let proof =
        |entry: &&Value| entry["kind"].as_str().is_some_and(|kind| kind.starts_with("proof-"));
    let last = entries.iter().rev().find(proof)?;
    (last["kind"] != "proof-holds").then(|| last["fails"].clone())
}

/// A switchover that has begun and of which no end is noted.
fn open_switchover(entries: &[Value]) -> Option<Owed> {
    let last = entries
        .iter()
        .rev()
        .find(|entry| entry["kind"].as_str().is_some_and(|kind| kind.starts_with("switchover-")))?;
    (last["kind"] != "switchover-ends").then(|| Owed {
        candidate: last["to"].as_str().unwrap_or("a replica").to_owned(),
        nodes: last["nodes"]
            .as_array()
            .map(|nodes| nodes.iter().filter_map(Value::as_str).map(HostName::from).collect()),
        begun: (last["kind"] == "switchover-begins")
            .then(|| {
                let at = Duration::try_from_secs_f64(last["at"].as_f64()?).ok()?;
                Some((HostName::from(last["from"].as_str()?), at.as_secs()))
            })
            .flatten(),
    })
}

/// Steps that were started and of which no end is noted: the operator was stopped in them.
pub fn unfinished(entries: &[Value]) -> Vec<&Value> {
    let mut open: Vec<&Value> = Vec::new();
    for entry in entries {
        match entry["kind"].as_str() {
            Some("planned" | "as-desired") => open.clear(),
            Some("started") => open.push(entry),
            Some("finished" | "waits") => open.retain(|begun| begun["step"] != entry["step"]),
            _ => {}
        }
    }
    // The same plan is carried out again in a later pass, and noted once.
    let mut last: Vec<&Value> = Vec::new();
    for entry in open {
        last.retain(|other| other["step"] != entry["step"]);
        last.push(entry);
    }
    last
}
