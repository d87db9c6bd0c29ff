//! Listening, on a thread and a runtime of its own, so that neither requests nor passes wait for
//! each other. Everything that a peer can make us hold is bounded in size and time.

use std::{
    net::{SocketAddr, TcpListener as StdListener},
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
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::{
    board::Board,
    options::{Listen, ListenError},
    routes::{App, Refusals, router},
    stall::Stalling,
    tls::Tls,
    webhook,
};

const MOST_CONNECTIONS: usize = 512;
const MOST_STREAMS: usize = 256;
/// For a TLS handshake, a request's head, and the wait for the next request.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);
/// For a peer that takes nothing of what it asked for.
const WRITE_PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks at the files of the certificate.
const CERTIFICATE: Duration = Duration::from_secs(2);
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
    let tls = listen.tls.as_ref().map(|(chain, key)| Tls::load(chain, key)).transpose()?;
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
        pushes: Semaphore::new(webhook::AT_ONCE),
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

async fn accept(socket: StdListener, mut tls: Option<Tls>, app: &Arc<App>) {
    let listener = match TcpListener::from_std(socket) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "the status endpoint cannot listen");
            return;
        }
    };
    let connections = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut look = interval(CERTIFICATE);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    if let Some(tls) = &tls {
        app.board.certificate(tls.valid(), tls.fault());
    }
    loop {
        let accepted = tokio::select! {
            () = app.stop.cancelled() => return,
            _ = look.tick(), if tls.is_some() => {
                if let Some(tls) = &mut tls
                    && tls.refresh()
                {
                    app.board.certificate(tls.valid(), tls.fault());
                }
                continue;
            }
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
        let tls = tls.as_ref().map(Tls::acceptor);
        tokio::spawn(connection(stream, tls, Arc::clone(app), permit));
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
