//! Maintenance windows as a status tells them: whether one is open, and what waits for the next.

use reconcile_spec::valid::Permission;
use serde::Serialize;

use crate::{
    desired::Desired,
    model::{ObjectId, Observed},
    plan::{HoldReason, Plan},
    windows,
};

/// The maintenance windows of the file, at the moment of the look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Maintenance {
    /// Whether one is open.
    pub open: bool,
    /// Until when, in seconds since 1970; None where none is open, or where they follow each other
    /// without an end.
    pub closes_at: Option<u64>,
    /// When the next one opens, in seconds since 1970; None: never.
    pub opens_at: Option<u64>,
    /// The same by the clock of its time zone: `Sat 2026-11-28 02:00 Europe/Berlin`.
    pub opens: Option<String>,
    /// What the policy keeps to them: `restart`, `switchover`.
    pub keeps: Vec<&'static str>,
    /// What waits for one to open.
    pub waiting: Vec<ObjectId>,
}

/// None where the file has no window.
pub(super) fn maintenance(
    desired: &Desired,
    observed: &Observed,
    plan: &Plan,
) -> Option<Maintenance> {
    let policy = &desired.policy;
    if policy.windows.is_empty() {
        return None;
    }
    let kept = [("restart", policy.restart), ("switchover", policy.switchover)];
    let kept = kept.into_iter().filter(|(_, permission)| *permission == Permission::InWindow);
    let waits = plan.held.iter().filter(|held| matches!(held.reason, HoldReason::Window(_)));
    Some(Maintenance {
        open: windows::is_open(&policy.windows, observed.at),
        closes_at: windows::closes(&policy.windows, observed.at),
        opens_at: windows::opens(&policy.windows, observed.at),
        opens: windows::next(&policy.windows, observed.at),
        keeps: kept.map(|(field, _)| field).collect(),
        waiting: waits.map(|held| held.object.clone()).collect(),
    })
}
