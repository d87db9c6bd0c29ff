//! Forms of single values: paths, time zones, networks, images, host keys.

use std::net::IpAddr;

use crate::valid::ImageRef;

/// What is wrong with an absolute path on a host, continuing a sentence.
pub(super) fn path_fault(text: &str) -> Option<&'static str> {
    if !text.starts_with('/') {
        return Some("must be an absolute path");
    }
    // No quoting is needed then in unit files, shell commands and configurations.
    if !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'.' | b'_' | b'-')) {
        return Some("has characters that would need quoting somewhere");
    }
    if text.split('/').any(|part| part == "..") {
        return Some("must not contain '..'");
    }
    if text.split('/').filter(|part| !part.is_empty()).count() < 2 {
        return Some("must be at least two levels deep, so that no system directory is taken");
    }
    None
}

/// Whether a text names a time zone of the IANA database that the program carries.
pub(super) fn is_timezone(text: &str) -> bool {
    (text == "UTC" || text.contains('/')) && jiff::tz::TimeZone::get(text).is_ok()
}

/// A network in CIDR notation, its host bits zero.
pub(super) fn network(text: &str) -> Result<(IpAddr, u8), String> {
    let (address, prefix) = text.split_once('/').ok_or_else(|| {
        format!("{text:?} has no prefix length, as in 10.0.0.0/8 or 192.0.2.7/32")
    })?;
    let address: IpAddr = address.parse().map_err(|_| format!("{address:?} is no IP address"))?;
    let bits = if address.is_ipv4() { 32 } else { 128 };
    let prefix: u8 = prefix
        .parse()
        .ok()
        .filter(|prefix| *prefix <= bits)
        .ok_or_else(|| format!("the prefix length of {text:?} must be from 0 to {bits}"))?;
    let base = masked(address, prefix);
    if base != address {
        return Err(format!(
            "{text:?} has bits set beyond its prefix length; the network is {base}/{prefix}"
        ));
    }
    Ok((address, prefix))
}

/// The address with the bits after the prefix cleared.
pub(super) fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V4((u32::from(v4) & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V6((u128::from(v6) & mask).into())
        }
    }
}

/// Why an image reference is refused.
pub(super) enum ImageFault {
    /// It is none.
    Form(String),
    /// It names another image tomorrow.
    Moving(String),
}

/// An image reference with a fixed tag or a digest.
pub(super) fn image(text: &str) -> Result<ImageRef, ImageFault> {
    let (named, digest) = match text.split_once('@') {
        Some((named, digest)) => (named, Some(digest)),
        None => (text, None),
    };
    // A colon before the last slash belongs to the registry's port.
    let last = named.rfind('/').map_or(0, |slash| slash + 1);
    let (repository, tag) = match named[last..].split_once(':') {
        Some((name, tag)) => (&named[..last + name.len()], Some(tag)),
        None => (named, None),
    };
    let part = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b':'))
    };
    if !repository.split('/').all(part) || repository[last.min(repository.len())..].contains(':') {
        return Err(ImageFault::Form(format!("{text:?} is no image reference")));
    }
    if repository[last..].bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(ImageFault::Form(format!(
            "{text:?} is no image reference: names of images are lower-case"
        )));
    }
    if let Some(digest) = digest {
        let hex = digest.strip_prefix("sha256:").unwrap_or("");
        if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f')) {
            return Err(ImageFault::Form(format!(
                "the digest of {text:?} is not `sha256:` and 64 hexadecimal digits"
            )));
        }
    }
    if let Some(tag) = tag {
        let fits = !tag.is_empty()
            && tag.len() <= 128
            && tag.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
            && !tag.starts_with(['.', '-']);
        if !fits {
            return Err(ImageFault::Form(format!("{tag:?} is no tag of an image")));
        }
    }
    match (tag, digest) {
        (None, None) => Err(ImageFault::Moving(format!(
            "image `{text}` has no tag, which means `latest`, a moving tag"
        ))),
        // Versions have digits; `latest`, `stable`, `edge`, `alpine` move.
        (Some(tag), None) if !tag.bytes().any(|b| b.is_ascii_digit()) => {
            Err(ImageFault::Moving(format!("image `{text}` has the moving tag `{tag}`")))
        }
        _ => Ok(ImageRef {
            repository: repository.to_owned(),
            tag: tag.map(str::to_owned),
            digest: digest.map(str::to_owned),
        }),
    }
}

/// A pinned host key as `type base64`, its comment dropped.
pub(super) fn host_key(text: &str) -> Result<String, String> {
    const KINDS: &[&str] = &[
        "ssh-ed25519",
        "ecdsa-sha2-nistp256",
        "ecdsa-sha2-nistp384",
        "ecdsa-sha2-nistp521",
        "ssh-rsa",
        "sk-ssh-ed25519@openssh.com",
        "sk-ecdsa-sha2-nistp256@openssh.com",
    ];
    let mut words = text.split_ascii_whitespace();
    let (Some(kind), Some(data)) = (words.next(), words.next()) else {
        return Err("a host key has two words, its type and its data".to_owned());
    };
    if !KINDS.contains(&kind) {
        return Err(format!("{kind:?} is no type of a host key"));
    }
    if data.contains('…') || data.contains("...") {
        return Err("the host key is a placeholder".to_owned());
    }
    let bytes = base64(data).ok_or("the data of the host key is not base64, or is cut off")?;
    // RFC 4253: the blob starts with the length and text of the key's type.
    let named = bytes.get(4..4 + kind.len()).is_some_and(|name| name == kind.as_bytes());
    if !named {
        return Err(format!("the data of the host key is not that of a key of type {kind}"));
    }
    let complete = match kind {
        "ssh-ed25519" => bytes.len() == 51,
        _ => bytes.len() > 4 + kind.len() + 32,
    };
    if !complete {
        return Err("the data of the host key is cut off or too long".to_owned());
    }
    Ok(format!("{kind} {data}"))
}

/// Decodes padded base64.
fn base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    if !text.len().is_multiple_of(4) || text.len() - digits.len() > 2 {
        return None;
    }
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut buffer, mut bits) = (0_u32, 0);
    for byte in digits.bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        buffer = (buffer << 6 | u32::from(value)) & 0xFFFF;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push((buffer >> bits & 0xFF) as u8);
        }
    }
    Some(out)
}
