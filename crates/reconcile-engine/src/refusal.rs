//! Plans that must not be executed.

use reconcile_core::check::Violation;

/// A plan that must not be executed.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    /// The planner made a plan that the checker refuses: a mistake in reconcile, never in the input.
    #[error("the plan breaks its own safety rules and was not executed: {}", list(.0))]
    Unsafe(Vec<Violation>),
}

fn list(violations: &[Violation]) -> String {
    violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
