//! Between a client's WebSocket and a port of a machine: both directions, each at the pace of its slower side, and
//! each with an end of its own where the client can tell one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use sprite_agent_api::message::Request;
use sprite_agent_api::tcp::{self, ConnectInput, ConnectReply, ConnectSpec};
use sprite_agent_api::{Frame, FrameKind, MAX_DATA, link};
use sprite_api::control;
use sprite_api::proxy::{EOF, ProxyAnswer, ProxyHello, ProxyText};
use sprite_host::{Awake, Hold, Reusable};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::exec::relay::KEEPALIVE;
use crate::problem::Problem;
use crate::ws::{Message, ReadError, Reader, Socket, Violation, Writer};

/// How long the machine may take to connect; it gives up sooner by itself.
const CONNECT_WITHIN: Duration = Duration::from_secs(15);

/// How long the machine may take to pass on what a client said last before it closed.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);

/// Longest binary message to a client. Source: behaviour reference §1.4.4 rule 7.
const MAX_PAYLOAD: usize = 64 << 10;

/// How long the first bytes of a port that speaks first wait for a client that has said nothing yet: the JavaScript SDK
/// begins to listen a moment after it has read the answer, and loses what came with it.
const FIRST_BYTES: Duration = Duration::from_millis(20);

/// Bytes laid together before they are written.
const BATCH: usize = 256 << 10;

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

/// Why there is no connection.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self {
            code: problem.code(),
            message: problem.message().to_owned(),
        }
    }
}

/// A connection to a port, and the hold that keeps its sprite awake.
#[derive(Debug)]
pub(crate) struct Connected {
    stream: link::Stream,
    target: String,
    counted: Counted,
    awake: Awake,
}

/// A connection to a port, which holds nothing.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) stream: link::Stream,
    pub(crate) counted: Counted,
    target: String,
}

/// Has the machine connect, and keeps the sprite awake for the connection.
///
/// # Errors
/// As [`open`].
///
/// # Cancel safety
/// As [`open`].
pub(crate) async fn connect(
    proxies: &Proxies,
    mut awake: Awake,
    hello: &ProxyHello,
) -> Result<Connected, Refusal> {
    let Opened {
        stream,
        counted,
        target,
    } = open(proxies, &awake, hello).await?;
    awake.lasts(Hold::Connection);
    Ok(Connected {
        stream,
        target,
        counted,
        awake,
    })
}

/// Has the machine connect.
///
/// # Errors
/// Nobody listens, or the machine does not answer.
///
/// # Cancel safety
/// Cancelled, the machine gives the connection up.
pub(crate) async fn open(
    proxies: &Proxies,
    awake: &Awake,
    hello: &ProxyHello,
) -> Result<Opened, Refusal> {
    opened(proxies, awake.open(&request(hello))).await
}

/// Like [`open`], for a connection that is used by one after the other.
///
/// # Errors
/// As [`open`].
///
/// # Cancel safety
/// As [`open`].
pub(crate) async fn open_reusable(
    proxies: &Proxies,
    awake: &Awake,
    hello: &ProxyHello,
) -> Result<(Opened, Reusable), Refusal> {
    let (stream, reusable) = awake.open_reusable(&request(hello));
    Ok((opened(proxies, stream).await?, reusable))
}

fn request(hello: &ProxyHello) -> Request {
    Request::Connect(ConnectSpec {
        host: hello.host.clone(),
        port: hello.port,
    })
}

/// Waits until the machine has connected.
async fn opened(proxies: &Proxies, mut stream: link::Stream) -> Result<Opened, Refusal> {
    let reply = timeout(CONNECT_WITHIN, stream.receiver.recv()).await;
    let lost = |message: String| Refusal::from(Problem::machine_lost(message));
    let frame = reply
        .map_err(|_| lost("the machine did not answer in time".to_owned()))?
        .map_err(|error| lost(error.to_string()))?
        .ok_or_else(|| lost("the machine ended before it answered".to_owned()))?;
    match frame.message() {
        Ok(ConnectReply::Connected { address }) => Ok(Opened {
            stream,
            target: address.to_string(),
            counted: proxies.enter(),
        }),
        Ok(ConnectReply::Refused { message }) => Err(Refusal {
            code: "connection_refused",
            message,
        }),
        Ok(ConnectReply::Failed(failure)) => Err(Problem::refused(failure, None).into()),
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
    /// The port's side broke.
    Broken(String),
    /// The machine is gone, or broke the contract.
    Lost(String),
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
    /// What the client is told of it.
    pub(crate) fn answer(&self, half_close: bool) -> ProxyAnswer {
        ProxyAnswer::Connected {
            target: self.target.clone(),
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
        let output = Output {
            pong: &pong,
            half_close,
            client_ended: &client_ended,
            client_listens: &client_listens,
        };
        let input = Input {
            sender: &self.stream.sender,
            proxies: &self.counted.0,
            dialect,
            pong: &pong,
            client_ended: &client_ended,
            client_listens: &client_listens,
        };
        tokio::select! {
            biased;
            outcome = output.run(&mut socket.writer, &mut self.stream.receiver) => outcome,
            outcome = input.run(&mut socket.reader) => outcome,
            () = stop.cancelled() => Outcome::Stopped,
        }
    }

    /// The client has closed: what it said still goes to the port, then the port reads an end.
    pub(crate) async fn close(self) {
        let Self { stream, awake, .. } = self;
        if awake.sleeps() {
            // It is not woken for this; it sees the end when it wakes.
            return;
        }
        let link::Stream {
            sender,
            mut receiver,
        } = stream;
        let told = async {
            sender.send(Frame::control(&ConnectInput::Close)).await?;
            sender.finish();
            while receiver.recv().await?.is_some() {}
            Ok::<_, link::LinkError>(())
        };
        // Dropping the stream tells the machine as well, only less politely.
        let _ = timeout(CLOSE_WITHIN, told).await;
        drop(awake);
    }

    /// The client is gone: the port sees a connection that broke.
    pub(crate) fn reset(self) {
        self.stream.sender.abort();
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
    async fn run<W: AsyncWrite + Unpin>(
        &self,
        writer: &mut Writer<W>,
        receiver: &mut link::Receiver,
    ) -> Outcome {
        let mut open = true;
        let listens_by = Instant::now() + FIRST_BYTES;
        let mut ping_at = Instant::now() + KEEPALIVE;
        loop {
            if writer.queued() > 0 {
                ping_at = Instant::now() + KEEPALIVE;
            }
            if writer.flush().await.is_err() {
                return Outcome::Vanished;
            }
            tokio::select! {
                biased;
                () = self.pong.added.notified() => {
                    if let Some(payload) = self.pong.set(None) {
                        writer.pong(payload);
                    }
                }
                received = receiver.recv(), if open => {
                    let listens = self.client_listens.cancelled();
                    // That it took too long is as good.
                    let _ = timeout_at(listens_by, listens).await;
                    let mut received = Some(received);
                    // What has arrived already goes out in the same write.
                    while let Some(next) = received {
                        match forward(writer, next) {
                            Forwarded::Bytes => {}
                            Forwarded::End if self.half_close => {
                                writer.text(EOF.to_owned());
                                open = false;
                                break;
                            }
                            Forwarded::End => return Outcome::Finished,
                            Forwarded::Over(outcome) => return outcome,
                        }
                        received = if writer.queued() < BATCH { receiver.recv().now_or_never() } else { None };
                    }
                }
                () = self.client_ended.cancelled(), if !open => return Outcome::Finished,
                // Nobody need answer it, but a connection that is gone shows.
                () = sleep_until(ping_at) => writer.ping(),
            }
        }
    }
}

enum Forwarded {
    Bytes,
    End,
    Over(Outcome),
}

fn forward<W: AsyncWrite + Unpin>(
    writer: &mut Writer<W>,
    received: Result<Option<Frame>, link::LinkError>,
) -> Forwarded {
    let frame = match received {
        Ok(Some(frame)) => frame,
        Ok(None) => return Forwarded::End,
        Err(error) => return Forwarded::Over(Outcome::Lost(error.to_string())),
    };
    match frame.kind {
        FrameKind::Stdout => {
            let mut payload = frame.payload;
            while !payload.is_empty() {
                let piece = payload.split_to(payload.len().min(MAX_PAYLOAD));
                writer.binary(&[], piece);
            }
            Forwarded::Bytes
        }
        FrameKind::Control => Forwarded::Over(match frame.message() {
            Ok(ConnectReply::Broken { message } | ConnectReply::Refused { message }) => {
                Outcome::Broken(message)
            }
            Ok(ConnectReply::Failed(failure)) => Outcome::Lost(failure.message),
            Ok(ConnectReply::Connected { .. }) | Err(_) => {
                Outcome::Lost("the machine sent a message that cannot be read".to_owned())
            }
        }),
        FrameKind::Stdin | FrameKind::Stderr => {
            Forwarded::Over(Outcome::Lost("the machine broke the contract".to_owned()))
        }
    }
}

/// From the client to the port.
struct Input<'a> {
    sender: &'a link::Sender,
    proxies: &'a Proxies,
    dialect: Dialect,
    pong: &'a Pong,
    client_ended: &'a CancellationToken,
    client_listens: &'a CancellationToken,
}

impl Input<'_> {
    async fn run<R: AsyncRead + Unpin>(&self, reader: &mut Reader<R>) -> Outcome {
        loop {
            match reader.next().await {
                Ok(Message::Binary(bytes)) if !self.client_ended.is_cancelled() => {
                    self.client_listens.cancel();
                    self.pass(bytes).await;
                }
                Ok(Message::Binary(_)) => {}
                Ok(Message::Text(text)) => match self.text(&text) {
                    Some(ProxyText::Eof) => {
                        self.sender.finish();
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

    async fn pass(&self, mut bytes: Bytes) {
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(MAX_DATA));
            let window = tcp::window(self.proxies.0.load(Ordering::Relaxed));
            // An error is the end of the stream, which the other direction tells.
            if self.sender.room_within(window).await.is_err() {
                return;
            }
            let _ = self.sender.send(Frame::data(FrameKind::Stdin, piece)).await;
        }
    }
}
