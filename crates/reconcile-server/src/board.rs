//! The board: the watch loop writes on it, requests read from it.
//!
//! Each word of the loop holds the lock for well under a millisecond. What requests get is
//! rendered once for each change, by the first that asks, and shared from then on.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use prometheus_client::metrics::gauge::Gauge;
use reconcile_core::{
    desired::Desired,
    leads::{Leads, Led},
    model::{HostName, Observed, RefusedSource, Revision},
    plan::{Plan, Step},
    status::status,
    verify::VerifyReport,
};
use tokio::sync::watch;

use crate::{
    clock, convert,
    document::{Certificate, Document, Entry, Level, SourceState, StepState},
    facts::{self, Facts},
    frames::{Frames, Next},
    history::{self, Doubts, History, entry},
    metrics::{Metrics, Moments},
};

/// The loop looks at its source twice a second; silence for so long means that it hangs.
const PATIENCE: Duration = Duration::from_secs(120);
/// With steps under way it may be silent until the last of them must have ended.
const STEP_GRACE: Duration = Duration::from_secs(60);
/// Refused webhooks are counted for the metrics at most so often.
const REFUSALS: Duration = Duration::from_secs(1);
/// A pass takes a moment even where the interval is a second.
const LEAST_READY: Duration = Duration::from_secs(15);

/// Objects that have drifted at once, each told for itself; the rest is counted. The history is short.
const MOST_DRIFT: usize = 20;

/// What the board is about.
#[derive(Debug, Clone)]
pub struct About {
    /// Name of the cluster.
    pub cluster: String,
    /// Version of reconcile.
    pub version: String,
    /// Between two passes while nothing happens.
    pub interval: Duration,
}

/// What the loop knows of the lease under which it acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lease {
    /// It may act.
    Held {
        /// The lease's number.
        token: u64,
        /// How long it lasts unless it is renewed.
        left: Duration,
    },
    /// It may not.
    Waits {
        /// Why.
        why: String,
        /// Who may instead, where that is known: this one is a standby.
        keeper: Option<String>,
    },
}

/// The board.
pub struct Board {
    inner: Mutex<Inner>,
    newest: watch::Sender<u64>,
    interval: Duration,
}

struct Inner {
    facts: Facts,
    history: History,
    metrics: Metrics,
    doubts: Doubts,
    leads: Leads,
    frames: Frames,
    status: Option<Bytes>,
    metrics_text: Option<Bytes>,
    moments: Moments,
    /// Since when refused webhooks are not in the text of the metrics.
    refused: Option<Instant>,
    heard: Instant,
    /// Longest silence that the steps under way explain, by step.
    patience: BTreeMap<usize, Duration>,
    ended: Option<Instant>,
    pass_began: Instant,
}

/// Where a client is on the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Position {
    /// It has nothing yet, or too little to go on from.
    Start,
    /// It has all up to this number.
    After(u64),
}

impl Board {
    /// An empty board.
    pub fn new(about: About) -> Self {
        let interval = about.interval;
        let process = format!("{:x}", clock::millis(SystemTime::now()));
        let inner = Inner {
            facts: Facts::new(about),
            history: History::default(),
            doubts: Doubts::default(),
            leads: Leads::default(),
            metrics: Metrics::new(),
            frames: Frames::new(process),
            status: None,
            metrics_text: None,
            moments: Moments::default(),
            refused: None,
            heard: Instant::now(),
            patience: BTreeMap::new(),
            ended: None,
            pass_began: Instant::now(),
        };
        Self { inner: Mutex::new(inner), newest: watch::Sender::new(0), interval }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is on the board and tells the streams.
    fn write(&self, change: impl FnOnce(&mut Inner)) {
        let newest = {
            let mut inner = self.lock();
            inner.heard = Instant::now();
            change(&mut inner);
            (inner.status, inner.metrics_text) = (None, None);
            inner.frames.newest()
        };
        self.newest.send_if_modified(|old| std::mem::replace(old, newest) != newest);
    }

    /// The loop lives.
    pub fn tick(&self) {
        self.lock().heard = Instant::now();
    }

    /// How it stands with the lease. A renewal is no event.
    pub fn lease(&self, lease: &Lease) {
        let end = match lease {
            Lease::Held { left, .. } => Some(SystemTime::now() + *left),
            Lease::Waits { .. } => None,
        };
        let seconds = end.map(|end| clock::millis(end) / 1000);
        let mut inner = self.lock();
        // Told twice a second; within a second of what was told last it is the same moment.
        let soon = |old: u64| old.abs_diff(seconds.unwrap_or(0)) <= 1;
        if inner.facts.same_lease(lease) && inner.moments.lease.map_or(seconds.is_none(), soon) {
            return;
        }
        inner.moments.lease = seconds;
        let news = inner.facts.lease(lease, end.map(clock::rfc3339));
        if news {
            inner.log(match lease {
                Lease::Held { token, .. } => {
                    entry("lease", Level::Info, format!("the lease is ours, number {token}"))
                }
                Lease::Waits { why, .. } => entry("lease", Level::Info, format!("waiting: {why}")),
            });
            inner.push_snapshot();
        }
        (inner.status, inner.metrics_text) = (None, None);
        let newest = inner.frames.newest();
        drop(inner);
        self.newest.send_if_modified(|old| std::mem::replace(old, newest) != newest);
    }

    /// The certificate of the endpoint: from when until when it is valid, in seconds since 1970,
    /// and why its files cannot be used as they are now.
    pub(crate) fn certificate(&self, valid: Option<Range<i64>>, fault: Option<&str>) {
        let at = |seconds: i64| {
            let seconds = u64::try_from(seconds).unwrap_or(0);
            clock::rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
        };
        let certificate = Certificate {
            not_before: valid.as_ref().map(|valid| at(valid.start)),
            not_after: valid.as_ref().map(|valid| at(valid.end)),
            fault: fault.map(str::to_owned),
        };
        let mut inner = self.lock();
        let old = inner.facts.document.operator.certificate.replace(certificate.clone());
        inner.moments.certificate = valid;
        if old.as_ref() != Some(&certificate) {
            if let Some(fault) = fault {
                let text = format!("{fault}; the certificate before stays in use");
                inner.log(entry("certificate", Level::Bad, text));
            } else if let (Some(_), Some(until)) = (&old, &certificate.not_after) {
                let text = format!("the certificate was read anew, valid until {until}");
                inner.log(entry("certificate", Level::Info, text));
            }
            inner.push_snapshot();
        }
        (inner.status, inner.metrics_text) = (None, None);
        let newest = inner.frames.newest();
        drop(inner);
        self.newest.send_if_modified(|old| std::mem::replace(old, newest) != newest);
    }

    /// A new desired state is in force.
    pub fn source_changed(&self, revision: Option<&Revision>) {
        self.write(|inner| {
            inner.facts.in_force(revision.map(convert::commit));
            let text = revision.map_or_else(
                || "the desired state was read".to_owned(),
                |revision| format!("in force: {revision}"),
            );
            inner.log(entry("source", Level::Info, text));
            inner.push_snapshot();
        });
    }

    /// The newest desired state is not taken; the last good one stays in force.
    pub fn source_broken(&self, refused: &RefusedSource) {
        self.write(|inner| {
            let which = refused.revision.as_ref().map_or(refused.file.clone(), ToString::to_string);
            let refused = convert::refused(refused);
            let what = if refused.unread { "cannot be read" } else { "is not taken" };
            let text =
                format!("{which} {what}: {}; the last good one stays in force", refused.reason);
            inner.facts.broken(refused);
            inner.log(entry("source", Level::Bad, text));
            inner.push_snapshot();
        });
    }

    /// A pass begins.
    pub fn pass_started(&self, number: u32) {
        self.write(|inner| {
            inner.pass_began = Instant::now();
            inner.facts.pass_started(number);
        });
    }

    /// The servers were asked; `answers` holds how long each one that answered took.
    pub fn observed(&self, answers: &BTreeMap<HostName, Duration>) {
        self.write(|inner| inner.facts.observed(answers));
    }

    /// All that a status is made of.
    pub fn looked(&self, desired: &Desired, observed: &Observed, plan: &Plan) {
        let proof = self.lock().facts.proof();
        let status = status(desired, observed, plan, proof);
        let archives = status.hosts.iter().filter_map(|host| {
            let archiver = host.archiver.as_ref()?;
            Some((host.name.to_string(), (archiver.archived_at, archiver.failed_at)))
        });
        let archives = archives.collect();
        self.write(|inner| {
            inner.moments.archives = archives;
            let old = inner.facts.looked(status, plan);
            if let Some(led) = inner.leads.looked(desired, observed) {
                let level = if matches!(led, Led::Lost(_)) { Level::Bad } else { Level::Good };
                inner.log(entry("primary", level, led.told()));
            }
            for entry in history::changes(&old, &inner.facts.document) {
                inner.log(entry);
            }
            if !facts::same(&old, &inner.facts.document) {
                inner.push_snapshot();
            }
        });
    }

    /// What drifted since the look before, each in one line that holds no secret.
    pub fn drifted(&self, news: &[String]) {
        if news.is_empty() {
            return;
        }
        self.write(|inner| {
            for told in news.iter().take(MOST_DRIFT) {
                inner.log(entry("drift", Level::Warn, format!("drift {told}")));
            }
            if let more @ 1.. = news.len().saturating_sub(MOST_DRIFT) {
                let text = format!("drift of {more} more, `reconcile plan` lists it");
                inner.log(entry("drift", Level::Warn, text));
            }
        });
    }

    /// The plan was refused by the checker.
    pub fn pass_refused(&self, error: &str) {
        self.write(|inner| {
            inner.log(entry("pass", Level::Bad, format!("nothing was done: {error}")));
            inner.pass_over("refused", None, Some(error.to_owned()));
            inner.push_snapshot();
        });
    }

    /// A step begins.
    pub fn step_started(&self, step: &Step) {
        self.write(|inner| {
            let patience = Duration::from_secs(step.deadline_seconds) + STEP_GRACE;
            inner.patience.insert(step.id, patience);
            let change = inner.facts.step(step, |progress| {
                progress.state = StepState::Running;
                progress.started_at = Some(clock::now());
            });
            inner.push("step", change);
        });
    }

    /// A step ended.
    pub fn step_finished(&self, step: &Step, error: Option<&str>, took: Duration) {
        self.write(|inner| {
            inner.patience.remove(&step.id);
            let (verb, seconds) = (step.verb.word(), took.as_secs_f64());
            let change = inner.facts.step(step, |progress| {
                progress.state = if error.is_some() { StepState::Failed } else { StepState::Done };
                progress.seconds = Some(seconds);
                progress.error = error.map(str::to_owned);
            });
            inner.push("step", change);
            inner.facts.forget_proof();
            let what = format!("{verb} {} ({seconds:.1} s)", step.object);
            let also = step.disturbs().map(|also| format!(", {also}")).unwrap_or_default();
            inner.log(match error {
                None => entry("step", Level::Good, what + &also),
                Some(error) => entry("step", Level::Bad, format!("{what}: {error}")),
            });
            inner.metrics.step(verb, if error.is_some() { "failed" } else { "done" });
        });
    }

    /// A step was left for a later pass.
    pub fn step_skipped(&self, step: &Step) {
        self.write(|inner| {
            let change = inner.facts.step(step, |progress| progress.state = StepState::Skipped);
            inner.push("step", change);
            inner.metrics.step(step.verb.word(), "skipped");
        });
    }

    /// A pass ended.
    pub fn pass_ended(&self, took: Duration, done: usize, failed: usize) {
        self.write(|inner| {
            let result = match (failed, done) {
                (0, 0) if inner.facts.document.plan.held.is_empty() => "nothingToDo",
                (0, 0) => "held",
                (0, _) => "changed",
                _ => "failed",
            };
            inner.pass_over(result, Some(took), None);
        });
    }

    /// The proof of service ended.
    pub fn verified(&self, report: &VerifyReport) {
        self.write(|inner| {
            let before = inner.facts.document.proof.as_ref().map(|proof| proof.holds);
            let old = inner.facts.proved(report);
            if report.holds() {
                inner.moments.good_proof = Some(seconds_now());
            }
            let mut entries = Vec::new();
            history::condition_changes(&old, &inner.facts.document.conditions, &mut entries);
            entries.extend(inner.doubts.proved(report));
            let news = !entries.is_empty() || before != Some(report.holds());
            for entry in entries {
                inner.log(entry);
            }
            if news {
                inner.push_snapshot();
            } else {
                inner.push_calm();
            }
        });
    }

    /// A call of the webhook, for the history and the metrics.
    pub(crate) fn webhook(&self, result: &str) {
        let mut inner = self.lock();
        inner.metrics.webhook(result);
        if result != "accepted" {
            // Whoever is refused must not make everything be rendered anew; it is counted with the
            // next word of the loop, or a moment later.
            inner.refused.get_or_insert_with(Instant::now);
            return;
        }
        inner.log(entry("webhook", Level::Info, "the Git host asked for a pass"));
        (inner.status, inner.metrics_text) = (None, None);
        let newest = inner.frames.newest();
        drop(inner);
        self.newest.send_if_modified(|old| std::mem::replace(old, newest) != newest);
    }

    /// The JSON of `/status`.
    pub(crate) fn status(&self) -> Bytes {
        let mut inner = self.lock();
        inner.age();
        inner.status()
    }

    /// The text of `/metrics`.
    pub(crate) fn metrics(&self) -> Bytes {
        let mut inner = self.lock();
        inner.age();
        if inner.refused.is_some_and(|since| since.elapsed() >= REFUSALS) {
            (inner.refused, inner.metrics_text) = (None, None);
        }
        let Inner { metrics, facts, moments, metrics_text, .. } = &mut *inner;
        metrics_text.get_or_insert_with(|| metrics.text(&facts.document, moments)).clone()
    }

    /// The gauge of open streams. It changes without the board, so its text is made anew.
    pub(crate) fn streams(&self) -> Gauge {
        let mut inner = self.lock();
        inner.metrics_text = None;
        inner.metrics.streams()
    }

    /// Why the loop does not live, if so.
    pub fn alive(&self) -> Result<(), String> {
        let inner = self.lock();
        let patience = inner.patience.values().copied().max().unwrap_or(PATIENCE).max(PATIENCE);
        let silence = inner.heard.elapsed();
        if silence <= patience {
            return Ok(());
        }
        Err(format!("the loop has been silent for {} s", silence.as_secs()))
    }

    /// Why what is shown may not be relied on, if so.
    pub(crate) fn ready(&self) -> Result<(), String> {
        self.alive()?;
        let inner = self.lock();
        if let Some(keeper) = inner.facts.keeper() {
            return Err(format!("a standby: {keeper} keeps this cluster"));
        }
        match inner.facts.document.source.state {
            SourceState::Pending => return Err("the desired state was not read yet".to_owned()),
            SourceState::Broken => return Err("the desired state cannot be read".to_owned()),
            SourceState::InForce => {}
        }
        let limit = (self.interval * 3).max(LEAST_READY);
        match inner.ended {
            None => Err("no pass has ended yet".to_owned()),
            Some(ended) if ended.elapsed() > limit => {
                Err(format!("the last pass ended {} s ago", ended.elapsed().as_secs()))
            }
            Some(_) => Ok(()),
        }
    }

    /// Tells when there is more for a stream.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// Where a client stands that says what it has seen last.
    pub(crate) fn position(&self, last_id: Option<&str>) -> Position {
        let number = last_id.and_then(|id| self.lock().frames.number(id));
        number.map_or(Position::Start, Position::After)
    }

    /// What comes next for a client; None: nothing for now.
    pub(crate) fn next(&self, position: Position) -> Option<(Position, Vec<Bytes>)> {
        let mut inner = self.lock();
        if let Position::After(seen) = position {
            match inner.frames.after(seen) {
                Next::Nothing => return None,
                Next::Frame(number, bytes) => return Some((Position::After(number), vec![bytes])),
                Next::StartAnew => {}
            }
        }
        let whole = inner.status();
        let head = Bytes::from(inner.frames.head("status"));
        let newest = inner.frames.newest();
        Some((Position::After(newest), vec![head, whole, Bytes::from_static(b"\n\n")]))
    }
}

impl Inner {
    /// A proof that was made long ago says nothing of now, also where the loop hangs and says nothing.
    fn age(&mut self) {
        let old = self.facts.document.conditions.clone();
        if !self.facts.outdate() {
            return;
        }
        let mut entries = Vec::new();
        history::condition_changes(&old, &self.facts.document.conditions, &mut entries);
        for entry in entries {
            self.log(entry);
        }
        self.push_snapshot();
        (self.status, self.metrics_text) = (None, None);
    }

    fn log(&mut self, entry: Entry) {
        self.frames.push("log", &entry);
        self.history.push(entry);
    }

    fn push<T: serde::Serialize>(&mut self, event: &str, data: Option<T>) {
        if let Some(data) = data {
            self.frames.push(event, &data);
        }
    }

    fn push_calm(&mut self) {
        let calm = self.facts.calm();
        self.frames.push("calm", &calm);
    }

    /// The whole status as a frame, without the history: clients have that by its own frames.
    fn push_snapshot(&mut self) {
        let json = to_json(&self.facts.document);
        self.frames.push_snapshot(&json);
    }

    fn pass_over(&mut self, result: &str, took: Option<Duration>, refused: Option<String>) {
        let took = took.unwrap_or_else(|| self.pass_began.elapsed());
        self.patience.clear();
        self.ended = Some(Instant::now());
        self.moments.pass = Some(seconds_now());
        self.facts.pass_ended(took, refused);
        self.metrics.pass(result, took);
        self.push_calm();
    }

    fn status(&mut self) -> Bytes {
        if let Some(status) = &self.status {
            return status.clone();
        }
        let mut document = self.facts.document.clone();
        document.events = Some(self.history.all());
        let status = Bytes::from(to_json(&document));
        self.status = Some(status.clone());
        status
    }
}

fn to_json(document: &Document) -> Vec<u8> {
    // Plain data with string keys always serialises.
    serde_json::to_vec(document).unwrap_or_default()
}

fn seconds_now() -> f64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}
