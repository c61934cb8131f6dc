//! Resumable streams.
//!
//! ```text
//!  host                                        agent
//!  Hello{stream, epoch, mode, received} ────▶
//!                                       ◀──── Welcome{status, received}
//!  frames, Fin, Ack, Abort              ◀───▶ frames, Fin, Ack, Abort
//! ```
//!
//! Offsets count the encoded bytes of frames (and of Fin) from the start of the stream, each direction apart.
//! A sender keeps every frame until the other side *consumed* it (Ack) and has at most [`WINDOW`] bytes
//! unacknowledged: this is the replay buffer, the flow control and the bound on memory in one. When a
//! transport breaks, the host connects again and says how far it received; both ends send again from there.
//! Only whole frames count as received, so a frame cut in half is sent again.
//!
//! A **new host process has a new epoch**: it cannot resume what another process began, so the agent gives up
//! all streams of other epochs when it sees one. What a session wrote survives in the session's own buffer.
//!
//! The host sends its first frames right behind the Hello of a new stream, without waiting for the Welcome.

mod agent;
pub(crate) mod connection;
mod host;
pub(crate) mod state;

use std::io;

use tokio::io::{AsyncRead, AsyncWrite};

pub use agent::{Acceptor, Handler, Limits};
pub use connection::HandshakeError;
pub use host::{Connect, open, open_observed};
pub use state::{LinkError, Observe, Receiver, Sender, WINDOW};

/// Any byte stream that a link can run over.
pub trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// A boxed [`Transport`].
pub type BoxedTransport = Box<dyn Transport>;

/// Names a stream for as long as either end remembers it. Random, chosen by the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StreamId(pub u128);

/// Names one run of the host process. Random.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch(pub u64);

/// Both directions of a stream as the operation sees them.
#[derive(Debug)]
pub struct Stream {
    /// What this end sends.
    pub sender: Sender,
    /// What the other end sent.
    pub receiver: Receiver,
}

pub(crate) fn broken(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}
