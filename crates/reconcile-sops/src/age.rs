//! age-encryption.org/v1, reading, for X25519 and ssh-ed25519 recipients.

use aws_lc_rs::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, Salt},
    hmac,
};
use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use zeroize::Zeroizing;

use crate::{
    armor,
    error::SealError,
    identity::{Identities, Identity, times},
    ssh,
};

const VERSION: &[u8] = b"age-encryption.org/v1\n";
const COLUMNS: usize = 64;
const TAG: usize = 16;
const CHUNK: usize = 64 * 1024;
const FILE_KEY: usize = 16;
const PAYLOAD_NONCE: usize = 16;

/// Whether it begins as an age file.
pub(crate) fn begins(bytes: &[u8]) -> bool {
    bytes.starts_with(b"age-encryption.org/")
}

/// A recipient's part of the header.
struct Stanza<'a> {
    words: Vec<&'a str>,
    body: Vec<u8>,
}

/// The parts of a file.
struct Parts<'a> {
    stanzas: Vec<Stanza<'a>>,
    /// What the MAC is over.
    header: &'a [u8],
    mac: Vec<u8>,
    payload: &'a [u8],
}

/// Opens a file in binary or text form.
pub(crate) fn open(bytes: &[u8], identities: &Identities) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let bare;
    let bytes = if armor::begins(bytes) {
        bare = armor::open(bytes)?;
        &bare
    } else {
        bytes
    };
    let parts = parse(bytes)?;
    if parts.stanzas.iter().any(|stanza| stanza.words[0] == "scrypt") {
        return Err(SealError::Passphrase);
    }
    for stanza in &parts.stanzas {
        let kind = stanza.words[0];
        let tag = match kind {
            "X25519" => None,
            ssh::KIND => Some(tag(stanza)?),
            _ => continue,
        };
        let share = share(stanza)?;
        for identity in identities.iter().filter(|one| one.ssh().map(ssh::tag) == tag) {
            if let Some(key) = unwrap(identity, kind, &share, &stanza.body)? {
                return with_file_key(&parts, &key);
            }
        }
    }
    Err(SealError::Recipients { recipients: Vec::new(), ours: identities.recipients() })
}

fn base64(text: &str) -> Result<Vec<u8>, SealError> {
    STANDARD_NO_PAD.decode(text).map_err(|_| SealError::Age("its header holds no proper base64"))
}

fn share(stanza: &Stanza<'_>) -> Result<[u8; 32], SealError> {
    let fault = SealError::Age("a recipient's part is not 32 bytes");
    let ([_, share] | [ssh::KIND, _, share]) = stanza.words.as_slice() else { return Err(fault) };
    if stanza.body.len() != FILE_KEY + TAG {
        return Err(fault);
    }
    base64(share)?.try_into().map_err(|_| fault)
}

/// The word by which a part says for which SSH key it is.
fn tag(stanza: &Stanza<'_>) -> Result<[u8; 4], SealError> {
    let fault = SealError::Age("a recipient's part has no proper tag");
    let [_, tag, _] = stanza.words.as_slice() else { return Err(fault) };
    base64(tag)?.try_into().map_err(|_| fault)
}

/// The file key, if this part is for this identity.
fn unwrap(
    identity: &Identity,
    kind: &str,
    share: &[u8; 32],
    body: &[u8],
) -> Result<Option<Zeroizing<Vec<u8>>>, SealError> {
    const FORGED: SealError = SealError::Age("a recipient's part is forged");
    let info = format!("age-encryption.org/v1/{kind}");
    let mut secret = identity.agree(share).ok_or(FORGED)?;
    if let Some(wire) = identity.ssh() {
        // Bound to the SSH key, so that two keys with the same X25519 key are not mixed up.
        let tweak = derive(wire, &[], info.as_bytes())?;
        secret = times(&tweak, &secret).ok_or(FORGED)?;
    }
    let salt = [share.as_slice(), identity.public()].concat();
    let key = derive(&salt, &secret, info.as_bytes())?;
    Ok(decrypt(&key, [0; NONCE_LEN], body))
}

fn with_file_key(parts: &Parts<'_>, key: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let mac = derive(&[], key, b"header")?;
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, mac.as_ref()), parts.header, &parts.mac)
        .map_err(|_| SealError::Age("its header was changed"))?;
    let (nonce, mut rest) =
        parts.payload.split_at_checked(PAYLOAD_NONCE).ok_or(SealError::Age("it ends too early"))?;
    let key = derive(nonce, key, b"payload")?;
    let mut plain = Zeroizing::new(Vec::with_capacity(rest.len()));
    for counter in 0_u64.. {
        let last = rest.len() <= CHUNK + TAG;
        let (chunk, after) = rest.split_at(rest.len().min(CHUNK + TAG));
        let mut nonce = [0; NONCE_LEN];
        nonce[3..11].copy_from_slice(&counter.to_be_bytes());
        nonce[11] = u8::from(last);
        let opened = decrypt(&key, nonce, chunk)
            .ok_or(SealError::Age("its content was changed or cut off"))?;
        if opened.is_empty() && counter > 0 {
            return Err(SealError::Age("it ends with an empty part"));
        }
        plain.extend_from_slice(&opened);
        if last {
            break;
        }
        rest = after;
    }
    Ok(plain)
}

fn derive(salt: &[u8], secret: &[u8], info: &[u8]) -> Result<Zeroizing<[u8; 32]>, SealError> {
    let mut key = Zeroizing::new([0; 32]);
    Salt::new(HKDF_SHA256, salt)
        .extract(secret)
        .expand(&[info], HKDF_SHA256)
        .and_then(|okm| okm.fill(key.as_mut()))
        .map_err(|_| SealError::Age("no key can be derived"))?;
    Ok(key)
}

fn decrypt(key: &[u8; 32], nonce: [u8; NONCE_LEN], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).ok()?);
    let mut bytes = Zeroizing::new(sealed.to_vec());
    let nonce = Nonce::assume_unique_for_key(nonce);
    let length = key.open_in_place(nonce, Aad::empty(), &mut bytes).ok()?.len();
    bytes.truncate(length);
    Some(bytes)
}

fn parse(bytes: &[u8]) -> Result<Parts<'_>, SealError> {
    let mut rest = bytes
        .strip_prefix(VERSION)
        .ok_or(SealError::Age("it is of another version than age-encryption.org/v1"))?;
    let mut stanzas = Vec::new();
    loop {
        let line = line(&mut rest)?;
        if let Some(words) = line.strip_prefix("-> ") {
            let words: Vec<&str> = words.split(' ').collect();
            let odd = |word: &&str| word.is_empty() || !word.bytes().all(|b| b.is_ascii_graphic());
            if words.iter().any(odd) {
                return Err(SealError::Age("its header holds odd characters"));
            }
            stanzas.push(Stanza { words, body: body(&mut rest)? });
            continue;
        }
        let mac = line.strip_prefix("--- ").ok_or(SealError::Age("its header is broken off"))?;
        let mac_line = line.len() + 1;
        let header = &bytes[..bytes.len() - rest.len() - mac_line + "---".len()];
        if stanzas.is_empty() {
            return Err(SealError::Age("it names no recipient"));
        }
        return Ok(Parts { stanzas, header, mac: base64(mac)?, payload: rest });
    }
}

/// Lines of 64 characters, and one that is shorter.
fn body(rest: &mut &[u8]) -> Result<Vec<u8>, SealError> {
    let mut text = String::new();
    loop {
        let line = line(rest)?;
        if line.len() > COLUMNS {
            return Err(SealError::Age("its header has too long a line"));
        }
        text.push_str(line);
        if line.len() < COLUMNS {
            return base64(&text);
        }
    }
}

fn line<'a>(rest: &mut &'a [u8]) -> Result<&'a str, SealError> {
    const FAULT: SealError = SealError::Age("its header is broken off");
    let end = rest.iter().position(|byte| *byte == b'\n').ok_or(FAULT)?;
    let (line, after) = rest.split_at(end);
    *rest = after.get(1..).unwrap_or_default();
    std::str::from_utf8(line).map_err(|_| FAULT)
}
