//! The condition that tells whether the newest desired state is the one in force.

use super::{Condition, Truth};

/// A newest desired state that is not in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotTaken<'a> {
    /// Why, in a line.
    pub reason: &'a str,
    /// It could not be read: whether there is a newer one at all is not known.
    pub unread: bool,
}

impl Condition {
    /// The same in `status` and in what an operator shows.
    pub fn source(newest: Option<NotTaken<'_>>) -> Self {
        let (status, reason, message) = match newest {
            None => (Truth::True, "Newest", "the newest desired state is in force".to_owned()),
            Some(NotTaken { reason: why, unread: true }) => (
                Truth::Unknown,
                "Unread",
                format!("whether there is a newer desired state is not known: {why}"),
            ),
            Some(NotTaken { reason: why, unread: false }) => {
                (Truth::False, "Refused", format!("the newest desired state is refused: {why}"))
            }
        };
        Self { kind: "SourceInForce", status, reason, message }
    }
}
