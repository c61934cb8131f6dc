//! Calls from inside: connections that processes of the environment make to its own socket, `/.sprite/api.sock`.
//!
//! The agent is a pipe and understands none of what is said. The host keeps one standing stream
//! ([`Request::Calls`](crate::message::Request::Calls)), on which the agent names every connection
//! ([`CallReply::Call`]); the host takes it with a stream of its own
//! ([`Request::Take`](crate::message::Request::Take)), whose bytes are [`FrameKind::Stdout`](crate::FrameKind) from
//! the connection and [`FrameKind::Stdin`](crate::FrameKind) to it; a Fin is the end of one direction. Where nobody
//! takes a call in time, its connection is closed.
//!
//! A second standing stream takes the place of the first: the host of the first is gone, or slept meanwhile.

use serde::{Deserialize, Serialize};

use crate::message::Failure;

/// Where processes of the environment find the socket.
pub const SOCKET: &str = "/.sprite/api.sock";

/// Most connections of one environment at once, waiting or taken; more wait in the kernel's queue.
pub const MOST_CALLS: usize = 64;

/// What the agent says on a standing stream, or on that of one call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum CallReply {
    /// Somebody connected.
    Call {
        /// Names the connection; never used again by this agent.
        call: u64,
    },
    /// The connection is this stream from here on.
    Taken,
    /// The operation could not be done; the last message of its stream.
    Failed(Failure),
}
