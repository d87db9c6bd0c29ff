//! What is known, put together from the loop's words, and since when.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use reconcile_core::{
    model::HostName,
    plan::{Held as CoreHeld, Plan, Step},
    status::{Condition as CoreCondition, NotTaken, Status},
    verify::VerifyReport,
};

use crate::{
    board::{About, Lease},
    clock, convert,
    document::{
        Calm, Commit, Condition, Document, Held, Lease as LeaseOut, Operator, Passes,
        Plan as PlanOut, Progress, Refused, Source, SourceState, StepChange,
    },
};

/// Service is proven every minute; a proof that is older than this says nothing of now.
const PROOF_LASTS: Duration = Duration::from_secs(180);

/// What is known.
pub(crate) struct Facts {
    pub(crate) document: Document,
    /// The status that the conditions come from; a later proof changes it.
    status: Option<Status>,
    /// The last proof, unless something was changed since.
    proof: Option<VerifyReport>,
    proved: Instant,
    answers: BTreeMap<HostName, Duration>,
}

impl Facts {
    pub(crate) fn new(about: About) -> Self {
        let now = clock::now();
        let document = Document {
            cluster: about.cluster,
            operator: Operator {
                version: about.version,
                started_at: now.clone(),
                interval_seconds: about.interval.as_secs_f64(),
                lease: None,
                certificate: None,
            },
            source: Source {
                state: SourceState::Pending,
                since: now,
                refused: None,
                commit: None,
                in_force_since: None,
            },
            observed_generation: None,
            observed_at: None,
            passes: Passes::default(),
            conditions: Vec::new(),
            maintenance: None,
            hosts: Vec::new(),
            services: Vec::new(),
            plan: PlanOut::default(),
            proof: None,
            last_good_proof: None,
            events: None,
        };
        let (proved, answers) = (Instant::now(), BTreeMap::new());
        Self { document, status: None, proof: None, proved, answers }
    }

    /// A desired state is in force.
    pub(crate) fn in_force(&mut self, commit: Option<Commit>) {
        let source = &mut self.document.source;
        let now = clock::now();
        if source.state != SourceState::InForce {
            source.since.clone_from(&now);
        }
        (source.state, source.refused, source.commit) = (SourceState::InForce, None, commit);
        source.in_force_since = Some(now);
        self.source_condition();
    }

    /// The newest desired state is not taken.
    pub(crate) fn broken(&mut self, refused: Refused) {
        let source = &mut self.document.source;
        if source.state != SourceState::Broken {
            source.since = clock::now();
        }
        (source.state, source.refused) = (SourceState::Broken, Some(refused));
        self.source_condition();
    }

    /// Puts it beside the others, once there are any.
    fn source_condition(&mut self) {
        if let Some(status) = self.status.take() {
            self.conditions(&status.conditions);
            self.status = Some(status);
        }
    }

    pub(crate) fn pass_started(&mut self, number: u32) {
        let passes = &mut self.document.passes;
        (passes.number, passes.running) = (number, true);
        passes.started_at = Some(clock::now());
        passes.refused = None;
    }

    pub(crate) fn pass_ended(&mut self, took: Duration, refused: Option<String>) {
        let passes = &mut self.document.passes;
        passes.running = false;
        passes.ended_at = Some(clock::now());
        passes.seconds = Some(took.as_secs_f64());
        passes.refused = refused;
    }

    pub(crate) fn observed(&mut self, answers: &BTreeMap<HostName, Duration>) {
        self.answers.clone_from(answers);
        self.document.observed_at = Some(clock::now());
    }

    /// True where a word about the lease is no news, its end apart.
    pub(crate) fn same_lease(&self, lease: &Lease) -> bool {
        match (&self.document.operator.lease, lease) {
            (Some(LeaseOut { token: Some(old), .. }), Lease::Held { token, .. }) => old == token,
            (
                Some(LeaseOut { waits: Some(old), keeper: before, .. }),
                Lease::Waits { why, keeper },
            ) => old == why && before == keeper,
            _ => false,
        }
    }

    /// Takes in a word about the lease; true where it is news and not only a renewal.
    pub(crate) fn lease(&mut self, lease: &Lease, until: Option<String>) -> bool {
        let news = !self.same_lease(lease);
        let (held, token, waits, keeper) = match lease {
            Lease::Held { token, .. } => (true, Some(*token), None, None),
            Lease::Waits { why, keeper } => (false, None, Some(why.clone()), keeper.clone()),
        };
        let old = self.document.operator.lease.take().filter(|old| old.held == held);
        let since = old.map_or_else(clock::now, |old| old.since);
        self.document.operator.lease = Some(LeaseOut { held, since, token, until, waits, keeper });
        news
    }

    /// Who keeps the cluster, where this operator is a standby.
    pub(crate) fn keeper(&self) -> Option<&str> {
        self.document.operator.lease.as_ref()?.keeper.as_deref()
    }

    /// The last proof that still says something about what is there.
    pub(crate) fn proof(&self) -> Option<VerifyReport> {
        self.proof.clone()
    }

    /// Takes in a look; gives the document as it was before.
    pub(crate) fn looked(&mut self, status: Status, plan: &Plan) -> Document {
        let old = self.document.clone();
        let now = clock::now();
        let document = &mut self.document;
        document.observed_generation = Some(status.observed_generation.clone());
        document.maintenance = status.maintenance.as_ref().map(convert::maintenance);
        document.hosts = status
            .hosts
            .iter()
            .map(|host| {
                let took = self.answers.get(&host.name).map(Duration::as_secs_f64);
                convert::host(host.clone(), took)
            })
            .collect();
        let held = |held: &CoreHeld| {
            let (object, message) = (held.object.to_string(), held.reason.to_string());
            let mut before = old.plan.held.iter().chain(&old.plan.queued);
            let before = before.find(|before| before.object == object);
            Held {
                since: before.map_or_else(|| now.clone(), |before| before.since.clone()),
                host: held.object.host().map(ToString::to_string),
                kind: convert::hold_kind(&held.reason).to_owned(),
                object,
                message,
            }
        };
        document.plan = PlanOut {
            steps: plan.steps.iter().map(convert::step).collect(),
            paused: plan.paused().map(convert::step).collect(),
            queued: plan.queued().map(held).collect(),
            held: plan.stalled().map(held).collect(),
        };
        self.conditions(&status.conditions);
        self.services(&status);
        self.status = Some(status);
        old
    }

    fn services(&mut self, status: &Status) {
        let services = status.services.iter().cloned();
        self.document.services = services.map(convert::service).collect();
    }

    /// Takes in a proof; gives the conditions as they were before.
    pub(crate) fn proved(&mut self, report: &VerifyReport) -> Vec<Condition> {
        let old = self.document.conditions.clone();
        let now = clock::now();
        if report.holds() {
            self.document.last_good_proof = Some(now.clone());
        }
        self.document.proof = Some(convert::proof(report, now));
        (self.proof, self.proved) = (Some(report.clone()), Instant::now());
        if let Some(mut status) = self.status.take() {
            status.prove(report.clone());
            self.conditions(&status.conditions);
            self.services(&status);
            self.status = Some(status);
        }
        old
    }

    fn conditions(&mut self, conditions: &[CoreCondition]) {
        let old = std::mem::take(&mut self.document.conditions);
        let refused = self.document.source.refused.as_ref();
        let not_taken = |refused: &Refused| {
            CoreCondition::source(Some(NotTaken {
                reason: &refused.reason,
                unread: refused.unread,
            }))
        };
        let source = refused.map_or_else(|| CoreCondition::source(None), not_taken);
        self.document.conditions = conditions
            .iter()
            .chain([&source])
            .map(|condition| {
                let status = convert::truth(condition.status);
                let before = old
                    .iter()
                    .find(|before| before.kind == condition.kind && before.status == status);
                Condition {
                    kind: condition.kind.to_owned(),
                    status,
                    reason: condition.reason.to_owned(),
                    message: condition.message.clone(),
                    last_transition_time: before
                        .map_or_else(clock::now, |before| before.last_transition_time.clone()),
                }
            })
            .collect();
    }

    /// Notes how a step goes. A step that took effect makes the last proof say nothing any more.
    pub(crate) fn step(
        &mut self,
        step: &Step,
        change: impl FnOnce(&mut Progress),
    ) -> Option<StepChange> {
        let object = step.object.to_string();
        let out = self
            .document
            .plan
            .steps
            .iter_mut()
            .find(|out| out.id == step.id && out.object == object)?;
        change(&mut out.progress);
        Some(StepChange { id: step.id, object, progress: out.progress.clone() })
    }

    /// Where the last proof is too old: it counts no more, and is marked so. True once.
    pub(crate) fn outdate(&mut self) -> bool {
        let Some(shown) = self.document.proof.as_mut() else { return false };
        if shown.outdated || self.proved.elapsed() < PROOF_LASTS {
            return false;
        }
        shown.outdated = true;
        self.proof = None;
        if let Some(mut status) = self.status.take() {
            status.unprove();
            self.conditions(&status.conditions);
            self.services(&status);
            self.status = Some(status);
        }
        true
    }

    pub(crate) fn forget_proof(&mut self) {
        self.proof = None;
    }

    pub(crate) fn calm(&self) -> Calm {
        Calm {
            observed_at: self.document.observed_at.clone(),
            passes: self.document.passes.clone(),
            proof_at: self.document.proof.as_ref().map(|proof| proof.at.clone()),
            last_good_proof: self.document.last_good_proof.clone(),
        }
    }
}

/// True where two documents show the same, times and counts of passes apart.
pub(crate) fn same(a: &Document, b: &Document) -> bool {
    let still = |document: &Document| {
        let mut hosts = document.hosts.clone();
        for host in &mut hosts {
            host.answer_seconds = None;
            host.archive = None;
        }
        hosts
    };
    let conditions = |document: &Document| {
        let words = document.conditions.iter();
        words.map(|one| (one.status, one.message.clone())).collect::<Vec<_>>()
    };
    a.observed_generation == b.observed_generation
        && a.plan == b.plan
        && a.maintenance == b.maintenance
        && a.services == b.services
        && conditions(a) == conditions(b)
        && still(a) == still(b)
}

#[cfg(test)]
mod tests {
    use reconcile_core::plan::plan;
    use reconcile_core::status::status;
    use reconcile_sim::{World, fixture};

    use super::*;

    #[test]
    fn an_old_proof_is_no_proof() {
        let desired = fixture::desire(&fixture::spec(3, 0, |_| {}));
        let world = World::converged(&desired);
        let observed = world.observe(&desired);
        let plan = plan(&desired, &observed);
        let about = About {
            cluster: "main".to_owned(),
            version: "0".to_owned(),
            interval: Duration::from_secs(10),
        };
        let mut facts = Facts::new(about);
        facts.looked(status(&desired, &observed, &plan, None), &plan);
        facts.proved(&VerifyReport { proofs: Vec::new() });
        let ready = |facts: &Facts| {
            let ready = facts.document.conditions.iter().find(|one| one.kind == "Ready");
            ready.map(|one| (one.status, one.reason.clone()))
        };
        let before = ready(&facts);
        assert!(!facts.outdate(), "it is young");
        assert_eq!(ready(&facts), before);
        facts.proved = Instant::now().checked_sub(PROOF_LASTS).expect("the machine is up for long");
        assert!(facts.outdate());
        assert!(facts.document.proof.as_ref().is_some_and(|proof| proof.outdated));
        assert_eq!(ready(&facts), Some(("Unknown", "NotProven".to_owned())));
        assert!(facts.proof().is_none() && !facts.outdate(), "it is said once");
    }
}
