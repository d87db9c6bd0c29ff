//! SSH keys as identities: `ssh-ed25519`, from OpenSSH's own key files, without a passphrase.
//!
//! The X25519 key that belongs to an Ed25519 key is the clamped half of its hashed seed, as in
//! `age -R key.pub`.

use aws_lc_rs::{
    digest::{SHA256, SHA512, digest},
    signature::Ed25519KeyPair,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

pub(crate) const KIND: &str = "ssh-ed25519";
const BEGIN: &str = "-----BEGIN OPENSSH PRIVATE KEY-----";
const END: &str = "-----END OPENSSH PRIVATE KEY-----";
const MAGIC: &[u8] = b"openssh-key-v1\0";
const SEED: usize = 32;

/// Whether a text is a key file of OpenSSH.
pub(crate) fn begins(text: &str) -> bool {
    text.trim_start().starts_with(BEGIN)
}

/// What a key file holds.
pub(crate) struct Key {
    /// The scalar for X25519.
    pub(crate) scalar: Zeroizing<[u8; 32]>,
    /// The public key as SSH writes it.
    pub(crate) wire: Vec<u8>,
}

/// Why a key file is not taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It needs a passphrase.
    Passphrase,
    /// RSA, ECDSA, a key on a token.
    Type,
    /// It is not as OpenSSH writes it.
    Damaged,
}

/// Reads a key file.
pub(crate) fn parse(text: &str) -> Result<Key, Fault> {
    let inner = text.trim().strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(END));
    let inner = inner.ok_or(Fault::Damaged)?;
    // Of one piece, so that no copy is left behind while it grows.
    let mut lines = Zeroizing::new(String::with_capacity(inner.len()));
    lines.extend(inner.split_whitespace());
    let bytes = Zeroizing::new(STANDARD.decode(lines.as_bytes()).map_err(|_| Fault::Damaged)?);
    let mut rest = bytes.strip_prefix(MAGIC).ok_or(Fault::Damaged)?;
    let (cipher, derivation) = (field(&mut rest)?, field(&mut rest)?);
    let _options = field(&mut rest)?;
    if cipher != b"none" || derivation != b"none" {
        return Err(Fault::Passphrase);
    }
    if number(&mut rest)? != 1 {
        return Err(Fault::Damaged);
    }
    let wire = field(&mut rest)?;
    let mut private = field(&mut rest)?;
    if !rest.is_empty() || number(&mut private)? != number(&mut private)? {
        return Err(Fault::Damaged);
    }
    if field(&mut private)? != KIND.as_bytes() {
        return Err(Fault::Type);
    }
    let (public, pair) = (field(&mut private)?, field(&mut private)?);
    let _comment = field(&mut private)?;
    let (seed, again) = pair.split_at_checked(SEED).ok_or(Fault::Damaged)?;
    let padded = private.iter().zip(1_u8..).all(|(byte, count)| *byte == count);
    if again != public || wire != encoded(public) || private.len() > 7 || !padded {
        return Err(Fault::Damaged);
    }
    // That the halves belong together.
    Ed25519KeyPair::from_seed_and_public_key(seed, public).map_err(|_| Fault::Damaged)?;
    let mut scalar = Zeroizing::new([0; 32]);
    scalar.copy_from_slice(&digest(&SHA512, seed).as_ref()[..32]);
    Ok(Key { scalar, wire: wire.to_owned() })
}

/// The first bytes of a key's digest, by which a file says for whom it is.
pub(crate) fn tag(wire: &[u8]) -> [u8; 4] {
    let mut tag = [0; 4];
    tag.copy_from_slice(&digest(&SHA256, wire).as_ref()[..4]);
    tag
}

/// The public key as in `authorized_keys`.
pub(crate) fn recipient(wire: &[u8]) -> String {
    format!("{KIND} {}", STANDARD.encode(wire))
}

fn encoded(public: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    for part in [KIND.as_bytes(), public] {
        // Both are short.
        let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
        wire.extend_from_slice(&length.to_be_bytes());
        wire.extend_from_slice(part);
    }
    wire
}

fn number(rest: &mut &[u8]) -> Result<u32, Fault> {
    let (bytes, after) = rest.split_first_chunk().ok_or(Fault::Damaged)?;
    *rest = after;
    Ok(u32::from_be_bytes(*bytes))
}

fn field<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Fault> {
    let length = usize::try_from(number(rest)?).map_err(|_| Fault::Damaged)?;
    let (field, after) = rest.split_at_checked(length).ok_or(Fault::Damaged)?;
    *rest = after;
    Ok(field)
}
