//! The text form of an age file: a strict PEM.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::error::SealError;

const BEGIN: &str = "-----BEGIN AGE ENCRYPTED FILE-----";
const END: &str = "-----END AGE ENCRYPTED FILE-----";
const COLUMNS: usize = 64;

/// Whether it begins as an armored file.
pub(crate) fn begins(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().starts_with(BEGIN.as_bytes())
}

/// The bytes in it. Blanks around the whole are allowed, and nothing else that the format is not.
pub(crate) fn open(bytes: &[u8]) -> Result<Vec<u8>, SealError> {
    const FAULT: SealError = SealError::Age("its armor is not as age writes it");
    let text = std::str::from_utf8(bytes).map_err(|_| FAULT)?.trim_ascii();
    let mut lines = text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
    if lines.next() != Some(BEGIN) || lines.next_back() != Some(END) {
        return Err(FAULT);
    }
    let lines: Vec<&str> = lines.collect();
    let Some((last, full)) = lines.split_last() else { return Err(FAULT) };
    if full.iter().any(|line| line.len() != COLUMNS) || !(1..=COLUMNS).contains(&last.len()) {
        return Err(FAULT);
    }
    STANDARD.decode(lines.concat()).map_err(|_| FAULT)
}
