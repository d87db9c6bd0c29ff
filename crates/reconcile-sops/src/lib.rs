//! Files of secrets that are encrypted at rest: with `age` as a whole, or with SOPS value by
//! value. They are opened in memory only, and what was opened is wiped when it is dropped.
//!
//! Reading only: files are made with `age` and `sops` themselves. The `age` crate is not used
//! because its cipher crates and those of the SSH client cannot be linked into one binary.

mod age;
mod armor;
mod bech32;
mod error;
mod identity;
mod sops;
mod ssh;
mod value;

use zeroize::Zeroizing;

pub use error::SealError;
pub use identity::{Identities, Identity};
pub use sops::Values;

/// What a file of secrets is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Neither of the others; it may be in clear.
    Plain,
    /// Encrypted as a whole with `age`.
    Age,
    /// Values encrypted with SOPS.
    Sops,
}

impl Form {
    /// Tells by the first bytes, or by the key `sops` at the left margin.
    pub fn of(bytes: &[u8]) -> Self {
        if age::begins(bytes) || armor::begins(bytes) {
            return Self::Age;
        }
        let lines = bytes.split(|byte| *byte == b'\n');
        if lines.into_iter().any(|line| line.starts_with(b"sops:")) {
            Self::Sops
        } else {
            Self::Plain
        }
    }
}

/// What was in a file.
pub enum Opened {
    /// Its whole text.
    Text(Zeroizing<String>),
    /// Texts by name.
    Values(Values),
}

/// Opens an encrypted file. What is [`Form::Plain`] is refused.
pub fn open(bytes: &[u8], identities: &Identities) -> Result<Opened, SealError> {
    match Form::of(bytes) {
        Form::Age => {
            let text = age::open(bytes, identities)?;
            let text = std::str::from_utf8(&text).map_err(|_| SealError::NotText)?;
            Ok(Opened::Text(Zeroizing::new(text.to_owned())))
        }
        Form::Sops => sops::open(bytes, identities).map(Opened::Values),
        Form::Plain => Err(SealError::Plain),
    }
}
