//! Durations and sizes as people write them (`30s`, `16MB`), held as plain integers.
//!
//! Parsing is exact: what is shown again by `Display` parses to the same value.

use std::fmt;

/// A length of time in milliseconds, written like `500ms`, `30s`, `5m`, `2h`, `1d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

/// A size in bytes, written in PostgreSQL's units: `kB`, `MB`, `GB`, `TB` are powers of 1024.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

/// A text that is no duration or size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// There is no number in front.
    #[error("{0:?} does not start with a whole number")]
    NoNumber(String),
    /// A number without a unit, or with an unknown one.
    #[error("{text:?} has no unit out of {units}")]
    Unit {
        /// The refused text.
        text: String,
        /// The units that are known, smallest first.
        units: &'static str,
    },
    /// More than 64 bits hold.
    #[error("{0:?} is too large")]
    TooLarge(String),
}

/// Unit and its worth, largest first, so that `Display` finds the largest exact one.
type Units = [(&'static str, u64)];

const TIME: &Units = &[("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
/// Read but not written, for a timeout of `24h` says more than one of `1d`.
const TIME_ALIASES: &Units = &[("d", 86_400_000)];
const SIZE: &Units =
    &[("TB", 1 << 40), ("GB", 1 << 30), ("MB", 1 << 20), ("kB", 1 << 10), ("B", 1)];
/// Spellings that mean the same and cannot mean anything else.
const SIZE_ALIASES: &Units =
    &[("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("kiB", 1 << 10)];

fn parse(text: &str, units: &[&Units], names: &'static str) -> Result<u64, QuantityError> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    if digits.is_empty() {
        return Err(QuantityError::NoNumber(text.to_owned()));
    }
    let worth = units
        .iter()
        .flat_map(|table| table.iter())
        .find(|(name, _)| *name == unit.trim_start())
        .map(|(_, worth)| *worth)
        .ok_or_else(|| QuantityError::Unit { text: text.to_owned(), units: names })?;
    digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(worth))
        .ok_or_else(|| QuantityError::TooLarge(text.to_owned()))
}

fn show(value: u64, units: &Units, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let fitting = units.iter().find(|(_, worth)| value != 0 && value.is_multiple_of(*worth));
    match fitting.or(units.last()) {
        Some((name, worth)) => f.pad(&format!("{}{name}", value / worth)),
        None => f.pad(&value.to_string()),
    }
}

impl Millis {
    /// So many whole seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds * 1_000)
    }

    /// Whole seconds, rounded up, for programs that count in seconds.
    pub const fn as_secs_ceil(self) -> u64 {
        self.0.div_ceil(1_000)
    }

    /// As the standard library's duration.
    pub const fn as_duration(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0)
    }
}

impl std::str::FromStr for Millis {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        parse(text, &[TIME, TIME_ALIASES], "ms, s, m, h, d").map(Self)
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(self.0, TIME, f)
    }
}

impl std::str::FromStr for Bytes {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        parse(text, &[SIZE, SIZE_ALIASES], "B, kB, MB, GB, TB").map(Self)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(self.0, SIZE, f)
    }
}

impl serde::Serialize for Millis {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl serde::Serialize for Bytes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
