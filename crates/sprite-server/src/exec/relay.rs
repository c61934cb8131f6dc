//! Between a client's WebSocket and a session: both directions, each at the pace of its slower side.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use sprite_agent_api::message::{Input, Reply, SessionStarted, TtySize};
use sprite_agent_api::{Frame, FrameKind, MAX_DATA, link};
use sprite_api::control::{self, ClientEnvelope, Envelope, ServerEnvelope};
use sprite_api::exec::{ClientText, OpenUrl, ServerText, SessionInfo, StreamId};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::sessions;
use crate::browsers::{Listener, Presence, Urls};
use crate::ports;
use crate::ws::{Message, ReadError, Reader, Socket, Violation, Writer};

/// A text message at least this often. Source: behaviour reference §1.4.4 rule 5.
pub(crate) const KEEPALIVE: Duration = Duration::from_secs(20);

/// Longest binary message to a client. Source: behaviour reference §1.4.4 rule 7.
const MAX_PAYLOAD: usize = (64 << 10) - 1;

/// Bytes laid together before they are written: enough to make the writes few, little enough to be nothing
/// beside the window of the link.
const BATCH: usize = 256 << 10;

/// How the socket is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// One session, one socket.
    Direct,
    /// Operations one after the other.
    Control,
}

/// Why the two are apart again.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The session ended; all its output has been queued.
    Exited(u8),
    /// The machine is gone, or broke the contract.
    Lost(String),
    /// The client said goodbye.
    Closed,
    /// The client is gone without a word.
    Vanished,
    /// The client broke the protocol.
    Violation(Violation),
    /// The server stops.
    Stopped,
}

/// Moves bytes both ways until the session, the client or the server ends. A client that takes URLs is asked meanwhile.
pub(crate) async fn relay<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut Socket<S>,
    stream: &mut link::Stream,
    started: &SessionStarted,
    dialect: Dialect,
    browser: Option<Listener>,
    stop: &CancellationToken,
) -> Outcome {
    // Source: behaviour reference §1.4.2: before any output, or the client reads it in the wrong mode.
    socket.writer.text(session_info(started).to_json());
    let replies = Replies::default();
    let (mut urls, presence) = match browser {
        Some(Listener { urls, presence }) => (Some(urls), Some(presence)),
        None => (None, None),
    };
    let output = output(
        &mut socket.writer,
        &mut stream.receiver,
        started.tty,
        &replies,
        urls.as_mut(),
    );
    let input = Typist {
        sender: &stream.sender,
        tty: started.tty,
        dialect,
        replies: &replies,
        presence: presence.as_ref(),
    };
    tokio::select! {
        biased;
        outcome = output => outcome,
        outcome = input.run(&mut socket.reader) => outcome,
        () = stop.cancelled() => Outcome::Stopped,
    }
}

fn session_info(started: &SessionStarted) -> ServerText {
    ServerText::SessionInfo(SessionInfo {
        session_id: started.session.to_string(),
        command: started.command.clone(),
        created: started.created_unix,
        cols: started.size.cols,
        rows: started.size.rows,
        is_owner: true,
        tty: started.tty,
        stdout_offset: started.stdout_start,
        stderr_offset: started.stderr_start,
        screen_bytes: started.screen_bytes,
        kept: sessions::kept(started.stdout, started.stderr),
    })
}

/// What the reading half wants said by the writing half.
#[derive(Debug, Default)]
struct Replies {
    waiting: Mutex<Waiting>,
    added: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Of several pings the last is answered, which is enough. Source: RFC 6455 §5.5.3.
    pong: Option<Bytes>,
    texts: VecDeque<String>,
}

/// Texts that may wait; a client that asks more without reading gets no answer to the rest.
const MAX_WAITING_TEXTS: usize = 16;

impl Replies {
    fn add(&self, change: impl FnOnce(&mut Waiting)) {
        change(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        self.added.notify_one();
    }

    fn queue_on<W: AsyncWrite + Unpin>(&self, writer: &mut Writer<W>) {
        let Waiting { pong, texts } =
            std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(payload) = pong {
            writer.pong(payload);
        }
        texts.into_iter().for_each(|text| writer.text(text));
    }
}

async fn output<W: AsyncWrite + Unpin>(
    writer: &mut Writer<W>,
    receiver: &mut link::Receiver,
    tty: bool,
    replies: &Replies,
    mut urls: Option<&mut Urls>,
) -> Outcome {
    let mut keepalive_at = Instant::now() + KEEPALIVE;
    loop {
        if writer.queued() > 0 {
            keepalive_at = Instant::now() + KEEPALIVE;
        }
        if writer.flush().await.is_err() {
            return Outcome::Vanished;
        }
        tokio::select! {
            biased;
            () = replies.added.notified() => replies.queue_on(writer),
            url = next_url(&mut urls) => writer.text(ServerText::OpenUrl(url).to_json()),
            received = receiver.recv() => {
                let mut received = Some(received);
                // What has arrived already goes out in the same write.
                while let Some(next) = received {
                    if let Some(end) = forward(writer, next, tty) {
                        return end;
                    }
                    received = if writer.queued() < BATCH { receiver.recv().now_or_never() } else { None };
                }
            }
            () = sleep_until(keepalive_at) => writer.text(ServerText::Keepalive.to_json()),
        }
    }
}

async fn next_url(urls: &mut Option<&mut Urls>) -> OpenUrl {
    match urls {
        Some(urls) => urls.next().await,
        None => std::future::pending().await,
    }
}

/// Queues what the machine said, or tells how it ended.
fn forward<W: AsyncWrite + Unpin>(
    writer: &mut Writer<W>,
    received: Result<Option<Frame>, link::LinkError>,
    tty: bool,
) -> Option<Outcome> {
    let frame = match received {
        Ok(Some(frame)) => frame,
        Ok(None) => {
            return Some(Outcome::Lost(
                "the machine ended before the command did".to_owned(),
            ));
        }
        Err(error) => return Some(Outcome::Lost(error.to_string())),
    };
    let prefix: &[u8] = match (frame.kind, tty) {
        (FrameKind::Control, _) => return said_beside(writer, &frame),
        (FrameKind::Stdin, _) => return Some(Outcome::Lost("the machine sent stdin".to_owned())),
        (FrameKind::Stdout | FrameKind::Stderr, true) => &[],
        (FrameKind::Stdout, false) => &[StreamId::Stdout as u8],
        (FrameKind::Stderr, false) => &[StreamId::Stderr as u8],
    };
    let mut payload = frame.payload;
    while !payload.is_empty() {
        let piece = payload.split_to(payload.len().min(MAX_PAYLOAD));
        writer.binary(prefix, piece);
    }
    None
}

/// Queues what the machine tells beside the output, or tells how it ended.
fn said_beside<W: AsyncWrite + Unpin>(writer: &mut Writer<W>, frame: &Frame) -> Option<Outcome> {
    match frame.message() {
        Ok(Reply::Port(event)) => {
            writer.text(ports::message(event).to_json());
            None
        }
        Ok(Reply::Exited { code }) => Some(Outcome::Exited(code)),
        Ok(Reply::Failed(failure)) => Some(Outcome::Lost(failure.message)),
        // Of no meaning here; a newer agent may say more than we know.
        Ok(
            Reply::Ready(_)
            | Reply::Started(_)
            | Reply::Sessions { .. }
            | Reply::Kill(_)
            | Reply::Synced,
        ) => None,
        Err(_) => Some(Outcome::Lost(
            "the machine sent a message that cannot be read".to_owned(),
        )),
    }
}

/// The client's side of a session.
struct Typist<'a> {
    sender: &'a link::Sender,
    tty: bool,
    dialect: Dialect,
    replies: &'a Replies,
    /// Told when something is typed.
    presence: Option<&'a Presence>,
}

impl Typist<'_> {
    /// Takes what the client says until it ends. What it says after the session's end is passed over: the
    /// exit is on its way to it.
    async fn run<R: AsyncRead + Unpin>(&self, reader: &mut Reader<R>) -> Outcome {
        let mut eof = false;
        loop {
            let frames = match reader.next().await {
                Ok(Message::Ping(payload)) => {
                    self.replies.add(|waiting| waiting.pong = Some(payload));
                    continue;
                }
                Ok(Message::Close(_)) => return Outcome::Closed,
                Ok(Message::Text(text)) => self.text(&text),
                Ok(Message::Binary(bytes)) => self.binary(bytes),
                Err(ReadError::Violation(violation)) => return Outcome::Violation(violation),
                Err(ReadError::Eof | ReadError::Io(_)) => return Outcome::Vanished,
            };
            match frames {
                Said::Nothing => {}
                Said::Input(Input::StdinEof) if eof => {}
                Said::Input(input) => {
                    eof |= input == Input::StdinEof;
                    // An error is the end of the stream, which the other direction tells.
                    let _ = self.sender.send(Frame::control(&input)).await;
                }
                Said::Stdin(bytes) if !eof => {
                    if let Some(presence) = self.presence {
                        presence.typed();
                    }
                    self.stdin(bytes).await;
                }
                Said::Stdin(_) => {}
            }
        }
    }

    async fn stdin(&self, mut bytes: Bytes) {
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(MAX_DATA));
            if self
                .sender
                .send(Frame::data(FrameKind::Stdin, piece))
                .await
                .is_err()
            {
                return;
            }
        }
    }

    fn binary(&self, bytes: Bytes) -> Said {
        // Source: behaviour reference §1.5, §11.6: over control, JavaScript sends resize and signal like this.
        if self.dialect == Dialect::Control
            && bytes.first() == Some(&b'{')
            && let Ok(message) = serde_json::from_slice(&bytes)
        {
            return said(message);
        }
        if self.tty {
            return Said::Stdin(bytes);
        }
        match StreamId::split(bytes) {
            Some((StreamId::Stdin, payload)) => Said::Stdin(payload),
            Some((StreamId::StdinEof, _)) => Said::Input(Input::StdinEof),
            // Of no meaning from a client.
            Some((StreamId::Stdout | StreamId::Stderr | StreamId::Exit, _)) | None => Said::Nothing,
        }
    }

    fn text(&self, text: &str) -> Said {
        let envelope = match self.dialect {
            Dialect::Control => text.strip_prefix(control::PREFIX),
            Dialect::Direct => None,
        };
        if let Some(json) = envelope {
            if !matches!(ClientEnvelope::parse(json), Some(ClientEnvelope::Release)) {
                let error = "another operation is running on this socket".to_owned();
                self.replies.add(|waiting| {
                    if waiting.texts.len() < MAX_WAITING_TEXTS {
                        waiting
                            .texts
                            .push_back(ServerEnvelope::Error { error }.to_text(Envelope::Prefixed));
                    }
                });
            }
            return Said::Nothing;
        }
        // Texts that are not known are passed over: clients may know more than we do.
        serde_json::from_str(text).map_or(Said::Nothing, said)
    }
}

/// What a message of the client means for the session.
enum Said {
    Nothing,
    Input(Input),
    Stdin(Bytes),
}

fn said(message: ClientText) -> Said {
    match message {
        ClientText::Resize { cols, rows } => Said::Input(Input::Resize(TtySize { rows, cols })),
        ClientText::Signal { signal } => match signal.signal() {
            Some(signal) => Said::Input(Input::Signal {
                signal: signal.number(),
            }),
            None => Said::Nothing,
        },
        ClientText::StdinEof => Said::Input(Input::StdinEof),
    }
}
