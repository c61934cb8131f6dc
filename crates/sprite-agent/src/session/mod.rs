//! One session: a process, its output, and the clients that are attached to it.
//!
//! ```text
//! process ──pipes or terminal──▶ reader tasks ──▶ journals ──▶ one cursor for each attached client
//!                                                    │
//!                                                    └──▶ the writer thread ──▶ the sprite's disk
//! ```
//! A reader stops reading while the fastest client, or the disk, is far behind, or when the slowest client is so far
//! behind that the journal would lose what it has not read: the process then waits in its own write. After the last
//! client went, what it had not got is held for a while in the same way, so that a client whose connection broke, or
//! a host that was restarted, misses nothing; then the oldest output goes.
//!
//! The end has an order: the kernel says how the process ended, the readers take what is left in the pipes, and
//! only then the session has ended.

mod client;
mod io;
mod process;
mod state;

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use sprite_agent_api::message::{ExecSpec, SessionInfo, TtySize};
use sprite_types::SessionId;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::journal::store::NoRing;
use crate::journal::writer::Writer;
use crate::journal::{self, Task};
use crate::screen::Screen;
use crate::terminal;

pub(crate) use client::{Begin, Client, Next};
pub(crate) use process::{Group, Process};
use state::State;
pub(crate) use state::Stream;

/// How long output that the last client did not get is held back for another one.
const HOLD: Duration = Duration::from_secs(60);

/// Frames of stdin that wait for the process; more, and the client waits.
const STDIN_QUEUE: usize = 8;

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
    /// Its process is a shell that waits for commands, and is idle while it has the terminal.
    shell: bool,
    /// The terminal's master side, until the session has ended.
    terminal: Mutex<Option<Arc<AsyncFd<OwnedFd>>>>,
    stdin: mpsc::Sender<Stdin>,
    writer: Writer,
    state: Mutex<State>,
    /// Counts up with every change that a client may be waiting for.
    output: watch::Sender<u64>,
    /// Counts up with every change that a reader may be waiting for.
    progress: watch::Sender<u64>,
    /// Whether the process has ended, and readers should stop when nothing is left.
    process_ended: watch::Sender<bool>,
}

/// The pipes or the terminal of a new session.
pub(crate) enum Stdio {
    Pipes {
        stdin: Option<pipe::Sender>,
        stdout: pipe::Receiver,
        stderr: pipe::Receiver,
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
        writer: Writer,
        ended: impl FnOnce(&Arc<Session>) + Send + 'static,
    ) -> Arc<Self> {
        let (stdin, queue) = mpsc::channel(STDIN_QUEUE);
        let mut state = State::default();
        let terminal = match &stdio {
            Stdio::Pipes { .. } => None,
            Stdio::Terminal { master, size } => {
                state.size = (*size).into();
                state.screen = Screen::new(*size);
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
            shell: is_shell(&exec.path, &exec.argv),
            terminal: Mutex::new(terminal),
            stdin,
            writer,
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
                tokio::spawn(session.clone().until_ended(io::write_pipe(queue, stdin)));
            }
            Stdio::Terminal { master, .. } => {
                readers.spawn(session.clone().read_terminal(master.clone()));
                tokio::spawn(
                    session
                        .clone()
                        .until_ended(io::write_terminal(queue, master)),
                );
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
        {
            let mut state = self.state();
            state.exit = Some(code);
            // From now on its output is replayed, which ends as the screen did.
            state.screen = None;
        }
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
    fn on_deadline(self: &Arc<Self>) -> bool {
        let now = Instant::now();
        let mut state = self.state();
        if state.held.is_some_and(|(_, since)| since + HOLD <= now) {
            state.held = None;
        }
        let overdue = match (state.detached_since, self.max_run_after_disconnect) {
            (Some(since), Some(most)) => since + most <= now,
            (Some(_) | None, Some(_) | None) => false,
        };
        let asks = state.settle();
        drop(state);
        self.ask_writer(asks);
        bump(&self.progress);
        if overdue {
            // It had its time; a process that does not want to end cannot ignore this one. If it is gone
            // already, that is what was wanted.
            let _ = self.group.signal(libc::SIGKILL);
        }
        overdue
    }

    /// Waits until another chunk may be read.
    async fn room(&self, stream: Stream) {
        let mut progress = self.progress.subscribe();
        loop {
            if self.state().has_room(stream) {
                return;
            }
            if progress.changed().await.is_err() {
                return;
            }
        }
    }

    fn push(self: &Arc<Self>, stream: Stream, chunk: Bytes) {
        let mut state = self.state();
        state.rate.add(chunk.len() as u64, Instant::now());
        state.last_activity = Some(SystemTime::now());
        if let Some(screen) = &mut state.screen {
            screen.feed(&chunk);
        }
        let readers = state.readers(stream);
        let asks = state.journal_mut(stream).push(chunk, readers);
        drop(state);
        if asks {
            self.ask_writer([stream]);
        }
        bump(&self.output);
    }

    fn ask_writer(self: &Arc<Self>, streams: impl IntoIterator<Item = Stream>) {
        for stream in streams {
            self.writer.ask(self.clone(), stream);
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
            let mut state = self.state();
            state.size = size.into();
            if let Some(screen) = &mut state.screen {
                screen.resize(size);
            }
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
    pub(crate) fn memory(&self) -> usize {
        let state = self.state();
        let memory = |stream| state.journal(stream).memory();
        Stream::BOTH.map(memory).iter().sum()
    }

    /// Lets its output go from memory to the disk, or be forgotten where there is none.
    pub(crate) fn evict(self: &Arc<Self>) {
        let asks = self.state().evict();
        self.ask_writer(asks);
    }

    /// Forgets the output that is only on the disk, unless somebody is attached. Returns whether there was any.
    pub(crate) fn leave_disk(&self) -> bool {
        let mut state = self.state();
        let mut left = false;
        if state.clients.is_empty() {
            for stream in Stream::BOTH {
                left |= state.journal_mut(stream).leave_disk();
            }
        }
        left
    }

    /// What the writer is to do for a stream.
    pub(crate) fn disk_task(&self, stream: Stream) -> Task {
        let mut state = self.state();
        let readers = state.readers(stream);
        state.journal_mut(stream).task(readers)
    }

    /// The ring that a stream was to get.
    pub(crate) fn disk_opened(&self, stream: Stream, ring: Result<journal::Ring, NoRing>) {
        self.disk_changed(stream, |journal, readers| journal.opened(ring, readers));
    }

    /// What of a stream was to be written.
    pub(crate) fn disk_wrote(&self, stream: Stream, length: u64, done: &std::io::Result<()>) {
        self.disk_changed(stream, |journal, readers| {
            journal.wrote(length, done, readers);
        });
    }

    fn disk_changed(
        &self,
        stream: Stream,
        change: impl FnOnce(&mut journal::Journal, journal::Readers),
    ) {
        let mut state = self.state();
        let readers = state.readers(stream);
        change(state.journal_mut(stream), readers);
        drop(state);
        bump(&self.progress);
    }

    /// The session in a listing.
    /// Whether somebody is attached to its terminal, whose foreground belongs to something else than a shell that
    /// waits: a silent `make` is at work.
    pub(crate) fn runs_in_front(&self) -> bool {
        if self.state().clients.is_empty() {
            return false;
        }
        let terminal = self.terminal().clone();
        terminal.is_some_and(|master| {
            let front = terminal::foreground(master.get_ref());
            front.is_some_and(|group| !self.shell || !self.group.is(group))
        })
    }

    pub(crate) fn info(&self) -> SessionInfo {
        let state = self.state();
        let (stdout, stderr) = (state.kept(Stream::Stdout), state.kept(Stream::Stderr));
        SessionInfo {
            session: self.id,
            command: self.command.clone(),
            workdir: self.workdir.clone(),
            created_unix_ms: unix_ms(self.created),
            last_activity_unix_ms: unix_ms(state.last_activity.unwrap_or(self.created)),
            output_bytes: stdout.total + stderr.total,
            bytes_per_second: state.rate.now(Instant::now()),
            attached: u32::try_from(state.clients.len()).unwrap_or(u32::MAX),
            tty: self.tty,
            stdout,
            stderr,
        }
    }
}

/// Whether that is a shell which reads commands from its terminal: none was given to it.
fn is_shell(path: &str, argv: &[String]) -> bool {
    const SHELLS: [&str; 9] = [
        "ash", "bash", "csh", "dash", "fish", "ksh", "sh", "tcsh", "zsh",
    ];
    let name = path.rsplit('/').next().unwrap_or_default();
    // `-c` and its like bring a command, and so does a word that is no flag.
    let flag =
        |word: &String| word.starts_with("--") || (word.starts_with('-') && !word.contains('c'));
    SHELLS.contains(&name) && argv.iter().skip(1).all(flag)
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
