//! What can go wrong on the way to an engine and back, and when to try again.

use std::time::Duration;

use bollard::errors::Error as BollardError;
use reconcile_core::{
    model::HostName,
    ports::{EffectError, Retry},
};

/// Why a call to an engine failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// No stream to the engine could be had. Carries the dialer's own words.
    #[error("{0}")]
    Unreachable(String),
    /// The stream broke before the whole answer was there.
    #[error("the connection to the engine broke: {0}")]
    Broken(String),
    /// No answer in time.
    #[error("the engine gave no answer within {} s", .0.as_secs())]
    Silent(Duration),
    /// The engine answered with an error.
    #[error("the engine answers: {message} (HTTP {status})")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The engine's own words.
        message: String,
    },
    /// The answer makes no sense to us.
    #[error("the engine's answer is not understood: {0}")]
    Garbled(String),
    /// The engine cannot do what we need.
    #[error("{0}")]
    Unfit(String),
}

impl Fault {
    /// The HTTP status, where the engine answered with an error.
    pub(crate) fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// True where the engine's words hold `text`, in whatever case.
    pub(crate) fn says(&self, text: &str) -> bool {
        matches!(self, Self::Refused { message, .. }
            if message.to_ascii_lowercase().contains(&text.to_ascii_lowercase()))
    }

    /// When to try again.
    pub(crate) fn retry(&self) -> Retry {
        // Older engines report Raft's troubles with status 500, so the words count first.
        const PASSING: [&str; 4] =
            ["out of sequence", "code = Unavailable", "code = Aborted", "is not a swarm manager"];
        const LATER: [&str; 4] =
            ["does not have a leader", "DeadlineExceeded", "deadline exceeded", "in use by"];
        if PASSING.iter().any(|text| self.says(text)) {
            return Retry::Soon;
        }
        if LATER.iter().any(|text| self.says(text)) {
            return Retry::Later;
        }
        match self {
            Self::Broken(_) => Retry::Soon,
            Self::Unreachable(_) | Self::Silent(_) => Retry::Later,
            Self::Garbled(_) | Self::Unfit(_) => Retry::AfterChange,
            Self::Refused { status, .. } => match status {
                // Gone or changed since it was looked at: look again.
                404 | 409 => Retry::Soon,
                429 | 500.. => Retry::Later,
                _ => Retry::AfterChange,
            },
        }
    }

    /// The error for the outside.
    pub(crate) fn at(&self, host: &HostName, attempt: impl Into<String>) -> EffectError {
        // The engine says so in 60 words with the codes of two protocols.
        let leaderless = self.says("does not have a leader");
        let cause = if leaderless { LEADERLESS.to_owned() } else { self.to_string() };
        EffectError::new(Some(host), attempt, cause, self.retry())
    }
}

/// Too few managers hear each other, as after a cut, or they vote just now.
const LEADERLESS: &str = "the Swarm has no leader yet";

/// The innermost cause: outer ones say no more than `client error (Connect)`.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(next) = last.source() {
        last = next;
    }
    last.to_string()
}

impl From<hyper_util::client::legacy::Error> for Fault {
    fn from(error: hyper_util::client::legacy::Error) -> Self {
        if error.is_connect() {
            Self::Unreachable(innermost(&error))
        } else {
            Self::Broken(innermost(&error))
        }
    }
}

impl From<BollardError> for Fault {
    fn from(error: BollardError) -> Self {
        match error {
            BollardError::DockerResponseServerError { status_code, message } => {
                Self::Refused { status: status_code, message: one_line(&message) }
            }
            BollardError::HyperLegacyError { err } => err.into(),
            BollardError::HyperResponseError { err } => Self::Broken(innermost(&err)),
            BollardError::JsonDataError { message, .. } => Self::Garbled(message),
            // What our own transport could not do travels as an I/O error, see `engine`.
            BollardError::IOError { err } => match err.downcast::<Self>() {
                Ok(fault) => fault,
                Err(err) => Self::Broken(innermost(&err)),
            },
            other => Self::Garbled(innermost(&other)),
        }
    }
}

/// The engine's words in one line, without the wrapping of its remote procedure calls.
pub(crate) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
