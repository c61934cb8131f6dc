//! One session of the fake agent: its output, its input, and who is attached.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::{Buf, Bytes, BytesMut};
use sprite_agent_api::message::{AttachSpec, ExecSpec, Kept, SessionInfo, SessionStarted, TtySize};
use sprite_agent_api::{FrameKind, MAX_DATA};
use sprite_types::SessionId;
use tokio::sync::{mpsc, watch};

/// Output that is kept for whoever attaches later.
const KEPT: usize = 256 << 10;

/// How far a program may write ahead of its slowest client.
const AHEAD: u64 = 1 << 20;

/// Signals that do not end a process. Source: signal(7): CHLD, CONT, STOP, TSTP, URG, WINCH.
const HARMLESS: [i32; 6] = [17, 18, 19, 20, 23, 28];

pub(crate) enum Stdin {
    Bytes(Bytes),
    Eof,
}

pub(crate) enum Next {
    Output(FrameKind, Bytes),
    Exited(u8),
}

/// One of the streams that a program writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    Stdout,
    Stderr,
}

pub(crate) struct Session {
    id: u32,
    pub(crate) spec: ExecSpec,
    created: SystemTime,
    state: Mutex<State>,
    /// Something of the state changed.
    changed: watch::Sender<()>,
    signals: watch::Sender<Option<i32>>,
    stdin: mpsc::Sender<Stdin>,
}

#[derive(Default)]
struct State {
    stdout: Journal,
    stderr: Journal,
    /// How far each client has got.
    clients: HashMap<u64, [u64; 2]>,
    last_client: u64,
    size: Option<TtySize>,
    exit: Option<u8>,
    active: Option<SystemTime>,
}

#[derive(Default)]
struct Journal {
    start: u64,
    bytes: BytesMut,
}

impl Journal {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// The next chunk from `offset` on, and where it begins.
    fn read(&self, offset: u64) -> Option<(u64, Bytes)> {
        let from = offset.max(self.start);
        let skip = usize::try_from(from - self.start).ok()?;
        let rest = self.bytes.get(skip..)?;
        let chunk = &rest[..rest.len().min(MAX_DATA)];
        if chunk.is_empty() {
            None
        } else {
            Some((from, Bytes::copy_from_slice(chunk)))
        }
    }

    fn trim(&mut self, slowest: Option<u64>) {
        let keep_from = self.end().saturating_sub(KEPT as u64);
        let from = slowest.map_or(keep_from, |slowest| keep_from.min(slowest));
        if let Ok(old) = usize::try_from(from.saturating_sub(self.start)) {
            self.bytes.advance(old);
            self.start += old as u64;
        }
    }
}

impl State {
    fn slowest(&self, output: Output) -> Option<u64> {
        self.clients
            .values()
            .map(|offsets| offsets[output as usize])
            .min()
    }

    fn kept(&self, output: Output) -> Kept {
        let journal = match output {
            Output::Stdout => &self.stdout,
            Output::Stderr => &self.stderr,
        };
        Kept {
            from: journal.start,
            total: journal.end(),
        }
    }

    fn journal(&mut self, output: Output) -> &mut Journal {
        match output {
            Output::Stdout => &mut self.stdout,
            Output::Stderr => &mut self.stderr,
        }
    }
}

impl Session {
    pub(crate) fn new(id: u32, spec: ExecSpec) -> (Arc<Self>, mpsc::Receiver<Stdin>) {
        let (stdin, reads) = mpsc::channel(8);
        let state = State {
            size: spec.tty,
            ..State::default()
        };
        let session = Self {
            id,
            spec,
            created: SystemTime::now(),
            state: Mutex::new(state),
            changed: watch::Sender::new(()),
            signals: watch::Sender::new(None),
            stdin,
        };
        (Arc::new(session), reads)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn command(&self) -> String {
        let program = self.spec.path.rsplit('/').next().unwrap_or_default();
        let arguments = self
            .spec
            .argv
            .iter()
            .skip(1)
            .map(|argument| format!(" {argument}"));
        format!("/usr/bin/{program}{}", arguments.collect::<String>())
    }

    pub(crate) fn workdir(&self) -> String {
        self.spec
            .dir
            .clone()
            .unwrap_or_else(|| "/home/sprite".to_owned())
    }

    pub(crate) fn size(&self) -> Option<TtySize> {
        self.state().size
    }

    pub(crate) fn exit(&self) -> Option<u8> {
        self.state().exit
    }

    pub(crate) fn info(&self) -> SessionInfo {
        let state = self.state();
        SessionInfo {
            session: SessionId(self.id),
            command: self.command(),
            workdir: self.workdir(),
            created_unix_ms: unix_ms(self.created),
            last_activity_unix_ms: unix_ms(state.active.unwrap_or(self.created)),
            output_bytes: state.stdout.end() + state.stderr.end(),
            bytes_per_second: 0,
            attached: u32::try_from(state.clients.len()).unwrap_or(u32::MAX),
            tty: self.spec.tty.is_some(),
            stdout: state.kept(Output::Stdout),
            stderr: state.kept(Output::Stderr),
        }
    }

    /// Writes for the program; waits while the slowest client is far behind.
    pub(crate) async fn write(&self, output: Output, bytes: &[u8]) {
        let output = if self.spec.tty.is_some() {
            Output::Stdout
        } else {
            output
        };
        let mut changed = self.changed.subscribe();
        for chunk in bytes.chunks(MAX_DATA) {
            loop {
                changed.mark_unchanged();
                {
                    let mut state = self.state();
                    let slowest = state.slowest(output);
                    let journal = state.journal(output);
                    if slowest.is_none_or(|slowest| journal.end() - slowest < AHEAD) {
                        journal.bytes.extend_from_slice(chunk);
                        journal.trim(slowest);
                        state.active = Some(SystemTime::now());
                        break;
                    }
                }
                // Cannot fail: the session holds the sender.
                let _ = changed.changed().await;
            }
            self.changed.send_replace(());
        }
    }

    /// The program ended.
    pub(crate) fn end(&self, code: u8) {
        self.state().exit.get_or_insert(code);
        self.changed.send_replace(());
    }

    pub(crate) async fn ended(&self) -> u8 {
        let mut changed = self.changed.subscribe();
        loop {
            changed.mark_unchanged();
            if let Some(code) = self.exit() {
                return code;
            }
            // Cannot fail: the session holds the sender.
            let _ = changed.changed().await;
        }
    }

    pub(crate) async fn feed(&self, input: Stdin) {
        // Fails if the program has ended.
        let _ = self.stdin.send(input).await;
    }

    pub(crate) fn resize(&self, size: TtySize) {
        let mut state = self.state();
        if state.size.is_some() {
            state.size = Some(size);
        }
    }

    pub(crate) fn signal(&self, signal: i32) {
        if !HARMLESS.contains(&signal) {
            self.signals.send_replace(Some(signal));
        }
    }

    /// Waits for a signal that ends a program which ignores all but SIGKILL, or not.
    pub(crate) async fn signalled(&self, only_kill: impl Fn() -> bool) -> u8 {
        let mut signals = self.signals.subscribe();
        let ends = |signal: &Option<i32>| signal.is_some_and(|signal| signal == 9 || !only_kill());
        match signals.wait_for(ends).await {
            Ok(signal) => signal
                .and_then(|signal| u8::try_from(128 + signal).ok())
                .unwrap_or(255),
            Err(_) => 255,
        }
    }

    /// Attaches a client that asks for `spec`. A fake terminal has no screen: what is kept is all there is to show.
    pub(crate) fn join(self: &Arc<Self>, spec: &AttachSpec) -> Client {
        if let Some(size) = spec.size {
            self.resize(size);
        }
        if spec.screen {
            return self.attach(0, 0);
        }
        self.attach(spec.stdout_offset, spec.stderr_offset)
    }

    /// Attaches a client that wants output from these offsets on.
    pub(crate) fn attach(self: &Arc<Self>, stdout: u64, stderr: u64) -> Client {
        let mut state = self.state();
        state.last_client += 1;
        let id = state.last_client;
        let begin = |journal: &Journal, offset: u64| offset.clamp(journal.start, journal.end());
        let offsets = [begin(&state.stdout, stdout), begin(&state.stderr, stderr)];
        state.clients.insert(id, offsets);
        drop(state);
        Client {
            session: self.clone(),
            id,
            offsets,
        }
    }
}

/// One attached client.
pub(crate) struct Client {
    session: Arc<Session>,
    id: u64,
    offsets: [u64; 2],
}

impl Client {
    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    pub(crate) fn started(&self) -> SessionStarted {
        let session = &self.session;
        let (stdout, stderr) = {
            let state = session.state();
            (state.kept(Output::Stdout), state.kept(Output::Stderr))
        };
        SessionStarted {
            session: SessionId(session.id),
            command: session.command(),
            created_unix: unix_ms(session.created) / 1000,
            tty: session.spec.tty.is_some(),
            size: session.size().unwrap_or(TtySize { rows: 0, cols: 0 }),
            stdout_start: self.offsets[Output::Stdout as usize],
            stderr_start: self.offsets[Output::Stderr as usize],
            screen_bytes: 0,
            stdout,
            stderr,
        }
    }

    pub(crate) async fn next(&mut self) -> Next {
        let mut changed = self.session.changed.subscribe();
        loop {
            changed.mark_unchanged();
            if let Some(next) = self.take() {
                self.session.changed.send_replace(());
                return next;
            }
            // Cannot fail: the session holds the sender.
            let _ = changed.changed().await;
        }
    }

    fn take(&mut self) -> Option<Next> {
        let mut state = self.session.state();
        for (output, kind) in [
            (Output::Stdout, FrameKind::Stdout),
            (Output::Stderr, FrameKind::Stderr),
        ] {
            let from = self.offsets[output as usize];
            if let Some((begin, chunk)) = state.journal(output).read(from) {
                self.offsets[output as usize] = begin + chunk.len() as u64;
                state.clients.insert(self.id, self.offsets);
                return Some(Next::Output(kind, chunk));
            }
        }
        state.exit.map(Next::Exited)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let session = &self.session;
        let mut state = session.state();
        state.clients.remove(&self.id);
        let (last, alone) = (state.last_client, state.clients.is_empty());
        let ended = state.exit.is_some();
        drop(state);
        session.changed.send_replace(());
        let limit = session.spec.max_run_after_disconnect_ms;
        if let (true, false, Some(limit), Ok(runtime)) =
            (alone, ended, limit, tokio::runtime::Handle::try_current())
        {
            let session = session.clone();
            runtime.spawn(async move {
                tokio::time::sleep(Duration::from_millis(limit)).await;
                let state = session.state();
                let nobody_came = state.clients.is_empty() && state.last_client == last;
                drop(state);
                if nobody_came {
                    session.signal(1);
                }
            });
        }
    }
}

fn unix_ms(at: SystemTime) -> i64 {
    let since = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
