//! WebSockets as a server speaks them (RFC 6455), without extensions.
//!
//! Written for streams: what a machine said goes from the link's buffer to the socket without being copied,
//! many frames in one vectored write, and nothing is queued that is not about to be written.

mod frame;
mod handshake;
mod reader;
mod writer;

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf};
use tokio::time::timeout;

pub(crate) use frame::Violation;
pub(crate) use handshake::Upgrade;
pub(crate) use reader::{Message, ReadError, Reader};
pub(crate) use writer::Writer;

/// How long a client may take for each step of the closing handshake.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// Both halves of a WebSocket.
#[derive(Debug)]
pub(crate) struct Socket<S> {
    pub(crate) reader: Reader<ReadHalf<S>>,
    pub(crate) writer: Writer<WriteHalf<S>>,
}

/// Whether the client has said goodbye.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goodbye {
    Said,
    /// Not within the time, or the connection is gone.
    Unsaid,
    Gone,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    pub(crate) fn new(io: S) -> Self {
        Self::with_most(io, reader::MAX_MESSAGE)
    }

    /// A socket whose client may send messages of so many bytes at most.
    pub(crate) fn with_most(io: S, most: usize) -> Self {
        let (read, write) = tokio::io::split(io);
        Self {
            reader: Reader::new(read, most),
            writer: Writer::new(write),
        }
    }

    /// Writes what is queued, however long the client takes to read it, unless it goes away meanwhile.
    pub(crate) async fn deliver(&mut self) -> Goodbye {
        let mut said = Goodbye::Unsaid;
        // One answer is enough to show life, and pings of a client that never reads must not pile up.
        let mut answered = false;
        loop {
            tokio::select! {
                biased;
                flushed = self.writer.flush() => match flushed {
                    Ok(()) => return said,
                    Err(_) => return Goodbye::Gone,
                },
                message = self.reader.next(), if said == Goodbye::Unsaid => match message {
                    Ok(Message::Close(_)) => said = Goodbye::Said,
                    Ok(Message::Ping(payload)) if !answered => {
                        answered = true;
                        self.writer.pong(payload);
                    }
                    Ok(Message::Text(_) | Message::Binary(_) | Message::Ping(_)) => {}
                    Err(_) => return Goodbye::Gone,
                },
            }
        }
    }

    /// Waits for the client's Close, and answers its pings meanwhile.
    pub(crate) async fn await_close(&mut self, limit: Duration) -> Goodbye {
        let wait = async {
            loop {
                match self.reader.next().await {
                    Ok(Message::Close(_)) => return Goodbye::Said,
                    Ok(Message::Ping(payload)) => {
                        self.writer.pong(payload);
                        if self.writer.flush().await.is_err() {
                            return Goodbye::Gone;
                        }
                    }
                    Ok(Message::Text(_) | Message::Binary(_)) => {}
                    Err(_) => return Goodbye::Gone,
                }
            }
        };
        timeout(limit, wait).await.unwrap_or(Goodbye::Unsaid)
    }

    /// The closing handshake to its end: our Close, the client's, then the connection, which the client ends
    /// first if it can. Dropping it right behind our Close makes clients report an error.
    ///
    /// Source: behaviour reference §1.4.4 rule 3, §8.
    pub(crate) async fn close(mut self, goodbye: Goodbye, code: u16, reason: &str) {
        if goodbye == Goodbye::Gone {
            return;
        }
        self.writer.close(code, reason);
        if !matches!(timeout(CLOSE_WITHIN, self.writer.flush()).await, Ok(Ok(()))) {
            return;
        }
        if goodbye == Goodbye::Unsaid && self.await_close(CLOSE_WITHIN).await == Goodbye::Gone {
            return;
        }
        if matches!(
            timeout(CLOSE_WITHIN, self.writer.shutdown()).await,
            Ok(Ok(()))
        ) {
            // Over: whether the client ends its side in time changes nothing any more.
            let _ = timeout(CLOSE_WITHIN, self.reader.drain()).await;
        }
    }
}
