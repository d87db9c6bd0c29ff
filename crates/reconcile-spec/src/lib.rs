//! The desired-state file: its types, its reading with positions, its rules, its JSON Schema.
//!
//! Pure: a string comes in, values or faults go out. No files, no clock, no environment.

pub mod cron;
pub mod names;
pub mod ports;
pub mod quantity;
pub mod schema;
pub mod secrets;
pub mod v1alpha1;
pub mod valid;

pub use cron::{Cron, CronError};
pub use quantity::QuantityError;
pub use schema::json_schema;
pub use valid::{ClusterSpec, ValidSpec};
