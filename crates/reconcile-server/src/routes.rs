//! What can be asked for.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    middleware,
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::{board::Board, guard, openapi, options::Token, page, stream, webhook};

/// What requests are answered from.
pub(crate) struct App {
    pub(crate) board: Arc<Board>,
    pub(crate) token: Option<Token>,
    pub(crate) webhook: Option<Token>,
    pub(crate) loopback: bool,
    pub(crate) dirty: mpsc::Sender<()>,
    pub(crate) streams: Arc<Semaphore>,
    pub(crate) pushes: Semaphore,
    pub(crate) stop: CancellationToken,
    pub(crate) refusals: Refusals,
}

/// Logs refusals, at most one a minute: whoever is refused must not fill the log.
#[derive(Default)]
pub(crate) struct Refusals(Mutex<(Option<Instant>, u64)>);

impl Refusals {
    pub(crate) fn note(&self, what: &str) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.0.is_some_and(|at| at.elapsed() < Duration::from_secs(60)) {
            last.1 += 1;
            return;
        }
        match last.1 {
            0 => tracing::warn!("refused {what}"),
            more => tracing::warn!("refused {what}, and {more} more since the last word of it"),
        }
        *last = (Some(Instant::now()), 0);
    }
}

/// The routes.
pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/healthz", get(health))
        .route("/readyz", get(ready))
        .route("/status", get(status))
        .route("/events", get(stream::events))
        .route("/metrics", get(metrics))
        .route("/openapi.json", get(description))
        .route("/reconcile", post(webhook::push))
        .fallback(nothing)
        .layer(middleware::from_fn_with_state(Arc::clone(&app), guard::guard))
        .with_state(app)
}

async fn page() -> Response {
    let page = page::page();
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, page.policy.as_str()),
    ];
    (headers, Bytes::from_static(page.html.as_bytes())).into_response()
}

async fn health(State(app): State<Arc<App>>) -> Response {
    word(app.board.alive())
}

async fn ready(State(app): State<Arc<App>>) -> Response {
    word(app.board.ready())
}

fn word(result: Result<(), String>) -> Response {
    match result {
        Ok(()) => "ok\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, why + "\n").into_response(),
    }
}

async fn status(State(app): State<Arc<App>>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], app.board.status()).into_response()
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], app.board.metrics()).into_response()
}

async fn description() -> Response {
    let json = Bytes::from_static(openapi::json().as_bytes());
    ([(header::CONTENT_TYPE, "application/json")], json).into_response()
}

async fn nothing() -> Response {
    (StatusCode::NOT_FOUND, "nothing is here\n").into_response()
}
