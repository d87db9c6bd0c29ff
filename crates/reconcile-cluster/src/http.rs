//! One HTTP exchange over a dialed stream: Patroni's REST interface and a router's statistics.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, StatusCode, body::Incoming, client::conn::http1::handshake};
use hyper_util::rt::TokioIo;
use reconcile_core::{
    model::{HostName, SecretText},
    ports::{EffectError, Retry},
};
use reconcile_dial::{Dialer, Target};

/// Patroni answers a switchover only after it is done.
const ANSWER: Duration = Duration::from_secs(30);
const ANSWER_BYTES: usize = 1 << 20;

/// Where to ask.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Server through which to dial.
    pub host: HostName,
    /// Address as that server dials it.
    pub address: String,
    /// Port.
    pub port: u16,
}

/// User and password for basic authentication.
pub type Login = (String, SecretText);

/// Drives a connection until it is dropped.
pub(crate) struct Driver(tokio::task::JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// An answer that has begun.
pub(crate) struct Open {
    pub(crate) status: StatusCode,
    pub(crate) body: Incoming,
    pub(crate) driver: Driver,
}

/// Sends one request and gives status and body.
pub async fn exchange(
    dialer: &dyn Dialer,
    endpoint: &Endpoint,
    method: Method,
    path: &str,
    body: Option<String>,
    login: Option<&Login>,
) -> Result<(StatusCode, Bytes), EffectError> {
    let attempt = attempt(&method, path, endpoint);
    let work = async {
        let Open { status, body, driver: _driving } =
            send(dialer, endpoint, method, path, body, login).await?;
        let body = Limited::new(body, ANSWER_BYTES).collect().await.map_err(|error| {
            EffectError::new(Some(&endpoint.host), &attempt, error.to_string(), Retry::Soon)
        })?;
        Ok((status, body.to_bytes()))
    };
    within(work, endpoint, &attempt).await
}

/// Sends one request and gives its answer as it begins.
pub(crate) async fn open(
    dialer: &dyn Dialer,
    endpoint: &Endpoint,
    method: Method,
    path: &str,
    body: Option<String>,
    login: Option<&Login>,
) -> Result<Open, EffectError> {
    let attempt = attempt(&method, path, endpoint);
    within(send(dialer, endpoint, method, path, body, login), endpoint, &attempt).await
}

fn attempt(method: &Method, path: &str, endpoint: &Endpoint) -> String {
    format!("{method} {path} at {}:{}", endpoint.address, endpoint.port)
}

async fn within<T>(
    work: impl Future<Output = Result<T, EffectError>>,
    endpoint: &Endpoint,
    attempt: &str,
) -> Result<T, EffectError> {
    tokio::time::timeout(ANSWER, work).await.unwrap_or_else(|_| {
        let cause = format!("no answer within {} s", ANSWER.as_secs());
        Err(EffectError::new(Some(&endpoint.host), attempt, cause, Retry::Later))
    })
}

async fn send(
    dialer: &dyn Dialer,
    endpoint: &Endpoint,
    method: Method,
    path: &str,
    body: Option<String>,
    login: Option<&Login>,
) -> Result<Open, EffectError> {
    let attempt = attempt(&method, path, endpoint);
    let fail =
        |cause: String, retry| EffectError::new(Some(&endpoint.host), &attempt, cause, retry);
    let target = Target::Tcp { host: endpoint.address.clone(), port: endpoint.port };
    let stream = dialer
        .dial(endpoint.host.as_str(), target)
        .await
        .map_err(|error| fail(error.to_string(), Retry::Later))?;
    let (mut sender, connection) = handshake(TokioIo::new(stream))
        .await
        .map_err(|error| fail(error.to_string(), Retry::Soon))?;
    // The connection must be driven while the answer is awaited. Patroni closes it with the
    // answer, so its end is no news; a broken one shows as an error of the answer.
    let driver = Driver(tokio::spawn(async { drop(connection.await) }));
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", format!("{}:{}", endpoint.address, endpoint.port));
    if let Some((user, password)) = login {
        let credentials = STANDARD.encode(format!("{user}:{}", password.expose()));
        request = request.header("authorization", format!("Basic {credentials}"));
    }
    if body.is_some() {
        request = request.header("content-type", "application/json");
    }
    let request = request
        .body(Full::new(Bytes::from(body.unwrap_or_default())))
        .map_err(|error| fail(error.to_string(), Retry::AfterChange))?;
    let response =
        sender.send_request(request).await.map_err(|error| fail(error.to_string(), Retry::Soon))?;
    Ok(Open { status: response.status(), body: response.into_body(), driver })
}

/// Servers of a backend that HAProxy's statistics (`/;csv`) call up.
pub fn servers_up(csv: &str, backend: &str) -> Vec<String> {
    let mut lines = csv.lines();
    let header: Vec<&str> =
        lines.next().unwrap_or_default().trim_start_matches("# ").split(',').collect();
    let Some(status) = header.iter().position(|column| *column == "status") else {
        return Vec::new();
    };
    lines
        .filter_map(|line| {
            let fields: Vec<&str> = line.split(',').collect();
            let (proxy, server) = (fields.first()?, fields.get(1)?);
            let up = fields.get(status)?.starts_with("UP");
            (*proxy == backend && !matches!(*server, "FRONTEND" | "BACKEND") && up)
                .then(|| (*server).to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::servers_up;

    #[test]
    fn up_servers_are_those_of_the_backend_that_are_up() {
        let csv = "# pxname,svname,qcur,status,weight\n\
                   primary,FRONTEND,,OPEN,\nprimary,node1,0,DOWN,1\nprimary,node2,0,UP,1\n\
                   primary,node3,0,UP 1/2,1\nprimary,BACKEND,0,UP,1\nreplicas,node1,0,UP,1\n";
        assert_eq!(servers_up(csv, "primary"), ["node2", "node3"]);
        assert_eq!(servers_up("nonsense", "primary"), Vec::<String>::new());
    }
}
