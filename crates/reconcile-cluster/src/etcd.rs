//! etcd over HTTP/1.1 on its client port: watching Patroni's keys.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use reconcile_core::ports::{EffectError, Retry};
use reconcile_dial::Dialer;
use serde::Deserialize;

use crate::http::{Endpoint, Open, open};

/// A message longer than this is none.
const MESSAGE_BYTES: usize = 4 << 20;
/// The leader writes its key at least every 20 s (`loop_wait` of the slowest profile is 10 s), so a
/// stream without a word for this long has died, or nobody leads.
const SILENCE: Duration = Duration::from_secs(30);

/// Changes of keys as one member tells them.
pub struct KeyEvents {
    endpoint: Endpoint,
    body: Incoming,
    /// Drives the connection; ends with it.
    _driver: crate::http::Driver,
    rest: BytesMut,
    keys: Vec<String>,
}

/// Follows `keys` of the directory `directory` at one member. Keys of etcd's v2 interface, which is
/// the one that Patroni uses (see `reconcile_core::desired::patroni`).
pub async fn watch_keys(
    dialer: &dyn Dialer,
    member: &Endpoint,
    directory: &str,
    keys: &[&'static str],
) -> Result<KeyEvents, EffectError> {
    let path = format!("/v2/keys{directory}?wait=true&recursive=true&stream=true");
    let Open { status, body, driver } =
        open(dialer, member, hyper::Method::GET, &path, None, None).await?;
    if !status.is_success() {
        return Err(failed(member, format!("it answers {status}")));
    }
    let keys = keys.iter().map(|key| format!("{directory}/{key}")).collect();
    Ok(KeyEvents { endpoint: member.clone(), body, _driver: driver, rest: BytesMut::new(), keys })
}

impl KeyEvents {
    /// The next key whose value changed or that came or went. An error ends the stream.
    pub async fn next(&mut self) -> Result<String, EffectError> {
        loop {
            while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line = self.rest.split_to(end + 1);
                match changed(&line) {
                    Ok(Some(key)) if self.keys.contains(&key) => return Ok(key),
                    Ok(_) => {}
                    Err(cause) => return Err(failed(&self.endpoint, cause)),
                }
            }
            let heard = tokio::time::timeout(SILENCE, self.body.frame()).await;
            let Ok(frame): Result<Option<Result<_, hyper::Error>>, _> = heard else {
                let cause = format!("silent for {} s", SILENCE.as_secs());
                return Err(failed(&self.endpoint, cause));
            };
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

/// The key of a message, unless its value stayed: a leader writes its name again in each round.
fn changed(line: &[u8]) -> Result<Option<String>, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Line {
        action: Option<String>,
        node: Option<Node>,
        prev_node: Option<Node>,
        message: Option<String>,
    }
    #[derive(Deserialize)]
    struct Node {
        key: String,
        value: Option<String>,
    }
    let told: Line = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let (Some(_), Some(node)) = (told.action, told.node) else {
        return Err(told.message.unwrap_or_else(|| "it tells no change".to_owned()));
    };
    let before = told.prev_node.and_then(|node| node.value);
    // What was deleted or ran out has no value any more.
    let stayed = before.is_some() && before == node.value;
    Ok((!stayed).then_some(node.key))
}

#[cfg(test)]
mod tests {
    use super::changed;

    #[test]
    fn a_message_names_its_key_or_is_an_error() {
        let key = |line: &str| changed(line.as_bytes());
        let again = r#"{"action":"compareAndSwap","node":{"key":"/service/main/leader","value":"node1"},"prevNode":{"key":"/service/main/leader","value":"node1"}}"#;
        assert_eq!(key(again), Ok(None));
        let other = r#"{"action":"create","node":{"key":"/service/main/leader","value":"node2"}}"#;
        assert_eq!(key(other), Ok(Some("/service/main/leader".to_owned())));
        let gone = r#"{"action":"expire","node":{"key":"/service/main/leader"},"prevNode":{"key":"/service/main/leader","value":"node2"}}"#;
        assert_eq!(key(gone), Ok(Some("/service/main/leader".to_owned())));
        let error = r#"{"errorCode":300,"message":"Raft Internal Error","cause":"","index":0}"#;
        assert_eq!(key(error), Err("Raft Internal Error".to_owned()));
        assert!(changed(b"<html>").is_err());
    }
}
