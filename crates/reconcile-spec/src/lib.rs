//! The desired-state file: its types, its reading with positions, its rules, its JSON Schema.
//!
//! Pure: a string comes in, values or faults go out. No files, no clock, no environment.

pub mod cron;
mod names;
mod ports;
mod quantity;
pub mod secrets;
pub mod valid;

pub use cron::{Cron, CronError};
pub use quantity::QuantityError;
pub use valid::{ClusterSpec, ValidSpec};
