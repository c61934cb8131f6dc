//! One session: a process, its output, and the clients that are attached to it.
//!
//! ```text
//! process ──pipes or terminal──▶ reader tasks ──▶ journals ──▶ one cursor for each attached client
//! ```
//! A reader stops reading while the slowest client is a journal's length behind: the process then waits in
//! its own write. After the last client went, what it had not got is held for a while in the same way, so that
//! a client whose connection broke, or a host that was restarted, misses nothing; then the oldest output goes.
//!
//! The end has an order: the kernel says how the process ended, the readers take what is left in the pipes, and
//! only then the session has ended.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use sprite_agent_api::message::{ExecSpec, SessionInfo, SessionStarted, TtySize};
use sprite_agent_api::{FrameKind, MAX_DATA};
use sprite_types::SessionId;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::journal::{self, Journal};
use crate::terminal;

/// How long output that the last client did not get is held back for another one.
const HOLD: Duration = Duration::from_secs(60);

/// How far a session may write ahead of its slowest client before it has to wait.
const AHEAD: u64 = 1 << 20;

/// A terminal whose session ended may still be held open by a background process: output that is on its way
/// in the kernel gets this long.
const TERMINAL_DRAIN: Duration = Duration::from_millis(100);

/// Frames of stdin that wait for the process; more, and the client waits.
const STDIN_QUEUE: usize = 8;

/// One of the two streams that a session writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn frame(self) -> FrameKind {
        match self {
            Self::Stdout => FrameKind::Stdout,
            Self::Stderr => FrameKind::Stderr,
        }
    }
}

/// How far a client has got, in each stream.
#[derive(Debug, Clone, Copy)]
struct Cursor {
    stdout: u64,
    stderr: u64,
}

impl Cursor {
    fn of(self, stream: Stream) -> u64 {
        match stream {
            Stream::Stdout => self.stdout,
            Stream::Stderr => self.stderr,
        }
    }
}

#[derive(Debug, Default)]
struct State {
    stdout: Journal,
    stderr: Journal,
    clients: HashMap<u64, Cursor>,
    next_client: u64,
    /// What the last client had got, for as long as the rest is held.
    held: Option<(Cursor, Instant)>,
    detached_since: Option<Instant>,
    exit: Option<u8>,
    size: Cells,
    last_activity: Option<SystemTime>,
    rate: Rate,
}

#[derive(Debug, Default, Clone, Copy)]
struct Cells {
    rows: u16,
    cols: u16,
}

/// Output of the last whole second.
#[derive(Debug, Default)]
struct Rate {
    since: Option<Instant>,
    bytes: u64,
    per_second: u64,
}

impl Rate {
    fn add(&mut self, bytes: u64, now: Instant) {
        let since = *self.since.get_or_insert(now);
        self.bytes += bytes;
        let elapsed = now.duration_since(since);
        if elapsed >= Duration::from_secs(1) {
            let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
            self.per_second = self.bytes.saturating_mul(1000) / millis;
            self.bytes = 0;
            self.since = Some(now);
        }
    }

    fn now(&self, now: Instant) -> u64 {
        match self.since {
            Some(since) if now.duration_since(since) < Duration::from_secs(3) => {
                self.per_second.max(self.bytes)
            }
            Some(_) | None => 0,
        }
    }
}

/// What goes to the process.
#[derive(Debug)]
pub(crate) enum Stdin {
    Bytes(Bytes),
    Eof,
}

/// A session, live or ended.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    /// Its process leads a session and a process group of the kernel.
    pub(crate) group: Group,
    pub(crate) command: String,
    pub(crate) workdir: String,
    pub(crate) created: SystemTime,
    max_run_after_disconnect: Option<Duration>,
    tty: bool,
    /// The terminal's master side, until the session has ended.
    terminal: Mutex<Option<Arc<AsyncFd<OwnedFd>>>>,
    stdin: mpsc::Sender<Stdin>,
    state: Mutex<State>,
    /// Counts up with every change that a client may be waiting for.
    output: watch::Sender<u64>,
    /// Counts up with every change that a reader may be waiting for.
    progress: watch::Sender<u64>,
    /// Whether the process has ended, and readers should stop when nothing is left.
    process_ended: watch::Sender<bool>,
}

/// A process of the environment, as its parent, the agent, has it.
#[derive(Debug)]
pub(crate) struct Process {
    fd: AsyncFd<OwnedFd>,
    pub(crate) group: Group,
}

/// The process group that a process leads; its id is the process's own.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    pid: i32,
    /// Whether its leader was not reaped yet: after that the id may mean another process.
    alive: Arc<Mutex<bool>>,
}

impl Group {
    fn alive(&self) -> MutexGuard<'_, bool> {
        self.alive
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Signals the whole group. Whoever left it is not reached, as in any Unix shell.
    pub(crate) fn signal(&self, signal: i32) -> io::Result<()> {
        let alive = self.alive();
        // SAFETY: takes numbers. While the lock is held and the leader was not reaped, the id means this group.
        if *alive && unsafe { libc::kill(-self.pid, signal) } == 0 {
            return Ok(());
        }
        Err(io::Error::from_raw_os_error(libc::ESRCH))
    }
}

impl Process {
    /// The process behind a descriptor.
    pub(crate) fn new(pid: i32, fd: AsyncFd<OwnedFd>) -> Self {
        let alive = Arc::new(Mutex::new(true));
        Self {
            fd,
            group: Group { pid, alive },
        }
    }

    /// Waits for the end and takes the exit status: 0 to 255, 128 + n for signal n.
    pub(crate) async fn wait(&self) -> io::Result<u8> {
        loop {
            let mut ready = self.fd.readable().await?;
            let options =
                rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOHANG;
            let id = rustix::process::WaitId::PidFd(std::os::fd::AsFd::as_fd(self.fd.get_ref()));
            let mut alive = self.group.alive();
            let Some(status) = rustix::process::waitid(id, options)? else {
                ready.clear_ready();
                continue;
            };
            *alive = false;
            let signal = status.terminating_signal().map(|signal| 128 + signal);
            let code = status.exit_status().or(signal);
            return Ok(code
                .and_then(|c| u8::try_from(c & 0xff).ok())
                .unwrap_or(255));
        }
    }

    /// Ends the process, and no other of its group.
    pub(crate) fn kill(&self) {
        // Whoever is gone already is what was wanted.
        let _ =
            rustix::process::pidfd_send_signal(self.fd.get_ref(), rustix::process::Signal::KILL);
    }

    /// Ends a process that became no session. It may not lead a group yet: hostile code can stop it before.
    pub(crate) async fn discard(&self) {
        self.kill();
        // It is the agent's own child: if it cannot be waited for it is gone already.
        let _ = self.wait().await;
    }
}

/// The pipes or the terminal of a new session.
pub(crate) enum Stdio {
    Pipes {
        stdin: Option<tokio::net::unix::pipe::Sender>,
        stdout: tokio::net::unix::pipe::Receiver,
        stderr: tokio::net::unix::pipe::Receiver,
    },
    Terminal {
        master: Arc<AsyncFd<OwnedFd>>,
        size: TtySize,
    },
}

/// What a new session is called.
pub(crate) struct Name {
    pub(crate) id: SessionId,
    pub(crate) command: String,
    pub(crate) workdir: String,
}

impl Session {
    /// Starts the tasks of a session whose process has been forked. `ended` is called once it has ended.
    pub(crate) fn start(
        name: Name,
        exec: &ExecSpec,
        process: Process,
        stdio: Stdio,
        ended: impl FnOnce(&Arc<Session>) + Send + 'static,
    ) -> Arc<Self> {
        let (stdin, queue) = mpsc::channel(STDIN_QUEUE);
        let mut state = State::default();
        let terminal = match &stdio {
            Stdio::Pipes { .. } => None,
            Stdio::Terminal { master, size } => {
                state.size = Cells {
                    rows: size.rows,
                    cols: size.cols,
                };
                Some(master.clone())
            }
        };
        let session = Arc::new(Self {
            id: name.id,
            group: process.group.clone(),
            command: name.command,
            workdir: name.workdir,
            created: SystemTime::now(),
            max_run_after_disconnect: exec.max_run_after_disconnect_ms.map(Duration::from_millis),
            tty: terminal.is_some(),
            terminal: Mutex::new(terminal),
            stdin,
            state: Mutex::new(state),
            output: watch::Sender::new(0),
            progress: watch::Sender::new(0),
            process_ended: watch::Sender::new(false),
        });
        let mut readers = tokio::task::JoinSet::new();
        match stdio {
            Stdio::Pipes {
                stdin,
                stdout,
                stderr,
            } => {
                readers.spawn(session.clone().read_pipe(Stream::Stdout, stdout));
                readers.spawn(session.clone().read_pipe(Stream::Stderr, stderr));
                tokio::spawn(session.clone().until_ended(write_pipe(queue, stdin)));
            }
            Stdio::Terminal { master, .. } => {
                readers.spawn(session.clone().read_terminal(master.clone()));
                tokio::spawn(session.clone().until_ended(write_terminal(queue, master)));
            }
        }
        tokio::spawn(session.clone().run(process, readers, ended));
        session
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn terminal(&self) -> MutexGuard<'_, Option<Arc<AsyncFd<OwnedFd>>>> {
        self.terminal
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Writes stdin until the process has ended: the other side of a terminal that is closed and full would be
    /// writable for ever, and take nothing.
    async fn until_ended(self: Arc<Self>, write: impl Future<Output = ()>) {
        let mut ended = self.process_ended.subscribe();
        tokio::select! {
            () = write => {}
            _ = ended.wait_for(|ended| *ended) => {}
        }
    }

    async fn run(
        self: Arc<Self>,
        process: Process,
        mut readers: tokio::task::JoinSet<()>,
        ended: impl FnOnce(&Arc<Session>),
    ) {
        let mut progress = self.progress.subscribe();
        let waited = process.wait();
        tokio::pin!(waited);
        let mut overdue = false;
        let code = loop {
            let deadline = self.next_deadline(overdue);
            tokio::select! {
                code = &mut waited => break code.unwrap_or(255),
                _ = progress.changed() => {}
                () = tokio::time::sleep_until(deadline.unwrap_or_else(far_future)), if deadline.is_some() => {
                    overdue |= self.on_deadline();
                }
            }
        };
        // The terminal's other clients, if any, still get what comes; ours is over when nothing is left.
        self.process_ended.send_replace(true);
        while readers.join_next().await.is_some() {}
        // What is remembered of the session holds no descriptor.
        self.terminal().take();
        self.state().exit = Some(code);
        ended(&self);
        bump(&self.output);
    }

    /// When to look again: the end of a hold, or of the time that the session may run alone.
    fn next_deadline(&self, overdue: bool) -> Option<Instant> {
        let state = self.state();
        let hold = state.held.map(|(_, since)| since + HOLD);
        let alone = match (state.detached_since, self.max_run_after_disconnect) {
            (Some(since), Some(most)) if !overdue => Some(since + most),
            (Some(_) | None, Some(_) | None) => None,
        };
        hold.into_iter().chain(alone).min()
    }

    /// Returns whether the session was told to end because nobody is attached.
    fn on_deadline(&self) -> bool {
        let now = Instant::now();
        let mut state = self.state();
        if state.held.is_some_and(|(_, since)| since + HOLD <= now) {
            state.held = None;
            let State { stdout, stderr, .. } = &mut *state;
            stdout.trim(journal::KEPT, u64::MAX);
            stderr.trim(journal::KEPT, u64::MAX);
        }
        let overdue = match (state.detached_since, self.max_run_after_disconnect) {
            (Some(since), Some(most)) => since + most <= now,
            (Some(_) | None, Some(_) | None) => false,
        };
        drop(state);
        bump(&self.progress);
        if overdue {
            // It had its time; a process that does not want to end cannot ignore this one. If it is gone
            // already, that is what was wanted.
            let _ = self.group.signal(libc::SIGKILL);
        }
        overdue
    }

    /// Offset up to which every client (or the last one, while its rest is held) has got `stream`.
    fn wanted(state: &State, stream: Stream) -> u64 {
        let clients = state.clients.values().map(|cursor| cursor.of(stream));
        let held = state.held.iter().map(|(cursor, _)| cursor.of(stream));
        clients.chain(held).min().unwrap_or(u64::MAX)
    }

    /// Offset from which on `stream` is kept: what was handed out may still be on its way when a connection
    /// breaks, so as much again is kept behind the slowest client.
    fn kept_from(state: &State, stream: Stream) -> u64 {
        Self::wanted(state, stream).saturating_sub(journal::KEPT as u64)
    }

    fn journal(state: &mut State, stream: Stream) -> &mut Journal {
        match stream {
            Stream::Stdout => &mut state.stdout,
            Stream::Stderr => &mut state.stderr,
        }
    }

    /// Waits until another chunk may be read.
    async fn room(&self, stream: Stream) {
        let mut progress = self.progress.subscribe();
        loop {
            {
                let mut state = self.state();
                let wanted = Self::wanted(&state, stream);
                let end = Self::journal(&mut state, stream).end();
                if end.saturating_sub(wanted) < AHEAD {
                    return;
                }
            }
            if progress.changed().await.is_err() {
                return;
            }
        }
    }

    fn push(&self, stream: Stream, chunk: Bytes) {
        let mut state = self.state();
        let wanted = Self::kept_from(&state, stream);
        state.rate.add(chunk.len() as u64, Instant::now());
        state.last_activity = Some(SystemTime::now());
        Self::journal(&mut state, stream).push(chunk, wanted);
        drop(state);
        bump(&self.output);
    }

    async fn read_pipe(
        self: Arc<Self>,
        stream: Stream,
        mut pipe: tokio::net::unix::pipe::Receiver,
    ) {
        let mut buffer = Chunks::default();
        let mut ended = self.process_ended.subscribe();
        loop {
            self.room(stream).await;
            let got = tokio::select! {
                biased;
                got = buffer.read(&mut pipe) => Some(got),
                _ = ended.wait_for(|ended| *ended) => None,
            };
            let Some(got) = got else {
                // Whoever still holds the pipe open, a background process, is not this session any more.
                return self.drain_pipe(stream, &pipe, buffer).await;
            };
            match got {
                Ok(chunk) if chunk.is_empty() => return,
                Ok(chunk) => self.push(stream, chunk),
                Err(_) => return,
            }
        }
    }

    async fn drain_pipe(
        &self,
        stream: Stream,
        pipe: &tokio::net::unix::pipe::Receiver,
        mut buffer: Chunks,
    ) {
        loop {
            self.room(stream).await;
            match buffer.try_read(|space| pipe.try_read(space)) {
                Ok(chunk) if chunk.is_empty() => return,
                Ok(chunk) => self.push(stream, chunk),
                Err(_) => return,
            }
        }
    }

    async fn read_terminal(self: Arc<Self>, master: Arc<AsyncFd<OwnedFd>>) {
        let mut buffer = Chunks::default();
        let mut ended = self.process_ended.subscribe();
        loop {
            self.room(Stream::Stdout).await;
            let over = *ended.borrow_and_update();
            let ready = tokio::select! {
                biased;
                ready = master.readable() => ready,
                () = tokio::time::sleep(TERMINAL_DRAIN), if over => return,
                _ = ended.changed(), if !over => continue,
            };
            let Ok(mut ready) = ready else { return };
            let got = ready.try_io(|fd| buffer.try_read(|space| Ok(rustix::io::read(fd, space)?)));
            match got {
                // EIO: the other side is closed, and nothing is left.
                Ok(Ok(chunk)) if chunk.is_empty() => return,
                Ok(Ok(chunk)) => self.push(Stream::Stdout, chunk),
                Ok(Err(_)) => return,
                Err(_would_block) => {}
            }
        }
    }

    /// Queues stdin; waits while the process does not read. Whatever comes after the end is dropped.
    pub(crate) async fn feed(&self, stdin: Stdin) {
        self.state().last_activity = Some(SystemTime::now());
        // The writer is gone when the process closed its stdin or ended.
        let _ = self.stdin.send(stdin).await;
    }

    /// Gives its terminal another size; nothing without a terminal.
    pub(crate) fn resize(&self, size: TtySize) {
        let resized = self
            .terminal()
            .as_ref()
            .is_some_and(|master| terminal::resize(master.get_ref(), size).is_ok());
        if resized {
            self.state().size = Cells {
                rows: size.rows,
                cols: size.cols,
            };
        }
    }

    /// The exit status, once the session has ended.
    pub(crate) fn exit(&self) -> Option<u8> {
        self.state().exit
    }

    /// Waits for the session's end.
    pub(crate) async fn ended(&self) -> u8 {
        let mut output = self.output.subscribe();
        loop {
            if let Some(code) = self.exit() {
                return code;
            }
            if output.changed().await.is_err() {
                return 255;
            }
        }
    }

    /// Bytes that its journals hold in memory.
    pub(crate) fn kept_bytes(&self) -> usize {
        let state = self.state();
        state.stdout.len() + state.stderr.len()
    }

    /// Lets go of all output but the last `keep` bytes of each stream.
    pub(crate) fn forget_output(&self, keep: usize) {
        let mut state = self.state();
        state.stdout.trim(keep, u64::MAX);
        state.stderr.trim(keep, u64::MAX);
    }

    /// Attaches a client that wants output from these offsets on.
    pub(crate) fn attach(self: &Arc<Self>, stdout_offset: u64, stderr_offset: u64) -> Client {
        let mut state = self.state();
        let clamp = |journal: &Journal, offset: u64| offset.clamp(journal.start(), journal.end());
        let cursor = Cursor {
            stdout: clamp(&state.stdout, stdout_offset),
            stderr: clamp(&state.stderr, stderr_offset),
        };
        let id = state.next_client;
        state.next_client += 1;
        state.clients.insert(id, cursor);
        state.held = None;
        state.detached_since = None;
        drop(state);
        bump(&self.progress);
        Client {
            session: self.clone(),
            id,
            output: self.output.subscribe(),
        }
    }

    /// The session in a listing.
    pub(crate) fn info(&self) -> SessionInfo {
        let state = self.state();
        SessionInfo {
            session: self.id,
            command: self.command.clone(),
            workdir: self.workdir.clone(),
            created_unix_ms: unix_ms(self.created),
            last_activity_unix_ms: unix_ms(state.last_activity.unwrap_or(self.created)),
            output_bytes: state.stdout.end() + state.stderr.end(),
            bytes_per_second: state.rate.now(Instant::now()),
            attached: u32::try_from(state.clients.len()).unwrap_or(u32::MAX),
            tty: self.tty,
        }
    }
}

/// One client's place in a session's output. Dropping it detaches.
pub(crate) struct Client {
    session: Arc<Session>,
    id: u64,
    output: watch::Receiver<u64>,
}

/// What a client gets next.
pub(crate) enum Next {
    Output(FrameKind, Bytes),
    /// All output was handed out, and the session has ended.
    Exited(u8),
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
        }
    }

    fn take(&self) -> Option<Next> {
        let mut state = self.session.state();
        let mut cursor = state.clients[&self.id];
        for stream in [Stream::Stderr, Stream::Stdout] {
            let at = cursor.of(stream);
            let Some(chunk) = Session::journal(&mut state, stream).next(at) else {
                continue;
            };
            match stream {
                Stream::Stdout => cursor.stdout += chunk.len() as u64,
                Stream::Stderr => cursor.stderr += chunk.len() as u64,
            }
            state.clients.insert(self.id, cursor);
            return Some(Next::Output(stream.frame(), chunk));
        }
        state.exit.map(Next::Exited)
    }

    /// Waits for the next output, or for the end.
    ///
    /// Cancel safe: cancelled, nothing was taken.
    pub(crate) async fn next(&mut self) -> Next {
        loop {
            self.output.borrow_and_update();
            if let Some(next) = self.take() {
                bump(&self.session.progress);
                return next;
            }
            if self.output.changed().await.is_err() {
                return Next::Exited(255);
            }
        }
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
        drop(state);
        bump(&self.session.progress);
    }
}

fn bump(counter: &watch::Sender<u64>) {
    counter.send_modify(|n| *n = n.wrapping_add(1));
}

fn far_future() -> Instant {
    Instant::now() + Duration::from_secs(86_400)
}

fn unix_ms(time: SystemTime) -> i64 {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Reads into blocks that the chunks then share.
#[derive(Default)]
struct Chunks {
    block: BytesMut,
}

impl Chunks {
    /// A block is left when so little of it is free.
    const LEAST: usize = 4 << 10;

    fn space(&mut self) {
        if self.block.capacity() - self.block.len() < Self::LEAST {
            self.block = BytesMut::with_capacity(MAX_DATA);
        }
    }

    /// The next bytes; none at the end. Cancel safe.
    async fn read(&mut self, from: &mut (impl AsyncRead + Unpin)) -> io::Result<Bytes> {
        self.space();
        from.read_buf(&mut self.block).await?;
        Ok(self.block.split().freeze())
    }

    fn try_read(&mut self, read: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<Bytes> {
        self.space();
        let space = self.block.capacity() - self.block.len();
        self.block.resize(space, 0);
        match read(&mut self.block) {
            Ok(n) => {
                let chunk = self.block.split_to(n).freeze();
                self.block.clear();
                Ok(chunk)
            }
            Err(error) => {
                self.block.clear();
                Err(error)
            }
        }
    }
}

async fn write_pipe(
    mut queue: mpsc::Receiver<Stdin>,
    pipe: Option<tokio::net::unix::pipe::Sender>,
) {
    use tokio::io::AsyncWriteExt;
    let Some(mut pipe) = pipe else { return };
    while let Some(Stdin::Bytes(bytes)) = queue.recv().await {
        if pipe.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

/// What a terminal takes for the end of its input. Source: termios(3), VEOF.
const END_OF_INPUT: &[u8] = &[4];

async fn write_terminal(mut queue: mpsc::Receiver<Stdin>, master: Arc<AsyncFd<OwnedFd>>) {
    while let Some(stdin) = queue.recv().await {
        let bytes = match stdin {
            Stdin::Bytes(bytes) => bytes,
            Stdin::Eof => Bytes::from_static(END_OF_INPUT),
        };
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let Ok(mut ready) = master.writable().await else {
                return;
            };
            match ready.try_io(|fd| Ok(rustix::io::write(fd, rest)?)) {
                Ok(Ok(n)) => rest = &rest[n..],
                Ok(Err(_)) => return,
                Err(_would_block) => {}
            }
        }
    }
}
