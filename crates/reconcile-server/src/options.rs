//! Where to listen, and what is refused before anything listens.

use std::{fmt, net::SocketAddr, path::PathBuf};

/// A word that callers must know. It cannot be printed.
#[derive(Clone)]
pub struct Token(String);

/// Shorter ones can be guessed.
const SHORTEST: usize = 16;

impl Token {
    /// Takes a token, without the white space around it.
    pub fn new(text: &str) -> Result<Self, ListenError> {
        let text = text.trim();
        if text.len() < SHORTEST {
            return Err(ListenError::ShortToken);
        }
        Ok(Self(text.to_owned()))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(redacted)")
    }
}

/// How to listen.
#[derive(Debug, Clone)]
pub struct Listen {
    /// Address.
    pub address: SocketAddr,
    /// Files of the certificate chain and its private key, both PEM.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// What callers must send as `Authorization: Bearer …`.
    pub token: Option<Token>,
    /// What the Git host signs its webhook with.
    pub webhook: Option<Token>,
}

impl Listen {
    /// On any address but loopback everyone on the network can ask: only with TLS and a token.
    pub fn check(&self) -> Result<(), ListenError> {
        let missing = match (&self.tls, &self.token) {
            _ if self.address.ip().is_loopback() => return Ok(()),
            (Some(_), Some(_)) => return Ok(()),
            (None, Some(_)) => "a certificate and its key are",
            (Some(_), None) => "a bearer token is",
            (None, None) => "a certificate with its key, and a bearer token, are",
        };
        Err(ListenError::Open { address: self.address, missing })
    }
}

/// Why nothing listens.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Everyone could ask.
    #[error("listen on {address}, which is not loopback: {missing} missing")]
    Open {
        /// The address.
        address: SocketAddr,
        /// What is missing.
        missing: &'static str,
    },
    /// It could be guessed.
    #[error("a token or webhook secret has at least {SHORTEST} characters")]
    ShortToken,
    /// The address cannot be had.
    #[error("listen on {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// A certificate or key cannot be used.
    #[error("use {} for TLS: {cause}", path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: String,
    },
    /// The thread that serves could not be started.
    #[error("start serving")]
    Start(#[source] std::io::Error),
}

impl ListenError {
    /// True where it was asked for wrongly, as opposed to what the machine refuses.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Open { .. } | Self::ShortToken | Self::Tls { .. })
    }
}
