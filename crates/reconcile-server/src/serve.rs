//! Listening, on a thread and a runtime of its own, so that neither requests nor passes wait for
//! each other. Everything that a peer can make us hold is bounded in size and time.

use std::{
    net::{SocketAddr, TcpListener as StdListener},
    path::Path,
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    },
};
use tokio_util::sync::CancellationToken;

use crate::{
    board::Board,
    options::{Listen, ListenError},
    routes::{App, Refusals, router},
    stall::Stalling,
};

const MOST_CONNECTIONS: usize = 512;
const MOST_STREAMS: usize = 256;
/// For a TLS handshake, a request's head, and the wait for the next request.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);
/// For a peer that takes nothing of what it asked for.
const WRITE_PATIENCE: Duration = Duration::from_secs(20);
const MOST_HEADERS: usize = 64;
/// Request line and headers together.
const MOST_HEAD_BYTES: usize = 16 << 10;

/// Serving. It ends when this is dropped.
#[must_use = "it serves until it is dropped"]
pub struct Served {
    address: SocketAddr,
    scheme: &'static str,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    /// Where it listens, with the port that was chosen where none was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The page's address.
    pub fn url(&self) -> String {
        format!("{}://{}/", self.scheme, self.address)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the status endpoint panicked");
        }
    }
}

/// Listens and serves what is on `board`. A webhook sends to `dirty`.
pub fn start(
    listen: Listen,
    board: Arc<Board>,
    dirty: mpsc::Sender<()>,
) -> Result<Served, ListenError> {
    listen.check()?;
    let tls = listen.tls.as_ref().map(|(chain, key)| acceptor(chain, key)).transpose()?;
    let bind = |source| ListenError::Bind { address: listen.address, source };
    let socket = StdListener::bind(listen.address).map_err(bind)?;
    socket.set_nonblocking(true).map_err(bind)?;
    let address = socket.local_addr().map_err(bind)?;
    let stop = CancellationToken::new();
    let app = Arc::new(App {
        board,
        token: listen.token,
        webhook: listen.webhook,
        loopback: address.ip().is_loopback(),
        dirty,
        streams: Arc::new(Semaphore::new(MOST_STREAMS)),
        stop: stop.clone(),
        refusals: Refusals::default(),
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ListenError::Start)?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let thread = std::thread::Builder::new()
        .name("status".to_owned())
        .spawn(move || {
            runtime.block_on(accept(socket, tls, &app));
        })
        .map_err(ListenError::Start)?;
    Ok(Served { address, scheme, stop, thread: Some(thread) })
}

fn acceptor(chain: &Path, key: &Path) -> Result<TlsAcceptor, ListenError> {
    let fail = |path: &Path| {
        let path = path.to_owned();
        move |cause: String| ListenError::Tls { path, cause }
    };
    let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(chain)
        .and_then(Iterator::collect)
        .map_err(|error| fail(chain)(error.to_string()))?;
    let private =
        PrivateKeyDer::from_pem_file(key).map_err(|error| fail(key)(error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| fail(chain)(error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(certificates, private)
        .map_err(|error| fail(chain)(error.to_string()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn accept(socket: StdListener, tls: Option<TlsAcceptor>, app: &Arc<App>) {
    let listener = match TcpListener::from_std(socket) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "the status endpoint cannot listen");
            return;
        }
    };
    let connections = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            () = app.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, or the peer is gone already.
                tracing::warn!(%error, "a connection to the status endpoint was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&connections).try_acquire_owned() else {
            app.refusals.note("a connection: too many are open");
            continue;
        };
        tokio::spawn(connection(stream, tls.clone(), Arc::clone(app), permit));
    }
}

async fn connection(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    app: Arc<App>,
    _permit: OwnedSemaphorePermit,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection without TCP_NODELAY");
    }
    let stream = Stalling::new(stream, WRITE_PATIENCE);
    match tls {
        None => requests(stream, app).await,
        Some(tls) => match timeout(HEAD_PATIENCE, tls.accept(stream)).await {
            Ok(Ok(stream)) => requests(stream, app).await,
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => tracing::debug!("a TLS handshake took too long"),
        },
    }
}

async fn requests<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, app: Arc<App>) {
    let service = TowerToHyperService::new(router(Arc::clone(&app)));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_headers(MOST_HEADERS)
        .max_buf_size(MOST_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let result = tokio::select! {
        () = app.stop.cancelled() => return,
        result = served => result,
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection to the status endpoint ended early");
    }
}
