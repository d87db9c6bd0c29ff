//! Service specifications in both directions, without any I/O.
//!
//! What we write and what the engine gives back compare equal: both forms are sorted where order
//! means nothing, and every default is spelled out.

mod read;
mod unmodelled;
mod write;

pub use read::from_engine;
pub(crate) use unmodelled::made_from;
pub use write::{Ids, to_engine};

/// The engine's own defaults for what a specification leaves out (swarmkit, `api/defaults`).
mod defaults {
    pub(super) const STOP_GRACE_MS: u64 = 10_000;
    pub(super) const RESTART_DELAY_MS: u64 = 5_000;
    pub(super) const MONITOR_MS: u64 = 5_000;
    pub(super) const PARALLELISM: u64 = 1;
    pub(super) const FAILURE_ACTION: &str = "pause";
    pub(super) const ORDER: &str = "stop-first";
    pub(super) const FILE_MODE: u32 = 0o444;
}

/// The engine counts durations in nanoseconds.
const NANOS_PER_MILLI: u64 = 1_000_000;
