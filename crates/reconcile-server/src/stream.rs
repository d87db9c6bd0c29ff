//! `/events`: server-sent events.
//!
//! A stream holds no queue of its own: it asks the board for what comes next when its client has
//! taken what came before. A client that is slow gets less, in whole snapshots; one that takes
//! nothing at all is dropped by its connection.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use prometheus_client::metrics::gauge::Gauge;
use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    time::{Interval, interval},
};
use tokio_util::sync::CancellationToken;

use crate::{
    board::{Board, Position},
    clock,
    routes::App,
};

/// So that both sides and whatever is between them know that the other is there.
const KEEPALIVE: Duration = Duration::from_secs(5);

struct Stream {
    board: Arc<Board>,
    position: Position,
    newest: watch::Receiver<u64>,
    keepalive: Interval,
    stop: CancellationToken,
    _counted: Counted,
    _permit: OwnedSemaphorePermit,
}

/// Counts an open stream.
struct Counted(Gauge);

impl Counted {
    fn new(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Stream {
    async fn next(mut self) -> Option<(Vec<Bytes>, Self)> {
        loop {
            // Marked before asking, so that a change in between is not missed.
            self.newest.borrow_and_update();
            if let Some((position, chunks)) = self.board.next(self.position) {
                self.position = position;
                return Some((chunks, self));
            }
            tokio::select! {
                () = self.stop.cancelled() => return None,
                changed = self.newest.changed() => changed.ok()?,
                _ = self.keepalive.tick() => {
                    let tick = format!("event: tick\ndata: {{\"now\":\"{}\"}}\n\n", clock::now());
                    return Some((vec![Bytes::from(tick)], self));
                }
            }
        }
    }
}

/// Opens a stream.
pub(crate) async fn events(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let Ok(permit) = Arc::clone(&app.streams).try_acquire_owned() else {
        let text = "too many event streams are open\n";
        return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "10")], text)
            .into_response();
    };
    let last_id = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let stream = Stream {
        position: app.board.position(last_id),
        newest: app.board.subscribe(),
        // The first tick comes at once and tells the client what time it is here.
        keepalive: interval(KEEPALIVE),
        stop: app.stop.clone(),
        _counted: Counted::new(app.board.streams()),
        _permit: permit,
        board: Arc::clone(&app.board),
    };
    let chunks = stream::unfold(stream, Stream::next)
        .flat_map(|chunks| stream::iter(chunks.into_iter().map(Ok::<_, std::convert::Infallible>)));
    let kind = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    (kind, Body::from_stream(chunks)).into_response()
}
