//! From a disturbance to its end: what drifted, how much is to do, and that all is well again.

use std::collections::BTreeSet;

use reconcile_core::{
    desired::Desired,
    model::ObjectId,
    plan::{HoldReason, Plan, counted, drifted},
};
use reconcile_engine::settled::Settled;
use tokio::time::Instant;

/// Of a digest; as many as the page shows.
const DIGITS: usize = 12;

/// What is known of the course of things.
#[derive(Default)]
pub(super) struct Course {
    /// What was as desired: what differs from it afterwards has drifted.
    settled: Settled,
    /// Steps of the last plan; it is made every few seconds while something is waited for.
    planned: Vec<ObjectId>,
    /// What was said to have drifted since all was well.
    drifted: BTreeSet<ObjectId>,
    /// Since when not all is well.
    since: Option<Instant>,
    /// Something was said of that.
    spoke: bool,
    /// Something was done since it was last said that nothing is left to do.
    worked: bool,
    /// All was well before.
    was_well: bool,
}

impl Course {
    /// Something was said that its end is to be said of.
    pub(super) fn spoke(&mut self, now: Instant) {
        self.since.get_or_insert(now);
        self.spoke = true;
    }

    /// What a plan has to say of its steps.
    pub(super) fn begins(&mut self, plan: &Plan, now: Instant) -> Vec<String> {
        if plan.steps.is_empty() {
            return Vec::new();
        }
        self.since.get_or_insert(now);
        (self.worked, self.spoke) = (true, true);
        let news: Vec<_> = plan
            .steps
            .iter()
            .filter(|step| self.settled.is_drift(plan, step))
            .filter_map(|step| Some((step.object.clone(), format!("drift {}", drifted(step)?))))
            .filter(|(object, _)| !self.drifted.contains(object))
            .collect();
        let (objects, lines): (Vec<_>, Vec<_>) = news.into_iter().unzip();
        self.drifted.extend(objects);
        let mut lines = super::bounded(lines, "drifted");
        let steps: Vec<_> = plan.steps.iter().map(|step| step.object.clone()).collect();
        if self.planned != steps {
            lines.push(format!("{} to do", counted(steps.len(), "step")));
        }
        self.planned = steps;
        lines
    }

    /// What a plan without steps has to say. `told`: something was said of holds just now;
    /// `all_told`: nothing is held of which nothing was said.
    pub(super) fn ends(
        &mut self,
        desired: &Desired,
        plan: &Plan,
        now: Instant,
        told: bool,
        all_told: bool,
    ) -> Vec<String> {
        self.spoke |= told;
        if !plan.steps.is_empty() {
            return Vec::new();
        }
        self.planned.clear();
        self.settled.settle(desired, plan);
        let since = *self.since.get_or_insert(now);
        let seconds = now.duration_since(since).as_secs_f64();
        let servers = counted(desired.servers.len(), "server");
        let generation: String = plan.desired_digest.chars().take(DIGITS).collect();
        let state = format!("{servers}, generation {generation}, after {seconds:.1} s");
        if plan.held.is_empty() {
            let said = std::mem::take(&mut self.spoke);
            let again = if std::mem::replace(&mut self.was_well, true) { " again" } else { "" };
            self.drifted.clear();
            (self.since, self.worked) = (None, false);
            return if said { vec![format!("converged{again}: {state}")] } else { Vec::new() };
        }
        let fails = plan.held.iter().any(|held| matches!(held.reason, HoldReason::Failed(_)));
        if self.worked && all_told && !fails {
            self.drifted.clear();
            self.worked = false;
            let held = counted(plan.held.len(), "object");
            return vec![format!("nothing left to do, {held} held: {state}")];
        }
        Vec::new()
    }
}
