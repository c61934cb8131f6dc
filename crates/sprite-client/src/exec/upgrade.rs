//! From a request to a WebSocket. Source: RFC 6455 §4.1.

use bytes::BytesMut;
use hyper::header::{CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY};
use hyper::header::{SEC_WEBSOCKET_VERSION, UPGRADE};
use hyper::{HeaderMap, Method, StatusCode};
use tokio::time::{Instant, sleep};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::link::Socket;
use super::request::{read_head, read_refusal, send_head};
use crate::client::{Call, Client, STARTING_LIMIT, starting_pause};
use crate::error::{ApiError, Error};
use crate::url::Target;

/// Largest message that is accepted. Source: behaviour reference §1.4.4 rule 7.
const MESSAGE_LIMIT: usize = 10 << 20;

/// Signals may be sent over the socket.
pub(crate) const SIGNAL: &str = "signal";

/// An open WebSocket and what the server said about it.
pub(crate) struct Upgraded {
    pub(crate) socket: Socket,
    pub(crate) headers: HeaderMap,
}

impl Upgraded {
    /// Whether the server named that one in `X-Sprite-Capabilities`.
    pub(crate) fn can(&self, capability: &str) -> bool {
        has(&self.headers, capability)
    }
}

/// Opens a WebSocket at `target`. "The sprite is starting" is waited out as for other calls.
pub(crate) async fn upgrade(client: &Client, target: Target) -> Result<Upgraded, Error> {
    let give_up = Instant::now() + STARTING_LIMIT;
    loop {
        match try_upgrade(client, target.clone()).await? {
            Ok(upgraded) => return Ok(upgraded),
            Err(refusal) => match starting_pause(&refusal) {
                Some(pause) if Instant::now() + pause <= give_up => sleep(pause).await,
                Some(_) | None => return Err(refusal.into()),
            },
        }
    }
}

async fn try_upgrade(client: &Client, target: Target) -> Result<Result<Upgraded, ApiError>, Error> {
    let key = generate_key();
    let mut call = Call::new(Method::GET, target);
    let header = HeaderValue::try_from(key.as_str()).expect("base64 is printable");
    call.headers = HeaderMap::from_iter([
        (CONNECTION, HeaderValue::from_static("Upgrade")),
        (UPGRADE, HeaderValue::from_static("websocket")),
        (SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")),
        (SEC_WEBSOCKET_KEY, header),
    ]);
    let mut io = client.connector().connect().await?;
    send_head(client, &call, &mut io).await?;
    let mut buffer = BytesMut::new();
    let (status, headers) = read_head(client, &mut io, &mut buffer).await?;
    if status != StatusCode::SWITCHING_PROTOCOLS {
        if status.is_success() {
            return Err(Error::malformed(
                "the server, or something before it, knows no WebSockets",
            ));
        }
        return Ok(Err(read_refusal(
            &call,
            status,
            &headers,
            &mut io,
            &mut buffer,
        )
        .await));
    }
    let accepted = headers.get(SEC_WEBSOCKET_ACCEPT);
    if accepted.is_none_or(|value| value.as_bytes() != derive_accept_key(key.as_bytes()).as_bytes())
    {
        return Err(Error::malformed(
            "the WebSocket was accepted for another request",
        ));
    }
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_LIMIT))
        .max_frame_size(Some(MESSAGE_LIMIT));
    let read_already = buffer.to_vec();
    let socket =
        WebSocketStream::from_partially_read(io, read_already, Role::Client, Some(config)).await;
    Ok(Ok(Upgraded { socket, headers }))
}

fn has(headers: &HeaderMap, wanted: &str) -> bool {
    let named = headers.get_all("x-sprite-capabilities").iter();
    named.filter_map(|value| value.to_str().ok()).any(|value| {
        value
            .split([',', ' '])
            .any(|capability| capability.eq_ignore_ascii_case(wanted))
    })
}
