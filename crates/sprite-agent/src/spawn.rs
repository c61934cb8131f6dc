//! The spawner: forks the environment and its processes, and nothing else.
//!
//! It lives in the environment's cgroups, so that what it forks needs no moving, and forks siblings: the parent
//! of every process is `run`, which so gets the kernel's own word on how it ended. It never waits for a fork:
//! what hostile code does to a process after it exists cannot stop the next one from being started.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sprite_agent_api::message::EnvironmentSpec;
use sprite_agent_api::wire;

use crate::environment::{self, container, guest};
use crate::files;
use crate::init::SESSIONS_GROUP;
use crate::launch::FIRST_CGROUP_FD;
use crate::log::say;
use crate::process::{self, ProcessSpec};
use crate::step::{Step, StepError};
use crate::sys::{self, Fork, Parent};
use crate::walls::Walls;

/// Where the spawner finds its end of the socket to `run`.
pub(crate) const SOCKET_FD: i32 = 3;
/// What `run` asks for.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum SpawnRequest {
    /// Build the environment. Comes with one descriptor, where its first process reports.
    Environment(EnvironmentSpec),
    /// Start a process. Comes with the report's descriptor, and stdin, stdout and stderr unless it has a
    /// terminal.
    Process(ProcessSpec),
    /// Start the process that handles files. Comes with the report's descriptor and its end of a socket.
    Files,
}

/// What became of it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum SpawnReply {
    /// A process with this id in `run`'s namespace.
    Forked { pid: i32 },
    /// Nothing was started.
    Failed { step: String, errno: i32 },
}

struct Spawner {
    socket: UnixStream,
    walls: Walls,
    /// The environment's first process, whose namespaces are entered.
    environment: Option<OwnedFd>,
}

/// Serves requests until `run` is gone.
pub(crate) fn main() -> Result<(), StepError> {
    // SAFETY: `run` opened it for us, and nothing else in this process owns it.
    let socket = unsafe { UnixStream::from_raw_fd(SOCKET_FD) };
    // Forks of this process are looked at by hostile code for a moment; there is nothing to be seen in them.
    for (option, value) in [
        (libc::PR_SET_DUMPABLE, 0),
        (libc::PR_SET_PDEATHSIG, libc::SIGKILL),
    ] {
        // SAFETY: takes numbers, no memory.
        if unsafe { libc::prctl(option, value, 0, 0, 0) } != 0 {
            return Err(io::Error::last_os_error()).step("hide the spawner");
        }
    }
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC).step("keep the socket")?;
    let walls = Walls::of_arguments().ok_or_else(|| invalid("walls"))?;
    enter_cgroups(walls).step("enter the environment's cgroup")?;
    let mut spawner = Spawner {
        socket,
        walls,
        environment: None,
    };
    loop {
        let Some((request, fds)) = wire::receive(&spawner.socket).step("read a request")? else {
            return Ok(());
        };
        let reply = match spawner.serve(request, fds) {
            Ok(pid) => SpawnReply::Forked { pid },
            Err(failure) => SpawnReply::Failed {
                errno: failure.source.raw_os_error().unwrap_or(0),
                step: failure.step,
            },
        };
        wire::send(&spawner.socket, &reply, &[]).step("answer a request")?;
    }
}

fn enter_cgroups(walls: Walls) -> io::Result<()> {
    match walls {
        Walls::Container { cgroups, .. } => {
            for fd in FIRST_CGROUP_FD..FIRST_CGROUP_FD + cgroups {
                // SAFETY: inherited for this purpose; closed here.
                let mut procs = unsafe { File::from_raw_fd(fd) };
                procs.write_all(b"0")?;
            }
            Ok(())
        }
        Walls::Guest => std::fs::write(Path::new(SESSIONS_GROUP).join("cgroup.procs"), "0"),
    }
}

impl Spawner {
    fn serve(&mut self, request: SpawnRequest, fds: Vec<OwnedFd>) -> Result<i32, StepError> {
        let mut fds = fds.into_iter();
        let report = fds
            .next()
            .ok_or_else(|| invalid("a descriptor for the report"))?;
        match request {
            SpawnRequest::Environment(spec) => self.start_environment(&spec, report),
            SpawnRequest::Process(spec) => self.start_process(&spec, report, fds.collect()),
            SpawnRequest::Files => self.start_files(report, fds.next()),
        }
    }

    fn start_environment(
        &mut self,
        spec: &EnvironmentSpec,
        report: OwnedFd,
    ) -> Result<i32, StepError> {
        let walls = self.walls;
        let pid = match walls {
            Walls::Container { .. } => {
                let gates = container::Gates::new().step("make pipes")?;
                let build = |gates| container::build(walls, spec, gates);
                let (pid, gates) = fork_first(report, gates, build)?;
                if let Err(error) = gates.release(walls, pid) {
                    // The process sees that it is not let through, and reports what it was doing.
                    say(format_args!("map the environment's ids: {error}"));
                    return Ok(pid);
                }
                pid
            }
            Walls::Guest => fork_first(report, (), |()| guest::build(spec))?.0,
        };
        let first = sys::pidfd_open(pid).step("open the environment")?;
        sys::setns(&first, libc::CLONE_NEWPID).step("fork into the environment")?;
        self.environment = Some(first);
        Ok(pid)
    }

    fn start_process(
        &self,
        spec: &ProcessSpec,
        report: OwnedFd,
        stdio: Vec<OwnedFd>,
    ) -> Result<i32, StepError> {
        let environment = self.environment()?;
        // SAFETY: the spawner has one thread.
        match unsafe { sys::fork(0, Parent::Grandparent) }.step("fork a process")? {
            Fork::Child => {
                process::become_session(self.walls, spec, environment, File::from(report), stdio)
            }
            Fork::Parent { pid } => Ok(pid),
        }
    }

    fn start_files(&self, report: OwnedFd, socket: Option<OwnedFd>) -> Result<i32, StepError> {
        let environment = self.environment()?;
        // SAFETY: the spawner has one thread.
        match unsafe { sys::fork(0, Parent::Grandparent) }.step("fork a process")? {
            Fork::Child => files::become_helper(self.walls, environment, report, socket),
            Fork::Parent { pid } => Ok(pid),
        }
    }

    fn environment(&self) -> Result<&OwnedFd, StepError> {
        let environment = self.environment.as_ref();
        environment.ok_or_else(|| invalid("an environment"))
    }
}

/// Forks the environment's first process, which builds the environment around itself. What both hold is given
/// back to this one.
fn fork_first<T>(
    report: OwnedFd,
    held: T,
    build: impl FnOnce(T) -> Result<(), StepError>,
) -> Result<(i32, T), StepError> {
    let namespaces = libc::CLONE_NEWPID | libc::CLONE_NEWNS;
    // SAFETY: the spawner has one thread.
    match unsafe { sys::fork(namespaces, Parent::Grandparent) }.step("fork the environment")? {
        Fork::Child => environment::become_first(report, || build(held)),
        Fork::Parent { pid } => Ok((pid, held)),
    }
}

fn invalid(missing: &str) -> StepError {
    StepError {
        step: format!("find {missing}"),
        source: io::Error::from_raw_os_error(libc::EINVAL),
    }
}
