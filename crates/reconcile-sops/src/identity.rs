//! Identities: the private keys that open files, as `age-keygen` or `ssh-keygen` write them.

use std::fmt;

use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use zeroize::Zeroizing;

use crate::{bech32, error::SealError, ssh};

/// An X25519 private key.
pub struct Identity {
    private: PrivateKey,
    public: [u8; 32],
    /// The public key that SSH knows it by, where it is one of SSH.
    ssh: Option<Vec<u8>>,
}

impl Identity {
    /// Reads `AGE-SECRET-KEY-1…`.
    pub fn parse(text: &str) -> Option<Self> {
        if !text.starts_with("AGE-SECRET-KEY-1") {
            return None;
        }
        let bytes = bech32::decode("age-secret-key-", text)?;
        Self::of(bytes.as_ref(), None)
    }

    fn of(scalar: &[u8], ssh: Option<Vec<u8>>) -> Option<Self> {
        let private = PrivateKey::from_private_key(&X25519, scalar).ok()?;
        let public = private.compute_public_key().ok()?.as_ref().try_into().ok()?;
        Some(Self { private, public, ssh })
    }

    /// The public half, `age1…` or `ssh-ed25519 …`.
    pub fn recipient(&self) -> String {
        match &self.ssh {
            Some(wire) => ssh::recipient(wire),
            None => bech32::encode("age", &self.public),
        }
    }

    /// The public key that SSH knows it by, where it is one of SSH.
    pub(crate) fn ssh(&self) -> Option<&[u8]> {
        self.ssh.as_deref()
    }

    pub(crate) fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// The secret shared with whoever made `share`; none where that is a point of low order.
    pub(crate) fn agree(&self, share: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        multiply(&self.private, share)
    }
}

/// A point times a scalar; none where the point is of low order.
pub(crate) fn times(scalar: &[u8; 32], point: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    multiply(&PrivateKey::from_private_key(&X25519, scalar).ok()?, point)
}

fn multiply(private: &PrivateKey, point: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let point = UnparsedPublicKey::new(&X25519, point);
    agree(private, point, (), |secret| Ok(Zeroizing::new(secret.to_vec()))).ok()
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.recipient())
    }
}

/// All identities of a file.
#[derive(Debug)]
pub struct Identities(Vec<Identity>);

impl Identities {
    /// Reads an identity file: one a line, and lines with `#`; or a private key of OpenSSH.
    pub fn parse(text: &str) -> Result<Self, SealError> {
        if ssh::begins(text) {
            let refused = |kind| SealError::OtherIdentity { line: 1, kind };
            let key = ssh::parse(text).map_err(|fault| match fault {
                ssh::Fault::Passphrase => refused("an SSH key with a passphrase"),
                ssh::Fault::Type => refused("an SSH key that is none of Ed25519"),
                ssh::Fault::Damaged => refused("a damaged SSH key"),
            })?;
            let identity = Identity::of(key.scalar.as_ref(), Some(key.wire));
            return Ok(Self(vec![identity.ok_or(refused("a damaged SSH key"))?]));
        }
        let mut identities = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let (number, line) = (number + 1, line.trim());
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let other = [
                ("AGE-SECRET-KEY-PQ-", "a post-quantum identity"),
                ("AGE-PLUGIN-", "an identity of a plugin"),
                ("age-encryption.org/", "an encrypted identity file"),
                ("-----BEGIN AGE", "an encrypted identity file"),
                ("-----BEGIN", "a key of another program"),
            ];
            if let Some((_, kind)) = other.iter().find(|(start, _)| line.starts_with(start)) {
                return Err(SealError::OtherIdentity { line: number, kind });
            }
            let identity = Identity::parse(line).ok_or(SealError::BadIdentity { line: number })?;
            identities.push(identity);
        }
        if identities.is_empty() { Err(SealError::NoIdentity) } else { Ok(Self(identities)) }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Identity> {
        self.0.iter()
    }

    /// The public halves, for messages.
    pub fn recipients(&self) -> String {
        self.0.iter().map(Identity::recipient).collect::<Vec<_>>().join(", ")
    }
}
