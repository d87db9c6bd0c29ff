//! What the lab's images and mirror are made of, and the hash that names the result.
//!
//! Must not do anything: a change here gives a new hash, and the next `up` builds anew.

use sha2::{Digest, Sha256};

/// The Debian release of the servers.
pub(crate) const SUITE: &str = "bookworm";

/// What the base holds beyond Debian's minimum: what a server has before the operator comes.
pub(crate) const BASE_PACKAGES: &str = "systemd,systemd-sysv,dbus,openssh-server,sudo,iproute2,\
iptables,nftables,procps,ca-certificates,curl";

/// What servers can install from the mirror; dependencies come along.
pub(crate) const MIRROR_PACKAGES: &[&str] = &[
    "etcd-server",
    "etcd-client",
    "patroni",
    "python3-etcd",
    "python3-dnspython",
    "python3-urllib3",
    "python3-psycopg2",
    "postgresql-15",
    "postgresql-client-15",
    "postgresql-common",
    "haproxy",
    "pgbouncer",
    "docker.io",
    "ca-certificates",
    "curl",
    "iptables",
];

/// PID 1 until systemd takes over.
pub(crate) const INIT: &str = include_str!("../recipe/init.sh");
/// Makes a lab server of a bare Debian.
pub(crate) const SERVER: &str = include_str!("../recipe/server.sh");
/// Adds the Docker engine.
pub(crate) const ENGINE: &str = include_str!("../recipe/engine.sh");
/// Builds the roots of the utility images.
pub(crate) const UTILITY: &str = include_str!("../recipe/utility.sh");

/// An image for the servers' own engines.
#[derive(Debug)]
pub(crate) struct Utility {
    /// Repository in the registry.
    pub(crate) repository: &'static str,
    /// Tags; each differs from the others in a label, so that updates have something to do.
    pub(crate) tags: &'static [&'static str],
    /// Image settings, as Dockerfile instructions.
    pub(crate) settings: &'static [&'static str],
}

/// The utility images.
pub(crate) const UTILITIES: &[Utility] = &[
    Utility {
        repository: "haproxy",
        tags: &["2.6-1", "2.6-2"],
        settings: &[
            "USER 99:99",
            "STOPSIGNAL SIGUSR1",
            "WORKDIR /var/lib/haproxy",
            r#"CMD ["haproxy","-W","-db","-f","/usr/local/etc/haproxy/haproxy.cfg"]"#,
        ],
    },
    Utility {
        repository: "pgbouncer",
        tags: &["1.18-1", "1.18-2"],
        settings: &[
            "USER 10001:10001",
            "STOPSIGNAL SIGINT",
            "WORKDIR /var/lib/pgbouncer",
            r#"CMD ["pgbouncer","/etc/pgbouncer/pgbouncer.ini"]"#,
        ],
    },
    Utility { repository: "client", tags: &["1"], settings: &[r#"CMD ["sh"]"#] },
];

/// The base image's tag: only what the bootstrap is made of.
pub(crate) fn base_tag() -> String {
    digest(&[SUITE, BASE_PACKAGES])
}

/// The mirror's version.
pub(crate) fn mirror_tag() -> String {
    let mut parts = vec![SUITE];
    parts.extend(MIRROR_PACKAGES);
    digest(&parts)
}

/// The server image's tag, with or without the engine.
pub(crate) fn server_tag(docker: bool) -> String {
    let (base, mirror) = (base_tag(), mirror_tag());
    let mut parts = vec![base.as_str(), mirror.as_str(), INIT, SERVER];
    if docker {
        parts.push(ENGINE);
    }
    digest(&parts)
}

/// The utility images' version.
pub(crate) fn utility_tag() -> String {
    let (base, mirror) = (base_tag(), mirror_tag());
    let mut parts = vec![base.as_str(), mirror.as_str(), UTILITY];
    for utility in UTILITIES {
        parts.push(utility.repository);
        parts.extend(utility.tags);
        parts.extend(utility.settings);
    }
    digest(&parts)
}

/// Twelve hexadecimal digits over length-prefixed parts, so that parts cannot run together.
fn digest(parts: &[&str]) -> String {
    use std::fmt::Write as _;
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().iter().take(6).fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ok = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_tell_recipes_apart() {
        assert_ne!(server_tag(true), server_tag(false));
        assert_ne!(digest(&["ab", "c"]), digest(&["a", "bc"]));
        assert_eq!(base_tag().len(), 12);
    }
}
