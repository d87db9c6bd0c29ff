//! What the crate promises, without a network and without an sshd installed.
#![expect(clippy::unwrap_used, reason = "tests")]

mod access;
mod actions;
mod fake_sshd;
mod half_installed;
mod known_hosts;
mod probes;
mod sessions;
mod ssh;
