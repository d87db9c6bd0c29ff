//! The Swarm through the Docker API: what a manager tells, and what we ask of it.
//!
//! Streams come from a [`reconcile_dial::Dialer`], so nothing here knows SSH. Reading goes through
//! structs of our own, since the engine's answers outgrow any generated model; writing uses
//! bollard, except where the payload holds a secret, which bollard would log.
//!
//! What this crate must not hold: a decision about what the Swarm should be.

mod apply;
mod client;
mod convert;
mod engine;
mod events;
mod fault;
mod labels;
mod observe;
mod rollout;
mod wire;

pub use client::SwarmClient;
pub use convert::{Ids, from_engine, to_engine};
pub use events::{Hint, Hints};
pub use labels::{CLUSTER, RESOLVED_IMAGE, SPEC_HASH, UNMODELLED};

/// Directives for the log filter that must always be in force: bollard and the HTTP stack below
/// write whole payloads at finer levels.
pub const LOG_DIRECTIVES: &[&str] = &["bollard=info", "hyper=info", "hyper_util=info"];
