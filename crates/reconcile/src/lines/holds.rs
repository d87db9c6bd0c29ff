//! What is held: said when it is there to stay, and what only waits its turn is not.

use std::{collections::BTreeMap, mem, time::Duration};

use reconcile_core::{
    model::ObjectId,
    plan::{Held, HoldReason, Plan, drifted},
};
use tokio::time::Instant;

/// What is held for that long while other steps are under way will not go with them.
const LASTING: Duration = Duration::from_secs(5);

/// Holds that wait for one another in a row.
const CHAIN: usize = 8;

/// The holds that were seen.
#[derive(Default)]
pub(super) struct Holds(BTreeMap<ObjectId, Seen>);

struct Seen {
    kind: mem::Discriminant<HoldReason>,
    since: Instant,
    /// Looks that showed it one after the other.
    looks: u32,
    /// It was said.
    told: bool,
    /// It was said, be it for another reason, and must be taken back.
    open: bool,
    /// It waits for its turn, or was told when it failed: nothing needs to be said.
    quiet: bool,
}

impl Holds {
    /// What is to be said of the holds of a plan.
    pub(super) fn looked(&mut self, plan: &Plan, now: Instant) -> Vec<String> {
        let mut lines = Vec::new();
        let mut before = mem::take(&mut self.0);
        let stalled: Vec<&Held> = plan.stalled().collect();
        for held in &plan.held {
            if self.0.contains_key(&held.object) {
                continue;
            }
            let kind = mem::discriminant(&held.reason);
            let old = before.remove(&held.object);
            let open = old.as_ref().is_some_and(|seen| seen.open);
            let mut seen = old.filter(|seen| seen.kind == kind).unwrap_or(Seen {
                kind,
                since: now,
                looks: 0,
                told: false,
                open,
                quiet: false,
            });
            seen.looks += 1;
            seen.quiet = !stalled.contains(&held)
                || matches!(held.reason, HoldReason::Failed(_))
                || root(plan, held).object != held.object;
            let calm = plan.steps.is_empty();
            if !seen.quiet && !seen.told && stays(held, &seen, calm, now) {
                let waiting = plan.held.iter().filter(|other| {
                    other.object != held.object && root(plan, other).object == held.object
                });
                let more = match waiting.count() {
                    0 => String::new(),
                    1 => "; 1 more waits for it".to_owned(),
                    more => format!("; {more} more wait for it"),
                };
                let what = by_pause(plan, held).unwrap_or_else(|| format!("{}:", held.object));
                lines.push(format!("held  {what} {}{more}", held.reason));
                (seen.told, seen.open) = (true, true);
            }
            self.0.insert(held.object.clone(), seen);
        }
        let gone = before.into_iter().filter(|(_, seen)| seen.open);
        let gone = gone.map(|(object, _)| format!("no longer held: {object}")).collect();
        let mut lines = super::bounded(lines, "are held; `reconcile status` lists them");
        lines.extend(super::bounded(gone, "are no longer held"));
        lines
    }

    /// True where nothing is held of which something is still to be said.
    pub(super) fn all_told(&self) -> bool {
        self.0.values().all(|seen| seen.told || seen.quiet)
    }
}

/// What a pause keeps from being undone: the object and what differs there.
fn by_pause(plan: &Plan, held: &Held) -> Option<String> {
    let step = plan.paused().find(|step| step.object == held.object)?;
    let differs = drifted(step).filter(|_| matches!(held.reason, HoldReason::Paused(_)))?;
    Some(format!("{differs};"))
}

/// Whether a hold is there to stay. What could not be observed, or what members that start are waited
/// for, is often known a moment later; a server that does not answer was asked twice.
fn stays(held: &Held, seen: &Seen, calm: bool, now: Instant) -> bool {
    let old = now.duration_since(seen.since) >= LASTING;
    match (&held.object, &held.reason) {
        (ObjectId::Host(_), _) => true,
        (_, HoldReason::Unknown(_) | HoldReason::Quorum(_) | HoldReason::WaitsFor(_)) => {
            old || calm && seen.looks > 1
        }
        _ => old || calm,
    }
}

/// What a hold waits for in the end: itself where it waits for nothing that is held.
fn root<'a>(plan: &'a Plan, held: &'a Held) -> &'a Held {
    let mut root = held;
    for _ in 0..CHAIN {
        let (HoldReason::WaitsFor(first) | HoldReason::OneAtATime(first)) = &root.reason else {
            return root;
        };
        let Some(next) = plan.held.iter().find(|other| other.object == *first) else {
            return root;
        };
        root = next;
    }
    root
}
