//! Frames of an HTTP exec, one a chunk, and the pace at which they may follow each other.
//!
//! A frame has no length: where a chunk ends, it ends. The JavaScript SDK does not see chunks but what its HTTP
//! library hands out, which is everything that has arrived: two chunks that arrive together are one frame to
//! it, and the exit behind the output is lost. So output that waits is laid together into as few chunks as
//! there can be, and each of the first ones, and the exit, has a moment of its own on the wire. It helps short
//! output only; for long output that SDK itself asks for a WebSocket.
//!
//! Source: behaviour reference §1.4.6 ("write and flush one frame per chunk; never coalesce"), §11.14.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use sprite_api::exec::StreamId;
use tokio::time::{Instant, sleep_until};

/// Longest chunk, its stream's byte included.
pub(super) const MAX_CHUNK: usize = 16 << 10;

/// Output that may wait to be laid together.
const MAX_WAITING: usize = 64 << 10;

/// Between two chunks. Measured with that SDK on a busy host of two cores, `echo` over HTTP, one and four at a
/// time: without a pause 5 and 34 of 100 lose their exit, with 1 ms 0.5 and 4, with 5 ms 0.1 and 0.5, with
/// 20 ms 0 and 0.2.
const GAP: Duration = Duration::from_millis(5);

/// What is sent at that pace; behind it output goes at full speed.
const PACED: usize = 256 << 10;

/// Chunks that wait to be sent.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    waiting: VecDeque<BytesMut>,
    bytes: usize,
}

impl Chunks {
    /// Puts bytes of a stream behind what waits, in its last chunk if that is of the same stream.
    pub(super) fn push(&mut self, stream: StreamId, mut payload: &[u8]) {
        self.bytes += payload.len();
        while let Some((_, rest)) = payload.split_first() {
            let last = self
                .waiting
                .back_mut()
                .filter(|last| last[0] == stream.byte());
            let room = last.as_ref().map_or(0, |last| MAX_CHUNK - last.len());
            match last {
                Some(last) if room > 0 => {
                    let (piece, behind) = payload.split_at(room.min(payload.len()));
                    last.put_slice(piece);
                    payload = behind;
                }
                Some(_) | None => {
                    let mut chunk =
                        BytesMut::with_capacity(1 + (1 + rest.len()).min(MAX_CHUNK - 1));
                    chunk.put_u8(stream.byte());
                    self.waiting.push_back(chunk);
                }
            }
        }
    }

    pub(super) fn pop(&mut self) -> Option<Bytes> {
        let chunk = self.waiting.pop_front()?;
        self.bytes -= chunk.len() - 1;
        Some(chunk.freeze())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The stream of the chunk that is next.
    pub(super) fn next_stream(&self) -> Option<StreamId> {
        StreamId::from_byte(self.waiting.front()?[0])
    }

    /// Whether as much waits as may.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= MAX_WAITING
    }
}

/// When the next chunk may be sent.
#[derive(Debug, Default)]
pub(super) struct Pace {
    sent: usize,
    last_at: Option<Instant>,
}

impl Pace {
    /// Waits until a chunk of that stream may be sent.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn wait(&self, stream: Option<StreamId>) {
        let paced = self.sent <= PACED || stream == Some(StreamId::Exit);
        if let Some(last_at) = self.last_at.filter(|_| paced) {
            sleep_until(last_at + GAP).await;
        }
    }

    /// A chunk is being sent.
    pub(super) fn sent(&mut self, chunk: &Bytes) {
        self.sent = self.sent.saturating_add(chunk.len());
        self.last_at = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(mut chunks: Chunks) -> Vec<Bytes> {
        std::iter::from_fn(|| chunks.pop()).collect()
    }

    /// Behaviour reference §11.14: at most 16 KiB a chunk.
    #[test]
    fn chunks_end_at_the_limit() {
        for length in [1, MAX_CHUNK - 2, MAX_CHUNK - 1, MAX_CHUNK, 3 * MAX_CHUNK] {
            let mut chunks = Chunks::default();
            chunks.push(StreamId::Stdout, &vec![b'x'; length]);
            let sent = all(chunks);
            assert_eq!(sent.len(), length.div_ceil(MAX_CHUNK - 1), "{length}");
            assert!(
                sent.iter()
                    .all(|chunk| chunk[0] == 1 && chunk.len() <= MAX_CHUNK)
            );
            assert_eq!(
                sent.iter().map(|chunk| chunk.len() - 1).sum::<usize>(),
                length
            );
        }
    }

    #[test]
    fn output_is_laid_together_and_streams_kept_apart() {
        let mut chunks = Chunks::default();
        chunks.push(StreamId::Stdout, b"a");
        chunks.push(StreamId::Stdout, b"b");
        chunks.push(StreamId::Stderr, b"c");
        chunks.push(StreamId::Stdout, b"");
        chunks.push(StreamId::Stdout, b"d");
        chunks.push(StreamId::Exit, &[0]);
        assert_eq!(
            all(chunks),
            [&b"\x01ab"[..], b"\x02c", b"\x01d", b"\x03\x00"]
        );
    }
}
