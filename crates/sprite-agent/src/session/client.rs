//! A client's place in a session's output.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use sprite_agent_api::message::{AttachSpec, SessionStarted, TtySize};
use sprite_agent_api::{FrameKind, MAX_DATA};
use tokio::sync::watch;
use tokio::time::Instant;

use super::state::{Cursor, State, Stream};
use super::{Session, bump, unix_ms};
use crate::journal::{Found, Journal, Piece};

/// Where a client begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begin {
    /// At these offsets, or the next ones that are kept.
    Offsets { stdout: u64, stderr: u64 },
    /// At what its terminal shows now. Without a terminal that can be drawn: at the first byte that is kept.
    Screen,
}

impl Begin {
    pub(crate) const START: Self = Self::Offsets {
        stdout: 0,
        stderr: 0,
    };

    /// Where who sends `spec` begins.
    pub(crate) fn of(spec: &AttachSpec) -> Self {
        if spec.screen {
            return Self::Screen;
        }
        Self::Offsets {
            stdout: spec.stdout_offset,
            stderr: spec.stderr_offset,
        }
    }
}

/// One client's place in a session's output. Dropping it detaches.
pub(crate) struct Client {
    session: Arc<Session>,
    id: u64,
    output: watch::Receiver<u64>,
    /// Bytes of a drawn screen.
    screen_bytes: u64,
    /// What it gets next, of which the offsets know nothing any more.
    ready: VecDeque<(Stream, Bytes)>,
}

/// What a client gets next.
pub(crate) enum Next {
    Output(FrameKind, Bytes),
    /// All output was handed out, and the session has ended.
    Exited(u8),
    /// The journal does not give what is next.
    Lost,
}

/// What there is for a client.
enum Take {
    Next(Next),
    Read(Stream, u64, Piece),
    Wait,
}

impl Session {
    /// Attaches a client.
    pub(crate) fn attach(self: &Arc<Self>, from: Begin) -> Client {
        let mut state = self.state();
        let clamp = |journal: &Journal, offset: u64| offset.clamp(journal.start(), journal.end());
        let (offsets, drawn) = begin(from, &mut state);
        let cursor = Cursor {
            stdout: clamp(state.journal(Stream::Stdout), offsets.stdout),
            stderr: clamp(state.journal(Stream::Stderr), offsets.stderr),
        };
        let id = state.next_client;
        state.next_client += 1;
        state.clients.insert(id, cursor);
        state.held = None;
        state.detached_since = None;
        drop(state);
        bump(&self.progress);
        let mut client = Client {
            session: self.clone(),
            id,
            output: self.output.subscribe(),
            screen_bytes: drawn.len() as u64,
            ready: VecDeque::new(),
        };
        client.make_ready(Stream::Stdout, drawn);
        client
    }
}

/// The offsets to begin at, and what is shown before.
fn begin(from: Begin, state: &mut State) -> (Cursor, Bytes) {
    match from {
        Begin::Offsets { stdout, stderr } => (Cursor { stdout, stderr }, Bytes::new()),
        Begin::Screen => {
            let drawn = state.screen.as_mut().and_then(|screen| screen.draw());
            let stdout = match &drawn {
                Some(_) => state.journal(Stream::Stdout).end(),
                None => 0,
            };
            let drawn = drawn.map(Bytes::from).unwrap_or_default();
            (Cursor { stdout, stderr: 0 }, drawn)
        }
    }
}

impl Client {
    /// What the client needs to know first.
    pub(crate) fn started(&self) -> SessionStarted {
        let state = self.session.state();
        let cursor = state.clients[&self.id];
        SessionStarted {
            session: self.session.id,
            command: self.session.command.clone(),
            created_unix: unix_ms(self.session.created) / 1000,
            tty: self.session.tty,
            size: TtySize {
                rows: state.size.rows,
                cols: state.size.cols,
            },
            stdout_start: cursor.stdout,
            stderr_start: cursor.stderr,
            screen_bytes: self.screen_bytes,
            stdout: state.kept(Stream::Stdout),
            stderr: state.kept(Stream::Stderr),
        }
    }

    fn make_ready(&mut self, stream: Stream, mut bytes: Bytes) {
        while !bytes.is_empty() {
            let frame = bytes.split_to(bytes.len().min(MAX_DATA));
            self.ready.push_back((stream, frame));
        }
    }

    fn take(&self) -> Take {
        let mut state = self.session.state();
        let mut cursor = state.clients[&self.id];
        for stream in [Stream::Stderr, Stream::Stdout] {
            match state.journal(stream).find(cursor.of(stream)) {
                Found::End => {}
                Found::Gone => return Take::Next(Next::Lost),
                Found::Disk(piece) => return Take::Read(stream, cursor.of(stream), piece),
                Found::Memory(chunk) => {
                    cursor.advance(stream, chunk.len());
                    state.clients.insert(self.id, cursor);
                    self.moved(state);
                    return Take::Next(Next::Output(stream.frame(), chunk));
                }
            }
        }
        state
            .exit
            .map_or(Take::Wait, |code| Take::Next(Next::Exited(code)))
    }

    /// Its cursor moved: others may go on.
    fn moved(&self, mut state: std::sync::MutexGuard<'_, State>) {
        let asks = state.settle();
        drop(state);
        self.session.ask_writer(asks);
        bump(&self.session.progress);
    }

    /// Waits for the next output, or for the end.
    ///
    /// Cancel safe: cancelled, nothing was taken.
    pub(crate) async fn next(&mut self) -> Next {
        loop {
            if let Some((stream, bytes)) = self.ready.pop_front() {
                return Next::Output(stream.frame(), bytes);
            }
            self.output.borrow_and_update();
            match self.take() {
                Take::Next(next) => return next,
                Take::Read(stream, offset, piece) => {
                    let read = tokio::task::spawn_blocking(move || piece.read()).await;
                    let Ok(Ok(bytes)) = read else {
                        return Next::Lost;
                    };
                    self.have_read(stream, offset, bytes);
                }
                Take::Wait => {
                    if self.output.changed().await.is_err() {
                        return Next::Lost;
                    }
                }
            }
        }
    }

    /// Takes what was read from the disk, unless it was overwritten meanwhile.
    fn have_read(&mut self, stream: Stream, offset: u64, bytes: Bytes) {
        let mut state = self.session.state();
        if !state.journal(stream).has(offset) {
            return;
        }
        if let Some(cursor) = state.clients.get_mut(&self.id) {
            cursor.advance(stream, bytes.len());
        }
        self.moved(state);
        self.make_ready(stream, bytes);
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let mut state = self.session.state();
        let cursor = state.clients.remove(&self.id);
        if state.clients.is_empty() {
            let now = Instant::now();
            state.detached_since = Some(now);
            state.held = cursor.map(|cursor| (cursor, now));
        }
        self.moved(state);
    }
}
