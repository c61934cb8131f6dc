//! The server's half of a WebSocket.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::frame::{self, Opcode};

/// Pieces laid together in one vectored write.
const BATCH: usize = 32;

/// Queues messages and writes them. Bulk bytes are never copied: a message is its head and the bytes as they
/// came.
///
/// Whoever queues also flushes, and queues little in between: that is the back-pressure of a slow reader.
#[derive(Debug)]
pub(crate) struct Writer<W> {
    io: W,
    queue: VecDeque<Bytes>,
    queued: usize,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    pub(crate) fn new(io: W) -> Self {
        Self {
            io,
            queue: VecDeque::new(),
            queued: 0,
        }
    }

    /// Bytes that wait for [`Writer::flush`].
    pub(crate) fn queued(&self) -> usize {
        self.queued
    }

    pub(crate) fn text(&mut self, text: String) {
        self.message(Opcode::Text, &[], text.into());
    }

    /// A binary message: `prefix`, and behind it `payload`.
    pub(crate) fn binary(&mut self, prefix: &[u8], payload: Bytes) {
        self.message(Opcode::Binary, prefix, payload);
    }

    /// Asks whether the client is there. Nobody waits for the answer: a connection that is gone fails to take it.
    pub(crate) fn ping(&mut self) {
        self.message(Opcode::Ping, &[], Bytes::new());
    }

    pub(crate) fn pong(&mut self, payload: Bytes) {
        self.message(Opcode::Pong, &[], payload);
    }

    pub(crate) fn close(&mut self, code: u16, reason: &str) {
        self.message(Opcode::Close, &[], frame::close_payload(code, reason));
    }

    fn message(&mut self, opcode: Opcode, prefix: &[u8], payload: Bytes) {
        for piece in [frame::encode_head(opcode, prefix, payload.len()), payload] {
            if !piece.is_empty() {
                self.queued += piece.len();
                self.queue.push_back(piece);
            }
        }
    }

    /// Writes all that is queued.
    ///
    /// # Cancel safety
    /// Safe: what was not written stays queued, and the next flush goes on in the middle of the frame.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        while !self.queue.is_empty() {
            let slices: Vec<IoSlice<'_>> = self
                .queue
                .iter()
                .take(BATCH)
                .map(|piece| IoSlice::new(piece))
                .collect();
            let mut written = self.io.write_vectored(&slices).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.queued -= written;
            while written > 0
                && let Some(piece) = self.queue.front_mut()
            {
                let n = written.min(piece.len());
                piece.advance(n);
                written -= n;
                if piece.is_empty() {
                    self.queue.pop_front();
                }
            }
        }
        self.io.flush().await
    }

    /// Says that nothing more follows on this connection.
    pub(crate) async fn shutdown(&mut self) -> io::Result<()> {
        self.io.shutdown().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_cancelled_flush_goes_on_in_the_middle_of_a_frame() {
        use futures_util::FutureExt as _;
        use tokio::io::AsyncReadExt as _;

        let (ours, mut theirs) = tokio::io::duplex(16);
        let mut writer = Writer::new(ours);
        writer.binary(&[1], Bytes::from(vec![7; 100]));
        writer.close(1000, "");
        assert!(
            writer.flush().now_or_never().is_none(),
            "the reader is slow"
        );
        let mut seen = vec![0; 102 + 1 + 4];
        let (flushed, read) = tokio::join!(writer.flush(), theirs.read_exact(&mut seen));
        flushed.expect("the reader is there");
        read.expect("the writer is there");
        assert_eq!(&seen[..3], &[0x82, 101, 1]);
        assert!(seen[3..103].iter().all(|byte| *byte == 7));
        assert_eq!(&seen[103..], &[0x88, 2, 0x03, 0xe8]);
        assert_eq!(writer.queued(), 0);
    }
}
