//! How a server is reached: plain data that the caller resolves from the desired state.

use std::path::PathBuf;

use reconcile_core::model::HostName;

/// A server and the way to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostTarget {
    /// Name in the desired state.
    pub name: HostName,
    /// Address or name that is dialled (by us, or by the jump host).
    pub address: String,
    /// Port of its sshd.
    pub port: u16,
    /// Login user.
    pub user: String,
    /// Private key file, not encrypted; `~/` is our own home.
    pub identity_file: Option<PathBuf>,
    /// Ask the SSH agent (`SSH_AUTH_SOCK`) for keys, after the file.
    pub agent: bool,
    /// Server to go through.
    pub jump: Option<JumpTarget>,
    /// Pinned host key: one or more lines `ssh-ed25519 AAAA…`. It wins over `known_hosts`.
    pub host_key: Option<String>,
    /// A `known_hosts` file; its `@revoked` lines count even beside a pinned key.
    pub known_hosts: Option<PathBuf>,
    /// Commands that need root go through `sudo -n`.
    pub sudo: bool,
}

/// An SSH server to go through. It is logged in to with the key or agent of the target.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct JumpTarget {
    /// Address or name.
    pub host: String,
    /// Port of its sshd.
    pub port: u16,
    /// Login user.
    pub user: String,
    /// Its pinned host key; None: the target's `known_hosts` decides.
    pub host_key: Option<String>,
}

impl HostTarget {
    /// True where root's commands need `sudo`.
    pub(crate) fn needs_sudo(&self) -> bool {
        self.sudo && self.user != "root"
    }
}
