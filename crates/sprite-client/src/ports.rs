//! The ports on which a sprite's programs listen. Source: behaviour reference §1.7.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::error::Error;
use crate::exec::{Socket, upgrade};
use crate::sprite::Sprite;

/// How long the server may take to tell the ports that there are.
const LIST_LIMIT: Duration = Duration::from_secs(10);
/// How long a watch may be silent before the connection counts as lost. Servers ask every 20 s.
const SILENCE_LIMIT: Duration = Duration::from_secs(90);

/// A port on which a program of a sprite listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
pub struct Port {
    /// Its number.
    pub port: u16,
    /// The address that it is bound to; `0.0.0.0` and `::` are all addresses.
    #[serde(default)]
    pub address: String,
    /// The process that has it, by its id in the sprite; 0 where that is not known.
    #[serde(default)]
    pub pid: u32,
}

/// Something happened to a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortChange {
    /// A program listens on it.
    Opened(Port),
    /// It does not any more.
    Closed(Port),
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum Text {
    #[serde(rename = "port_list")]
    List { ports: Vec<Port> },
    #[serde(rename = "port_opened")]
    Opened(Port),
    #[serde(rename = "port_closed")]
    Closed(Port),
}

/// A text about one port; `None` for every other text.
pub(crate) fn read_change(text: &str) -> Option<PortChange> {
    match serde_json::from_str(text).ok()? {
        Text::Opened(port) => Some(PortChange::Opened(port)),
        Text::Closed(port) => Some(PortChange::Closed(port)),
        Text::List { .. } => None,
    }
}

/// Changes of ports that are told beside the output of a command.
#[derive(Debug)]
pub struct PortChanges(mpsc::Receiver<PortChange>);

impl PortChanges {
    pub(crate) fn new(changes: mpsc::Receiver<PortChange>) -> Self {
        Self(changes)
    }

    /// The next change; `None` when the command is not attached any more.
    ///
    /// # Cancel safety
    /// Safe: no change is lost.
    pub async fn next(&mut self) -> Option<PortChange> {
        self.0.recv().await
    }
}

/// The ports of a sprite as they change. It keeps no sprite awake, and ends when the sprite falls asleep.
#[derive(Debug)]
pub struct Ports {
    socket: Socket,
    list: Vec<Port>,
}

impl Ports {
    pub(crate) async fn open(sprite: &Sprite) -> Result<Self, Error> {
        let target = sprite.target()?.path("/ports/watch");
        let mut socket = upgrade::upgrade(sprite.client(), target).await?.socket;
        let late = Error::TimedOut {
            what: "the list of ports",
            after: LIST_LIMIT,
        };
        let first = timeout(LIST_LIMIT, text(&mut socket)).await;
        let first = first
            .map_err(|_| late)??
            .ok_or(Error::Interrupted { source: None })?;
        match serde_json::from_str(&first) {
            Ok(Text::List { ports }) => Ok(Self {
                socket,
                list: ports,
            }),
            Ok(Text::Opened(_) | Text::Closed(_)) | Err(_) => Err(Error::malformed(
                "the first message of a watch of ports is not their list",
            )),
        }
    }

    /// The ports that there were when the watch began.
    #[must_use]
    pub fn at_first(&self) -> &[Port] {
        &self.list
    }

    /// The next change; `None` when the sprite fell asleep or the server ended the watch.
    ///
    /// # Errors
    /// When the connection broke: changes may have been missed.
    ///
    /// # Cancel safety
    /// Safe: no change is lost.
    pub async fn next(&mut self) -> Result<Option<PortChange>, Error> {
        while let Some(text) = text(&mut self.socket).await? {
            // Texts that are not known are of servers to come.
            if let Some(change) = read_change(&text) {
                return Ok(Some(change));
            }
        }
        Ok(None)
    }
}

/// The next text; `None` at a close.
pub(crate) async fn text(socket: &mut Socket) -> Result<Option<String>, Error> {
    loop {
        let message = timeout(SILENCE_LIMIT, socket.next()).await;
        let message = message.map_err(|_| Error::TimedOut {
            what: "a sign of life from the server",
            after: SILENCE_LIMIT,
        })?;
        match message {
            Some(Ok(Message::Text(text))) => return Ok(Some(text.to_string())),
            Some(Ok(Message::Close(_))) => return Ok(None),
            Some(Ok(
                Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_),
            )) => {}
            Some(Err(source)) => {
                return Err(Error::Interrupted {
                    source: Some(Arc::new(source)),
                });
            }
            None => return Err(Error::Interrupted { source: None }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_told_from_other_texts() {
        let port = || Port {
            port: 3000,
            address: "0.0.0.0".to_owned(),
            pid: 1847,
        };
        let told = r#"{"type":"port_opened","port":3000,"address":"0.0.0.0","pid":1847}"#;
        assert_eq!(read_change(told), Some(PortChange::Opened(port())));
        let told = told.replace("opened", "closed");
        assert_eq!(read_change(&told), Some(PortChange::Closed(port())));
        for other in [
            "",
            "{}",
            r#"{"type":"keepalive"}"#,
            r#"{"type":"port_opened","port":70000}"#,
        ] {
            assert_eq!(read_change(other), None, "{other}");
        }
    }
}
