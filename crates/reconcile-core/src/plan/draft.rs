//! Steps before they are put in order: they name what they need by object.

use std::collections::BTreeSet;

use super::{Change, Held, HoldReason, Impact, Verb};
use crate::{
    action::Action,
    desired::Desired,
    model::{HostFacts, HostName, ObjectId, Observed},
};

/// Both sides of the plan.
pub(super) struct View<'a> {
    pub(super) desired: &'a Desired,
    pub(super) observed: &'a Observed,
}

impl<'a> View<'a> {
    /// The facts of a host that may be worked on: known, and not another cluster's.
    pub(super) fn host(&self, host: &HostName) -> Option<&'a HostFacts> {
        self.observed.host(host).filter(|facts| {
            facts.manifest.cluster.as_ref().is_none_or(|name| *name == self.desired.cluster)
        })
    }
}

/// A step that is not yet placed.
pub(super) struct Draft {
    pub(super) object: ObjectId,
    pub(super) verb: Verb,
    pub(super) changes: Vec<Change>,
    pub(super) reason: String,
    pub(super) impact: Impact,
    pub(super) needs: BTreeSet<ObjectId>,
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
#[derive(Default)]
pub(super) struct Drafts {
    pub(super) steps: Vec<Draft>,
    pub(super) held: Vec<Held>,
}

impl Drafts {
    pub(super) fn step(&mut self, draft: Draft) {
        self.steps.push(draft);
    }
    pub(super) fn hold(&mut self, object: ObjectId, reason: HoldReason) {
        self.held.push(Held { object, reason });
    }
}
