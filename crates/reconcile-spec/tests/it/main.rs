//! Tests of the desired-state file: goldens of broken and valid files, properties of reading.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests read goldens, measure time, and may panic"
)]

mod edit;
mod files;
mod limits;
mod ports;
mod texts;
