//! The upgrade of a request. Source: RFC 6455 §4.2.

use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use sha1::{Digest, Sha1};
use sprite_api::ErrorKind;
use tokio::time::timeout;

use crate::problem::Problem;

/// How long the connection may take to become a WebSocket once it was answered.
const UPGRADE_WITHIN: Duration = Duration::from_secs(10);

/// A request to go on as a WebSocket, not answered yet.
pub(crate) struct Upgrade {
    accept: HeaderValue,
    connection: OnUpgrade,
}

impl Upgrade {
    /// The upgrade that a request asks for; `None` if it asks for none.
    ///
    /// # Errors
    /// It asks for one that RFC 6455 does not know.
    pub(crate) fn of(parts: &mut Parts) -> Result<Option<Self>, Problem> {
        let websocket = has_token(&parts.headers, &header::UPGRADE, "websocket");
        if !websocket || !has_token(&parts.headers, &header::CONNECTION, "upgrade") {
            return Ok(None);
        }
        let version = parts.headers.get(header::SEC_WEBSOCKET_VERSION);
        if version.is_none_or(|version| version != "13") {
            return Err(Problem::new(
                ErrorKind::UpgradeRequired,
                "only WebSocket version 13 is spoken",
            )
            .with_header(header::SEC_WEBSOCKET_VERSION, "13"));
        }
        let key = parts
            .headers
            .get(header::SEC_WEBSOCKET_KEY)
            .ok_or_else(|| {
                Problem::new(ErrorKind::Invalid, "header Sec-WebSocket-Key is missing")
            })?;
        let accept = accept_key(key.as_bytes());
        let connection = parts.extensions.remove::<OnUpgrade>().ok_or_else(|| {
            Problem::new(ErrorKind::Invalid, "this connection cannot be upgraded")
        })?;
        Ok(Some(Self { accept, connection }))
    }

    /// The upgrade of a request that has no other meaning; `what` names it for people.
    ///
    /// # Errors
    /// It asks for none, or for one that RFC 6455 does not know.
    pub(crate) fn required(parts: &mut Parts, what: &str) -> Result<Self, Problem> {
        let missing = || {
            let message = format!("{what} needs a WebSocket upgrade");
            Problem::new(ErrorKind::UpgradeRequired, message)
        };
        Self::of(parts)?.ok_or_else(missing)
    }

    /// The connection, once the answer is on its way; `None` if the client is gone or does not take it.
    pub(crate) async fn connected(self) -> Option<TokioIo<Upgraded>> {
        let connected = timeout(UPGRADE_WITHIN, self.connection).await;
        connected.ok()?.ok().map(TokioIo::new)
    }

    /// The answer, behind which the connection is a WebSocket.
    pub(crate) fn response(&self) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, self.accept.clone());
        response
    }
}

fn accept_key(key: &[u8]) -> HeaderValue {
    // The constant of RFC 6455 §1.3.
    const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let hash = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    let text = data_encoding::BASE64.encode(&hash);
    HeaderValue::from_str(&text).expect("base64 is a legal header value")
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|part| part.trim().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6455 §1.3: the example.
    #[test]
    fn the_key_is_answered_as_in_the_standard() {
        assert_eq!(
            accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }

    #[test]
    fn tokens_are_found_in_lists() {
        let mut headers = HeaderMap::new();
        headers.append(
            header::CONNECTION,
            HeaderValue::from_static("keep-alive, Upgrade"),
        );
        assert!(has_token(&headers, &header::CONNECTION, "upgrade"));
        assert!(!has_token(&headers, &header::UPGRADE, "websocket"));
    }
}
