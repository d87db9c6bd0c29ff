//! The lab: real servers on one machine, to try the operator on and to run its tests against.
//!
//! Each server is a container that boots systemd, with its own sshd and (if asked for) its own
//! Docker engine. It starts bare; what a cluster needs comes from a package mirror and an image
//! registry that the lab brings, for a lab reaches nothing outside itself.
//!
//! Everything is done through programs of the machine (`docker`, `apt-get`, `debootstrap`, `ip`)
//! and needs root. Long-lived processes (the engine where systemd does not run it, a registry per
//! lab) outlive the caller. [`up`] is idempotent and mends: after a power cut of the machine or
//! the death of the engine it brings the same servers with the same disks back.
//!
//! Must not print, exit, or read the environment for settings; must not know the operator.

mod command;
mod engine;
mod error;
mod image;
mod lab;
mod machine;
mod mirror;
mod network;
mod operate;
mod options;
mod progress;
mod recipe;
mod registry;
mod server;
mod sources;
mod state;

pub use error::{LabError, Result};
pub use lab::{Scope, down, reset, up};
pub use operate::{ExecOutput, LabStatus, ServerStatus, cut, exec, heal, start, status, stop};
pub use options::LabOptions;
pub use progress::{Event, Progress, Silent, Stage};
pub use state::{Lab, Server, USER};
