//! The client's half of a WebSocket.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::frame::{self, Frame, Opcode, Violation};

/// Longest message from a client. Source: behaviour reference §1.4.4 rule 7 (10 MB).
pub(crate) const MAX_MESSAGE: usize = 10 << 20;

/// Bytes asked for at once: little while little comes, so that an idle connection is small.
const READ_SMALL: usize = 2 << 10;
const READ_LARGE: usize = 128 << 10;

/// What a client said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Text(String),
    Binary(Bytes),
    Ping(Bytes),
    /// The client says goodbye; it will send no more.
    Close(Option<u16>),
}

/// Why there is no next message.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("connection ended without a closing handshake")]
    Eof,
    #[error("read from the client")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Violation(#[from] Violation),
}

/// What a message of several frames is.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Text,
    Binary,
}

/// Reads messages.
#[derive(Debug)]
pub(crate) struct Reader<R> {
    io: R,
    /// Longest message, in bytes.
    most: usize,
    buffer: BytesMut,
    chunk: usize,
    /// A message whose last fragment has not come.
    partial: Option<(Kind, BytesMut)>,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(crate) fn new(io: R, most: usize) -> Self {
        Self {
            io,
            most,
            buffer: BytesMut::new(),
            chunk: READ_SMALL,
            partial: None,
        }
    }

    /// The next message. Pongs are passed over: nobody here waits for one.
    ///
    /// # Cancel safety
    /// Safe: what was read stays in the reader.
    pub(crate) async fn next(&mut self) -> Result<Message, ReadError> {
        loop {
            match frame::decode(&mut self.buffer, self.most)? {
                Ok(frame) => {
                    if let Some(message) = self.take(frame)? {
                        return Ok(message);
                    }
                }
                Err(missing) => self.fill(missing).await?,
            }
        }
    }

    /// Reads and forgets whatever still comes, until the client's end of the connection.
    pub(crate) async fn drain(&mut self) {
        self.buffer = BytesMut::new();
        let mut sink = [0; 1024];
        while matches!(self.io.read(&mut sink).await, Ok(n) if n > 0) {}
    }

    async fn fill(&mut self, missing: usize) -> Result<(), ReadError> {
        // A long frame gets its room step by step, as its bytes arrive, not when it is announced.
        let want = if missing > READ_LARGE {
            READ_LARGE
        } else {
            self.chunk.max(missing)
        };
        self.buffer.reserve(want);
        let spare = self.buffer.capacity() - self.buffer.len();
        match self.io.read_buf(&mut self.buffer).await {
            Ok(0) => Err(ReadError::Eof),
            Ok(n) => {
                self.chunk = if n == spare { READ_LARGE } else { READ_SMALL };
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn take(&mut self, frame: Frame) -> Result<Option<Message>, Violation> {
        match frame.opcode {
            Opcode::Ping => Ok(Some(Message::Ping(frame.payload.freeze()))),
            Opcode::Pong => Ok(None),
            Opcode::Close => close(&frame.payload).map(Some),
            Opcode::Text => self.begin(Kind::Text, frame.fin, frame.payload),
            Opcode::Binary => self.begin(Kind::Binary, frame.fin, frame.payload),
            Opcode::Continuation => {
                let (kind, mut whole) = self
                    .partial
                    .take()
                    .ok_or(Violation::protocol("nothing to continue"))?;
                if whole.len() + frame.payload.len() > self.most {
                    return Err(Violation::TOO_BIG);
                }
                whole.extend_from_slice(&frame.payload);
                self.go_on(kind, frame.fin, whole)
            }
        }
    }

    fn begin(
        &mut self,
        kind: Kind,
        fin: bool,
        payload: BytesMut,
    ) -> Result<Option<Message>, Violation> {
        if self.partial.is_some() {
            return Err(Violation::protocol("a message begins inside another"));
        }
        self.go_on(kind, fin, payload)
    }

    /// The message, if `fin` says that it is whole.
    fn go_on(
        &mut self,
        kind: Kind,
        fin: bool,
        payload: BytesMut,
    ) -> Result<Option<Message>, Violation> {
        if !fin {
            self.partial = Some((kind, payload));
            return Ok(None);
        }
        match kind {
            Kind::Text => match std::str::from_utf8(&payload) {
                Ok(text) => Ok(Some(Message::Text(text.to_owned()))),
                Err(_) => Err(Violation::NOT_TEXT),
            },
            Kind::Binary => Ok(Some(Message::Binary(payload.freeze()))),
        }
    }
}

fn close(payload: &[u8]) -> Result<Message, Violation> {
    match payload {
        [] => Ok(Message::Close(None)),
        [_] => Err(Violation::protocol("close code is cut short")),
        [high, low, ..] => Ok(Message::Close(Some(u16::from_be_bytes([*high, *low])))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).expect("short");
        assert!(length < 126);
        [&[first, 0x80 | length, 0, 0, 0, 0][..], payload].concat()
    }

    async fn messages(wire: &[u8]) -> (Vec<Message>, ReadError) {
        let mut reader = Reader::new(wire, MAX_MESSAGE);
        let mut seen = Vec::new();
        loop {
            match reader.next().await {
                Ok(message) => seen.push(message),
                Err(error) => return (seen, error),
            }
        }
    }

    #[tokio::test]
    async fn fragments_become_one_message_and_pings_come_between() {
        let wire = [
            masked(0x02, b"ab"),
            masked(0x89, b"p"),
            masked(0x8a, b"pong"),
            masked(0x00, b"cd"),
            masked(0x80, b"ef"),
            masked(0x81, b"text"),
            masked(0x88, &[0x03, 0xe8]),
        ]
        .concat();
        let (seen, end) = messages(&wire).await;
        assert_eq!(
            seen,
            [
                Message::Ping(Bytes::from_static(b"p")),
                Message::Binary(Bytes::from_static(b"abcdef")),
                Message::Text("text".to_owned()),
                Message::Close(Some(1000)),
            ]
        );
        assert!(matches!(end, ReadError::Eof));
    }

    #[tokio::test]
    async fn broken_sequences_are_violations() {
        for wire in [
            masked(0x80, b"nothing to continue"),
            [masked(0x02, b"a"), masked(0x82, b"b")].concat(),
            masked(0x81, &[0xff, 0xfe]),
            masked(0x88, &[3]),
        ] {
            let (seen, end) = messages(&wire).await;
            assert!(
                seen.is_empty() && matches!(end, ReadError::Violation(_)),
                "{wire:x?}: {end:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_long_frame_that_never_comes_takes_no_room() {
        let announced = (MAX_MESSAGE as u64).to_be_bytes();
        let wire = [&[0x82, 0xff][..], &announced, &[0; 4], b"few bytes"].concat();
        let mut reader = Reader::new(&wire[..], MAX_MESSAGE);
        assert!(matches!(reader.next().await, Err(ReadError::Eof)));
        assert!(reader.buffer.capacity() < 1 << 20);
    }
}
