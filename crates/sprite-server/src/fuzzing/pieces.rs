//! Bytes that come in pieces.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};

/// Gives out at most so many bytes at once, and then an end.
pub(super) struct Pieces<'b> {
    bytes: &'b [u8],
    most: usize,
}

impl<'b> Pieces<'b> {
    pub(super) fn new(bytes: &'b [u8], most: usize) -> Self {
        let most = most.max(1);
        Self { bytes, most }
    }
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let length = self.most.min(self.bytes.len()).min(buffer.remaining());
        let (piece, rest) = self.bytes.split_at(length);
        buffer.put_slice(piece);
        self.bytes = rest;
        Poll::Ready(Ok(()))
    }
}
