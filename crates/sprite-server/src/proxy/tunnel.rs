//! Between a client's WebSocket and a port of a machine: both directions, each at the pace of its slower side, and
//! each with an end of its own where the client can tell one.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use sprite_agent_api::link;
use sprite_agent_api::message::Request;
use sprite_agent_api::tcp::{ConnectReply, ConnectSpec};
use sprite_api::proxy::{EOF, ProxyAnswer, ProxyHello, ProxyText};
use sprite_api::{ErrorKind, control};
use sprite_host::{Awake, Hold, Reusable};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::stream::{Port, PortStream};
use crate::exec::relay::KEEPALIVE;
use crate::problem::{Answer, Problem};
use crate::ws::{Message, ReadError, Reader, Socket, Violation, Writer};

/// How long the machine may take to connect; it gives up sooner by itself.
const CONNECT_WITHIN: Duration = Duration::from_secs(15);

/// How long a program may go on talking to a client that has closed before its connection is reset.
const LINGER: Duration = Duration::from_secs(5);

/// Longest binary message to a client. Source: behaviour reference §1.4.4 rule 7.
const MAX_PAYLOAD: usize = 64 << 10;

/// How long the first bytes of a port that speaks first wait for a client that has said nothing yet: the JavaScript SDK
/// begins to listen a moment after it has read the answer, and loses what came with it.
const FIRST_BYTES: Duration = Duration::from_millis(20);

/// Bytes asked of a port at once while little comes.
const READ_SMALL: usize = 4 << 10;

/// How many connections a server carries; each has the less under way the more there are.
#[derive(Debug, Clone, Default)]
pub(crate) struct Proxies(Arc<AtomicUsize>);

/// One of them.
#[derive(Debug)]
pub(crate) struct Counted(Proxies);

impl Counted {
    /// How many there are, this one among them.
    pub(crate) fn among(&self) -> usize {
        self.0.0.load(Ordering::Relaxed)
    }
}

impl Proxies {
    fn enter(&self) -> Counted {
        self.0.fetch_add(1, Ordering::Relaxed);
        Counted(self.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection to a port, and the hold that keeps its sprite awake.
#[derive(Debug)]
pub(crate) struct Connected {
    port: Port,
    target: SocketAddr,
    awake: Awake,
}

/// Connects, and keeps the sprite awake for the connection.
///
/// # Errors
/// Nobody listens, or the machine does not answer.
///
/// # Cancel safety
/// Cancelled, the connection is given up.
pub(crate) async fn connect(
    proxies: &Proxies,
    mut awake: Awake,
    hello: &ProxyHello,
) -> Answer<Connected> {
    let spec = spec(hello);
    let dialled = match spec.is_local() {
        true => awake.dial(spec.port).await,
        false => None,
    };
    let (port, target) = match dialled {
        Some(dialled) => {
            let dialled = dialled.map_err(refused)?;
            let target = dialled.address();
            (Port::Dialled(dialled), target)
        }
        None => {
            let stream = awake.open(&Request::Connect(spec));
            let (stream, target) = opened(proxies, stream).await?;
            (Port::Agent(stream), target)
        }
    };
    awake.lasts(Hold::Connection);
    Ok(Connected {
        port,
        target,
        awake,
    })
}

/// Has the machine's agent connect, for use by one after the other.
///
/// # Errors
/// As [`connect`].
///
/// # Cancel safety
/// As [`connect`].
pub(crate) async fn open_reusable(
    proxies: &Proxies,
    awake: &Awake,
    hello: &ProxyHello,
) -> Answer<(PortStream, Reusable)> {
    let (stream, reusable) = awake.open_reusable(&Request::Connect(spec(hello)));
    let (stream, _) = opened(proxies, stream).await?;
    Ok((stream, reusable))
}

fn spec(hello: &ProxyHello) -> ConnectSpec {
    ConnectSpec {
        host: hello.host.clone(),
        port: hello.port,
    }
}

fn refused(error: io::Error) -> Problem {
    match error.kind() {
        io::ErrorKind::NotConnected => Problem::machine_lost(error.to_string()),
        _ => Problem::new(ErrorKind::ConnectionRefused, error.to_string()),
    }
}

/// Waits until the machine has connected.
async fn opened(proxies: &Proxies, mut stream: link::Stream) -> Answer<(PortStream, SocketAddr)> {
    let reply = timeout(CONNECT_WITHIN, stream.receiver.recv()).await;
    let lost = |message: String| Problem::machine_lost(message);
    let frame = reply
        .map_err(|_| lost("the machine did not answer in time".to_owned()))?
        .map_err(|error| lost(error.to_string()))?
        .ok_or_else(|| lost("the machine ended before it answered".to_owned()))?;
    match frame.message() {
        Ok(ConnectReply::Connected { address }) => {
            Ok((PortStream::new(stream, proxies.enter()), address))
        }
        Ok(ConnectReply::Refused { message }) => {
            Err(Problem::new(ErrorKind::ConnectionRefused, message))
        }
        Ok(ConnectReply::Failed(failure)) => Err(Problem::refused(failure, None)),
        Ok(ConnectReply::Broken { .. }) | Err(_) => {
            Err(lost("the machine answered nonsense".to_owned()))
        }
    }
}

/// How the socket is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// One connection, one socket.
    Direct {
        /// Whether client and server tell ends by [`EOF`].
        half_close: bool,
    },
    /// Operations one after the other: the client can let go of one.
    Control,
}

/// Why the two are apart again.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The port has ended; if the client can tell an end, it has too.
    Finished,
    /// The port's side broke, or the machine is gone.
    Broken(String),
    /// The client said goodbye.
    Closed,
    /// The client is done with the operation, and stays.
    Released,
    /// The client is gone without a word.
    Vanished,
    /// The client broke the protocol.
    Violation(Violation),
    /// The server stops.
    Stopped,
}

impl Connected {
    /// To where it leads, within the machine.
    pub(crate) fn target(&self) -> SocketAddr {
        self.target
    }

    /// What the client is told of it.
    pub(crate) fn answer(&self, half_close: bool) -> ProxyAnswer {
        ProxyAnswer::Connected {
            target: self.target.to_string(),
            half_close,
        }
    }

    /// Moves bytes until the connection, the client or the server ends.
    pub(crate) async fn relay<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        socket: &mut Socket<S>,
        dialect: Dialect,
        stop: &CancellationToken,
    ) -> Outcome {
        let pong = Pong::default();
        let (client_ended, client_listens) = (CancellationToken::new(), CancellationToken::new());
        let half_close = dialect == Dialect::Direct { half_close: true };
        if half_close {
            client_listens.cancel();
        }
        let (mut from, to) = tokio::io::split(&mut self.port);
        let output = Output {
            pong: &pong,
            half_close,
            client_ended: &client_ended,
            client_listens: &client_listens,
        };
        let mut input = Input {
            to,
            dialect,
            pong: &pong,
            client_ended: &client_ended,
            client_listens: &client_listens,
        };
        tokio::select! {
            biased;
            outcome = output.run(&mut socket.writer, &mut from) => outcome,
            outcome = input.run(&mut socket.reader) => outcome,
            () = stop.cancelled() => Outcome::Stopped,
        }
    }

    /// The client has closed: what it said still goes to the port, then the port reads an end.
    pub(crate) async fn close(self) {
        let Self { port, awake, .. } = self;
        if awake.sleeps() {
            // It is not woken for this; it sees the end when it wakes.
            return;
        }
        // Dropping it tells the port as well, only less politely.
        let _ = timeout(LINGER, port.close()).await;
        drop(awake);
    }

    /// The client is gone: the port sees a connection that broke.
    pub(crate) fn reset(self) {
        self.port.reset();
    }
}

/// Of several pings the last is answered, which is enough. Source: RFC 6455 §5.5.3.
#[derive(Debug, Default)]
struct Pong {
    payload: std::sync::Mutex<Option<Bytes>>,
    added: Notify,
}

impl Pong {
    fn set(&self, payload: Option<Bytes>) -> Option<Bytes> {
        let mut waiting = self
            .payload
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        std::mem::replace(&mut *waiting, payload)
    }
}

/// From the port to the client.
struct Output<'a> {
    pong: &'a Pong,
    half_close: bool,
    client_ended: &'a CancellationToken,
    client_listens: &'a CancellationToken,
}

impl Output<'_> {
    async fn run<W: AsyncWrite + Unpin, R: AsyncRead + Unpin>(
        &self,
        writer: &mut Writer<W>,
        from: &mut R,
    ) -> Outcome {
        let mut open = true;
        let mut room = READ_SMALL;
        let listens_by = Instant::now() + FIRST_BYTES;
        let mut ping_at = Instant::now() + KEEPALIVE;
        loop {
            if writer.queued() > 0 {
                ping_at = Instant::now() + KEEPALIVE;
            }
            if writer.flush().await.is_err() {
                return Outcome::Vanished;
            }
            // Little while little comes, so that an idle connection is small.
            let mut bytes = BytesMut::with_capacity(room);
            tokio::select! {
                biased;
                () = self.pong.added.notified() => {
                    if let Some(payload) = self.pong.set(None) {
                        writer.pong(payload);
                    }
                }
                read = from.read_buf(&mut bytes), if open => {
                    let listens = self.client_listens.cancelled();
                    // That it took too long is as good.
                    let _ = timeout_at(listens_by, listens).await;
                    match read {
                        Ok(0) if self.half_close => {
                            writer.text(EOF.to_owned());
                            open = false;
                        }
                        Ok(0) => return Outcome::Finished,
                        Ok(count) => {
                            room = if count < room { READ_SMALL } else { MAX_PAYLOAD };
                            writer.binary(&[], bytes.freeze());
                        }
                        Err(error) => return Outcome::Broken(error.to_string()),
                    }
                }
                () = self.client_ended.cancelled(), if !open => return Outcome::Finished,
                // Nobody need answer it, but a connection that is gone shows.
                () = sleep_until(ping_at) => writer.ping(),
            }
        }
    }
}

/// From the client to the port.
struct Input<'a, W> {
    to: W,
    dialect: Dialect,
    pong: &'a Pong,
    client_ended: &'a CancellationToken,
    client_listens: &'a CancellationToken,
}

impl<W: AsyncWrite + Unpin> Input<'_, W> {
    async fn run<R: AsyncRead + Unpin>(&mut self, reader: &mut Reader<R>) -> Outcome {
        loop {
            match reader.next().await {
                Ok(Message::Binary(bytes)) if !self.client_ended.is_cancelled() => {
                    self.client_listens.cancel();
                    // What takes nothing any more may still talk; what it says last tells how it ended.
                    let _ = self.to.write_all(&bytes).await;
                }
                Ok(Message::Binary(_)) => {}
                Ok(Message::Text(text)) => match self.text(&text) {
                    Some(ProxyText::Eof) => {
                        let _ = self.to.shutdown().await;
                        self.client_ended.cancel();
                    }
                    Some(ProxyText::Release) => return Outcome::Released,
                    None => {}
                },
                Ok(Message::Ping(payload)) => {
                    self.pong.set(Some(payload));
                    self.pong.added.notify_one();
                }
                Ok(Message::Close(_)) => return Outcome::Closed,
                Err(ReadError::Violation(violation)) => return Outcome::Violation(violation),
                Err(ReadError::Eof | ReadError::Io(_)) => return Outcome::Vanished,
            }
        }
    }

    /// A text that has a meaning here; others are passed over: clients may know more than we do.
    fn text(&self, text: &str) -> Option<ProxyText> {
        let json = match self.dialect {
            Dialect::Direct { .. } => text,
            Dialect::Control => text.strip_prefix(control::PREFIX).unwrap_or(text),
        };
        match (serde_json::from_str(json).ok()?, self.dialect) {
            (ProxyText::Eof, _) => Some(ProxyText::Eof),
            (ProxyText::Release, Dialect::Control) => Some(ProxyText::Release),
            (ProxyText::Release, Dialect::Direct { .. }) => None,
        }
    }
}
