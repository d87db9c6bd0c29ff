//! Hints from an engine's event stream: where to look again, never what is there.
//!
//! Task states are no events, and after a reconnect some are lost: whoever follows must look at
//! the Swarm from time to time all the same.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::BytesMut;
use futures::Stream;
use hyper::body::{Body, Incoming};
use serde::Deserialize;

use crate::{
    engine::{Engine, filters},
    fault::Fault,
    wire::lenient,
};

const TYPES: &[&str] = &["service", "node", "secret", "config", "network", "container"];
/// A line longer than this is no event.
const LINE_BYTES: usize = 1 << 20;

/// Something may have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint {
    /// Kind of object: `service`, `node`, `secret`, `config`, `network`, `container`.
    pub kind: String,
    /// Its name, or its id where the engine tells no name.
    pub name: String,
    /// What happened, in the engine's word.
    pub action: String,
}

/// A stream of [`Hint`]s. It ends when the connection does.
#[derive(Debug)]
pub struct Hints {
    body: Incoming,
    rest: BytesMut,
}

/// Starts to follow.
pub(crate) async fn follow(engine: &Engine) -> Result<Hints, Fault> {
    let body = engine.stream(&format!("/events{}", filters("type", TYPES))).await?;
    Ok(Hints { body, rest: BytesMut::new() })
}

impl Hints {
    /// The next hint among the bytes at hand. What is not understood is passed over.
    fn take(&mut self) -> Option<Hint> {
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line = self.rest.split_to(end + 1);
            if let Some(hint) = hint(&line) {
                return Some(hint);
            }
        }
        None
    }
}

impl Stream for Hints {
    type Item = Hint;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Hint>> {
        loop {
            if let Some(hint) = self.take() {
                return Poll::Ready(Some(hint));
            }
            if self.rest.len() > LINE_BYTES {
                return Poll::Ready(None);
            }
            match futures::ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.rest.extend_from_slice(data);
                    }
                }
                Some(Err(_)) | None => return Poll::Ready(None),
            }
        }
    }
}

fn hint(line: &[u8]) -> Option<Hint> {
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "PascalCase")]
    struct Event {
        r#type: String,
        action: String,
        #[serde(deserialize_with = "lenient")]
        actor: Actor,
    }
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "PascalCase")]
    struct Actor {
        #[serde(rename = "ID")]
        id: String,
        #[serde(deserialize_with = "lenient")]
        attributes: Attributes,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Attributes {
        name: String,
        #[serde(rename = "com.docker.swarm.service.name")]
        service: String,
    }
    let event: Event = serde_json::from_slice(line).ok()?;
    // Health checks and `docker exec` say nothing about the Swarm, and say it often.
    if event.r#type.is_empty() || event.action.starts_with("exec_") {
        return None;
    }
    let Attributes { name, service } = event.actor.attributes;
    let name = [service, name, event.actor.id].into_iter().find(|name| !name.is_empty())?;
    Some(Hint { kind: event.r#type, name, action: event.action })
}
