//! `POST /reconcile`: a Git host says that something was pushed. Its signature is checked; what it
//! says is not read, for a pass looks at everything anyway.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
};
use futures::StreamExt as _;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use tokio::time::timeout;

use crate::{options::Token, routes::App};

/// Git hosts send some kilobytes for a push; with very many commits some hundred.
pub(crate) const MOST: usize = 1 << 20;
/// So many are read at once.
pub(crate) const AT_ONCE: usize = 8;
const PATIENCE: Duration = Duration::from_secs(10);
const SIGNATURE: &str = "x-hub-signature-256";

/// Takes a push in.
pub(crate) async fn push(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Response {
    let Some(secret) = &app.webhook else {
        return (StatusCode::NOT_FOUND, "no webhook is set up\n").into_response();
    };
    let refuse = |code: StatusCode, text: &'static str| {
        app.refusals.note(text);
        app.board.webhook("refused");
        (code, format!("{text}\n")).into_response()
    };
    let mut signatures = headers.get_all(SIGNATURE).iter();
    let signature = match (signatures.next(), signatures.next()) {
        (Some(one), None) => one.to_str().ok().and_then(|text| text.strip_prefix("sha256=")),
        _ => None,
    };
    let Some(signature) = signature.and_then(from_hex) else {
        return refuse(StatusCode::FORBIDDEN, "a webhook without a signature");
    };
    let Ok(_turn) = app.pushes.try_acquire() else {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "a webhook: too many at once");
    };
    match timeout(PATIENCE, signed(secret, body, &signature)).await {
        Ok(Ok(true)) => {}
        Ok(Ok(false)) => return refuse(StatusCode::FORBIDDEN, "a webhook with a wrong signature"),
        Ok(Err(TooLarge)) => {
            return refuse(StatusCode::PAYLOAD_TOO_LARGE, "a webhook that is too large");
        }
        Err(_) => return refuse(StatusCode::REQUEST_TIMEOUT, "a webhook that does not end"),
    }
    // A full channel holds a trigger already.
    let _held = app.dirty.try_send(());
    app.board.webhook("accepted");
    (StatusCode::ACCEPTED, "a pass follows\n").into_response()
}

/// More than [`MOST`], or cut off.
#[derive(Debug, PartialEq)]
struct TooLarge;

/// Whether the body is signed. It is not kept: nobody reads it.
async fn signed(secret: &Token, body: Body, signature: &[u8; 32]) -> Result<bool, TooLarge> {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.bytes()) else { return Ok(false) };
    let (mut chunks, mut size) = (body.into_data_stream(), 0);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| TooLarge)?;
        size += chunk.len();
        if size > MOST {
            return Err(TooLarge);
        }
        mac.update(&chunk);
    }
    Ok(mac.verify_slice(signature).is_ok())
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> = text
        .chars()
        .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()?;
    let bytes: Vec<u8> =
        digits.chunks(2).map(|pair| pair.iter().fold(0, |a, b| a << 4 | b)).collect();
    (digits.len() == 64).then(|| bytes.try_into().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of GitHub's own documentation.
    #[tokio::test]
    async fn documented_signature() {
        let secret = Token::new("It's a Secret to Everybody").expect("long enough");
        let hex = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        let signature = from_hex(hex).expect("hex");
        let ask = async |text: &'static str| signed(&secret, Body::from(text), &signature).await;
        assert_eq!(ask("Hello, World!").await, Ok(true));
        assert_eq!(ask("Hello, World?").await, Ok(false));
        assert_eq!(from_hex(&hex[1..]), None);
        assert_eq!(from_hex(&hex.replace('7', "x")), None);
    }
}
