//! What the host asks for: one stream, one operation.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sprite_agent_api::idle::IdleReply;
use sprite_agent_api::link::{LinkError, Receiver, Sender, Stream};
use sprite_agent_api::message::{
    AgentInfo, AttachSpec, ExecSpec, Failure, FailureKind, Input, Reply, Request, TtySize,
};
use sprite_agent_api::policy::PolicyReply;
use sprite_agent_api::{Frame, FrameKind, PROTOCOL};
use sprite_types::SessionId;
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::unix::pipe;

use crate::agent::Agent;
use crate::dot_sprite;
pub(crate) use crate::process::Purpose;
use crate::process::{ProcessReport, ProcessSpec};
use crate::session::{Begin, Client, Name, Next, Process, Session, Stdin, Stdio};
use crate::sessions::MOST_LIVE;
use crate::step::{Step, StepError};
use crate::walls::Walls;
use crate::{connect, end, kill, ports, randomness, services, sys, terminal};

/// A process has so long to say that it runs: hostile code may stop it before it does.
const REPORT_WITHIN: Duration = Duration::from_secs(30);

/// Longest report: a command line is the longest part of it.
const LONGEST_REPORT: u64 = 8 << 20;

/// Bytes that the kernel holds between a process and the agent; fewer wake-ups for those that write much.
const PIPE_SIZE: usize = 256 << 10;

/// How long processes may take to end by themselves at a shutdown.
const END_WITHIN: Duration = Duration::from_secs(3);

static SHUTTING_DOWN: AtomicBool = AtomicBool::new(false);

/// Whether the environment's end is wanted.
pub(crate) fn shutting_down() -> bool {
    SHUTTING_DOWN.load(Ordering::Relaxed)
}

/// Performs the operation of one stream.
pub(crate) async fn perform(agent: Arc<Agent>, stream: Stream) {
    let Stream {
        sender,
        mut receiver,
    } = stream;
    let Ok(Some(first)) = receiver.recv().await else {
        return;
    };
    let done = match first.message::<Request>() {
        Ok(request) => dispatch(&agent, request, &sender, &mut receiver).await,
        Err(error) => Err(failure(
            FailureKind::Invalid,
            format!("read the request: {error}"),
        )),
    };
    if let Err(failure) = done {
        // A stream that failed has nobody who could be told.
        let _ = reply(&sender, Reply::Failed(failure)).await;
    }
    sender.finish();
    // What was sent still arrives; what the host still says does not matter.
    drop(receiver);
}

pub(crate) fn failure(kind: FailureKind, message: impl Into<String>) -> Failure {
    Failure {
        kind,
        message: message.into(),
    }
}

pub(crate) async fn reply(sender: &Sender, reply: Reply) -> Result<(), LinkError> {
    sender.send(Frame::control(&reply)).await
}

impl From<StepError> for Failure {
    fn from(error: StepError) -> Self {
        let kind = match error.source.raw_os_error() {
            Some(libc::EAGAIN | libc::ENOMEM | libc::EMFILE | libc::ENFILE | libc::ENOSPC) => {
                FailureKind::Limit
            }
            Some(_) | None => FailureKind::System,
        };
        failure(kind, error.to_string())
    }
}

async fn dispatch(
    agent: &Arc<Agent>,
    request: Request,
    sender: &Sender,
    receiver: &mut Receiver,
) -> Result<(), Failure> {
    let answer = match request {
        Request::Start(spec) => {
            agent.start_environment(spec).await?;
            ready(agent).await
        }
        Request::Ping => ready(agent).await,
        Request::Sessions => Reply::Sessions {
            sessions: agent.sessions.list(),
        },
        Request::Idle => {
            let told = match agent.sessions.in_use() {
                Some(what) => IdleReply::InUse { what },
                None => IdleReply::Idle,
            };
            // If the host is gone there is nobody to tell.
            let _ = sender.send(Frame::control(&told)).await;
            return Ok(());
        }
        Request::Sync => {
            sync_disk().await?;
            Reply::Synced
        }
        Request::Exec(spec) => {
            // Before the process is there: no port of its own is older than this.
            let mut watcher = ports::beside(&agent.ports, spec.ports);
            let session = exec(agent, spec).await?;
            let client = session.attach(Begin::START);
            return serve(client, &session, &mut watcher, sender, receiver).await;
        }
        Request::Attach(spec) => return attach(agent, &spec, sender, receiver).await,
        Request::Kill(spec) => return kill::perform(agent, &spec, sender).await,
        Request::Shutdown => return shutdown(agent, sender).await,
        Request::Fs(spec) => return agent.files.perform(agent, spec, sender, receiver).await,
        Request::Policy(spec) => {
            dot_sprite::show_network_policy(&spec.network).step("show the network policy")?;
            agent.policies.apply(agent.walls, spec)?;
            // If the host is gone there is nobody to tell.
            let _ = sender.send(Frame::control(&PolicyReply::Applied)).await;
            return Ok(());
        }
        Request::Calls => {
            agent.calls.stand(sender, receiver).await;
            return Ok(());
        }
        Request::Services(spec) => return services::perform(agent, spec, sender, receiver).await,
        Request::Take { call } => return agent.calls.take(call, sender, receiver).await,
        Request::Clock { unix_nanos } => {
            set_clock(agent.walls, unix_nanos)?;
            let renewed = tokio::task::spawn_blocking(randomness::renew).await;
            renewed
                .map_err(io::Error::other)
                .flatten()
                .step("renew the randomness")?;
            ready(agent).await
        }
        Request::Connect(spec) => {
            let hostname = agent.hostname().await;
            let connections = &agent.connections;
            return connect::perform(connections, hostname.as_deref(), &spec, sender, receiver)
                .await;
        }
        Request::Ports => return ports::perform(&agent.ports, sender, receiver).await,
    };
    // If the host is gone there is nobody to tell.
    let _ = reply(sender, answer).await;
    Ok(())
}

async fn ready(agent: &Agent) -> Reply {
    let environment = agent.variables().await.is_some();
    Reply::Ready(AgentInfo {
        protocol: PROTOCOL,
        environment,
    })
}

/// Sets the guest's clock. Timers that count from the start of the kernel are not moved by it.
fn set_clock(walls: Walls, unix_nanos: u64) -> Result<(), Failure> {
    const SECOND: u64 = 1_000_000_000;
    match walls {
        Walls::Container { .. } => {
            let message = "this machine has the host's clock";
            Err(failure(FailureKind::Invalid, message))
        }
        Walls::Guest => {
            let now = rustix::time::Timespec {
                tv_sec: (unix_nanos / SECOND).cast_signed(),
                tv_nsec: (unix_nanos % SECOND).cast_signed(),
            };
            let set = rustix::time::clock_settime(rustix::time::ClockId::Realtime, now);
            Ok(set.step("set the clock")?)
        }
    }
}

/// Finds a session; says whether it never was or has ended.
pub(crate) fn find(agent: &Agent, id: SessionId) -> Result<Arc<Session>, Failure> {
    let missing = || failure(FailureKind::NoSession, format!("session not found: {id}"));
    agent.sessions.get(id).ok_or_else(missing)
}

async fn attach(
    agent: &Agent,
    spec: &AttachSpec,
    sender: &Sender,
    receiver: &mut Receiver,
) -> Result<(), Failure> {
    let session = find(agent, spec.session)?;
    if let Some(size) = spec.size {
        session.resize(size);
    }
    let client = session.attach(Begin::of(spec));
    let mut watcher = ports::beside(&agent.ports, spec.ports);
    serve(client, &session, &mut watcher, sender, receiver).await
}

fn check(spec: &ExecSpec) -> Result<(), Failure> {
    let invalid = |message: &str| Err(failure(FailureKind::Invalid, message));
    if spec.argv.is_empty() || spec.path.is_empty() {
        return invalid("a command is required");
    }
    let texts = spec.argv.iter().chain(&spec.dir).chain([&spec.path]);
    let variables = spec.env.iter().flat_map(|(name, value)| [name, value]);
    if texts.chain(variables).any(|text| text.contains('\0')) {
        return invalid("arguments, variables and paths cannot hold a zero byte");
    }
    if spec
        .env
        .iter()
        .any(|(name, _)| name.is_empty() || name.contains('='))
    {
        return invalid("the name of a variable cannot be empty or hold '='");
    }
    Ok(())
}

async fn exec(agent: &Arc<Agent>, spec: ExecSpec) -> Result<Arc<Session>, Failure> {
    check(&spec)?;
    if agent.sessions.live() >= MOST_LIVE {
        let message = format!("{MOST_LIVE} sessions run already, no more are allowed");
        return Err(failure(FailureKind::Limit, message));
    }
    let (stdio, theirs, number) =
        make_stdio(agent.walls, &spec).step("make stdin, stdout and stderr")?;
    let (name, process) = begin_process(agent, &spec, theirs, number, Purpose::Session).await?;
    let sessions = agent.sessions.clone();
    let session = Session::start(
        name,
        &spec,
        process,
        stdio,
        agent.writer.clone(),
        move |session| sessions.end(session),
    );
    agent.sessions.insert(session.clone());
    Ok(session)
}

/// Starts a process of the environment on these descriptors, or on the terminal of that number.
pub(crate) async fn begin_process(
    agent: &Agent,
    spec: &ExecSpec,
    mut theirs: Vec<OwnedFd>,
    number: Option<u32>,
    purpose: Purpose,
) -> Result<(Name, Process), Failure> {
    let Some(environment) = agent.variables().await else {
        return Err(failure(
            FailureKind::NotReady,
            "the environment has not been built",
        ));
    };
    let (report, their_report) = pipe::pipe()
        .and_then(|(tx, rx)| Ok((rx, tx.into_blocking_fd()?)))
        .step("make a pipe")?;
    let mut fds = vec![their_report];
    fds.append(&mut theirs);
    let process = ProcessSpec {
        exec: spec.clone(),
        environment,
        confinement: agent.policies.current().confinement,
        terminal: number,
        purpose,
    };
    let pid = agent.fork(process, fds).await?;
    let process = sys::pidfd_open(pid)
        .and_then(|fd| sys::watch(fd, Interest::READABLE))
        .map(|fd| Process::new(pid, fd))
        .step("watch the process")?;
    let name = match tokio::time::timeout(REPORT_WITHIN, read_report(report)).await {
        Ok(said) => name_of(&said.step("wait for the process")?),
        Err(_) => Err(failure(
            FailureKind::System,
            "the process did not start in time",
        )),
    };
    match name {
        Ok(name) => Ok((name, process)),
        Err(failure) => {
            // Gone already, or stopped by somebody: either way it must not stay.
            tokio::spawn(async move { process.discard().await });
            Err(failure)
        }
    }
}

/// All that a process says before it becomes its program, which closes the pipe.
pub(crate) async fn read_report(report: pipe::Receiver) -> io::Result<Vec<u8>> {
    let mut said = Vec::new();
    report.take(LONGEST_REPORT).read_to_end(&mut said).await?;
    Ok(said)
}

fn name_of(said: &[u8]) -> Result<Name, Failure> {
    let os = |errno| io::Error::from_raw_os_error(errno);
    match serde_json::from_slice(said) {
        Ok(ProcessReport::Running {
            pid,
            command,
            workdir,
        }) => Ok(Name {
            id: SessionId(pid),
            command,
            workdir,
        }),
        Ok(ProcessReport::Dir { workdir, errno }) => {
            let message = format!("enter directory {workdir}: {}", os(errno));
            Err(failure(FailureKind::Dir, message))
        }
        Ok(ProcessReport::Absent { message }) => Err(failure(FailureKind::Invalid, message)),
        Ok(ProcessReport::Failed { step, errno }) => Err(StepError {
            step,
            source: os(errno),
        }
        .into()),
        Err(_) => Err(failure(
            FailureKind::System,
            "the process ended before it began",
        )),
    }
}

pub(crate) type Made = (Stdio, Vec<OwnedFd>, Option<u32>);

pub(crate) fn make_stdio(walls: Walls, spec: &ExecSpec) -> io::Result<Made> {
    if let Some(size) = spec.tty {
        let size = TtySize {
            rows: size.rows.max(1),
            cols: size.cols.max(1),
        };
        let (master, number) = terminal::open(walls, size)?;
        let master = Arc::new(sys::watch(master, Interest::READABLE | Interest::WRITABLE)?);
        return Ok((Stdio::Terminal { master, size }, Vec::new(), Some(number)));
    }
    let (stdin_tx, stdin_rx) = pipe::pipe()?;
    let (stdout_tx, stdout) = pipe::pipe()?;
    let (stderr_tx, stderr) = pipe::pipe()?;
    // Refused when the user's pipes hold much already; then it is slower, nothing else.
    let _ = rustix::pipe::fcntl_setpipe_size(&stdout_tx, PIPE_SIZE);
    let theirs = vec![
        stdin_rx.into_blocking_fd()?,
        stdout_tx.into_blocking_fd()?,
        stderr_tx.into_blocking_fd()?,
    ];
    let stdin = spec.stdin.then_some(stdin_tx);
    Ok((
        Stdio::Pipes {
            stdin,
            stdout,
            stderr,
        },
        theirs,
        None,
    ))
}

/// Serves an attached client until the session has ended and all was sent, or the client is gone.
async fn serve(
    mut client: Client,
    session: &Arc<Session>,
    watcher: &mut Option<ports::Watcher>,
    sender: &Sender,
    receiver: &mut Receiver,
) -> Result<(), Failure> {
    let output = async {
        reply(sender, Reply::Started(client.started())).await?;
        loop {
            // First room, then the next chunk: what was not sent must not count as taken.
            sender.room().await?;
            let next = tokio::select! {
                biased;
                // A few in a second, so that output does not wait for them, and never hides them.
                changed = ports::replies(watcher) => {
                    for port in changed {
                        reply(sender, port).await?;
                    }
                    continue;
                }
                next = client.next() => next,
            };
            match next {
                Next::Output(kind, chunk) => sender.send(Frame::data(kind, chunk)).await?,
                Next::Exited(code) => return reply(sender, Reply::Exited { code }).await,
                Next::Lost => {
                    let lost = failure(FailureKind::System, "read the session's kept output");
                    return reply(sender, Reply::Failed(lost)).await;
                }
            }
        }
    };
    let input = async {
        while let Ok(Some(frame)) = receiver.recv().await {
            match frame.kind {
                FrameKind::Stdin => session.feed(Stdin::Bytes(frame.payload)).await,
                FrameKind::Control => match frame.message::<Input>() {
                    Ok(Input::StdinEof) => session.feed(Stdin::Eof).await,
                    Ok(Input::Resize(size)) => session.resize(size),
                    Ok(Input::Signal { signal }) => {
                        // It may have ended in this moment; its exit tells.
                        let _ = session.group.signal(signal);
                    }
                    // A message of a later protocol that this agent does not know is not for it.
                    Ok(Input::Detach) => return,
                    Err(_) => {}
                },
                FrameKind::Stdout | FrameKind::Stderr => return,
            }
        }
        // No more input, but the host still reads.
        if !sender.failed() {
            std::future::pending().await
        }
    };
    tokio::select! {
        // The stream failed: whoever was attached is gone, which the drop of the client says.
        _ = output => {}
        () = input => {}
    }
    Ok(())
}

/// Writes all that the environment wrote to its disk.
async fn sync_disk() -> Result<(), StepError> {
    let synced = tokio::task::spawn_blocking(end::sync_disk);
    synced
        .await
        .map_err(io::Error::other)
        .flatten()
        .step("write the disk")
}

async fn shutdown(agent: &Agent, sender: &Sender) -> Result<(), Failure> {
    SHUTTING_DOWN.store(true, Ordering::Relaxed);
    let sessions = agent.sessions.all_live();
    for session in &sessions {
        // SIGHUP: shells end on it and tell their jobs. Whoever is gone already is.
        let _ = session.group.signal(libc::SIGHUP);
        let _ = session.group.signal(libc::SIGTERM);
    }
    let all_ended = async {
        for session in &sessions {
            session.ended().await;
        }
    };
    // What does not end by itself is ended now.
    let ended = tokio::time::timeout(END_WITHIN, all_ended);
    let _ = tokio::join!(ended, agent.services.close(END_WITHIN));
    agent.end_environment().await.step("end the environment")?;
    sync_disk().await?;
    agent.writer.close().await;
    agent.services.leave_disk().await;
    agent.sessions.leave_disk();
    end::leave_disk(agent.walls);
    // The host may not be there any more; the end is the same.
    let _ = reply(sender, Reply::Synced).await;
    sender.finish();
    // A host that is gone does not hear it; the disk is written all the same.
    let _ = tokio::time::timeout(Duration::from_secs(1), sender.drained()).await;
    end::machine(agent.walls, 0)
}
