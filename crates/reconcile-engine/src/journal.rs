//! The journal: append-only, one JSON line for each thing that happened, synced before an effect.
//!
//! After a crash it tells which step was under way. Plans never rest on it: they rest on what is
//! observed. It holds no secret, for steps and errors serialise without any.

use std::{
    fs::{File, OpenOptions},
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use reconcile_core::model::HostName;
use serde_json::{Value, json};

use crate::{
    events::{Event, Listener},
    resume::Owed,
    switchover::{Order, Report, SwitchoverError},
};

/// Name of the file.
pub const FILE: &str = "journal.jsonl";

/// A journal that could not be opened, written or read.
#[derive(Debug, thiserror::Error)]
#[error("{attempt} {}: {source}", path.display())]
pub struct JournalError {
    attempt: &'static str,
    path: PathBuf,
    source: std::io::Error,
}

/// An open journal. It hears events and hands them on to another listener.
pub struct Journal<'a> {
    file: Mutex<File>,
    path: PathBuf,
    plan: Mutex<String>,
    /// The last plan had nothing to do; noted once.
    calm: AtomicBool,
    next: &'a dyn Listener,
    failure: Mutex<Option<String>>,
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
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&path)
            .map_err(fail("open"))?;
        Ok(Self {
            file: Mutex::new(file),
            path: path.clone(),
            plan: Mutex::default(),
            calm: AtomicBool::new(false),
            next,
            failure: Mutex::default(),
            owes: Mutex::new(open_switchover(&read(folder)?)),
        })
    }

    /// Why the last entry could not be written, if so.
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn append(&self, kind: &str, mut entry: Value, sync: bool) {
        entry["at"] = json!(seconds_since_1970());
        entry["kind"] = json!(kind);
        let mut line = entry.to_string();
        line.push('\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let written = file.write_all(line.as_bytes());
        let result = if sync { written.and_then(|()| file.sync_data()) } else { written };
        if let Err(error) = result {
            tracing::error!(path = %self.path.display(), %error, "the journal cannot be written");
            let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
            *failure = Some(error.to_string());
        }
    }

    fn switch_ends(&self, order: &Order, result: &Result<Report, SwitchoverError>) {
        let kind = match result {
            Err(SwitchoverError::Resume { .. }) => "switchover-unresumed",
            Ok(_) | Err(_) => "switchover-ends",
        };
        self.owe((kind != "switchover-ends").then(|| owed(order)));
        let entry = json!({
            "nodes": order.nodes,
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
        self.plan.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn seconds_since_1970() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

impl Listener for Journal<'_> {
    fn hear(&self, event: &Event<'_>) {
        match event {
            Event::Planned(plan) if plan.is_converged() => {
                if !self.calm.swap(true, Ordering::Relaxed) {
                    self.append("as-desired", json!({ "cluster": plan.cluster }), false);
                }
            }
            Event::Planned(plan) => {
                self.calm.store(false, Ordering::Relaxed);
                let digest = reconcile_core::model::sha256_hex(
                    format!("{}{}", plan.desired_digest, plan.observed_digest).as_bytes(),
                );
                digest[..12]
                    .clone_into(&mut self.plan.lock().unwrap_or_else(PoisonError::into_inner));
                let entry = json!({
                    "plan": self.plan(), "cluster": plan.cluster, "steps": plan.steps.len(),
                    "held": plan.held,
                });
                self.append("planned", entry, false);
            }
            // The intent must be on disk before the effect is in the world.
            Event::StepStarted(step) => {
                let entry = json!({
                    "plan": self.plan(), "step": step.id, "object": step.object,
                    "verb": step.verb, "changes": step.changes, "reason": step.reason,
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
                    "nodes": order.nodes,
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
            Event::SourceBroken(report) => {
                self.append("refused", json!({ "report": report }), true);
            }
            Event::SourceChanged(revision) => {
                let entry =
                    revision.map_or_else(|| json!({}), |commit| json!({ "commit": commit }));
                self.append("source-changed", entry, false);
            }
            Event::PassRefused(error) => {
                self.append("plan-refused", json!({ "error": error.to_string() }), true);
            }
            Event::Verified(report) if !report.holds() => {
                self.append("proof-failed", json!({ "proof": report }), true);
            }
            Event::Verified(_)
            | Event::PassStarted(_)
            | Event::Observed { .. }
            | Event::Looked { .. }
            | Event::PassEnded { .. }
            | Event::Tick
            | Event::Verifying => {}
        }
        self.next.hear(event);
    }

    fn owes_resume(&self) -> Option<Owed> {
        self.owes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The entries of the journal in `folder`, oldest first; an unfinished last line (the operator was
/// killed while writing) is left out.
pub fn read(folder: &Path) -> Result<Vec<Value>, JournalError> {
    let path = folder.join(FILE);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(JournalError { attempt: "open", path, source }),
    };
    let mut entries = Vec::new();
    for line in BufReader::new(file).lines() {
        let line =
            line.map_err(|source| JournalError { attempt: "read", path: path.clone(), source })?;
        entries.extend(serde_json::from_str::<Value>(&line).ok());
    }
    Ok(entries)
}

fn owed(order: &Order) -> Owed {
    Owed { candidate: order.candidate.to_string(), nodes: Some(order.nodes.clone()) }
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
    })
}

/// Steps that were started and of which no end is noted: the operator was stopped in them.
pub fn unfinished(entries: &[Value]) -> Vec<&Value> {
    let last = entries
        .iter()
        .rposition(|entry| entry["kind"] == "planned" || entry["kind"] == "as-desired")
        .unwrap_or(0);
    let ended = |entry: &Value| {
        entries[last..].iter().any(|end| {
            (end["kind"] == "finished" || end["kind"] == "waits") && end["step"] == entry["step"]
        })
    };
    entries[last..].iter().filter(|entry| entry["kind"] == "started" && !ended(entry)).collect()
}
