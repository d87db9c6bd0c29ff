//! How an adapter reaches something on a server: one byte stream, whatever carries it.
//!
//! The SSH adapter implements [`Dialer`]; the Docker, Patroni, etcd and PostgreSQL adapters use it.
//! So none of them knows SSH, and nothing on a server has to listen on the network for us.
//! This crate must hold no protocol and no policy.

use std::{fmt, path::PathBuf};

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

/// A two-way byte stream to something on a server.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// A boxed [`ByteStream`].
pub type BoxStream = Box<dyn ByteStream>;

/// What to reach, as seen from the server.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// A TCP port, by address as the server would dial it.
    Tcp {
        /// Address or name, resolved on the server.
        host: String,
        /// Port.
        port: u16,
    },
    /// A Unix socket that the login user may open.
    Unix(PathBuf),
    /// The Docker engine's API socket. The dialer finds a way in that the login user is allowed
    /// (forwarded socket, or `docker system dial-stdio` through sudo).
    DockerApi,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::DockerApi => f.write_str("the Docker API"),
        }
    }
}

/// Why a stream could not be had.
#[derive(Debug, thiserror::Error)]
#[error("reach {target} on {host}: {cause}")]
pub struct DialError {
    /// Server by its name in the desired state.
    pub host: String,
    /// What was to be reached.
    pub target: Target,
    /// The cause in plain words.
    pub cause: String,
}

/// Opens byte streams to things on servers.
pub trait Dialer: Send + Sync + 'static {
    /// Opens a stream to `target` on the server named `host`.
    ///
    /// # Guarantees
    /// Bounded in time by the implementation's own connect deadline; dropping the stream closes it.
    fn dial(&self, host: &str, target: Target) -> BoxFuture<'static, Result<BoxStream, DialError>>;
}
