//! The desired-state file: its types, its reading with positions, its rules, its JSON Schema.
//!
//! Pure: a string comes in, values or faults go out. No files, no clock, no environment.

mod check;
pub mod cron;
pub mod edit;
mod fault;
mod gucs;
mod hints;
pub mod names;
mod packaged;
mod parse;
pub mod ports;
pub mod quantity;
mod reference;
mod render;
mod report;
pub mod schema;
pub mod secrets;
mod tree;
pub mod v1alpha1;
pub mod valid;
mod validate;

pub use cron::{Cron, CronError};
pub use fault::{Fault, Faults, Place, Related, Severity};
pub use parse::{Loaded, load};
pub use quantity::QuantityError;
pub use reference::reference;
pub use render::to_yaml;
pub use report::{Source, masked, report};
pub use schema::json_schema;
pub use valid::{ClusterSpec, ValidSpec};
