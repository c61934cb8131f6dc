//! The streams of a command: what it reads and what it writes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::PollSender;

use super::frame;
use super::link::Outcome;

/// Most bytes of input in one message.
const INPUT_CHUNK: usize = 64 << 10;
/// What a terminal takes for the end of input (Ctrl-D).
const TTY_EOF: u8 = 4;

/// What a command writes: its standard output or its standard error.
///
/// It ends like a pipe when the command has ended. When the connection was lost instead, the last read fails:
/// output that was cut off never looks whole. Dropping it throws away what the command writes from then on.
#[derive(Debug)]
pub struct ChildOutput {
    chunks: mpsc::Receiver<Bytes>,
    current: Bytes,
    outcome: watch::Receiver<Option<Outcome>>,
}

impl ChildOutput {
    pub(super) fn new(
        chunks: mpsc::Receiver<Bytes>,
        outcome: watch::Receiver<Option<Outcome>>,
    ) -> Self {
        Self {
            chunks,
            current: Bytes::new(),
            outcome,
        }
    }

    /// The next bytes as they came, without copying them; `None` at the end.
    ///
    /// # Errors
    /// When the connection was lost before the command ended.
    ///
    /// # Cancel safety
    /// Safe: no bytes are lost.
    pub async fn chunk(&mut self) -> io::Result<Option<Bytes>> {
        std::future::poll_fn(|cx| self.poll_chunk(cx)).await
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        loop {
            if self.current.has_remaining() {
                return Poll::Ready(Ok(Some(std::mem::take(&mut self.current))));
            }
            match ready!(self.chunks.poll_recv(cx)) {
                Some(chunk) => self.current = chunk,
                None => return Poll::Ready(self.end().map(|()| None)),
            }
        }
    }

    fn end(&self) -> io::Result<()> {
        match &*self.outcome.borrow() {
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) => Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                error.clone(),
            )),
            None => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }
}

impl AsyncRead for ChildOutput {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(mut chunk) = ready!(self.poll_chunk(cx))? {
            let fits = chunk.len().min(buf.remaining());
            buf.put_slice(&chunk[..fits]);
            chunk.advance(fits);
            self.current = chunk;
        }
        Poll::Ready(Ok(()))
    }
}

/// What a command reads. Dropping it closes the command's input, and so does shutting it down.
///
/// Writing waits while the command does not read. Writing to a command that has ended fails with
/// [`io::ErrorKind::BrokenPipe`], to one whose connection was lost with
/// [`io::ErrorKind::ConnectionAborted`]. A command with a terminal sees an end of input only when this is shut
/// down: then it gets what Ctrl-D types.
#[derive(Debug)]
pub struct ChildStdin {
    sender: PollSender<Bytes>,
    tty: bool,
    closed: bool,
    outcome: watch::Receiver<Option<Outcome>>,
}

impl ChildStdin {
    pub(super) fn new(
        sender: mpsc::Sender<Bytes>,
        tty: bool,
        outcome: watch::Receiver<Option<Outcome>>,
    ) -> Self {
        Self {
            sender: PollSender::new(sender),
            tty,
            closed: false,
            outcome,
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<()>> {
        let sent = match ready!(self.sender.poll_reserve(cx)) {
            Ok(()) => self.sender.send_item(frame::stdin_data(data, self.tty)),
            Err(error) => Err(error),
        };
        Poll::Ready(sent.map_err(|_| self.ended()))
    }

    fn ended(&self) -> io::Error {
        match &*self.outcome.borrow() {
            Some(Err(error)) => io::Error::new(io::ErrorKind::ConnectionAborted, error.clone()),
            Some(Ok(_)) | None => {
                io::Error::new(io::ErrorKind::BrokenPipe, "the command has ended")
            }
        }
    }
}

impl AsyncWrite for ChildStdin {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.closed {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::BrokenPipe,
                "the input is closed",
            )));
        }
        let fits = buf.len().min(INPUT_CHUNK);
        if fits == 0 {
            return Poll::Ready(Ok(0));
        }
        ready!(self.poll_send(cx, &buf[..fits]))?;
        Poll::Ready(Ok(fits))
    }

    // What was written is on its way already; when it arrives only the command can tell.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.closed {
            return Poll::Ready(Ok(()));
        }
        if self.tty {
            // A command that has ended needs no end of input.
            let _ = ready!(self.poll_send(cx, &[TTY_EOF]));
        }
        self.closed = true;
        self.sender.close();
        Poll::Ready(Ok(()))
    }
}
