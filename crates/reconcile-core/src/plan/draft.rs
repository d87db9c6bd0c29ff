//! Steps before they are put in order: they name what they need by object.

use std::collections::BTreeSet;

use super::{Change, Held, HoldReason, Impact, Verb};
use crate::{
    action::Action,
    desired::Desired,
    model::{HostFacts, HostName, ObjectId, Observed},
};

/// Servers further apart than this cannot trust each other's leases and certificates.
const MAX_CLOCK_OFFSET_MS: i64 = 5_000;

/// Both sides of the plan.
pub(super) struct View<'a> {
    pub(super) desired: &'a Desired,
    pub(super) observed: &'a Observed,
}

impl<'a> View<'a> {
    /// Whether a server is to leave.
    pub(super) fn leaves(&self, host: &HostName) -> bool {
        self.desired.leaves(host)
    }

    /// The facts of a host that may be worked on: known and fit. One that is not fit is as good as
    /// unknown, so nothing is founded around it and nothing is done on it.
    pub(super) fn host(&self, host: &HostName) -> Option<&'a HostFacts> {
        self.observed.host(host).filter(|facts| self.unfit(facts).is_none())
    }

    /// Why nothing may be done on a server.
    pub(super) fn unfit(&self, facts: &HostFacts) -> Option<HoldReason> {
        if let Some(other) =
            facts.manifest.cluster.as_ref().filter(|name| **name != self.desired.cluster)
        {
            return Some(HoldReason::Foreign(format!("the server belongs to cluster {other}")));
        }
        if facts.os.id != "debian" && facts.os.id != "ubuntu" {
            let os = format!("{} {} is not Debian or Ubuntu", facts.os.id, facts.os.version);
            return Some(HoldReason::Impossible(os));
        }
        if facts.clock_offset_ms.abs() > MAX_CLOCK_OFFSET_MS {
            #[expect(clippy::cast_precision_loss, reason = "shown to one decimal")]
            let seconds = facts.clock_offset_ms as f64 / 1000.0;
            return Some(HoldReason::NeedsPerson(format!(
                "its clock is {seconds:.1} s off; start a time service such as chrony"
            )));
        }
        None
    }
}

/// A step that is not yet placed.
#[derive(Clone)]
pub(super) struct Draft {
    pub(super) object: ObjectId,
    pub(super) verb: Verb,
    pub(super) changes: Vec<Change>,
    pub(super) reason: String,
    pub(super) impact: Impact,
    pub(super) needs: BTreeSet<ObjectId>,
    /// What must change along with it: it is done only in a run in which none of them is held, and
    /// they come after it.
    pub(super) together: BTreeSet<ObjectId>,
    pub(super) deadline_seconds: u64,
    pub(super) action: Action,
}

impl Draft {
    /// A step without impact or needs.
    pub(super) fn new(
        object: ObjectId,
        verb: Verb,
        reason: impl Into<String>,
        deadline_seconds: u64,
        action: Action,
    ) -> Self {
        Self {
            object,
            verb,
            changes: Vec::new(),
            reason: reason.into(),
            impact: Impact::None,
            needs: BTreeSet::new(),
            together: BTreeSet::new(),
            deadline_seconds,
            action,
        }
    }
    pub(super) fn needs(mut self, objects: impl IntoIterator<Item = ObjectId>) -> Self {
        self.needs.extend(objects);
        self
    }
    pub(super) fn change(
        mut self,
        field: impl Into<String>,
        from: Option<String>,
        to: Option<String>,
    ) -> Self {
        self.changes.push(Change { field: field.into(), from, to });
        self
    }
    pub(super) fn impact(mut self, impact: Impact) -> Self {
        self.impact = impact;
        self
    }
}

/// All drafts and holds of a plan in the making.
#[derive(Clone, Default)]
pub(super) struct Drafts {
    pub(super) steps: Vec<Draft>,
    pub(super) held: Vec<Held>,
    /// Restarts of PostgreSQL that are due, in their order; the first is a step or held.
    pub(super) restarts: Vec<super::Restart>,
}

impl Drafts {
    pub(super) fn step(&mut self, draft: Draft) {
        self.steps.push(draft);
    }
    /// Whether a step is held by something that it needs, as far as is known by now.
    pub(super) fn blocked(&self, step: &Draft) -> bool {
        step.needs.iter().any(|need| {
            self.held.iter().any(|held| held.object == *need)
                || self.steps.iter().any(|other| other.object == *need && self.blocked(other))
        })
    }
    pub(super) fn hold(&mut self, object: ObjectId, reason: HoldReason) {
        self.held.push(Held { object, reason });
    }
}
