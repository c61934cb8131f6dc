//! A command that runs.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use sprite_types::SessionId;
use tokio::io::AsyncReadExt;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use super::browser::UrlRequests;
use super::command::Stdio;
use super::frame::{self, Event};
use super::link::{Outcome, Reader, Shared, Socket, Writer};
use super::stream::{ChildOutput, ChildStdin};
use super::{ExecError, ExitStatus, SessionInfo, TtySize};
use crate::error::Error;
use crate::ports::PortChanges;
use crate::sessions::Signal;
use crate::sprite::Sprite;

/// How long the server may take to say which session this is. It is the first thing it says.
const HELLO_LIMIT: Duration = Duration::from_secs(10);
/// Messages of output (at most 64 KiB each, as servers send them) that wait to be taken.
const OUTPUT_QUEUE: usize = 8;
/// Messages of input that wait to be sent.
const INPUT_QUEUE: usize = 4;
/// Changes of ports that wait to be taken.
const PORTS_QUEUE: usize = 256;
/// URLs that wait to be taken.
const URLS_QUEUE: usize = 16;
/// Resizes and signals that wait to be sent.
const CONTROL_QUEUE: usize = 16;

/// A command that runs in a sprite, as [`std::process::Child`].
///
/// Unlike there, dropping it *lets go* of the command: the connection closes and the session goes on without it,
/// as long as [`max_run_after_disconnect`](super::Command::max_run_after_disconnect) says.
#[derive(Debug)]
pub struct Child {
    /// What the command reads, if its input was asked for.
    pub stdin: Option<ChildStdin>,
    /// What it writes to standard output; with a terminal, all that it writes.
    pub stdout: Option<ChildOutput>,
    /// What it writes to standard error; never there with a terminal.
    pub stderr: Option<ChildOutput>,
    /// The ports of the sprite that are opened and closed while this is attached. 256 changes wait to be taken; if
    /// more do, they are forgotten.
    pub ports: Option<PortChanges>,
    /// The URLs that programs in the sprite want opened, if [that was asked for](super::Command::take_urls). 16 wait
    /// to be taken; if more do, they are forgotten.
    pub urls: Option<UrlRequests>,
    session: Option<SessionInfo>,
    controls: Controls,
    outcome: watch::Receiver<Option<Outcome>>,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

/// All that a command wrote, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: Vec<u8>,
}

/// How a session is to be joined to a [`Child`].
pub(super) struct Joining {
    pub(super) sprite: Sprite,
    pub(super) socket: Socket,
    /// Whether the server takes signals over the socket.
    pub(super) signals: bool,
    /// Whether there is a terminal; `None`: the server has to say.
    pub(super) tty: Option<bool>,
    /// What becomes of its input; `None`: joined if there is a terminal.
    pub(super) stdin: Option<Stdio>,
    pub(super) stdout: Stdio,
    pub(super) stderr: Stdio,
    /// Whether the server was told that URLs are taken.
    pub(super) takes_urls: bool,
}

impl Joining {
    /// Waits for the server's first word and starts the two tasks.
    pub(super) async fn join(mut self) -> Result<Child, ExecError> {
        let first = match timeout(HELLO_LIMIT, self.socket.next()).await {
            Ok(Some(Ok(message))) => message,
            Ok(Some(Err(source))) => {
                return Err(Error::Interrupted {
                    source: Some(Arc::new(source)),
                }
                .into());
            }
            Ok(None) => return Err(Error::Interrupted { source: None }.into()),
            Err(_) => {
                return Err(Error::TimedOut {
                    what: "the session to begin",
                    after: HELLO_LIMIT,
                }
                .into());
            }
        };
        let session = match &first {
            Message::Text(text) => match frame::read_text(text) {
                Event::Session(info) => Some(info),
                Event::Stdout(_)
                | Event::Stderr(_)
                | Event::Exit(_)
                | Event::ExitTold(_)
                | Event::Error(_)
                | Event::Port(_)
                | Event::Url(_)
                | Event::Nothing => None,
            },
            _ => None,
        };
        let tty = match (self.tty, &session) {
            (Some(tty), _) => tty,
            (None, Some(info)) => info.tty,
            (None, None) => {
                let reason = "the server did not say whether the session has a terminal";
                return Err(Error::malformed(reason).into());
            }
        };
        Ok(self.start(tty, session, first))
    }

    fn start(self, tty: bool, session: Option<SessionInfo>, first: Message) -> Child {
        let (outcome_sender, outcome) = watch::channel(None);
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            stop: stop.clone(),
            outcome: outcome_sender,
        });
        let pipe = |wanted: bool| {
            wanted.then(|| mpsc::channel(OUTPUT_QUEUE)).map_or(
                (None, None),
                |(sender, receiver)| {
                    (
                        Some(sender),
                        Some(ChildOutput::new(receiver, outcome.clone())),
                    )
                },
            )
        };
        let (stdout_sender, stdout) = pipe(self.stdout == Stdio::Piped);
        let (stderr_sender, stderr) = pipe(self.stderr == Stdio::Piped && !tty);
        let stdin = self
            .stdin
            .unwrap_or(if tty { Stdio::Piped } else { Stdio::Null });
        let (stdin_sender, stdin_receiver) = match stdin {
            Stdio::Piped => {
                let (sender, receiver) = mpsc::channel(INPUT_QUEUE);
                (
                    Some(ChildStdin::new(sender, tty, outcome.clone())),
                    Some(receiver),
                )
            }
            Stdio::Null => (None, None),
        };
        let (control_sender, controls) = mpsc::channel(CONTROL_QUEUE);
        let (tell_ports, ports) = mpsc::channel(PORTS_QUEUE);
        let (tell_urls, urls) = mpsc::channel(URLS_QUEUE);
        let id = session.as_ref().map(|info| info.id);
        let (sink, stream) = self.socket.split();
        let reader = Reader {
            socket: stream,
            tty,
            session: id,
            stdout: stdout_sender,
            stderr: stderr_sender,
            ports: tell_ports,
            urls: tell_urls,
            shared: Arc::clone(&shared),
        };
        let writer = Writer {
            socket: sink,
            tty,
            stdin: stdin_receiver,
            controls,
            shared,
        };
        let tasks = vec![
            tokio::spawn(reader.run(Some(first))),
            tokio::spawn(writer.run()),
        ];
        let controls = Controls {
            sender: control_sender,
            signals: self.signals,
            sprite: self.sprite,
            session: id,
        };
        Child {
            stdin: stdin_sender,
            stdout,
            stderr,
            ports: Some(PortChanges::new(ports)),
            urls: self.takes_urls.then(|| UrlRequests::new(urls)),
            session,
            controls,
            outcome,
            stop,
            tasks,
        }
    }
}

impl Child {
    /// What the server told about the session; its id serves to attach to it later.
    #[must_use]
    pub fn session(&self) -> Option<&SessionInfo> {
        self.session.as_ref()
    }

    /// The session's id, by which it can be [joined](crate::Sprite::attach) again.
    #[must_use]
    pub fn id(&self) -> Option<SessionId> {
        self.controls.session
    }

    /// Ends the command's processes at once. Does not wait for their end, which [`wait`](Self::wait) tells.
    ///
    /// # Errors
    /// [`ExecError::Ended`] when the command has ended; otherwise when the call fails.
    pub async fn kill(&self) -> Result<(), ExecError> {
        self.controls.signal(&Signal::kill()).await
    }

    /// How the command ended, if it has by now.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn try_wait(&self) -> Result<Option<ExitStatus>, ExecError> {
        self.outcome.borrow().clone().transpose()
    }

    /// Handles to resize and signal the command, also while [`wait`](Self::wait) waits.
    #[must_use]
    pub fn controls(&self) -> Controls {
        self.controls.clone()
    }

    /// Waits for the end of the command. Its input is closed first, if it was not taken.
    ///
    /// As with a pipe, a command that writes more than is read does not end: take
    /// [`stdout`](Self::stdout) and [`stderr`](Self::stderr) and read or drop them.
    ///
    /// # Errors
    /// [`ExecError::Lost`] when the connection ended before the command did.
    ///
    /// # Cancel safety
    /// Safe: it can be called again.
    pub async fn wait(&mut self) -> Result<ExitStatus, ExecError> {
        self.stdin = None;
        match self.outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().expect("waited until it is there"),
            Err(_) => Err(ExecError::Lost {
                session: self.controls.session,
                reason: "the task that reads it ended".to_owned(),
            }),
        }
    }

    /// Reads all output and waits for the end of the command.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub async fn wait_with_output(mut self) -> Result<Output, ExecError> {
        let (stdout, stderr) = (self.stdout.take(), self.stderr.take());
        self.stdin = None;
        let (stdout, stderr) = tokio::join!(read_all(stdout), read_all(stderr));
        // A stream breaks only when the connection did: the outcome says it better.
        let status = self.wait().await?;
        let lost = |error: io::Error| ExecError::Lost {
            session: self.controls.session,
            reason: error.to_string(),
        };
        Ok(Output {
            status,
            stdout: stdout.map_err(lost)?,
            stderr: stderr.map_err(lost)?,
        })
    }

    /// Lets go of the command at once: the connection closes, the session goes on.
    ///
    /// # Cancel safety
    /// The connection closes also when the future is dropped.
    pub async fn detach(mut self) {
        self.close().await;
    }

    /// Closes the connection in order: one short exchange with the server, at most a second long. After
    /// [`wait`](Self::wait) this spares the server a broken connection when the program ends right away.
    pub async fn close(&mut self) {
        self.stop.cancel();
        let tasks = std::mem::take(&mut self.tasks);
        let joined = timeout(
            Duration::from_secs(1),
            futures_util::future::join_all(tasks),
        );
        let _ = joined.await;
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Before the fields: the end of `stdin` must not be taken for the end of the command's input.
        self.stop.cancel();
    }
}

async fn read_all(output: Option<ChildOutput>) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    if let Some(mut output) = output {
        output.read_to_end(&mut all).await?;
    }
    Ok(all)
}

/// Resizes and signals a command. Clones control the same command.
#[derive(Debug, Clone)]
pub struct Controls {
    sender: mpsc::Sender<Message>,
    signals: bool,
    sprite: Sprite,
    session: Option<SessionId>,
}

impl Controls {
    /// Tells the command's terminal its new size.
    ///
    /// # Errors
    /// [`ExecError::Ended`] when the command has ended.
    pub async fn resize(&self, size: TtySize) -> Result<(), ExecError> {
        self.send(frame::resize(size)).await
    }

    /// Sends a signal to the command's process group.
    ///
    /// # Errors
    /// [`ExecError::Ended`] when the command has ended.
    pub async fn signal(&self, signal: &Signal) -> Result<(), ExecError> {
        match (self.signals, self.session) {
            // A server that does not say that it takes signals here takes them over HTTP.
            (false, Some(session)) => self
                .sprite
                .signal(session, signal)
                .await
                .map_err(ExecError::from),
            (true, _) | (false, None) => self.send(frame::signal(signal)).await,
        }
    }

    async fn send(&self, message: Message) -> Result<(), ExecError> {
        self.sender
            .send(message)
            .await
            .map_err(|_| ExecError::Ended)
    }
}
