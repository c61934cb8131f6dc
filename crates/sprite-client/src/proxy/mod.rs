//! Connections to ports of a sprite. Source: behaviour reference §1.6.

mod connection;
mod forward;

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

pub use connection::Connection;
pub use forward::{Forward, Refused};

use crate::error::Error;
use crate::exec::upgrade::{self, Upgraded};
use crate::sprite::Sprite;

/// How long the server may take to connect.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// Names the address in the answer of a server that reads in the query where to connect to, which saves a message and
/// its answer.
const TARGET: &str = "sprite-proxy-target";

/// Why there is no connection to a port.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The server was not reached, or did not take the call.
    #[error(transparent)]
    Call(#[from] Error),
    /// The server did, and the port did not take the connection.
    #[error("{message}")]
    Refused {
        /// The code for programs: `connection_refused` if nobody listens.
        code: String,
        /// The text for people.
        message: String,
    },
}

#[derive(Deserialize)]
struct Answer {
    status: String,
    #[serde(default)]
    target: String,
    #[serde(default)]
    half_close: bool,
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    message: Option<String>,
}

fn refused(error: Error) -> ConnectError {
    match error.refusal() {
        Some(refusal) if refusal.code == "connection_refused" => ConnectError::Refused {
            code: refusal.code.clone(),
            message: refusal.message.clone(),
        },
        _ => ConnectError::Call(error),
    }
}

/// Connects to a port of a sprite.
pub(crate) async fn connect(
    sprite: &Sprite,
    host: &str,
    port: u16,
) -> Result<Connection, ConnectError> {
    let target = sprite.target()?.path("/proxy");
    let target = target
        .param("host", host)
        .param("port", &port.to_string())
        .param("half_close", "true");
    let Upgraded {
        mut socket,
        headers,
    } = upgrade::upgrade(sprite.client(), target)
        .await
        .map_err(refused)?;
    let connected = headers.get(TARGET).and_then(|target| target.to_str().ok());
    if let Some(target) = connected {
        return Ok(Connection::new(socket, target.to_owned(), true));
    }
    let hello = json!({"host": host, "port": port, "half_close": true});
    let hello = Message::text(hello.to_string());
    let interrupted = |source| {
        ConnectError::Call(Error::Interrupted {
            source: Some(std::sync::Arc::new(source)),
        })
    };
    socket.send(hello).await.map_err(interrupted)?;
    let answer = async {
        while let Some(message) = socket.next().await {
            match message.map_err(interrupted)? {
                Message::Text(text) => return Ok::<_, ConnectError>(text),
                Message::Close(_) => break,
                Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
        Err(Error::Interrupted { source: None }.into())
    };
    let answer = timeout(ANSWER_LIMIT, answer).await.map_err(|_| {
        ConnectError::Call(Error::TimedOut {
            what: "the connection to the port",
            after: ANSWER_LIMIT,
        })
    })??;
    let answer: Answer = serde_json::from_str(&answer)
        .map_err(|source| Error::malformed(format!("the answer to a proxy: {source}")))?;
    if answer.status == "connected" {
        return Ok(Connection::new(socket, answer.target, answer.half_close));
    }
    let code = answer.error.unwrap_or(answer.status);
    Err(ConnectError::Refused {
        message: answer.message.unwrap_or_else(|| code.clone()),
        code,
    })
}
