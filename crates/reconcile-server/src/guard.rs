//! Who may ask, and what every answer carries.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use crate::{options::Token, routes::App};

/// The page itself, which holds no facts, and what probes and webhooks call without a token.
const OPEN: [&str; 4] = ["/", "/healthz", "/readyz", "/reconcile"];

/// True where `given` is the token; takes as long whatever is wrong.
fn is_token(token: &Token, given: &[u8]) -> bool {
    let tag =
        |key: &[u8]| Hmac::<Sha256>::new_from_slice(key).ok().map(|mac| mac.chain_update("t"));
    match (tag(token.bytes()), tag(given)) {
        (Some(own), Some(given)) => own.verify_slice(&given.finalize().into_bytes()).is_ok(),
        _ => false,
    }
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
}

/// True where a `Host` is this machine by name: a page of another site that made its own name
/// resolve to loopback names itself there.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn hosts_allowed(request: &Request) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let one = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().is_ok_and(is_loopback),
        _ => false,
    };
    one && request.uri().authority().is_none_or(|authority| is_loopback(authority.as_str()))
}

fn refuse(app: &App, request: &Request) -> Option<Response> {
    if app.loopback && !hosts_allowed(request) {
        app.refusals.note("a request that names another host");
        let text = "this address answers only as localhost\n";
        return Some((StatusCode::MISDIRECTED_REQUEST, text).into_response());
    }
    let token = app.token.as_ref().filter(|_| !OPEN.contains(&request.uri().path()))?;
    if bearer(request.headers()).is_some_and(|given| is_token(token, given)) {
        return None;
    }
    app.refusals.note("a request without the bearer token");
    let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
    Some((StatusCode::UNAUTHORIZED, challenge, "a bearer token is needed\n").into_response())
}

/// Refuses, or lets through; then marks the answer.
pub(crate) async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let mut response = match refuse(&app, &request) {
        Some(refusal) => refusal,
        None => next.run(request).await,
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (header::HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_by_name_only() {
        for host in ["localhost", "LOCALHOST:1", "127.0.0.1:7432", "127.9.9.9", "[::1]:80", "[::1]"]
        {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example:7432", "10.0.0.1", "[::2]:1", "", ":1"]
        {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn tokens() {
        let token = Token::new("0123456789abcdef\n").expect("long enough");
        assert!(is_token(&token, b"0123456789abcdef"));
        for wrong in [&b""[..], b"0123456789abcde", b"0123456789abcdef0", b"0123456789abcdeF"] {
            assert!(!is_token(&token, wrong));
        }
        assert!(Token::new("short").is_err());
        assert_eq!(format!("{token:?}"), "Token(redacted)");
    }
}
