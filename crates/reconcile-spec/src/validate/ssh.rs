//! Rules and defaults of SSH: who logs in, by which key, through which host, to whose key.

use super::{Rules, text};
use crate::fault::Fault;
use crate::v1alpha1;
use crate::valid::{Host, Jump, Ssh};

/// Hosts, by index, that lack something which is usually said once for all; reported once for all.
#[derive(Default)]
pub(super) struct Gaps {
    user: Vec<usize>,
    host_key: Vec<usize>,
    identity: Vec<usize>,
    jump_key: Vec<usize>,
}

impl Gaps {
    pub(super) fn report(self, rules: &mut Rules<'_>, hosts: &[Host]) {
        let names = |indices: &[usize]| {
            let name = |&i: &usize| match hosts[i].name.as_str() {
                "" => format!("spec.hosts[{i}]"),
                name => name.to_owned(),
            };
            indices.iter().map(name).collect::<Vec<_>>().join(", ")
        };
        let mut push = |indices: Vec<usize>, path: &str, message: &str, help: String| {
            let Some(first) = indices.first() else { return };
            let all = indices.len() == hosts.len();
            // What all hosts lack is missing in the common part.
            let path = if all && !path.is_empty() {
                path.to_owned()
            } else {
                format!("spec.hosts[{first}].ssh")
            };
            let subject = names(&indices);
            let verb = if indices.len() == 1 { "has" } else { "have" };
            rules.push(
                Fault::error(path, format!("{subject} {verb} {message}")).at_key().help(help),
            );
        };
        push(
            self.user,
            "spec.ssh",
            "no SSH user",
            "say it once for all hosts: `ssh: { user: reconcile }`".to_owned(),
        );
        push(
            self.identity,
            "spec.ssh",
            "neither an SSH key nor an agent to log in with",
            "set `identityFile`, or leave `agent` out to use the SSH agent".to_owned(),
        );
        let example = self.host_key.first().map_or_else(String::new, |&i| {
            let host = &hosts[i];
            if host.ssh.port == 22 {
                host.address.to_string()
            } else {
                format!("-p {} {}", host.ssh.port, host.address)
            }
        });
        push(
            self.host_key,
            "",
            "no pinned SSH host key",
            format!(
                "reconcile connects only to hosts that it knows. Compare `ssh-keyscan -t ed25519 {example}` with\n\
                 /etc/ssh/ssh_host_ed25519_key.pub on the host itself, then add `hostKey: \"ssh-ed25519 AAAA…\"` to it,\n\
                 or name a file for all: `ssh: {{ knownHosts: known_hosts }}`"
            ),
        );
        push(
            self.jump_key,
            "spec.ssh",
            "a jump host without a pinned SSH host key",
            "add `jumpHostKey: \"ssh-ed25519 AAAA…\"`, or `knownHosts` with a file that has its key".to_owned(),
        );
    }
}

/// The settings for one host: its own over the common ones, field by field.
pub(super) fn ssh(
    rules: &mut Rules<'_>,
    gaps: &mut Gaps,
    index: usize,
    own: Option<&v1alpha1::Ssh>,
    common: Option<&v1alpha1::Ssh>,
    host_key: Option<&String>,
) -> Ssh {
    let none = v1alpha1::Ssh::default();
    let own_path = format!("spec.hosts[{index}].ssh");
    let (own, common) = (own.unwrap_or(&none), common.unwrap_or(&none));
    let v1alpha1::Ssh { user, port, identity_file, agent, jump, jump_host_key, known_hosts, sudo } =
        own;

    let user = user.as_ref().or(common.user.as_ref()).cloned().unwrap_or_default();
    if user.is_empty() {
        gaps.user.push(index);
    } else if !user.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.')) {
        let path = if own.user.is_some() {
            format!("{own_path}.user")
        } else {
            "spec.ssh.user".to_owned()
        };
        let fault = Fault::error(path, format!("{user:?} is no name of a user"));
        once(rules, fault);
    }
    let identity_file = identity_file.as_ref().or(common.identity_file.as_ref()).cloned();
    let agent = agent.or(common.agent).unwrap_or(identity_file.is_none());
    if identity_file.is_none() && !agent {
        gaps.identity.push(index);
    }
    let known_hosts = known_hosts.as_ref().or(common.known_hosts.as_ref()).cloned();
    let host_key =
        host_key.and_then(|key| pinned(rules, &format!("spec.hosts[{index}].hostKey"), key));
    let key_was_refused =
        host_key.is_none() && rules.places.says(&format!("spec.hosts[{index}].hostKey"));
    if host_key.is_none() && known_hosts.is_none() && !key_was_refused {
        gaps.host_key.push(index);
    }
    let (jump_path, jump) = match (jump, &common.jump) {
        (Some(jump), _) => (format!("{own_path}.jump"), Some(jump)),
        (None, Some(jump)) => ("spec.ssh.jump".to_owned(), Some(jump)),
        (None, None) => (String::new(), None),
    };
    let key_path = if jump_host_key.is_some() {
        format!("{own_path}.jumpHostKey")
    } else {
        "spec.ssh.jumpHostKey".to_owned()
    };
    let jump_key = jump_host_key
        .as_ref()
        .or(common.jump_host_key.as_ref())
        .and_then(|key| pinned(rules, &key_path, key));
    let jump = jump
        .and_then(|jump| jump_of(rules, &jump_path, jump, &user))
        .map(|jump| Jump { host_key: jump_key, ..jump });
    if jump.as_ref().is_some_and(|jump| jump.host_key.is_none())
        && known_hosts.is_none()
        && !rules.places.says(&key_path)
    {
        gaps.jump_key.push(index);
    }
    Ssh {
        sudo: sudo.or(common.sudo).unwrap_or(user != "root"),
        user,
        port: port.or(common.port).unwrap_or(22),
        identity_file,
        agent,
        jump,
        host_key,
        known_hosts,
    }
}

/// A fault in the common part comes up for every host, and is reported for the first.
fn once(rules: &mut Rules<'_>, fault: Fault) {
    if !rules.faults.contains(&fault) {
        rules.push(fault);
    }
}

fn pinned(rules: &mut Rules<'_>, path: &str, key: &str) -> Option<String> {
    match text::host_key(key) {
        Ok(key) => Some(key),
        Err(message) => {
            let fault = Fault::error(path, message).help(
                "the first two words of /etc/ssh/ssh_host_ed25519_key.pub on the host, such as `ssh-ed25519 AAAAC3Nza…`",
            );
            once(rules, fault);
            None
        }
    }
}

/// `[user@]host[:port]`, or `none`.
fn jump_of(rules: &mut Rules<'_>, path: &str, text: &str, user: &str) -> Option<Jump> {
    if text == "none" {
        return None;
    }
    let (name, rest) = text.split_once('@').map_or((user, text), |(user, rest)| (user, rest));
    let (host, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((v6, rest)) => (v6, rest.strip_prefix(':').or(rest.is_empty().then_some("22"))),
        None if rest.matches(':').count() > 1 => (rest, Some("22")),
        None => rest.split_once(':').map_or((rest, Some("22")), |(host, port)| (host, Some(port))),
    };
    let word = |word: &str| {
        !word.is_empty()
            && word
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':'))
    };
    let port = port.and_then(|port| port.parse::<u16>().ok()).filter(|port| *port > 0);
    if let (Some(port), true, true) = (port, word(host), word(name) || name.is_empty()) {
        return Some(Jump { host: host.to_owned(), port, user: name.to_owned(), host_key: None });
    }
    let help = if text.contains(',') {
        "chains of jump hosts are not supported; name one"
    } else {
        "as in OpenSSH's ProxyJump: `bastion.example.org`, `admin@bastion.example.org:2222`, or `none`"
    };
    once(rules, Fault::error(path, format!("{text:?} is no jump host")).help(help));
    None
}
