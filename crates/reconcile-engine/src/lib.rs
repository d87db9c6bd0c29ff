//! The imperative shell: one pass is observe → plan → check → execute → status.
//!
//! Knows the world only through [`reconcile_core::ports::Fleet`]; decides nothing itself.

pub mod aside;
pub mod backoff;
pub mod converge;
pub mod events;
pub mod execute;
pub mod journal;
pub mod lease;
pub mod leased;
pub mod observe;
pub mod pass;
mod proofs;
mod refusal;
pub mod resume;
pub mod settled;
pub mod switchover;
pub mod watch;

pub use aside::Turn;
pub use converge::{Converged, converge};
pub use events::{Event, Listener};
pub use execute::{Execution, StepResult};
pub use journal::Journal;
pub use leased::Leased;
pub use pass::{Pass, look, run};
pub use refusal::PassError;
