//! Bech32 (BIP 173) without its limit of length, as age writes its keys.

use zeroize::Zeroizing;

const CHARSET: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
const CHECKSUM: usize = 6;

fn step(sum: u32, value: u8) -> u32 {
    const GENERATOR: [u32; 5] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];
    let top = sum >> 25;
    let next = ((sum & 0x01ff_ffff) << 5) ^ u32::from(value);
    GENERATOR
        .iter()
        .enumerate()
        .filter(|(bit, _)| top >> bit & 1 == 1)
        .fold(next, |sum, (_, generator)| sum ^ generator)
}

fn prefix_sum(prefix: &str) -> u32 {
    let high = prefix.bytes().map(|byte| byte >> 5);
    let low = prefix.bytes().map(|byte| byte & 31);
    high.chain([0]).chain(low).fold(1, step)
}

/// The 32 bytes of a text with this prefix, which is all lower case or all upper case.
pub(crate) fn decode(prefix: &str, text: &str) -> Option<Zeroizing<[u8; 32]>> {
    if text.bytes().any(|b| b.is_ascii_lowercase()) && text.bytes().any(|b| b.is_ascii_uppercase())
    {
        return None;
    }
    let lower = Zeroizing::new(text.to_ascii_lowercase());
    let data = lower.strip_prefix(prefix)?.strip_prefix('1')?;
    let mut values = Zeroizing::new(Vec::with_capacity(data.len()));
    for byte in data.bytes() {
        let value = CHARSET.iter().position(|known| *known == byte)?;
        values.push(u8::try_from(value).ok()?);
    }
    if values.iter().copied().fold(prefix_sum(prefix), step) != 1 {
        return None;
    }
    let mut bytes = Zeroizing::new([0_u8; 32]);
    let (mut held, mut bits, mut filled) = (0_u32, 0_u32, 0_usize);
    for value in values.get(..values.len().checked_sub(CHECKSUM)?)? {
        held = (held << 5 | u32::from(*value)) & 0xfff;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            *bytes.get_mut(filled)? = u8::try_from(held >> bits & 0xff).ok()?;
            filled += 1;
        }
    }
    // The last bits fill up to a multiple of five and are zero.
    (filled == 32 && bits < 5 && held & ((1 << bits) - 1) == 0).then_some(bytes)
}

/// The text of 32 bytes.
pub(crate) fn encode(prefix: &str, bytes: &[u8; 32]) -> String {
    let mut values = Vec::new();
    let (mut held, mut bits) = (0_u32, 0_u32);
    for byte in bytes {
        held = (held << 8 | u32::from(*byte)) & 0xfff;
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            values.push((held >> bits & 31) as u8);
        }
    }
    values.push((held << (5 - bits) & 31) as u8);
    let padded = values.iter().copied().chain([0; CHECKSUM]);
    let sum = padded.fold(prefix_sum(prefix), step) ^ 1;
    values.extend((0..CHECKSUM).rev().map(|place| (sum >> (5 * place) & 31) as u8));
    let letters = values.iter().map(|value| char::from(CHARSET[usize::from(*value)]));
    format!("{prefix}1{}", letters.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by `age-keygen`, for tests only.
    const SECRET: &str =
        "AGE-SECRET-KEY-1EGTZVFFV20835NWYV6270LXYVK2VKNX2MMDKWYKLMGR48UAWX40Q2P2LM0";

    #[test]
    fn there_and_back() {
        let bytes = decode("age-secret-key-", SECRET).expect("decoded");
        assert_eq!(encode("age-secret-key-", &bytes).to_ascii_uppercase(), SECRET);
        assert!(decode("age", SECRET).is_none());
    }

    #[test]
    fn each_wrong_letter_is_seen() {
        for place in 0..SECRET.len() {
            let mut text = SECRET.as_bytes().to_vec();
            text[place] = if text[place] == b'Q' { b'P' } else { b'Q' };
            let text = String::from_utf8(text).expect("ASCII");
            assert!(decode("age-secret-key-", &text).is_none(), "{text}");
            assert!(decode("age-secret-key-", &SECRET[..place]).is_none());
            assert!(
                decode("age-secret-key-", &SECRET[..=place].to_ascii_lowercase()).is_none()
                    || place + 1 == SECRET.len()
            );
        }
    }
}
