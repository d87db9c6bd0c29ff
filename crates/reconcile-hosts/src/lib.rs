//! The servers: SSH connections, probes in one round trip, and effects as scripts.
//!
//! - [`Ssh`] holds up to two connections for each server and runs scripts on them.
//! - It implements [`reconcile_dial::Dialer`]: byte streams to sockets on servers.
//! - [`Ssh::probe`] asks a server for all its facts with one command; [`probe`] holds the pure
//!   halves, the script's text and the parser of its answer.
//! - [`Ssh::events`] tells when one of these facts may have changed.
//! - [`Ssh::follow`] gives the lines of a command that writes for as long as somebody reads.
//! - [`Ssh::session`] runs a program that somebody talks to.
//! - [`Ssh::apply`] and [`Ssh::perform_patroni`] carry out one action each; [`apply`] holds the
//!   pure texts of the scripts.
//!
//! Nothing is installed on a server: it needs sshd, a POSIX shell, Debian's essential packages,
//! and (as long as the login user is not root) sudo.

pub mod apply;
mod connect;
mod dial;
mod events;
mod exec;
mod fault;
mod follow;
mod forward;
pub mod known_hosts;
mod lease;
mod limits;
mod login;
mod pause;
pub mod probe;
mod resident;
mod session;
mod shell;
mod ssh;
mod target;
pub mod transactions;

pub use events::{HostEvent, HostEvents};
pub use exec::Output;
pub use follow::Following;
pub use session::{Input, Program, Said, Session, Terminal};
pub use ssh::Ssh;
pub use target::{HostTarget, JumpTarget};
