//! Metrics in the OpenMetrics text format.
//!
//! What is not known has no series: a zero would be a claim.

use std::{collections::BTreeMap, ops::Range, sync::atomic::AtomicU64, time::Duration};

use bytes::Bytes;
use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::document::{Document, SourceState};

type Labels = Vec<(&'static str, String)>;
type Number = Gauge<f64, AtomicU64>;
type Gauges = Family<Labels, Number>;

/// The metrics; see `docs/status-endpoint.md` for what each says.
pub(crate) struct Metrics {
    registry: Registry,
    passes: Family<Labels, Counter>,
    pass_seconds: Histogram,
    steps: Family<Labels, Counter>,
    webhooks: Family<Labels, Counter>,
    streams: Gauge,
    /// Filled anew from the document at every scrape that follows a change.
    facts: Facts,
}

#[derive(Default)]
struct Facts {
    held: Gauges,
    pending: Gauges,
    condition: Gauges,
    reachable: Gauges,
    answer: Gauges,
    lag: Gauges,
    leader: Gauges,
    timeline: Gauges,
    etcd_healthy: Gauges,
    tasks_running: Gauges,
    tasks_wanted: Gauges,
    source: Gauges,
    last_pass: Gauges,
    last_good_proof: Gauges,
    proof_holds: Gauges,
    info: Gauges,
    lease_held: Gauges,
    lease_token: Gauges,
    lease_until: Gauges,
    certificate_from: Gauges,
    certificate_until: Gauges,
    certificate_fault: Gauges,
    archived: Gauges,
    archive_failed: Gauges,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("reconcile");
        let passes = Family::<Labels, Counter>::default();
        registry.register("passes", "Passes that ended, by result", passes.clone());
        let bounds = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];
        let pass_seconds = Histogram::new(bounds);
        registry.register("pass_duration_seconds", "How long passes took", pass_seconds.clone());
        let steps = Family::<Labels, Counter>::default();
        registry.register("steps", "Steps that ended, by verb and result", steps.clone());
        let webhooks = Family::<Labels, Counter>::default();
        registry.register("webhooks", "Calls of the webhook, by result", webhooks.clone());
        let streams = Gauge::default();
        registry.register("event_streams", "Open event streams", streams.clone());
        let facts = Facts::default();
        for (name, help, gauges) in facts.named() {
            registry.register(name, help, gauges.clone());
        }
        Self { registry, passes, pass_seconds, steps, webhooks, streams, facts }
    }

    pub(crate) fn pass(&self, result: &str, took: Duration) {
        self.passes.get_or_create(&vec![("result", result.to_owned())]).inc();
        self.pass_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn step(&self, verb: &str, result: &str) {
        let labels = vec![("verb", verb.to_owned()), ("result", result.to_owned())];
        self.steps.get_or_create(&labels).inc();
    }

    pub(crate) fn webhook(&self, result: &str) {
        self.webhooks.get_or_create(&vec![("result", result.to_owned())]).inc();
    }

    /// How many streams are open, to be counted by whoever opens one.
    pub(crate) fn streams(&self) -> Gauge {
        self.streams.clone()
    }

    pub(crate) fn text(&self, document: &Document, moments: &Moments) -> Bytes {
        self.facts.fill(document, moments);
        let mut text = String::new();
        if let Err(error) = encode(&mut text, &self.registry) {
            tracing::error!(%error, "the metrics cannot be written");
        }
        // A family of one series without labels is written with empty braces.
        Bytes::from(text.replace("{} ", " "))
    }
}

/// Times that the document holds as text, in seconds since 1970.
#[derive(Debug, Clone, Default)]
pub(crate) struct Moments {
    pub(crate) pass: Option<f64>,
    pub(crate) good_proof: Option<f64>,
    /// The lease's end.
    pub(crate) lease: Option<u64>,
    /// From when until when the endpoint's certificate is valid.
    pub(crate) certificate: Option<Range<i64>>,
    /// When each server last archived WAL, and last failed to.
    pub(crate) archives: BTreeMap<String, (Option<u64>, Option<u64>)>,
}

impl Facts {
    fn named(&self) -> [(&'static str, &'static str, &Gauges); 24] {
        [
            ("held", "Objects that are held, by kind of reason", &self.held),
            ("pending_steps", "Steps of the last plan, by class of object", &self.pending),
            ("condition", "1 for the status that a condition has", &self.condition),
            ("host_reachable", "1 where the server answered", &self.reachable),
            ("host_answer_seconds", "How long the server took to tell its facts", &self.answer),
            ("postgresql_replication_lag_bytes", "Replica's distance to the leader", &self.lag),
            ("postgresql_leader", "1 on the primary, 0 on the others", &self.leader),
            ("postgresql_timeline", "Timeline", &self.timeline),
            ("etcd_member_healthy", "1 where the member is healthy", &self.etcd_healthy),
            ("tasks_running", "Running tasks of a service", &self.tasks_running),
            ("tasks_wanted", "Tasks that a service should have", &self.tasks_wanted),
            ("source_broken", "1 while the desired state cannot be read", &self.source),
            ("last_pass_timestamp_seconds", "When a pass last ended", &self.last_pass),
            (
                "last_good_proof_timestamp_seconds",
                "When a proof of service last held",
                &self.last_good_proof,
            ),
            ("proof_holds", "1 where the last proof of service held", &self.proof_holds),
            ("build_info", "Always 1; the version is a label", &self.info),
            ("lease_held", "1 while this operator may act", &self.lease_held),
            ("lease_token", "The lease's number", &self.lease_token),
            (
                "lease_until_timestamp_seconds",
                "When the lease ends unless it is renewed",
                &self.lease_until,
            ),
            (
                "certificate_not_before_timestamp_seconds",
                "From when a certificate is valid",
                &self.certificate_from,
            ),
            (
                "certificate_not_after_timestamp_seconds",
                "Until when a certificate is valid",
                &self.certificate_until,
            ),
            (
                "certificate_fault",
                "1 while a certificate's files cannot be used and the one before is",
                &self.certificate_fault,
            ),
            (
                "postgresql_last_archived_timestamp_seconds",
                "When WAL was last archived",
                &self.archived,
            ),
            (
                "postgresql_last_archive_failure_timestamp_seconds",
                "When archiving WAL last failed",
                &self.archive_failed,
            ),
        ]
    }

    fn fill(&self, document: &Document, moments: &Moments) {
        for (_, _, gauges) in self.named() {
            gauges.clear();
        }
        set(&self.info, &[("version", &document.operator.version)], 1.0);
        let broken = document.source.state == SourceState::Broken;
        set(&self.source, &[], f64::from(u8::from(broken)));
        if let Some(at) = moments.pass {
            set(&self.last_pass, &[], at);
        }
        if let Some(at) = moments.good_proof {
            set(&self.last_good_proof, &[], at);
        }
        if let Some(proof) = document.proof.as_ref().filter(|proof| !proof.outdated) {
            set(&self.proof_holds, &[], f64::from(u8::from(proof.holds)));
        }
        self.operator(document, moments);
        for held in &document.plan.held {
            add(&self.held, &[("reason", &held.kind)]);
        }
        for step in &document.plan.steps {
            add(&self.pending, &[("class", step.class)]);
        }
        for condition in &document.conditions {
            for status in ["True", "False", "Unknown"] {
                let labels = [("type", condition.kind.as_str()), ("status", status)];
                set(&self.condition, &labels, f64::from(u8::from(condition.status == status)));
            }
        }
        for host in &document.hosts {
            self.host(host);
        }
        for service in &document.services {
            let labels = [("service", service.name.as_str())];
            if let Some(running) = service.running {
                set(&self.tasks_running, &labels, count(running));
            }
            set(&self.tasks_wanted, &labels, count(service.wanted));
        }
    }

    fn operator(&self, document: &Document, moments: &Moments) {
        if let Some(lease) = &document.operator.lease {
            set(&self.lease_held, &[], f64::from(u8::from(lease.held)));
            if let Some(token) = lease.token {
                set(&self.lease_token, &[], large(token));
            }
        }
        if let Some(until) = moments.lease {
            set(&self.lease_until, &[], large(until));
        }
        let use_of = [("use", "listen")];
        if let Some(certificate) = &document.operator.certificate {
            let fault = certificate.fault.is_some();
            set(&self.certificate_fault, &use_of, f64::from(u8::from(fault)));
        }
        if let Some(valid) = &moments.certificate {
            set(&self.certificate_from, &use_of, signed(valid.start));
            set(&self.certificate_until, &use_of, signed(valid.end));
        }
        for (host, (archived, failed)) in &moments.archives {
            let labels = [("host", host.as_str())];
            if let Some(at) = archived {
                set(&self.archived, &labels, large(*at));
            }
            if let Some(at) = failed {
                set(&self.archive_failed, &labels, large(*at));
            }
        }
    }

    fn host(&self, host: &crate::document::Host) {
        let labels = [("host", host.name.as_str())];
        set(&self.reachable, &labels, f64::from(u8::from(host.unreachable.is_none())));
        if let Some(seconds) = host.answer_seconds {
            set(&self.answer, &labels, seconds);
        }
        if let Some(lag) = host.lag_bytes {
            set(&self.lag, &labels, large(lag));
        }
        if let Some(timeline) = host.timeline {
            set(&self.timeline, &labels, large(timeline));
        }
        if !matches!(host.role.as_str(), "-" | "unknown") {
            set(&self.leader, &labels, f64::from(u8::from(host.role == "primary")));
        }
        if !matches!(host.etcd.as_str(), "-" | "unknown") {
            let healthy = matches!(host.etcd.as_str(), "leader" | "member");
            set(&self.etcd_healthy, &labels, f64::from(u8::from(healthy)));
        }
    }
}

fn labels(pairs: &[(&'static str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| (*key, (*value).to_owned())).collect()
}

fn set(gauges: &Gauges, pairs: &[(&'static str, &str)], value: f64) {
    gauges.get_or_create(&labels(pairs)).set(value);
}

fn add(gauges: &Gauges, pairs: &[(&'static str, &str)]) {
    gauges.get_or_create(&labels(pairs)).inc();
}

fn count(number: usize) -> f64 {
    large(number as u64)
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float; 2^53 bytes are far away")]
fn large(number: u64) -> f64 {
    number as f64
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float; 2^53 s are far away")]
fn signed(number: i64) -> f64 {
    number as f64
}
