//! `run`: accepts the host's streams and performs their operations.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc;

use sprite_agent_api::guest::{AGENT_PORT, READY_PORT};
use sprite_agent_api::link::{Acceptor, BoxedTransport, Limits, Stream};
use sprite_agent_api::message::EnvironmentSpec;
use sprite_agent_api::wire;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Mutex, OnceCell, oneshot};

use crate::calls::Calls;
use crate::connect::Connections;
use crate::dot_sprite;
use crate::end;
use crate::files::Files;
use crate::init;
use crate::journal::writer::Writer;
use crate::launch::{FIRST_CGROUP_FD, LISTENER_FD, RANGE_FD};
use crate::log::say;
use crate::operation;
use crate::policy::Policies;
use crate::ports::Ports;
use crate::process::ProcessSpec;
use crate::services::Services;
use crate::sessions::Sessions;
use crate::spawn::{self, SpawnReply, SpawnRequest};
use crate::step::{Step, StepError};
use crate::sys;
use crate::vsock;
use crate::walls::Walls;

/// One agent.
pub(crate) struct Agent {
    pub(crate) walls: Walls,
    spawner: Spawner,
    /// The sprite's disk; there once it is mounted.
    disk: OnceCell<()>,
    /// What the environment was built of, once it is.
    environment: Mutex<Option<Environment>>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) ports: Arc<Ports>,
    pub(crate) connections: Connections,
    pub(crate) files: Files,
    pub(crate) policies: Policies,
    /// Copies their output to the disk.
    pub(crate) writer: Writer,
    pub(crate) calls: Calls,
    pub(crate) services: Services,
}

/// An environment that was built.
pub(crate) struct Environment {
    spec: EnvironmentSpec,
    /// Its first process: when it ends, everything in the environment has.
    first: Arc<AsyncFd<OwnedFd>>,
}

/// Where the host's connections come in.
enum Listener {
    Unix(tokio::net::UnixListener),
    Vsock(vsock::Listener),
}

/// Serves until the machine ends.
pub(crate) fn main() -> Result<(), StepError> {
    let walls = Walls::of_arguments()
        .ok_or(io::ErrorKind::InvalidInput)
        .step("read the arguments")?;
    let Err(failure) = serve(walls);
    say(failure);
    end::machine(walls, 1)
}

fn serve(walls: Walls) -> Result<std::convert::Infallible, StepError> {
    // SAFETY: takes numbers, no memory.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
    // Before the spawner: what it starts shows the environment a copy of this.
    let calls = dot_sprite::build(walls)?;
    let spawner = Spawner::start(walls)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .step("start the runtime")?;
    runtime.block_on(async {
        let listener = Listener::open(walls).step("listen")?;
        let sessions = Sessions::new();
        let writer = Writer::start(Arc::downgrade(&sessions), walls.environment_root());
        let agent = Arc::new(Agent {
            walls,
            spawner,
            disk: OnceCell::new(),
            environment: Mutex::new(None),
            sessions,
            writer: writer.step("start the journals' thread")?,
            ports: Ports::new(),
            connections: Connections::default(),
            files: Files::new(),
            policies: Policies::new(),
            calls: Calls::new(calls).step("listen to calls")?,
            services: Services::new(walls).step("start the logs' thread")?,
        });
        let acceptor = Acceptor::new(Limits::default(), move |stream: Stream| {
            tokio::spawn(operation::perform(agent.clone(), stream));
        });
        loop {
            let transport = listener.accept().await.step("accept a connection")?;
            let acceptor = acceptor.clone();
            tokio::spawn(async move { acceptor.serve(transport).await });
        }
    })
}

/// Mounts the sprite's disk. In a container it is there from the beginning.
async fn mount_disk(walls: Walls) -> Result<(), StepError> {
    match walls {
        Walls::Container { .. } => Ok(()),
        Walls::Guest => tokio::task::spawn_blocking(init::mount_disk)
            .await
            .map_err(io::Error::other)
            .step("mount the disk")?,
    }
}

impl Listener {
    /// Must be called within the runtime.
    fn open(walls: Walls) -> io::Result<Self> {
        match walls {
            Walls::Container { .. } => {
                // SAFETY: the launcher left it open for us, and nothing else in this process owns it.
                let listener = unsafe { UnixListener::from_raw_fd(LISTENER_FD) };
                listener.set_nonblocking(true)?;
                Ok(Self::Unix(tokio::net::UnixListener::from_std(listener)?))
            }
            Walls::Guest => {
                let listener = vsock::Listener::bind(AGENT_PORT)?;
                say(format_args!("ready on port {AGENT_PORT}"));
                tokio::spawn(vsock::ring(READY_PORT));
                Ok(Self::Vsock(listener))
            }
        }
    }

    async fn accept(&self) -> io::Result<BoxedTransport> {
        match self {
            Self::Unix(listener) => Ok(Box::new(listener.accept().await?.0)),
            Self::Vsock(listener) => Ok(Box::new(listener.accept().await?)),
        }
    }
}

impl Agent {
    /// Builds the environment unless it is there already.
    pub(crate) async fn start_environment(&self, spec: EnvironmentSpec) -> Result<(), StepError> {
        let mut environment = self.environment.lock().await;
        if environment.is_some() {
            return Ok(());
        }
        self.disk.get_or_try_init(|| mount_disk(self.walls)).await?;
        let (report, their_report) = tokio::net::unix::pipe::pipe()
            .and_then(|(tx, rx)| Ok((rx, tx.into_blocking_fd()?)))
            .step("make a pipe")?;
        let request = SpawnRequest::Environment(spec.clone());
        let pid = self.spawner.fork(request, vec![their_report]).await?;
        let first = sys::pidfd_open(pid)
            .and_then(|fd| sys::watch(fd, tokio::io::Interest::READABLE))
            .map(Arc::new)
            .step("watch the environment")?;
        let said = operation::read_report(report)
            .await
            .step("wait for the environment")?;
        if said != b"ready" {
            let said = String::from_utf8_lossy(&said).into_owned();
            return Err(io::Error::other(said)).step("build the environment");
        }
        tokio::spawn(end_with(self.walls, first.clone()));
        *environment = Some(Environment { spec, first });
        Ok(())
    }

    /// Forks a process of the environment; `None` if the environment is not there.
    pub(crate) async fn fork(
        &self,
        spec: ProcessSpec,
        fds: Vec<OwnedFd>,
    ) -> Result<i32, StepError> {
        self.spawner.fork(SpawnRequest::Process(spec), fds).await
    }

    /// Forks the process that handles files.
    pub(crate) async fn fork_files(&self, fds: Vec<OwnedFd>) -> Result<i32, StepError> {
        self.spawner.fork(SpawnRequest::Files, fds).await
    }

    /// Variables of the sprite; `None` if the environment is not there.
    pub(crate) async fn variables(&self) -> Option<Vec<(String, String)>> {
        self.environment
            .lock()
            .await
            .as_ref()
            .map(|environment| environment.spec.env.clone())
    }

    /// The sprite's host name; `None` if the environment is not there.
    pub(crate) async fn hostname(&self) -> Option<String> {
        let environment = self.environment.lock().await;
        environment
            .as_ref()
            .map(|built| built.spec.hostname.clone())
    }

    /// Ends every process of the environment at once, and waits until they are gone.
    pub(crate) async fn end_environment(&self) -> io::Result<()> {
        let environment = self.environment.lock().await;
        let Some(environment) = environment.as_ref() else {
            return Ok(());
        };
        let fd = environment.first.get_ref().as_raw_fd();
        // SAFETY: takes a descriptor and numbers; no memory.
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, libc::SIGKILL, 0, 0) };
        environment.first.readable().await.map(drop)
    }
}

/// The environment's first process ends only when the kernel or the host wants it to; then so does the machine.
async fn end_with(walls: Walls, first: Arc<AsyncFd<OwnedFd>>) {
    if first.readable().await.is_ok() && !operation::shutting_down() {
        say("the environment's first process ended");
        end::machine(walls, 1);
    }
}

type Job = (
    SpawnRequest,
    Vec<OwnedFd>,
    oneshot::Sender<io::Result<SpawnReply>>,
);

/// The way to the spawner: one thread that asks and waits, so that nothing else ever does.
struct Spawner {
    jobs: mpsc::Sender<Job>,
}

impl Spawner {
    fn start(walls: Walls) -> Result<Self, StepError> {
        let (ours, theirs) = UnixStream::pair().step("make a socket pair")?;
        let socket = theirs.as_raw_fd();
        let mut command = Command::new("/agent");
        // This is the name under which the environment sees its own first process.
        command
            .arg0("sprite-init")
            .arg("spawn")
            .args(walls.to_arguments());
        // SAFETY: between fork and exec only dup2 is called, on a descriptor that is open there.
        unsafe {
            command.pre_exec(move || match libc::dup2(socket, spawn::SOCKET_FD) {
                -1 => Err(io::Error::last_os_error()),
                _ => Ok(()),
            });
        }
        keep_descriptors(walls)?;
        command.env_clear().spawn().step("start the spawner")?;
        close_cgroups(walls);
        let (jobs, queue) = mpsc::channel::<Job>();
        std::thread::Builder::new()
            .name("spawner".to_owned())
            .stack_size(64 << 10)
            .spawn(move || ask(walls, &ours, &queue))
            .step("start the spawner's thread")?;
        Ok(Self { jobs })
    }

    async fn fork(&self, request: SpawnRequest, fds: Vec<OwnedFd>) -> Result<i32, StepError> {
        let (reply, replied) = oneshot::channel();
        let gone = || io::Error::other("the spawner ended");
        self.jobs
            .send((request, fds, reply))
            .map_err(|_| gone())
            .step("ask the spawner")?;
        let reply = replied.await.map_err(|_| gone()).step("ask the spawner")?;
        match reply.step("ask the spawner")? {
            SpawnReply::Forked { pid } => Ok(pid),
            SpawnReply::Failed { step, errno } => Err(StepError {
                step,
                source: io::Error::from_raw_os_error(errno),
            }),
        }
    }
}

/// What the launcher left open for this process is not for the spawner.
fn keep_descriptors(walls: Walls) -> Result<(), StepError> {
    let kept: &[i32] = match walls {
        Walls::Container { .. } => &[LISTENER_FD, RANGE_FD],
        Walls::Guest => &[],
    };
    for &fd in kept {
        // SAFETY: the launcher left it open, and it stays open.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC).step("keep descriptors")?;
    }
    Ok(())
}

/// What the launcher left open for the spawner, which has its own copy now, is not for this process.
fn close_cgroups(walls: Walls) {
    let cgroups = match walls {
        Walls::Container { cgroups, .. } => cgroups,
        Walls::Guest => 0,
    };
    for fd in FIRST_CGROUP_FD..FIRST_CGROUP_FD + cgroups {
        // SAFETY: the launcher left it open, and nothing in this process owns it.
        drop(unsafe { OwnedFd::from_raw_fd(fd) });
    }
}

fn ask(walls: Walls, socket: &UnixStream, jobs: &mpsc::Receiver<Job>) {
    for (request, fds, reply) in jobs {
        let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        let answer = wire::send(socket, &request, &borrowed)
            .and_then(|()| wire::receive(socket))
            .and_then(|got| {
                got.map(|(r, _)| r)
                    .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
            });
        if let Err(error) = &answer {
            // Without a spawner nothing can be started any more: the machine ends, and is started anew.
            say(format_args!("lost the spawner: {error}"));
            end::machine(walls, 1);
        }
        // Who asked may have gone; what was forked is then cleaned up by its session's own end.
        let _ = reply.send(answer);
    }
}
