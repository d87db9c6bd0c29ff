//! The pure heart of Reconcile: what is desired, what is observed, and the plan between them.
//!
//! No I/O, no clock, no randomness, no hash order: the same inputs give the same bytes.

pub mod action;
pub mod adopt;
pub mod check;
pub mod desired;
pub mod leads;
pub mod lease;
pub mod model;
pub mod plan;
pub mod poolers;
pub mod ports;
pub mod primary;
pub mod probe;
pub mod scram;
mod setting;
pub mod status;
pub mod verify;
pub mod version;
pub mod windows;
