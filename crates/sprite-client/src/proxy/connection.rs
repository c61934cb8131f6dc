//! A connection to a port as a stream of bytes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::{Sink, Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::exec::Socket;

/// Most bytes in one message.
const CHUNK: usize = 64 << 10;
/// The end of one direction. Source: behaviour of servers that answer `half_close`.
const EOF: &str = r#"{"type":"eof"}"#;
/// How long the closing handshake may take when a connection is dropped.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// A TCP connection to a port of a sprite.
///
/// Both directions end apart, as those of [`TcpStream`](tokio::net::TcpStream) do: shutting it down ends what is
/// written, and what the port says is read to its end. (A server that cannot tell ends apart is left by a shutdown;
/// [`can_half_close`](Self::can_half_close) says which one this is.) A connection that broke is an error of the read
/// and never an end. Dropping it closes it in order, in the background.
#[derive(Debug)]
pub struct Connection {
    /// There until it is dropped.
    socket: Option<Socket>,
    target: String,
    half_close: bool,
    current: Bytes,
    /// Something was handed over that may not be on its way.
    unflushed: bool,
    shut: Shut,
    /// The port has ended.
    ended: bool,
    /// Nothing more is read or written.
    over: bool,
    /// The connection to the server is gone: no handshake is left to do.
    lost: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shut {
    Open,
    Telling,
    Done,
}

impl Connection {
    pub(super) fn new(socket: Socket, target: String, half_close: bool) -> Self {
        Self {
            socket: Some(socket),
            target,
            half_close,
            current: Bytes::new(),
            unflushed: false,
            shut: Shut::Open,
            ended: false,
            over: false,
            lost: false,
        }
    }

    /// The address in the sprite that was connected to, as the server told it.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Whether an end of what is written leaves the other direction open.
    #[must_use]
    pub fn can_half_close(&self) -> bool {
        self.half_close
    }

    fn socket(&mut self) -> Pin<&mut Socket> {
        Pin::new(self.socket.as_mut().expect("it is taken by drop alone"))
    }

    /// Hands on what is under way. Whoever reads next waits for an answer to it.
    fn poll_pending(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unflushed {
            ready!(self.socket().poll_flush(cx)).map_err(broken)?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn end(&mut self, code: Option<CloseCode>, reason: &str) -> io::Result<()> {
        self.over = true;
        match code {
            _ if self.ended => Ok(()),
            // No code, or the one for an end in order.
            None | Some(CloseCode::Normal | CloseCode::Status) => Ok(()),
            Some(code) => Err(io::Error::new(
                io::ErrorKind::ConnectionReset,
                format!(
                    "the connection in the sprite broke: {reason} (code {})",
                    u16::from(code)
                ),
            )),
        }
    }
}

fn broken(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        Error::ConnectionClosed | Error::AlreadyClosed => io::ErrorKind::BrokenPipe.into(),
        other => io::Error::new(io::ErrorKind::ConnectionAborted, other),
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // What cannot be sent yet is sent when there is room; reading does not wait for it.
        if let Poll::Ready(Err(error)) = self.poll_pending(cx) {
            return Poll::Ready(Err(error));
        }
        while !self.current.has_remaining() {
            if self.ended || self.over {
                return Poll::Ready(Ok(()));
            }
            match ready!(self.socket().poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) => self.current = bytes,
                Some(Ok(Message::Text(text))) if text.as_str() == EOF => self.ended = true,
                Some(Ok(Message::Close(frame))) => {
                    let (code, reason) = match frame {
                        Some(frame) => (Some(frame.code), frame.reason.to_string()),
                        None => (None, String::new()),
                    };
                    return Poll::Ready(self.end(code, &reason));
                }
                // Pings are answered below us; other texts are kinds to come.
                Some(Ok(
                    Message::Text(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_),
                )) => {}
                Some(Err(error)) => {
                    (self.over, self.lost) = (true, true);
                    return Poll::Ready(Err(broken(error)));
                }
                None => {
                    (self.over, self.lost) = (true, true);
                    return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                }
            }
        }
        let fits = self.current.len().min(buf.remaining());
        buf.put_slice(&self.current[..fits]);
        self.current.advance(fits);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.shut != Shut::Open || self.over {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ready!(self.poll_pending(cx))?;
        ready!(self.socket().poll_ready(cx)).map_err(broken)?;
        let fits = buf.len().min(CHUNK);
        let message = Message::Binary(Bytes::copy_from_slice(&buf[..fits]));
        self.socket().start_send(message).map_err(broken)?;
        self.unflushed = true;
        // It goes at once if it can; if not, the next call takes care of it.
        match self.poll_pending(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(fits)),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_pending(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.over {
            return Poll::Ready(Ok(()));
        }
        if self.shut == Shut::Open {
            ready!(self.socket().poll_ready(cx)).map_err(broken)?;
            let end = match self.half_close {
                true => Message::text(EOF),
                false => Message::Close(None),
            };
            self.socket().start_send(end).map_err(broken)?;
            self.unflushed = true;
            self.shut = Shut::Telling;
        }
        ready!(self.poll_pending(cx))?;
        self.shut = Shut::Done;
        Poll::Ready(Ok(()))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let Some(mut socket) = self.socket.take().filter(|_| !self.lost) else {
            return;
        };
        // Outside of a runtime nobody is left who could close: the server sees a connection that broke.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(timeout(CLOSE_LIMIT, async move {
                if socket.close(None).await.is_ok() {
                    while let Some(Ok(_)) = socket.next().await {}
                }
            }));
        }
    }
}
