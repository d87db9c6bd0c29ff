//! Why a file cannot be opened. None of these says anything of the content.

/// Why a file cannot be opened.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SealError {
    /// Not encrypted.
    #[error("it is not encrypted")]
    Plain,
    /// A line of an identity file.
    #[error("line {line} is no age identity (AGE-SECRET-KEY-1…)")]
    BadIdentity {
        /// Which line.
        line: usize,
    },
    /// An identity file that is itself encrypted, or of a kind that is not read.
    #[error(
        "line {line} is {kind}, which is not read; only X25519 identities (AGE-SECRET-KEY-1…) and Ed25519 keys of OpenSSH without a passphrase are"
    )]
    OtherIdentity {
        /// Which line.
        line: usize,
        /// What it is.
        kind: &'static str,
    },
    /// An identity file without any.
    #[error("it holds no age identity (AGE-SECRET-KEY-1…)")]
    NoIdentity,
    /// Not as age writes it.
    #[error("it is damaged or no age file: {0}")]
    Age(&'static str),
    /// Encrypted for somebody else. For plain age files the recipients are not in the file.
    #[error("it is encrypted for other keys than ours{}: {ours}", named(.recipients))]
    Recipients {
        /// For whom, where the file says.
        recipients: Vec<String>,
        /// The public halves of what was given.
        ours: String,
    },
    /// A passphrase.
    #[error("it is encrypted with a passphrase, and nobody is there to be asked")]
    Passphrase,
    /// Not as SOPS writes it.
    #[error("it is no SOPS file that can be read: {0}")]
    Sops(String),
    /// A value that cannot be opened with the file's own key.
    #[error("the value of `{0}` is damaged, or was moved here from another name")]
    Value(String),
    /// The sum over all values.
    #[error("its MAC does not hold: a value was added, removed, moved or changed without sops")]
    Mac,
    /// The whole file.
    #[error("what is in it is not UTF-8")]
    NotText,
}

fn named(recipients: &[String]) -> String {
    if recipients.is_empty() { String::new() } else { format!(" ({})", recipients.join(", ")) }
}
