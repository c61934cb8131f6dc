//! A TCP connection to a port of the environment.
//!
//! The host asks with [`ConnectSpec`]; the agent answers one [`ConnectReply`]. From then on
//! [`FrameKind::Stdin`](crate::FrameKind::Stdin) is what goes to the port and
//! [`FrameKind::Stdout`](crate::FrameKind::Stdout) what comes from it. The end of a direction of the stream is the end
//! of that direction of the connection, each apart. A connection that broke is told by [`ConnectReply::Broken`]
//! behind all that came before; a host that gives the stream up resets the connection.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::message::Failure;

/// Most connections at once in one machine; further ones are refused. What is left of the streams that an agent
/// serves is for everything else.
pub const MOST_CONNECTIONS: usize = 1536;

/// Most unacknowledged bytes of one connection in each direction, when there are few: the whole window of the link.
pub const WINDOW: usize = crate::link::WINDOW;

/// Bytes that all connections of a machine together may have unacknowledged in each direction before each gets less
/// than [`WINDOW`].
const ALL_WINDOWS: usize = 32 << 20;

/// The least that a connection gets: the link acknowledges every eighth of its window, so that twice that always
/// flows.
const LEAST_WINDOW: usize = crate::link::WINDOW / 4;

/// How much one of so many connections may have unacknowledged, in bytes: a thousand whose readers do not read must
/// not hold a thousand whole windows.
#[must_use]
pub fn window(connections: usize) -> usize {
    (ALL_WINDOWS / connections.max(1)).clamp(LEAST_WINDOW, WINDOW)
}

/// Where to connect to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectSpec {
    /// The environment itself: `localhost` or a name below it, its host name, or an address that is its own. An
    /// address that means all addresses means `localhost`.
    pub host: String,
    /// 1 to 65,535.
    pub port: u16,
}

impl ConnectSpec {
    /// Whether the host stands for the environment's loopback addresses, whatever the environment calls itself.
    #[must_use]
    pub fn is_local(&self) -> bool {
        let bare = self
            .host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        if let Ok(address) = bare.unwrap_or(&self.host).parse::<IpAddr>() {
            return address.to_canonical().is_unspecified();
        }
        let name = self.host.trim_end_matches('.').to_ascii_lowercase();
        name.is_empty() || name == "localhost" || name.ends_with(".localhost")
    }
}

/// What the agent answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum ConnectReply {
    /// The connection is there.
    Connected {
        /// To where.
        address: SocketAddr,
    },
    /// Nobody takes the connection; the last message of its stream.
    Refused {
        /// For people: lower-case verb phrase.
        message: String,
    },
    /// The connection broke, behind all bytes that came from it; the last message of its stream.
    Broken {
        /// For people.
        message: String,
    },
    /// The operation could not be done; the last message of its stream.
    Failed(Failure),
}

/// What the host says beside the bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "input", rename_all = "snake_case")]
pub enum ConnectInput {
    /// Nothing more goes to the port, and what it still says is not wanted; behind all bytes for it.
    Close,
}
