//! One server's Docker engine: a pooled HTTP client over the dialer, and bollard on top of it.
//!
//! Every request carries an explicit version in its path. bollard 0.21 does not send one, so the
//! transport below writes it; a later bollard that does send one is left as it is.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bollard::{BollardRequest, ClientVersion, Docker};
use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::{BodyExt, Full, Limited, combinators::UnsyncBoxBody};
use hyper::{Method, Request, Response, Uri, body::Incoming, http::uri::PathAndQuery};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{Connected, Connection},
    },
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use reconcile_core::model::HostName;
use reconcile_dial::{BoxStream, DialError, Dialer, Target};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::sync::{Mutex, Semaphore};

use crate::fault::{Fault, one_line};

/// Oldest Docker API spoken (Docker 20.10) and the newest that this code was written against.
const OLDEST: Version = Version { major: 1, minor: 41 };
const NEWEST: Version = Version { major: 1, minor: 45 };
/// Requests under way at a time, and idle connections kept: behind a connection may be an SSH
/// channel or a process on the server, so neither many nor one for each request.
const CONNECTIONS: usize = 4;
const IDLE: Duration = Duration::from_secs(60);
/// Longest wait for an answer that the engine has at hand.
pub(crate) const ANSWER: Duration = Duration::from_secs(15);
/// Longest wait for an answer that needs a registry or a forming Swarm.
pub(crate) const SLOW_ANSWER: Duration = Duration::from_secs(45);
/// Largest answer taken.
const ANSWER_BYTES: usize = 64 << 20;

type Body = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// A version of the Docker API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Version {
    major: u32,
    minor: u32,
}

impl Version {
    fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }
}

/// A Docker engine.
pub(crate) struct Engine {
    wire: Arc<Wire>,
    docker: Docker,
}

/// The part that bollard's transport shares with our own requests.
struct Wire {
    host: HostName,
    client: Client<Connector, Body>,
    version: Mutex<Option<Version>>,
    slots: Semaphore,
    /// Names of the Swarm's predefined networks, by id. Ids are never used twice.
    networks: Mutex<BTreeMap<String, String>>,
}

impl Engine {
    /// The engine of `host`. Dials nothing yet.
    pub(crate) fn new(dialer: Arc<dyn Dialer>, host: &HostName) -> Result<Self, Fault> {
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(CONNECTIONS)
            .pool_idle_timeout(IDLE)
            .pool_timer(TokioTimer::new())
            .build(Connector { dialer, host: host.clone() });
        let wire = Arc::new(Wire {
            host: host.clone(),
            client,
            version: Mutex::new(None),
            slots: Semaphore::new(CONNECTIONS),
            networks: Mutex::default(),
        });
        let below = Arc::clone(&wire);
        let transport = move |request: BollardRequest| {
            let wire = Arc::clone(&below);
            Box::pin(async move {
                let request = request.map(BodyExt::boxed_unsync);
                wire.send(request).await.map_err(|fault| std::io::Error::other(fault).into())
            })
        };
        let version = ClientVersion { major_version: 1, minor_version: 41 };
        let docker = Docker::connect_with_custom_transport(
            transport,
            Some("http://docker"),
            SLOW_ANSWER.as_secs(),
            &version,
        )?;
        Ok(Self { wire, docker })
    }

    /// The server.
    pub(crate) fn host(&self) -> &HostName {
        &self.wire.host
    }

    /// Runs a call of bollard's, bounded in time.
    pub(crate) async fn call<'a, T, F>(
        &'a self,
        call: impl FnOnce(&'a Docker) -> F,
    ) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, bollard::errors::Error>> + 'a,
    {
        within(SLOW_ANSWER, async { Ok(call(&self.docker).await?) }).await
    }

    /// `GET path`, decoded.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Fault> {
        self.get_within(ANSWER, path).await
    }

    /// `GET path` with a limit of its own. A connection that breaks is no news of the engine:
    /// it may have been idle for long, so reading is tried once more on a new one.
    pub(crate) async fn get_within<T: DeserializeOwned>(
        &self,
        limit: Duration,
        path: &str,
    ) -> Result<T, Fault> {
        let answer = match self.exchange(Method::GET, path, None, limit).await {
            Err(Fault::Broken(_)) => self.exchange(Method::GET, path, None, limit).await,
            answer => answer,
        };
        decode(&answer?)
    }

    /// The name of a network of the Swarm that no list shows, asked once for each id.
    pub(crate) async fn network_name(&self, id: &str) -> Result<String, Fault> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Answer {
            name: String,
        }
        let mut known = self.wire.networks.lock().await;
        if let Some(name) = known.get(id) {
            return Ok(name.clone());
        }
        let answer: Answer = self.get(&format!("/networks/{}?scope=swarm", escape(id))).await?;
        known.insert(id.to_owned(), answer.name.clone());
        Ok(answer.name)
    }

    /// `POST path` with a JSON body; neither is ever logged.
    pub(crate) async fn post(&self, path: &str, body: &serde_json::Value) -> Result<Bytes, Fault> {
        self.exchange(Method::POST, path, Some(body.to_string().into()), SLOW_ANSWER).await
    }

    /// `GET path`, whose body goes on until the engine or we end it.
    pub(crate) async fn stream(&self, path: &str) -> Result<Incoming, Fault> {
        let response =
            within(ANSWER, async { self.wire.send(request(Method::GET, path, None)?).await })
                .await?;
        if response.status().is_success() {
            return Ok(response.into_body());
        }
        let status = response.status().as_u16();
        let body = within(ANSWER, collect(response.into_body())).await?;
        Err(refusal(status, &body))
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
        limit: Duration,
    ) -> Result<Bytes, Fault> {
        within(limit, async {
            // The semaphore is never closed.
            let _slot = self.wire.slots.acquire().await;
            let response = self.wire.send(request(method, path, body)?).await?;
            finish(response).await
        })
        .await
    }
}

impl Wire {
    /// Sends a request under the version negotiated with this engine.
    async fn send(&self, mut request: Request<Body>) -> Result<Response<Incoming>, Fault> {
        let version = self.version().await?;
        let path = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
        if !versioned(path) {
            let path = format!("/v{}.{}{path}", version.major, version.minor);
            *request.uri_mut() = uri(&path)?;
        }
        let response = self.client.request(request).await?;
        if response.status() == hyper::StatusCode::BAD_REQUEST {
            // Perhaps the engine was upgraded and dropped our version: ask again next time.
            *self.version.lock().await = None;
        }
        Ok(response)
    }

    async fn version(&self) -> Result<Version, Fault> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Answer {
            api_version: String,
            #[serde(default, rename = "MinAPIVersion")]
            min_api_version: String,
        }
        let mut known = self.version.lock().await;
        if let Some(version) = *known {
            return Ok(version);
        }
        let response = self.client.request(request(Method::GET, "/version", None)?).await?;
        let answer: Answer = decode(&finish(response).await?)?;
        let daemon = Version::parse(&answer.api_version)
            .ok_or_else(|| Fault::Garbled(format!("API version {:?}", answer.api_version)))?;
        if daemon < OLDEST {
            return Err(Fault::Unfit(format!(
                "the engine speaks Docker API {}.{}; at least {}.{} (Docker 20.10) is needed",
                daemon.major, daemon.minor, OLDEST.major, OLDEST.minor
            )));
        }
        let floor = Version::parse(&answer.min_api_version).unwrap_or(OLDEST);
        let version = daemon.min(NEWEST).max(floor);
        *known = Some(version);
        Ok(version)
    }
}

fn versioned(path: &str) -> bool {
    path.strip_prefix("/v")
        .and_then(|rest| rest.split_once('/'))
        .is_some_and(|(version, _)| Version::parse(version).is_some())
}

fn uri(path: &str) -> Result<Uri, Fault> {
    format!("http://docker{path}")
        .parse()
        .map_err(|error| Fault::Garbled(format!("request path {path}: {error}")))
}

fn request(method: Method, path: &str, body: Option<Bytes>) -> Result<Request<Body>, Fault> {
    let mut request = Request::builder().method(method).uri(uri(path)?);
    if body.is_some() {
        request = request.header(hyper::header::CONTENT_TYPE, "application/json");
    }
    let body = Full::new(body.unwrap_or_default()).map_err(|never| match never {});
    request.body(body.boxed_unsync()).map_err(|error| Fault::Garbled(error.to_string()))
}

async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    tokio::time::timeout(limit, work).await.unwrap_or(Err(Fault::Silent(limit)))
}

async fn finish(response: Response<Incoming>) -> Result<Bytes, Fault> {
    let status = response.status();
    let body = collect(response.into_body()).await?;
    if status.is_success() { Ok(body) } else { Err(refusal(status.as_u16(), &body)) }
}

async fn collect(body: Incoming) -> Result<Bytes, Fault> {
    match Limited::new(body, ANSWER_BYTES).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) => Err(Fault::Broken(error.to_string())),
    }
}

fn refusal(status: u16, body: &[u8]) -> Fault {
    #[derive(Deserialize)]
    struct Answer {
        message: String,
    }
    let message = serde_json::from_slice::<Answer>(body)
        .map_or_else(|_| String::from_utf8_lossy(body).into_owned(), |answer| answer.message);
    Fault::Refused { status, message: one_line(&message) }
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, Fault> {
    // serde's words name the place, not the values.
    serde_json::from_slice(body).map_err(|error| Fault::Garbled(error.to_string()))
}

/// Escapes text for a query's value or one segment of a path.
pub(crate) fn escape(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            // Writing to a String cannot fail.
            _ => drop(write!(out, "%{byte:02X}")),
        }
        out
    })
}

/// `?filters=…` for one filter with these values.
pub(crate) fn filters(key: &str, values: &[&str]) -> String {
    format!("?filters={}", escape(&serde_json::json!({ key: values }).to_string()))
}

/// Dials the engine's socket.
#[derive(Clone)]
struct Connector {
    dialer: Arc<dyn Dialer>,
    host: HostName,
}

impl tower_service::Service<Uri> for Connector {
    type Response = Pipe;
    type Error = DialError;
    type Future = BoxFuture<'static, Result<Pipe, DialError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let dial = self.dialer.dial(self.host.as_str(), Target::DockerApi);
        Box::pin(async move { Ok(Pipe(TokioIo::new(dial.await?))) })
    }
}

/// The dialer's stream as hyper wants it.
struct Pipe(TokioIo<BoxStream>);

impl Connection for Pipe {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl hyper::rt::Read for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl hyper::rt::Write for Pipe {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
