//! What once was as the desired state says: what differs from it afterwards has drifted, and was not
//! changed by the file.

use std::collections::{BTreeMap, BTreeSet};

use reconcile_core::{
    desired::Desired,
    model::{HostName, ObjectId},
    plan::{HoldReason, Plan, Step, drifted},
};

/// What is known of that since the operator began.
#[derive(Debug, Default)]
pub struct Settled {
    /// The desired state that each server was last found to follow, and under None what lives on no
    /// one of them.
    digests: BTreeMap<Option<HostName>, String>,
    /// What was held then: where it is let go it is no drift.
    kept: BTreeSet<ObjectId>,
}

impl Settled {
    /// True where the desired state did not ask for it: what it concerns once was as that still says.
    pub fn is_drift(&self, plan: &Plan, step: &Step) -> bool {
        self.digests.get(&step.object.host().cloned()) == Some(&plan.desired_digest)
            && !self.kept.contains(&step.object)
    }

    /// Notes what is as desired, or held, in a plan without steps.
    pub fn settle(&mut self, desired: &Desired, plan: &Plan) {
        let digest = || plan.desired_digest.clone();
        let unknown = plan.held.iter().any(|held| matches!(held.reason, HoldReason::Unknown(_)));
        if !unknown {
            self.digests.insert(None, digest());
        }
        for host in desired.servers.keys() {
            let object = ObjectId::Host(host.clone());
            if !plan.held.iter().any(|held| held.object == object) {
                self.digests.insert(Some(host.clone()), digest());
            }
        }
        self.kept = plan.held.iter().map(|held| held.object.clone()).collect();
    }
}

/// Something that drifted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// What.
    pub object: ObjectId,
    /// It and what differs, in one line without any secret.
    pub told: String,
    /// Why it is left as it is, where it is.
    pub left: Option<&'static str>,
}

/// Drift as it comes up, each once.
#[derive(Debug, Default)]
pub struct Drifts {
    settled: Settled,
    told: BTreeSet<ObjectId>,
}

impl Drifts {
    /// What has drifted since the look before.
    pub fn looked(&mut self, desired: &Desired, plan: &Plan) -> Vec<Drift> {
        let healed = plan.steps.iter().map(|step| (step, None));
        let paused = plan.paused().map(|step| (step, Some("paused")));
        let steps = healed.chain(paused).filter(|(step, _)| self.settled.is_drift(plan, step));
        let undone = steps.filter_map(|(step, left)| {
            Some(Drift { object: step.object.clone(), told: drifted(step)?, left })
        });
        let reported = plan.held.iter().filter_map(|held| match &held.reason {
            HoldReason::Reported(what) => Some(Drift {
                object: held.object.clone(),
                told: format!("{}: {what}", held.object),
                left: Some("reported only"),
            }),
            _ => None,
        });
        let all: Vec<Drift> = undone.chain(reported).collect();
        let now: BTreeSet<_> = all.iter().map(|drift| drift.object.clone()).collect();
        let held: BTreeSet<_> = plan.held.iter().map(|held| &held.object).collect();
        // What waits, failed or cannot be seen just now is the same drift when it comes up again.
        self.told.retain(|object| {
            let host = object.host().map(|host| ObjectId::Host(host.clone()));
            now.contains(object)
                || held.contains(object)
                || host.is_some_and(|host| held.contains(&host))
        });
        let news = all.into_iter().filter(|drift| self.told.insert(drift.object.clone())).collect();
        if plan.steps.is_empty() {
            // What a pause or the policy leaves alone was told as drift and is none the less.
            self.settled.settle(desired, plan);
        }
        news
    }
}
