//! From a request to a WebSocket.

use hyper::header::{CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY};
use hyper::header::{SEC_WEBSOCKET_VERSION, UPGRADE};
use hyper::{HeaderMap, Method, StatusCode};
use std::sync::Arc;

use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::link::Socket;
use crate::client::{Call, Client};
use crate::connect::Pooled;
use crate::error::Error;
use crate::url::Target;

/// Largest message that is accepted. Source: behaviour reference §1.4.4 rule 7.
const MESSAGE_LIMIT: usize = 10 << 20;

/// An open WebSocket and what the server said about it.
pub(super) struct Upgraded {
    pub(super) socket: Socket,
    /// Whether signals may be sent over it (`X-Sprite-Capabilities: signal`).
    pub(super) signals: bool,
}

/// Opens a WebSocket at `target`.
pub(super) async fn upgrade(client: &Client, target: Target) -> Result<Upgraded, Error> {
    let key = generate_key();
    let mut call = Call::new(Method::GET, target);
    let header = HeaderValue::try_from(key.as_str()).expect("base64 is printable");
    call.headers = HeaderMap::from_iter([
        (CONNECTION, HeaderValue::from_static("Upgrade")),
        (UPGRADE, HeaderValue::from_static("websocket")),
        (SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")),
        (SEC_WEBSOCKET_KEY, header),
    ]);
    let response = client.send(&call).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        if response.status().is_success() {
            return Err(Error::malformed(
                "the server, or something before it, knows no WebSockets",
            ));
        }
        return Err(client.refusal(response, &call).await?.into());
    }
    let accepted = response.headers().get(SEC_WEBSOCKET_ACCEPT);
    if accepted.is_none_or(|value| value.as_bytes() != derive_accept_key(key.as_bytes()).as_bytes())
    {
        return Err(Error::malformed(
            "the WebSocket was accepted for another request",
        ));
    }
    let signals = has_signals(response.headers());
    let broken = |source| Error::Interrupted {
        source: Some(Arc::new(source)),
    };
    let upgraded = hyper::upgrade::on(response).await.map_err(broken)?;
    let parts = upgraded
        .downcast::<Pooled>()
        .map_err(|_| Error::malformed("the connection is not one that this client made"))?;
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_LIMIT))
        .max_frame_size(Some(MESSAGE_LIMIT));
    let (io, read_already) = (parts.io.0.into_inner(), parts.read_buf.to_vec());
    let socket =
        WebSocketStream::from_partially_read(io, read_already, Role::Client, Some(config)).await;
    Ok(Upgraded { socket, signals })
}

fn has_signals(headers: &HeaderMap) -> bool {
    let named = headers.get_all("x-sprite-capabilities").iter();
    named.filter_map(|value| value.to_str().ok()).any(|value| {
        value
            .split([',', ' '])
            .any(|capability| capability.eq_ignore_ascii_case("signal"))
    })
}
