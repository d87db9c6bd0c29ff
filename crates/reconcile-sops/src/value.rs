//! One value of a SOPS file: `ENC[AES256_GCM,data:…,iv:…,tag:…,type:…]`.

use aes_gcm::{
    AesGcm, KeyInit as _,
    aead::{Aead as _, Payload, array::Array, consts::U32},
    aes::Aes256,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

/// AES-256-GCM with nonces of 32 bytes, which is what SOPS writes.
type Cipher = AesGcm<Aes256, U32>;

const KINDS: [&str; 6] = ["str", "int", "float", "bool", "bytes", "time"];

/// A value as it is in the file.
pub(crate) struct Sealed {
    /// Ciphertext and tag.
    bytes: Vec<u8>,
    nonce: [u8; 32],
    /// One of [`KINDS`].
    pub(crate) kind: String,
}

/// Whether a text is meant to be such a value.
pub(crate) fn is_sealed(text: &str) -> bool {
    text.starts_with("ENC[")
}

impl Sealed {
    /// Reads one.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let inner = text.strip_prefix("ENC[AES256_GCM,")?.strip_suffix(']')?;
        let mut parts = inner.split(',');
        let mut part = |name: &str| parts.next()?.strip_prefix(name)?.strip_prefix(':');
        let mut bytes = STANDARD.decode(part("data")?).ok()?;
        let nonce = STANDARD.decode(part("iv")?).ok()?.try_into().ok()?;
        bytes.extend(STANDARD.decode(part("tag")?).ok()?);
        // SOPS binds this word to nothing; it decides only whether the value can serve.
        let kind = part("type").filter(|kind| KINDS.contains(kind))?.to_owned();
        parts.next().is_none().then_some(Self { bytes, nonce, kind })
    }

    /// Opens it. What it is bound to is its path in the file.
    pub(crate) fn open(&self, key: &[u8; 32], bound: &str) -> Option<Zeroizing<String>> {
        let cipher = Cipher::new(&Array::from(*key));
        let sealed = Payload { msg: &self.bytes, aad: bound.as_bytes() };
        let plain = Zeroizing::new(cipher.decrypt(&Array::from(self.nonce), sealed).ok()?);
        Some(Zeroizing::new(std::str::from_utf8(&plain).ok()?.to_owned()))
    }
}
