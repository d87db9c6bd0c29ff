//! Bytes that may be secret, and text that is.
//!
//! Neither can be printed by accident: no Display, a Debug that shows only a length or a digest,
//! and a Serialize (of [`Content`] alone) that writes the digest. Both are wiped when dropped.

use std::{fmt, sync::OnceLock};

use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};
use zeroize::Zeroize as _;

/// Lower-case hexadecimal SHA-256 of `bytes`.
pub fn sha256_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A secret's value. It has no Display and no Serialize; Debug shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(String);

impl SecretText {
    /// Wraps a secret value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }
    /// The value. Each call is a place where the secret could leak: keep them few.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Drop for SecretText {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(redacted)")
    }
}

/// The exact bytes of a file, config or secret.
#[derive(Clone)]
pub struct Content {
    bytes: Vec<u8>,
    secret: bool,
    /// Every pass compares digests, and the bytes never change.
    digest: OnceLock<String>,
}

impl PartialEq for Content {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes && self.secret == other.secret
    }
}

impl Eq for Content {}

impl Content {
    /// Bytes that anyone may read.
    pub fn open(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into(), secret: false, digest: OnceLock::new() }
    }
    /// Bytes that hold a secret.
    pub fn secret(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into(), secret: true, digest: OnceLock::new() }
    }
    /// Whether the bytes hold a secret.
    pub fn is_secret(&self) -> bool {
        self.secret
    }
    /// The bytes, for writing them where they belong.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
    /// SHA-256 in hexadecimal.
    pub fn digest(&self) -> String {
        self.digest.get_or_init(|| sha256_hex(&self.bytes)).clone()
    }
    /// The text for showing, unless it is secret or not UTF-8.
    pub fn shown(&self) -> Option<&str> {
        if self.secret { None } else { std::str::from_utf8(&self.bytes).ok() }
    }
}

impl Drop for Content {
    fn drop(&mut self) {
        if self.secret {
            self.bytes.zeroize();
        }
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Content({} bytes, sha256 {})", self.bytes.len(), &self.digest()[..12])
    }
}

impl Serialize for Content {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("sha256:{}", self.digest()))
    }
}
