//! One SSH connection: TCP, key exchange with a pinned host key, login. Nothing is retried here
//! but a handshake that the server cut short.

use std::{
    borrow::Cow,
    collections::hash_map::RandomState,
    hash::{BuildHasher as _, Hasher as _},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use reconcile_dial::BoxStream;
use russh::{
    Disconnect, Preferred,
    client::{self, DisconnectReason, Handle},
    keys::PublicKeyOrCertificate,
};
use tokio::{net::TcpStream, sync::Semaphore, time::timeout};

use crate::{
    fault::{Fault, spoken},
    known_hosts::TrustedKeys,
    limits,
    login::{Login, log_in},
    resident::Residents,
};

/// Where to connect and as whom.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    pub(crate) address: String,
    pub(crate) port: u16,
    pub(crate) user: String,
    pub(crate) identity_file: Option<std::path::PathBuf>,
    pub(crate) agent: bool,
    pub(crate) host_key: Option<String>,
    pub(crate) known_hosts: Option<std::path::PathBuf>,
}

impl Endpoint {
    fn server(&self) -> String {
        let Self { address, port, .. } = self;
        if address.contains(':') {
            format!("[{address}]:{port}")
        } else {
            format!("{address}:{port}")
        }
    }
}

/// A connection that is logged in.
pub(crate) struct Connection {
    pub(crate) handle: Handle<Client>,
    /// Slots for commands.
    pub(crate) execs: Arc<Semaphore>,
    /// What is known of the way to Docker; see [`Connection::docker_way`].
    docker: AtomicU8,
    ended: Arc<OnceLock<String>>,
    /// What stays open for probes.
    pub(crate) residents: tokio::sync::Mutex<Residents>,
}

/// How the Docker API is reached on this connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DockerWay {
    /// Not tried yet, or the forwarded socket works.
    Socket,
    /// The login user may not open the socket: `docker system dial-stdio` through sudo.
    Stdio,
}

impl Connection {
    /// True once nothing can be sent any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.handle.is_closed()
    }
    /// Why the connection ended, as far as it is known.
    pub(crate) fn why_ended(&self) -> &str {
        self.ended.get().map_or("the connection was lost", String::as_str)
    }
    pub(crate) fn docker_way(&self) -> DockerWay {
        if self.docker.load(Ordering::Relaxed) == 0 { DockerWay::Socket } else { DockerWay::Stdio }
    }
    pub(crate) fn use_docker_stdio(&self) {
        self.docker.store(1, Ordering::Relaxed);
    }
    /// Says goodbye; running commands lose their channel.
    pub(crate) async fn disconnect(&self) {
        // A connection that is gone already needs no goodbye.
        let _gone = self.handle.disconnect(Disconnect::ByApplication, "done", "").await;
    }
}

/// What russh calls back: the check of the host key, and the end.
pub(crate) struct Client {
    keys: TrustedKeys,
    ended: Arc<OnceLock<String>>,
}

/// Errors of a session; a wrong host key has its own text.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    #[error("{0}")]
    HostKey(String),
    #[error(transparent)]
    Ssh(#[from] russh::Error),
}

impl client::Handler for Client {
    type Error = SessionError;

    async fn check_server_key(
        &mut self,
        key: &PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        self.keys.check(&key.public_key()).map_err(SessionError::HostKey)?;
        Ok(true)
    }

    async fn disconnected(
        &mut self,
        reason: DisconnectReason<Self::Error>,
    ) -> Result<(), Self::Error> {
        let text = match &reason {
            DisconnectReason::ReceivedDisconnect(info) => {
                format!("sshd closed the connection: {}", info.message)
            }
            DisconnectReason::Error(SessionError::Ssh(russh::Error::KeepaliveTimeout)) => format!(
                "the server gave no sign of life for {}",
                spoken(limits::KEEPALIVE * u32::try_from(limits::KEEPALIVE_MAX).unwrap_or(1))
            ),
            DisconnectReason::Error(error) => format!("the connection broke: {error}"),
        };
        let _first_reason_stays = self.ended.set(text);
        Ok(())
    }
}

/// Connects and logs in; through `jump` where given.
pub(crate) async fn open(
    endpoint: &Endpoint,
    jump: Option<&Arc<Connection>>,
    handshakes: &Semaphore,
) -> Result<Connection, Fault> {
    let server = endpoint.server();
    let keys = TrustedKeys::for_server(
        &endpoint.address,
        endpoint.port,
        endpoint.host_key.as_deref(),
        endpoint.known_hosts.as_deref(),
    )
    .map_err(Fault::after_change)?;
    // Held until the login is done: that is what MaxStartups counts.
    let _permit = handshakes.acquire().await;
    let ended = Arc::new(OnceLock::new());
    let mut handle = handshake(endpoint, jump, &keys, &ended).await?;
    let login = Login {
        user: &endpoint.user,
        server: &server,
        identity_file: endpoint.identity_file.as_deref(),
        agent: endpoint.agent,
    };
    match timeout(limits::LOGIN, log_in(&mut handle, login)).await {
        Ok(result) => result?,
        Err(_) => {
            return Err(Fault::later(format!(
                "sshd at {server} did not answer the login of {} within {}",
                endpoint.user,
                spoken(limits::LOGIN)
            )));
        }
    }
    tracing::debug!(server, user = endpoint.user, "connected");
    Ok(Connection {
        handle,
        execs: Arc::new(Semaphore::new(limits::EXECS)),
        docker: AtomicU8::new(0),
        ended,
        residents: tokio::sync::Mutex::default(),
    })
}

/// TCP and key exchange, tried again where the server cuts it short (`MaxStartups`).
async fn handshake(
    endpoint: &Endpoint,
    jump: Option<&Arc<Connection>>,
    keys: &TrustedKeys,
    ended: &Arc<OnceLock<String>>,
) -> Result<Handle<Client>, Fault> {
    let server = endpoint.server();
    let config = Arc::new(config(keys));
    let mut tries = 0;
    loop {
        tries += 1;
        let stream = stream_to(endpoint, jump).await?;
        let client = Client { keys: keys.clone(), ended: Arc::clone(ended) };
        let connecting = client::connect_stream(Arc::clone(&config), stream, client);
        match timeout(limits::HANDSHAKE, connecting).await {
            Ok(Ok(handle)) => return Ok(handle),
            Ok(Err(error)) if was_cut_short(&error) && tries < limits::HANDSHAKE_TRIES => {
                tracing::debug!(server, tries, %error, "handshake cut short, trying again");
                tokio::time::sleep(jitter()).await;
            }
            Ok(Err(SessionError::HostKey(text))) => return Err(Fault::after_change(text)),
            Ok(Err(error)) => {
                return Err(Fault::later(format!(
                    "{server} answers but the SSH handshake fails: {error}"
                )));
            }
            Err(_) => {
                return Err(Fault::later(format!(
                    "{server} accepts connections but its sshd did not finish the SSH handshake \
                     within {}",
                    spoken(limits::HANDSHAKE)
                )));
            }
        }
    }
}

fn config(keys: &TrustedKeys) -> client::Config {
    client::Config {
        nodelay: true,
        keepalive_interval: Some(limits::KEEPALIVE),
        keepalive_max: limits::KEEPALIVE_MAX,
        inactivity_timeout: None,
        preferred: Preferred { key: Cow::Owned(keys.algorithms()), ..Preferred::default() },
        ..client::Config::default()
    }
}

fn was_cut_short(error: &SessionError) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    match error {
        SessionError::Ssh(russh::Error::HUP | russh::Error::Disconnect) => true,
        SessionError::Ssh(russh::Error::IO(e)) => {
            matches!(e.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
        }
        _ => false,
    }
}

/// 100 to 500 ms, so that those who were cut short together do not come back together.
fn jitter() -> Duration {
    Duration::from_millis(100 + RandomState::new().build_hasher().finish() % 400)
}

/// A byte stream to the server's sshd.
async fn stream_to(
    endpoint: &Endpoint,
    jump: Option<&Arc<Connection>>,
) -> Result<BoxStream, Fault> {
    let server = endpoint.server();
    if let Some(jump) = jump {
        return crate::forward::open_tcp(jump, &endpoint.address, endpoint.port).await.map_err(
            |fault| Fault {
                cause: format!("from the jump host to {server}: {}", fault.cause),
                ..fault
            },
        );
    }
    let connecting = TcpStream::connect((endpoint.address.as_str(), endpoint.port));
    match timeout(limits::TCP, connecting).await {
        Ok(Ok(stream)) => {
            // Our packets are small and answered: waiting to fill one only costs time.
            let _best_effort = stream.set_nodelay(true);
            Ok(Box::new(stream))
        }
        Ok(Err(e)) => Err(Fault::later(match e.kind() {
            std::io::ErrorKind::ConnectionRefused => {
                format!("{server} refuses connections: its sshd is not running, or on another port")
            }
            _ => format!("cannot connect to {server}: {e}"),
        })),
        Err(_) => Err(Fault::later(format!(
            "no answer from {server} within {}: the server is off, or a firewall drops packets",
            spoken(limits::TCP)
        ))),
    }
}
