//! What goes out about maintenance windows and about servers that leave.

use schemars::JsonSchema;
use serde::Serialize;

/// The maintenance windows of the file, at the last look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Maintenance {
    /// Whether one is open.
    pub(crate) open: bool,
    /// Until when; missing where none is open, or where they follow each other without an end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) closes_at: Option<String>,
    /// When the next one opens; missing: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) opens_at: Option<String>,
    /// The same by the clock of its time zone, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) opens: Option<String>,
    /// What the policy keeps to them: `restart`, `switchover`.
    pub(crate) keeps: Vec<&'static str>,
    /// Objects that wait for one to open; the plan's `held` says more of each.
    pub(crate) waiting: Vec<String>,
}

/// How far a server is that is to leave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Leaving {
    /// It has left and can be taken out of the file; its data are still there.
    pub(crate) left: bool,
    /// What is still to be done, in words.
    pub(crate) remains: Vec<&'static str>,
}
