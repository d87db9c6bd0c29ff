//! Patroni's REST interface over a dialed stream: what a primary says of its standbys.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, Uri, client::conn::http1::handshake, header::HOST};
use hyper_util::rt::TokioIo;
use reconcile_core::{
    model::{HostName, ReplicationFact},
    ports::{EffectError, Retry},
};
use reconcile_dial::{Dialer, Target};
use serde::Deserialize;

const ANSWER: Duration = Duration::from_secs(5);
const ANSWER_BYTES: usize = 1 << 20;

/// The standbys that stream from the member at `base` (such as `http://192.0.2.11:8008`), which
/// only a primary knows of; empty for a replica.
pub async fn replication(
    dialer: &dyn Dialer,
    host: &HostName,
    base: &str,
) -> Result<Vec<ReplicationFact>, EffectError> {
    #[derive(Deserialize)]
    struct Member {
        #[serde(default)]
        replication: Vec<Standby>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Standby {
        application_name: String,
        client_addr: String,
        state: String,
        sync_state: String,
    }
    let attempt = format!("ask Patroni on {host} for its standbys");
    let fail = |(cause, retry)| EffectError::new(Some(host), &attempt, cause, retry);
    let late = (format!("no answer within {} s", ANSWER.as_secs()), Retry::Later);
    let body = tokio::time::timeout(ANSWER, get(dialer, host, base, "/patroni"))
        .await
        .unwrap_or(Err(late))
        .map_err(fail)?;
    let member: Member = serde_json::from_slice(&body).map_err(|error| {
        fail((format!("the answer is not understood: {error}"), Retry::AfterChange))
    })?;
    let fact = |standby: Standby| ReplicationFact {
        application_name: standby.application_name,
        address: standby.client_addr,
        state: standby.state,
        sync_state: standby.sync_state,
    };
    Ok(member.replication.into_iter().map(fact).collect())
}

/// `GET path`; the body counts whatever the status, as Patroni tells a role by the status alone.
async fn get(
    dialer: &dyn Dialer,
    host: &HostName,
    base: &str,
    path: &str,
) -> Result<Bytes, (String, Retry)> {
    let wrong = |_| (format!("{base} is no URL of Patroni"), Retry::AfterChange);
    let uri: Uri = base.parse().map_err(wrong)?;
    let address = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let target = Target::Tcp { host: address, port: uri.port_u16().unwrap_or(80) };
    let stream = dialer
        .dial(host.as_str(), target)
        .await
        .map_err(|error| (error.to_string(), Retry::Later))?;
    let broken = |error: hyper::Error| (error.to_string(), Retry::Soon);
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let request = Request::get(path)
        .header(HOST, authority)
        .body(Empty::<Bytes>::new())
        .map_err(|error| (error.to_string(), Retry::AfterChange))?;
    // Driven by itself, since the answer may still be read when the connection has ended; it ends
    // with the sender.
    tokio::spawn(async { drop(connection.await) });
    let response = sender.send_request(request).await.map_err(broken)?;
    let body = Limited::new(response.into_body(), ANSWER_BYTES).collect().await;
    body.map(http_body_util::Collected::to_bytes).map_err(|error| (error.to_string(), Retry::Soon))
}
