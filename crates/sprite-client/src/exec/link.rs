//! The two tasks behind a [`Child`](super::Child): one reads the WebSocket, one writes it.
//!
//! They are two, so that a command that does not read its input cannot keep its output from being read. Reading
//! stops while nobody takes what was read: the server feels that, and in the end the command does.
//!
//! Order at the end of a session: all output is handed on, then the outcome is published, then the streams end.
//! So whoever sees a stream end can ask why.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use sprite_types::{SessionId, WebUrl};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_util::sync::CancellationToken;

use super::frame::{self, Event};
use super::{ExecError, ExitStatus};
use crate::connect::Transport;
use crate::ports::PortChange;

pub(super) type Outcome = Result<ExitStatus, ExecError>;
pub(crate) type Socket = WebSocketStream<Transport>;

/// How often a silent connection is tried. Servers and the devices between drop what is silent for a minute.
const PING_EVERY: Duration = Duration::from_secs(15);
/// How long a server may be silent, pings and keep-alives (every 20 s) included.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);
/// How long the last frame and the closing handshake may take once the exit status is known.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

const _: () = assert!(SILENCE_LIMIT.as_secs() >= 3 * PING_EVERY.as_secs());

/// What both tasks and the handles share.
#[derive(Debug)]
pub(super) struct Shared {
    /// Set when the connection is to be closed, by the end of the session or by a handle.
    pub(super) stop: CancellationToken,
    pub(super) outcome: watch::Sender<Option<Outcome>>,
}

/// The reading side.
pub(super) struct Reader {
    pub(super) socket: SplitStream<Socket>,
    pub(super) tty: bool,
    pub(super) session: Option<SessionId>,
    pub(super) stdout: Option<mpsc::Sender<Bytes>>,
    pub(super) stderr: Option<mpsc::Sender<Bytes>>,
    pub(super) ports: mpsc::Sender<PortChange>,
    pub(super) urls: mpsc::Sender<WebUrl>,
    pub(super) shared: Arc<Shared>,
}

impl Reader {
    /// Reads until the session has ended or the connection has, beginning with `first`.
    pub(super) async fn run(mut self, first: Option<Message>) {
        let outcome = self.pump(first).await;
        self.shared.outcome.send_replace(Some(outcome));
        self.stdout = None;
        self.stderr = None;
        self.shared.stop.cancel();
        // The socket has to be read for the server's half of the closing handshake.
        let rest = async { while let Some(Ok(_)) = self.socket.next().await {} };
        let _ = timeout(CLOSE_LIMIT, rest).await;
    }

    async fn pump(&mut self, first: Option<Message>) -> Outcome {
        let stop = self.shared.stop.clone();
        let mut next = first;
        let mut told: Option<ExitStatus> = None;
        let mut complaint: Option<String> = None;
        loop {
            let message = match next.take() {
                Some(message) => message,
                None => match self.receive(&stop, told.is_some()).await {
                    Ok(message) => message,
                    // All output had come before the status was told: only the last frame is missing.
                    Err(reason) => {
                        return told.ok_or_else(|| self.lost(complaint.unwrap_or(reason)));
                    }
                },
            };
            match self.read(message) {
                Event::Stdout(data) => deliver(&mut self.stdout, data, &stop).await,
                Event::Stderr(data) => deliver(&mut self.stderr, data, &stop).await,
                Event::Exit(status) => return Ok(status),
                Event::ExitTold(status) if self.tty => return Ok(status),
                Event::ExitTold(status) => told = Some(status),
                Event::Error(message) => complaint = Some(message),
                // Output must not wait for somebody who wants to know of these.
                Event::Port(change) => drop(self.ports.try_send(change)),
                Event::Url(url) => drop(self.urls.try_send(url)),
                Event::Session(_) | Event::Nothing => {}
            }
        }
    }

    fn lost(&self, reason: String) -> ExecError {
        ExecError::Lost {
            session: self.session,
            reason,
        }
    }

    fn read(&self, message: Message) -> Event {
        match message {
            Message::Binary(data) if self.tty => Event::Stdout(data),
            Message::Binary(data) => frame::read_binary(data),
            Message::Text(text) => frame::read_text(&text),
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => {
                Event::Nothing
            }
        }
    }

    /// The next message, or why there is none.
    async fn receive(&mut self, stop: &CancellationToken, told: bool) -> Result<Message, String> {
        let limit = if told { CLOSE_LIMIT } else { SILENCE_LIMIT };
        let received = tokio::select! {
            biased;
            () = stop.cancelled() => return Err("this side closed it".to_owned()),
            received = timeout(limit, self.socket.next()) => received,
        };
        match received {
            Ok(Some(Ok(Message::Close(frame)))) => Err(match frame {
                Some(frame) if frame.reason.is_empty() => {
                    format!("the server closed it (code {})", u16::from(frame.code))
                }
                Some(frame) => {
                    format!(
                        "the server closed it: {} (code {})",
                        frame.reason,
                        u16::from(frame.code)
                    )
                }
                None => "the server closed it".to_owned(),
            }),
            Ok(Some(Ok(message))) => Ok(message),
            Ok(Some(Err(error))) => Err(explain(&error)),
            Ok(None) => Err("it broke off".to_owned()),
            Err(_) => Err(format!("the server was silent for {} s", limit.as_secs())),
        }
    }
}

fn explain(error: &tungstenite::Error) -> String {
    match error {
        tungstenite::Error::Io(source) => source.to_string(),
        tungstenite::Error::ConnectionClosed
        | tungstenite::Error::AlreadyClosed
        | tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
            "it broke off".to_owned()
        }
        other => other.to_string(),
    }
}

/// Hands data on and waits while the taker is slow. What nobody takes any more is dropped.
async fn deliver(to: &mut Option<mpsc::Sender<Bytes>>, data: Bytes, stop: &CancellationToken) {
    let Some(sender) = to else { return };
    let closed = tokio::select! {
        biased;
        sent = sender.send(data) => sent.is_err(),
        () = stop.cancelled() => false,
    };
    if closed {
        *to = None;
    }
}

/// The writing side.
pub(super) struct Writer {
    pub(super) socket: SplitSink<Socket, Message>,
    pub(super) tty: bool,
    pub(super) stdin: Option<mpsc::Receiver<Bytes>>,
    pub(super) controls: mpsc::Receiver<Message>,
    pub(super) shared: Arc<Shared>,
}

impl Writer {
    /// Writes until the connection is to be closed, and closes it.
    pub(super) async fn run(mut self) {
        let stop = self.shared.stop.clone();
        let mut pings = interval(PING_EVERY);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick is at once.
        pings.tick().await;
        loop {
            let message = tokio::select! {
                // In this order: a handle that lets go of a session must not close its input by the way.
                biased;
                () = stop.cancelled() => break,
                Some(control) = self.controls.recv() => control,
                data = receive(&mut self.stdin) => match data {
                    Some(data) => Message::Binary(data),
                    None => {
                        self.stdin = None;
                        if self.tty {
                            continue;
                        }
                        frame::stdin_eof()
                    }
                },
                _ = pings.tick() => Message::Ping(Bytes::new()),
            };
            let sent = tokio::select! {
                biased;
                sent = self.socket.send(message) => sent,
                () = stop.cancelled() => break,
            };
            if sent.is_err() {
                // The reader learns the reason and tells it.
                return;
            }
        }
        let closing = async {
            // A signal that was sent just before letting go is meant to arrive.
            while let Ok(control) = self.controls.try_recv() {
                self.socket.send(control).await?;
            }
            self.socket.close().await
        };
        // A connection that breaks meanwhile is closed as well.
        let _ = timeout(CLOSE_LIMIT, closing).await;
    }
}

async fn receive(stdin: &mut Option<mpsc::Receiver<Bytes>>) -> Option<Bytes> {
    match stdin {
        Some(stdin) => stdin.recv().await,
        None => std::future::pending().await,
    }
}
