//! Which host keys a server may show: pinned text or a `known_hosts` file. Nothing is ever learned.

use std::path::Path;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use russh::keys::{Algorithm, EcdsaCurve, HashAlg, PublicKey};
use sha1::Sha1;

/// The keys that a server may show, and those that it must not.
#[derive(Debug, Clone, Default)]
pub struct TrustedKeys {
    /// `192.0.2.11:22`, for messages.
    server: String,
    /// Where the keys are from, for messages.
    origin: String,
    accepted: Vec<PublicKey>,
    revoked: Vec<PublicKey>,
}

/// Marker of a `known_hosts` line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Marker {
    None,
    CertAuthority,
    Revoked,
}

impl TrustedKeys {
    /// The keys of the server at `address`:`port` by a pinned text and a `known_hosts` file.
    ///
    /// # Errors
    /// In plain words, where no key is known at all or one cannot be read.
    pub fn for_server(
        address: &str,
        port: u16,
        pinned: Option<&str>,
        known_hosts: Option<&Path>,
    ) -> Result<Self, String> {
        let mut keys = Self { server: format!("{address}:{port}"), ..Self::default() };
        let mut authority = false;
        if let Some(path) = known_hosts {
            let text = std::fs::read_to_string(path)
                .map_err(|e| format!("known_hosts file {} cannot be read: {e}", path.display()))?;
            authority = keys.add_known_hosts(&text, address, port);
            keys.origin = path.display().to_string();
        }
        if let Some(pinned) = pinned {
            // A pin is the whole truth; of known_hosts only the revocations stay.
            keys.accepted = parse_pinned(pinned)?;
            "the pinned host key".clone_into(&mut keys.origin);
        }
        if !keys.accepted.is_empty() {
            return Ok(keys);
        }
        Err(match known_hosts {
            None => format!(
                "no host key is pinned for {}: set hostKey or knownHosts (ssh-keyscan shows the \
                 key; compare its fingerprint on the server)",
                keys.server
            ),
            Some(path) if authority => format!(
                "{} knows {} only by a certificate authority, and host certificates are not \
                 supported: pin the host key itself",
                path.display(),
                keys.server
            ),
            Some(path) => format!(
                "{} has no key for {}: add it (as `{} ssh-ed25519 …`) after comparing its \
                 fingerprint on the server",
                path.display(),
                keys.server,
                name_in_file(address, port)
            ),
        })
    }

    /// Takes the lines of a `known_hosts` file that are about the server; true where one of them
    /// names a certificate authority. Lines that cannot be read are passed over, as `ssh` does.
    fn add_known_hosts(&mut self, text: &str, address: &str, port: u16) -> bool {
        let name = name_in_file(address, port).to_lowercase();
        let mut authority = false;
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let Some((marker, patterns, key)) = parse_line(line) else {
                tracing::warn!(line = number + 1, "known_hosts line cannot be read, passed over");
                continue;
            };
            if !matches(patterns, &name) {
                continue;
            }
            match marker {
                Marker::None => self.accepted.push(key),
                Marker::Revoked => self.revoked.push(key),
                Marker::CertAuthority => authority = true,
            }
        }
        authority
    }

    /// Algorithms to ask the server for, those of the known keys first: a server has several keys
    /// and shows the first that both sides name, which must be one that we can compare.
    pub fn algorithms(&self) -> Vec<Algorithm> {
        let mut order = Vec::new();
        let mut push = |algorithm: Algorithm| {
            if !order.contains(&algorithm) {
                order.push(algorithm);
            }
        };
        for key in &self.accepted {
            signatures(&key.algorithm()).into_iter().for_each(&mut push);
        }
        // The others too, so that a server which has no such key fails with its fingerprint
        // instead of "no common algorithm".
        for curve in [EcdsaCurve::NistP256, EcdsaCurve::NistP384, EcdsaCurve::NistP521] {
            push(Algorithm::Ecdsa { curve });
        }
        push(Algorithm::Ed25519);
        signatures(&Algorithm::Rsa { hash: None }).into_iter().for_each(&mut push);
        order
    }

    /// Whether the server may show `key`; else the text that says which key was expected.
    ///
    /// # Errors
    /// In plain words with both fingerprints.
    pub fn check(&self, key: &PublicKey) -> Result<(), String> {
        let shown = shown(key);
        if self.revoked.iter().any(|known| known.key_data() == key.key_data()) {
            return Err(format!("{} shows the host key {shown}, which is revoked", self.server));
        }
        if self.accepted.iter().any(|known| known.key_data() == key.key_data()) {
            return Ok(());
        }
        let expected: Vec<String> = self.accepted.iter().map(self::shown).collect();
        Err(format!(
            "{} shows the host key {shown}, but {} says {}: either the server was reinstalled, or \
             something else answers at its address; nothing was sent to it",
            self.server,
            self.origin,
            expected.join(" or ")
        ))
    }
}

/// Algorithm and fingerprint of a key.
fn shown(key: &PublicKey) -> String {
    format!("{} {}", key.algorithm(), key.fingerprint(HashAlg::Sha256))
}

/// Signature algorithms for keys of a type. SHA-1 is not among them.
fn signatures(algorithm: &Algorithm) -> Vec<Algorithm> {
    match algorithm {
        Algorithm::Rsa { .. } => vec![
            Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
            Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
        ],
        other => vec![other.clone()],
    }
}

/// The name that `ssh` looks for: the address, or `[address]:port` off the standard port.
fn name_in_file(address: &str, port: u16) -> String {
    if port == 22 { address.to_owned() } else { format!("[{address}]:{port}") }
}

/// Keys of a pinned text: one a line, bare or as `ssh-keyscan` prints them.
fn parse_pinned(text: &str) -> Result<Vec<PublicKey>, String> {
    let lines =
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut keys = Vec::new();
    for line in lines {
        let bare = PublicKey::from_openssh(line).ok();
        let scanned = || line.split_once(' ').and_then(|(_, key)| parse_key(key));
        keys.push(bare.or_else(scanned).ok_or_else(|| {
            let start: String = line.chars().take(24).collect();
            format!("the pinned host key `{start}…` is not of the form `ssh-ed25519 AAAA…`")
        })?);
    }
    if keys.is_empty() { Err("the pinned host key is empty".to_owned()) } else { Ok(keys) }
}

/// `ssh-ed25519 AAAA… comment`
fn parse_key(text: &str) -> Option<PublicKey> {
    let mut words = text.split_whitespace();
    let (kind, data) = (words.next()?, words.next()?);
    PublicKey::from_openssh(&format!("{kind} {data}")).ok()
}

/// `[@marker] patterns key-type key [comment]`
fn parse_line(line: &str) -> Option<(Marker, &str, PublicKey)> {
    let (marker, rest) = if line.starts_with('@') {
        let (word, rest) = line.split_once(char::is_whitespace)?;
        let marker = match word {
            "@revoked" => Marker::Revoked,
            "@cert-authority" => Marker::CertAuthority,
            _ => return None,
        };
        (marker, rest.trim_start())
    } else {
        (Marker::None, line)
    };
    let (patterns, key) = rest.split_once(char::is_whitespace)?;
    Some((marker, patterns, parse_key(key)?))
}

/// Whether a line's patterns are about `name` (lower case).
fn matches(patterns: &str, name: &str) -> bool {
    if let Some(hashed) = patterns.strip_prefix("|1|") {
        return matches_hash(hashed, name).unwrap_or(false);
    }
    let mut matched = false;
    for pattern in patterns.split(',').map(str::to_lowercase) {
        match pattern.strip_prefix('!') {
            Some(negated) if glob(negated.as_bytes(), name.as_bytes()) => return false,
            Some(_) => {}
            None => matched |= glob(pattern.as_bytes(), name.as_bytes()),
        }
    }
    matched
}

/// `salt|hash`, each in base64; the hash is HMAC-SHA1 of the name.
fn matches_hash(hashed: &str, name: &str) -> Option<bool> {
    let (salt, hash) = hashed.split_once('|')?;
    let salt = BASE64_STANDARD.decode(salt).ok()?;
    let hash = BASE64_STANDARD.decode(hash).ok()?;
    let mut mac = Hmac::<Sha1>::new_from_slice(&salt).ok()?;
    mac.update(name.as_bytes());
    Some(mac.verify_slice(&hash).is_ok())
}

/// `*` any run of characters, `?` any one; brackets are themselves, as in `ssh`.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == b'?' || c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((star_p, star_t)) = star else { return false };
                star = Some((star_p, star_t + 1));
                p = star_p + 1;
                t = star_t + 1;
            }
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_like_ssh() {
        for (pattern, text, expected) in [
            ("*", "a", true),
            ("192.0.2.?", "192.0.2.7", true),
            ("192.0.2.?", "192.0.2.77", false),
            ("*.example.org", "db.example.org", true),
            ("*.example.org", "example.org", false),
            ("[192.0.2.*]:2222", "[192.0.2.9]:2222", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("", "a", false),
        ] {
            assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }
}
