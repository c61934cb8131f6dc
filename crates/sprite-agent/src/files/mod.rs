//! Operations on files: all of them are done by a process inside the environment.
//!
//! The spawner forks it at the first operation. It is in the environment's namespaces, confined as everything there,
//! and nothing outside can be named from where it stands: no link, mount or race leads out. For each operation `run`
//! hands it one end of a socket; the request and all that follows go over that as frames of the stream, which `run`
//! only moves.
//!
//! Root inside can stop or end it. So nothing that it says is believed: frames are bounded, waits have deadlines, the
//! end of an operation that has not said its last word is an error, and the next operation starts another process.

mod archive;
mod change;
mod channel;
mod copy;
mod helper;
mod list;
mod pattern;
mod read;
mod relay;
mod resolve;
mod walk;
mod watch;
mod write;

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use sprite_agent_api::Frame;
use sprite_agent_api::fs::{FsCall, FsSpec};
use sprite_agent_api::link::{Receiver, Sender};
use sprite_agent_api::message::{Failure, FailureKind};
use sprite_agent_api::wire;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::sync::{Mutex, Semaphore};

use crate::agent::Agent;
use crate::log::say;
use crate::operation::{failure, read_report};
use crate::session::Process;
use crate::step::{Step, StepError};
use crate::sys;

pub(crate) use helper::become_helper;

/// Operations at once, and watches at once; more of them wait, and then are refused.
const MOST_OPERATIONS: usize = 64;
const MOST_WATCHES: usize = 32;
/// Threads of the process: those above and some that hang on a file system that does not answer.
const MOST_THREADS: usize = 160;

/// How long an operation may wait for others to end.
const TURN_WITHIN: Duration = Duration::from_secs(10);
/// How long the process may take to begin, and to take up an operation.
const BEGIN_WITHIN: Duration = Duration::from_secs(10);
/// How long it may keep an operation waiting: a disk may need so long to write what a large upload left in memory.
const OWED_WITHIN: Duration = Duration::from_secs(600);

/// What the process says when it has taken up an operation.
const TAKEN: u8 = b'+';

/// The way to the process.
pub(crate) struct Files {
    helper: Mutex<Option<Arc<Helper>>>,
    operations: Semaphore,
    watches: Semaphore,
}

/// One process, from its start to its end.
struct Helper {
    /// Where it is handed sockets; does not block.
    socket: UnixStream,
    process: Process,
    gone: AtomicBool,
}

impl Files {
    pub(crate) fn new() -> Self {
        Self {
            helper: Mutex::new(None),
            operations: Semaphore::new(MOST_OPERATIONS),
            watches: Semaphore::new(MOST_WATCHES),
        }
    }

    /// Does one operation, whose stream this is.
    pub(crate) async fn perform(
        &self,
        agent: &Agent,
        spec: FsSpec,
        sender: &Sender,
        receiver: &mut Receiver,
    ) -> Result<(), Failure> {
        if agent.variables().await.is_none() {
            let message = "the environment has not been built";
            return Err(failure(FailureKind::NotReady, message));
        }
        let turns = match spec.call {
            FsCall::Watch => &self.watches,
            FsCall::Read { .. }
            | FsCall::Write { .. }
            | FsCall::List { .. }
            | FsCall::Delete { .. }
            | FsCall::Rename { .. }
            | FsCall::Copy { .. }
            | FsCall::Chmod { .. }
            | FsCall::Chown { .. }
            | FsCall::Unpack { .. }
            | FsCall::Pack { .. } => &self.operations,
        };
        let Ok(turn) = tokio::time::timeout(TURN_WITHIN, turns.acquire()).await else {
            let message = "too many operations on files run already";
            return Err(failure(FailureKind::Limit, message));
        };
        let socket = self.begin(agent, &spec).await?;
        relay::relay(&spec.call, socket, sender, receiver).await;
        drop(turn);
        Ok(())
    }

    /// A socket on which the process has taken up the operation.
    async fn begin(
        &self,
        agent: &Agent,
        spec: &FsSpec,
    ) -> Result<tokio::net::UnixStream, StepError> {
        let helper = self.helper(agent).await?;
        match helper.begin(spec).await {
            Ok(socket) => return Ok(socket),
            Err(error) => {
                say(format_args!("lost the process that handles files: {error}"));
                helper.end();
            }
        }
        // It was ended by somebody, or it hangs: another one may do better, once.
        let helper = self.helper(agent).await?;
        let begun = helper.begin(spec).await;
        begun
            .inspect_err(|_| helper.end())
            .step("reach the process that handles files")
    }

    async fn helper(&self, agent: &Agent) -> Result<Arc<Helper>, StepError> {
        let mut helper = self.helper.lock().await;
        if let Some(helper) = helper.as_ref()
            && !helper.gone.load(Ordering::Relaxed)
        {
            return Ok(helper.clone());
        }
        let started = Helper::start(agent).await?;
        *helper = Some(started.clone());
        Ok(started)
    }
}

impl Helper {
    async fn start(agent: &Agent) -> Result<Arc<Self>, StepError> {
        let (report, their_report) = tokio::net::unix::pipe::pipe()
            .and_then(|(tx, rx)| Ok((rx, tx.into_blocking_fd()?)))
            .step("make a pipe")?;
        let (socket, theirs) = UnixStream::pair().step("make a socket pair")?;
        socket.set_nonblocking(true).step("make a socket pair")?;
        let pid = agent.fork_files(vec![their_report, theirs.into()]).await?;
        let process = sys::pidfd_open(pid)
            .and_then(|fd| sys::watch(fd, Interest::READABLE))
            .map(|fd| Process::new(pid, fd))
            .step("watch the process that handles files")?;
        let helper = Arc::new(Self {
            socket,
            process,
            gone: AtomicBool::new(false),
        });
        tokio::spawn(reap(helper.clone()));
        let said = tokio::time::timeout(BEGIN_WITHIN, read_report(report)).await;
        match said {
            Ok(Ok(said)) if said == b"ready" => Ok(helper),
            other => {
                helper.end();
                let said = match other {
                    Ok(Ok(said)) if !said.is_empty() => String::from_utf8_lossy(&said).into_owned(),
                    Ok(_) => "it ended before it began".to_owned(),
                    Err(_) => "it did not begin in time".to_owned(),
                };
                Err(io::Error::other(said)).step("start the process that handles files")
            }
        }
    }

    async fn begin(&self, spec: &FsSpec) -> io::Result<tokio::net::UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut ours = tokio::net::UnixStream::from_std(ours)?;
        // Small, and few at once: it blocks only if the other end takes none at all.
        wire::send(&self.socket, &(), &[theirs.as_fd()])?;
        drop(theirs);
        let request = Frame::control(spec);
        let begin = async {
            ours.write_all(&request.head()).await?;
            ours.write_all(&request.payload).await?;
            ours.read_u8().await
        };
        match tokio::time::timeout(BEGIN_WITHIN, begin).await {
            Ok(Ok(TAKEN)) => Ok(ours),
            Ok(Ok(_)) => Err(io::ErrorKind::InvalidData.into()),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Ends the process, and with it all that it does.
    fn end(&self) {
        self.gone.store(true, Ordering::Relaxed);
        self.process.kill();
    }
}

/// Notices the end of the process, whoever ended it.
async fn reap(helper: Arc<Helper>) {
    // It is the agent's own child: if it cannot be waited for it is gone already.
    let _ = helper.process.wait().await;
    helper.gone.store(true, Ordering::Relaxed);
}

/// The next whole frame of a socket; `None` at its end.
async fn next_frame(
    socket: &mut tokio::net::unix::ReadHalf<'_>,
    buffer: &mut BytesMut,
) -> io::Result<Option<Frame>> {
    /// As much as the kernel holds of a socket.
    const PIECE: usize = 256 << 10;
    loop {
        if let Some(frame) = Frame::take(buffer).map_err(io::Error::other)? {
            return Ok(Some(frame));
        }
        if buffer.capacity() - buffer.len() < PIECE / 4 {
            buffer.reserve(PIECE);
        }
        if socket.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}
