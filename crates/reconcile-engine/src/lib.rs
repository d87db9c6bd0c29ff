//! The imperative shell: one pass is observe → plan → check → execute → status.
//!
//! Knows the world only through [`reconcile_core::ports::Fleet`]; decides nothing itself.

pub mod converge;
pub mod events;
pub mod execute;
pub mod observe;
pub mod pass;

pub use converge::{Converged, converge};
pub use events::{Event, Listener};
pub use execute::{Execution, StepResult};
pub use observe::observe;
pub use pass::{Pass, PassError, look, run};
