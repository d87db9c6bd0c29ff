//! How to log in at a Git host: by files that are named, never by anything in a URL or argument.
//! What is not named here is the user's own setting.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use crate::location::Location;

/// Never asks, never learns a host key, and gives the host nothing to use on this machine.
const SSH: &str = "ssh -oBatchMode=yes -oStrictHostKeyChecking=yes -oConnectTimeout=10 -oServerAliveInterval=10 -oForwardAgent=no -oClearAllForwardings=yes -oPermitLocalCommand=no";
/// A credential helper in the words of git: it answers with the token's file, and neither the
/// token nor its file is in any process's arguments (`printf` is the shell's own).
const HELPER: &str = "!f() { test \"$1\" = get && printf 'password=%s\\n' \"$(cat \"$RECONCILE_GIT_TOKEN_FILE\")\"; }; f";
/// The variable that the helper reads.
const TOKEN_FILE: &str = "RECONCILE_GIT_TOKEN_FILE";
/// Hosts that take a token as the password take any name with it.
const USER: &str = "git";

/// Files to log in with.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// The private key for SSH, such as a deploy key; no other is tried then.
    pub ssh_key: Option<PathBuf>,
    /// The host keys that are known, instead of the user's own.
    pub known_hosts: Option<PathBuf>,
    /// A token for HTTPS.
    pub token: Option<PathBuf>,
    /// The authority that the HTTPS host's certificate is of, instead of the system's.
    pub authority: Option<PathBuf>,
}

impl Access {
    /// Each file with the option's name for people; none where it is not named.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let files = [
            ("SSH key", &self.ssh_key),
            ("known hosts", &self.known_hosts),
            ("token", &self.token),
            ("authority", &self.authority),
        ];
        files.into_iter().filter_map(|(what, file)| Some((what, file.as_deref()?)))
    }

    /// The command that git runs for SSH. A shell reads it.
    fn ssh(&self) -> Option<OsString> {
        if self.ssh_key.is_none() && self.known_hosts.is_none() {
            return None;
        }
        let mut command = OsString::from(SSH);
        if let Some(key) = &self.ssh_key {
            command.push(" -oIdentitiesOnly=yes -oIdentityAgent=none -i ");
            command.push(quoted(key));
        }
        if let Some(known) = &self.known_hosts {
            command.push(" -oGlobalKnownHostsFile=/dev/null -oUserKnownHostsFile=");
            command.push(quoted(known));
        }
        Some(command)
    }

    /// Has a git process log in so.
    pub(crate) fn apply(&self, command: &mut Command, location: &Location) {
        if let Some(ssh) = self.ssh() {
            command.env("GIT_SSH_COMMAND", ssh);
        } else if std::env::var_os("GIT_SSH_COMMAND").is_none() {
            command.env("GIT_SSH_COMMAND", SSH);
        }
        if let Some(token) = &self.token {
            // For this host alone, wherever it may send us.
            let host = location.host();
            command.env(TOKEN_FILE, token).args(["-c", "credential.helper="]);
            command.arg("-c").arg(format!("credential.{host}.helper={HELPER}"));
            if !host.contains('@') {
                command.arg("-c").arg(format!("credential.{host}.username={USER}"));
            }
        }
        if let Some(authority) = &self.authority {
            let mut setting = OsString::from("http.sslCAInfo=");
            setting.push(authority);
            command.arg("-c").arg(setting);
        }
    }
}

/// For a shell.
fn quoted(path: &Path) -> OsString {
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
    let mut bytes = vec![b'\''];
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'\'' => bytes.extend_from_slice(b"'\\''"),
            byte => bytes.push(*byte),
        }
    }
    bytes.push(b'\'');
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_of_the_shell() {
        let ssh_key = Some(PathBuf::from("/a b/it's; touch x"));
        let access = Access { ssh_key, ..Access::default() };
        let command = access.ssh().expect("a command").into_string().expect("text");
        assert!(command.ends_with(r"-i '/a b/it'\''s; touch x'"), "{command}");
    }
}
