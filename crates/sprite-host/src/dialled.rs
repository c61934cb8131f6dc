//! A connection to a port of a machine that has the host's kernel.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use sprite_agent_api::link::Observe;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Bytes to and from a port, each of which is the sprite's use. While the sprite sleeps the connection stands still;
/// what is sent on it wakes it. Dropped before both directions have ended, the connection is reset there.
pub struct Dialled {
    tcp: TcpStream,
    address: SocketAddr,
    observer: Arc<dyn Observe>,
    /// Whether what is to be sent waits for room.
    waits: bool,
    ended: bool,
}

impl Dialled {
    pub(crate) fn new(tcp: TcpStream, observer: Arc<dyn Observe>) -> io::Result<Self> {
        // The kernel's delay is for programs that write badly; whoever wrote these bytes has waited already.
        let _ = tcp.set_nodelay(true);
        Ok(Self {
            address: tcp.peer_addr()?,
            tcp,
            observer,
            waits: false,
            ended: false,
        })
    }

    /// To where it leads, within the machine.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends the connection as one that broke.
    pub fn reset(mut self) {
        self.ended = false;
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut TcpStream>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if !self.waits {
            self.observer.sends();
        }
        let sent = write(Pin::new(&mut self.tcp), cx);
        if self.waits != sent.is_pending() {
            self.waits = sent.is_pending();
            self.observer.waits(self.waits);
        }
        sent
    }
}

impl fmt::Debug for Dialled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialled")
            .field("tcp", &self.tcp)
            .finish_non_exhaustive()
    }
}

impl Drop for Dialled {
    fn drop(&mut self) {
        if self.waits {
            self.observer.waits(false);
        }
        if !self.ended {
            // A client that vanished is not one that has finished.
            let _ = self.tcp.set_zero_linger();
        }
    }
}

impl AsyncRead for Dialled {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.tcp).poll_read(cx, buf);
        if let Poll::Ready(Ok(())) = read {
            if buf.filled().len() > before {
                self.observer.received();
            } else if buf.remaining() > 0 {
                self.ended = true;
            }
        }
        read
    }
}

impl AsyncWrite for Dialled {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, |tcp, cx| tcp.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, |tcp, cx| tcp.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
