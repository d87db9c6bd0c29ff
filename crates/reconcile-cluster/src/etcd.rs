//! etcd through its JSON gateway: watching keys.
//!
//! The gateway speaks JSON over HTTP/1.1 on the client port (Patroni uses the same), with keys and
//! values in base64 and numbers as strings.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use reconcile_core::ports::{EffectError, Retry};
use reconcile_dial::Dialer;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::http::{Endpoint, Open, open};

/// A message longer than this is none.
const MESSAGE_BYTES: usize = 4 << 20;

/// Changes of keys as one member tells them.
pub struct KeyEvents {
    endpoint: Endpoint,
    body: Incoming,
    /// Drives the connection; ends with it.
    _driver: crate::http::Driver,
    rest: BytesMut,
}

/// Follows `keys` at one member: each key by itself.
pub async fn watch_keys(
    dialer: &dyn Dialer,
    member: &Endpoint,
    keys: &[String],
) -> Result<KeyEvents, EffectError> {
    let requests: Vec<String> = keys
        .iter()
        .map(|key| json!({ "create_request": { "key": STANDARD.encode(key) } }).to_string())
        .collect();
    let Open { status, body, driver } =
        open(dialer, member, hyper::Method::POST, "/v3/watch", Some(requests.join("\n")), None)
            .await?;
    if !status.is_success() {
        return Err(failed(member, format!("it answers {status}")));
    }
    Ok(KeyEvents { endpoint: member.clone(), body, _driver: driver, rest: BytesMut::new() })
}

impl KeyEvents {
    /// The next key that was written or deleted. An error ends the stream.
    pub async fn next(&mut self) -> Result<String, EffectError> {
        loop {
            while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line = self.rest.split_to(end + 1);
                match changed(&line) {
                    Ok(Some(key)) => return Ok(key),
                    Ok(None) => {}
                    Err(cause) => return Err(failed(&self.endpoint, cause)),
                }
            }
            let frame: Option<Result<_, hyper::Error>> = self.body.frame().await;
            match frame {
                Some(Ok(frame)) => {
                    self.rest.extend(frame.into_data().unwrap_or_else(|_| Bytes::new()));
                }
                Some(Err(error)) => return Err(failed(&self.endpoint, error.to_string())),
                None => return Err(failed(&self.endpoint, "it ended the watch".to_owned())),
            }
            if self.rest.len() > MESSAGE_BYTES {
                return Err(failed(&self.endpoint, "a message has no end".to_owned()));
            }
        }
    }
}

fn failed(member: &Endpoint, cause: String) -> EffectError {
    let attempt = format!("watch etcd's keys at {}:{}", member.address, member.port);
    EffectError::new(Some(&member.host), attempt, cause, Retry::Later)
}

/// The first key of a message; None for one without.
fn changed(line: &[u8]) -> Result<Option<String>, String> {
    #[derive(Deserialize)]
    struct Message {
        result: Option<Answer>,
        error: Option<Value>,
    }
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        canceled: bool,
        #[serde(default)]
        events: Vec<Change>,
    }
    #[derive(Deserialize)]
    struct Change {
        kv: Option<Pair>,
    }
    #[derive(Deserialize)]
    struct Pair {
        key: String,
    }
    let message: Message = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    if let Some(error) = message.error {
        return Err(error["message"].as_str().map_or_else(|| error.to_string(), str::to_owned));
    }
    let Some(answer) = message.result else { return Ok(None) };
    if answer.canceled {
        return Err("it cancelled the watch".to_owned());
    }
    let key = answer.events.into_iter().find_map(|change| change.kv).map(|pair| pair.key);
    Ok(key.map(|key| {
        STANDARD.decode(&key).ok().and_then(|key| String::from_utf8(key).ok()).unwrap_or(key)
    }))
}

#[cfg(test)]
mod tests {
    use super::changed;

    #[test]
    fn a_message_names_its_key_or_is_an_error() {
        let created = br#"{"result":{"header":{"revision":"76"},"watch_id":"1","created":true}}"#;
        assert_eq!(changed(created), Ok(None));
        let put = br#"{"result":{"header":{},"events":[{"kv":{"key":"Zm9v","value":"Mg=="}}]}}"#;
        assert_eq!(changed(put), Ok(Some("foo".to_owned())));
        let gone = br#"{"result":{"header":{},"events":[{"type":"DELETE","kv":{"key":"Zm9v"}}]}}"#;
        assert_eq!(changed(gone), Ok(Some("foo".to_owned())));
        let error = br#"{"error":{"grpc_code":14,"message":"etcdserver: no leader"}}"#;
        assert_eq!(changed(error), Err("etcdserver: no leader".to_owned()));
        let cancelled = br#"{"result":{"canceled":true}}"#;
        assert!(changed(cancelled).is_err());
        assert!(changed(b"<html>").is_err());
    }
}
