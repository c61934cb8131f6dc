//! A connection to a port of a machine, as a stream of bytes.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::FutureExt;
use sprite_agent_api::link::{LinkError, Receiver, Sender, Stream};
use sprite_agent_api::tcp::{self, ConnectInput, ConnectReply};
use sprite_agent_api::{Frame, FrameKind, MAX_DATA};
use sprite_host::Dialled;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_util::sync::ReusableBoxFuture;

use super::Counted;

/// A connection to a port.
#[derive(Debug)]
pub(super) enum Port {
    /// Of a machine that has the host's kernel.
    Dialled(Dialled),
    /// By the machine's agent.
    Agent(PortStream),
}

impl Port {
    /// Nothing more is said, and nothing more is heard: the port reads an end behind all that was said. Ends when the
    /// port has ended too: a reset would take from it what it has not read yet.
    ///
    /// # Cancel safety
    /// Cancelled, the connection is reset.
    pub(super) async fn close(self) {
        match self {
            Self::Dialled(mut dialled) => {
                // It may have broken.
                let _ = dialled.shutdown().await;
                let _ = tokio::io::copy(&mut dialled, &mut tokio::io::sink()).await;
            }
            Self::Agent(stream) => stream.close().await,
        }
    }

    /// Ends the connection as one that broke.
    pub(super) fn reset(self) {
        match self {
            Self::Dialled(dialled) => dialled.reset(),
            Self::Agent(stream) => stream.reset(),
        }
    }
}

impl AsyncRead for Port {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Dialled(dialled) => Pin::new(dialled).poll_read(cx, buf),
            Self::Agent(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Port {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Dialled(dialled) => Pin::new(dialled).poll_write(cx, buf),
            Self::Agent(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Dialled(dialled) => Pin::new(dialled).poll_flush(cx),
            Self::Agent(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Dialled(dialled) => Pin::new(dialled).poll_shutdown(cx),
            Self::Agent(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

type Received = (Receiver, Result<Option<Frame>, LinkError>);

/// Bytes to and from a port. Dropped before both directions have ended, the connection is reset there.
pub(crate) struct PortStream {
    next: ReusableBoxFuture<'static, Received>,
    /// What has arrived and was not read yet.
    arrived: Bytes,
    ended: bool,
    sender: Arc<Sender>,
    room: ReusableBoxFuture<'static, Result<(), LinkError>>,
    counted: Counted,
}

impl fmt::Debug for PortStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PortStream")
            .field("counted", &self.counted)
            .finish_non_exhaustive()
    }
}

impl PortStream {
    /// The bytes of a stream on which the machine has connected.
    pub(crate) fn new(stream: Stream, counted: Counted) -> Self {
        let Stream { sender, receiver } = stream;
        let sender = Arc::new(sender);
        Self {
            next: ReusableBoxFuture::new(receive(receiver)),
            arrived: Bytes::new(),
            ended: false,
            room: ReusableBoxFuture::new(room(sender.clone(), counted.among())),
            sender,
            counted,
        }
    }

    /// Nothing more is said, and nothing more is heard: the port reads an end behind all that was said.
    pub(super) async fn close(mut self) {
        let closed = self.sender.send(Frame::control(&ConnectInput::Close)).await;
        self.sender.finish();
        while closed.is_ok() && !self.ended {
            let (receiver, received) = std::future::poll_fn(|cx| self.next.poll(cx)).await;
            self.next.set(receive(receiver));
            self.ended = !matches!(received, Ok(Some(_)));
        }
    }

    /// Ends the connection as one that broke.
    pub(super) fn reset(self) {
        self.sender.abort();
    }

    /// Waits for room, then sends what `fill` lays together.
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        fill: impl FnOnce() -> Bytes,
    ) -> Poll<io::Result<usize>> {
        let there = ready!(self.room.poll(cx));
        self.room
            .set(room(self.sender.clone(), self.counted.among()));
        there.map_err(broken)?;
        let bytes = fill();
        let n = bytes.len();
        let frame = Frame::data(FrameKind::Stdin, bytes);
        let sent = self.sender.send(frame).now_or_never();
        match sent {
            Some(sent) => Poll::Ready(sent.map(|()| n).map_err(broken)),
            // Nobody else sends here, so that what was room still is.
            None => Poll::Ready(Err(io::ErrorKind::WouldBlock.into())),
        }
    }
}

impl Drop for PortStream {
    fn drop(&mut self) {
        // Whoever has said its last word and reads no more is not waited for either: a program could speak for ever.
        if !self.ended {
            self.sender.abort();
        }
    }
}

async fn receive(mut receiver: Receiver) -> Received {
    let received = receiver.recv().await;
    (receiver, received)
}

async fn room(sender: Arc<Sender>, among: usize) -> Result<(), LinkError> {
    sender.room_within(tcp::window(among)).await
}

fn broken_there(frame: &Frame) -> io::Error {
    let message = match frame.message() {
        Ok(ConnectReply::Broken { message } | ConnectReply::Refused { message }) => message,
        Ok(ConnectReply::Failed(failure)) => failure.message,
        Ok(ConnectReply::Connected { .. }) | Err(_) => {
            "the machine sent a message that cannot be read".to_owned()
        }
    };
    io::Error::new(io::ErrorKind::ConnectionReset, message)
}

fn broken(error: LinkError) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}

impl AsyncRead for PortStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.arrived.is_empty() && !self.ended {
            let (receiver, received) = ready!(self.next.poll(cx));
            self.next.set(receive(receiver));
            match received.map_err(broken)? {
                Some(frame) if frame.kind == FrameKind::Stdout => self.arrived = frame.payload,
                // That it broke, behind all that came.
                Some(frame) => return Poll::Ready(Err(broken_there(&frame))),
                None => self.ended = true,
            }
        }
        let n = self.arrived.len().min(buf.remaining());
        buf.put_slice(&self.arrived[..n]);
        self.arrived.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for PortStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, || {
            Bytes::copy_from_slice(&buf[..buf.len().min(MAX_DATA)])
        })
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, || {
            let all: usize = bufs.iter().map(|buf| buf.len()).sum();
            let mut bytes = BytesMut::with_capacity(all.min(MAX_DATA));
            for buf in bufs {
                let room = MAX_DATA - bytes.len();
                bytes.extend_from_slice(&buf[..buf.len().min(room)]);
            }
            bytes.freeze()
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.sender.finish();
        Poll::Ready(Ok(()))
    }
}
