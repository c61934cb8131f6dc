//! A session's process: from a fork of the spawner to the user's program inside the environment.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use serde::{Deserialize, Serialize};
use sprite_agent_api::message::ExecSpec;
use sprite_types::Confinement;

use crate::confine;
use crate::environment::guest;
use crate::passwd::User;
use crate::sprite_env::BROWSER;
use crate::sys;
use crate::walls::Walls;

/// Exit status of a program that was not found, and of one that cannot be run. Source: POSIX shell, 2.8.2.
const NOT_FOUND: i32 = 127;
const NOT_RUNNABLE: i32 = 126;

/// Where programs are looked up unless the sprite or the exec says otherwise; behind the user's own directory.
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where the environment's own programs are; last, so that anything of that name on the disk goes first.
const OWN_PROGRAMS: &str = "/.sprite/bin";

/// What to run, and on what.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ProcessSpec {
    pub(crate) exec: ExecSpec,
    /// Variables of the sprite, below those of the exec.
    pub(crate) environment: Vec<(String, String)>,
    /// What the session may not, beyond what holds for all of the environment.
    pub(crate) confinement: Confinement,
    /// Number of the terminal; without one, stdin, stdout and stderr come as descriptors.
    pub(crate) terminal: Option<u32>,
    pub(crate) purpose: Purpose,
}

/// What a process is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Purpose {
    /// Somebody reads its stderr and exit status, also of a program that there is not.
    Session,
    /// It runs, or it is said why not.
    Service,
}

/// What the process says of itself just before it becomes the program. Then its end of the pipe closes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum ProcessReport {
    /// About to run.
    Running {
        /// Its id in the environment.
        pid: u32,
        /// Absolute path and arguments.
        command: String,
        workdir: String,
    },
    /// The working directory cannot be entered.
    Dir { workdir: String, errno: i32 },
    /// A service's program is not there, or cannot be executed.
    Absent { message: String },
    /// Something else failed.
    Failed { step: String, errno: i32 },
}

/// Never returns: the fork ends as the program, or reports why not.
pub(crate) fn become_session(
    walls: Walls,
    spec: &ProcessSpec,
    environment: &OwnedFd,
    mut report: File,
    stdio: Vec<OwnedFd>,
) -> ! {
    let status = match prepare(walls, spec, environment, stdio) {
        Ok(ready) => run(&ready, &mut report),
        Err(failure) => {
            tell(&mut report, &failure);
            1
        }
    };
    // SAFETY: ends this process without running anything of the spawner's.
    unsafe { libc::_exit(status) }
}

fn tell(report: &mut File, message: &ProcessReport) {
    let json = serde_json::to_vec(message).expect("reports have no maps");
    // Whoever reads takes the end of the pipe for a failure.
    let _ = report.write_all(&json);
}

struct Ready {
    purpose: Purpose,
    program: Result<CString, i32>,
    name: String,
    argv: Vec<CString>,
    envp: Vec<CString>,
    command: String,
    workdir: String,
}

fn failed(step: &str) -> impl FnOnce(io::Error) -> ProcessReport {
    move |error| ProcessReport::Failed {
        step: step.to_owned(),
        errno: error.raw_os_error().unwrap_or(0),
    }
}

fn prepare(
    walls: Walls,
    spec: &ProcessSpec,
    environment: &OwnedFd,
    stdio: Vec<OwnedFd>,
) -> Result<Ready, ProcessReport> {
    sys::setns(environment, walls.namespaces()).map_err(failed("enter the environment"))?;
    rustix::process::setsid().map_err(|e| failed("begin a session")(e.into()))?;
    let user = User::load();
    take_stdio(spec.terminal, stdio, &user).map_err(failed("open stdin, stdout and stderr"))?;
    reset_signals_and_limits();
    match walls {
        Walls::Container { .. } => {
            confine::limit_capabilities().map_err(failed("limit capabilities"))?;
            confine::filter_system_calls().map_err(failed("filter system calls"))?;
        }
        Walls::Guest => {
            guest::be_ordinary().map_err(failed("be as any other process"))?;
        }
    }
    confine::confine_session(spec.confinement).map_err(failed("confine the session"))?;
    sys::become_user(user.uid, user.gid, &user.groups).map_err(failed("become the user"))?;
    // Only now may the process be looked at by its own user, as any process of the environment.
    let workdir = enter_workdir(&spec.exec, &user)?;
    let variables = variables(spec, &user);
    let path = value(&variables, "PATH").unwrap_or(SYSTEM_PATH).to_owned();
    let program = look_up(&spec.exec.path, &path);
    let shown = program
        .as_ref()
        .map_or(spec.exec.path.as_str(), |p| p.to_str().unwrap_or("?"));
    let mut command = shown.to_owned();
    for argument in spec.exec.argv.iter().skip(1) {
        command.push(' ');
        command.push_str(argument);
    }
    let terminated =
        |text: &str| CString::new(text).map_err(|e| failed("read the request")(e.into()));
    Ok(Ready {
        purpose: spec.purpose,
        program,
        name: spec.exec.path.clone(),
        argv: spec
            .exec
            .argv
            .iter()
            .map(|s| terminated(s))
            .collect::<Result<_, _>>()?,
        envp: variables
            .iter()
            .map(|(name, value)| terminated(&format!("{name}={value}")))
            .collect::<Result<_, _>>()?,
        command,
        workdir,
    })
}

/// The group that may write to terminals of others. Source: Debian's /etc/group.
const TTY_GROUP: u32 = 5;

fn take_stdio(terminal: Option<u32>, stdio: Vec<OwnedFd>, user: &User) -> io::Result<()> {
    let fds: Vec<OwnedFd> = match terminal {
        Some(number) => {
            let slave = File::options()
                .read(true)
                .write(true)
                .open(format!("/dev/pts/{number}"))?;
            // SAFETY: takes a descriptor and a number, no memory.
            if unsafe { libc::ioctl(slave.as_raw_fd(), libc::TIOCSCTTY, 0) } != 0 {
                return Err(io::Error::last_os_error());
            }
            std::os::unix::fs::fchown(&slave, Some(user.uid), Some(TTY_GROUP))?;
            vec![
                slave.as_fd().try_clone_to_owned()?,
                slave.as_fd().try_clone_to_owned()?,
                slave.into(),
            ]
        }
        None => stdio,
    };
    if fds.len() != 3 {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // The spawner has 0, 1 and 2 open, so none of these descriptors is one of them.
    for (fd, place) in fds.iter().zip(0..) {
        // SAFETY: takes numbers, no memory.
        if unsafe { libc::dup2(fd.as_raw_fd(), place) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

pub(crate) fn reset_signals_and_limits() {
    // SAFETY: changes dispositions, mask and limits of this process, which has one thread; the structures live
    // over the calls.
    unsafe {
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none = std::mem::MaybeUninit::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
        // The usual soft limit: programs that use select(2) rely on it. Anything may raise it to the hard one.
        let files = libc::rlimit {
            rlim_cur: 1024,
            rlim_max: 1 << 20,
        };
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const files);
        libc::umask(0o022);
    }
}

fn enter_workdir(exec: &ExecSpec, user: &User) -> Result<String, ProcessReport> {
    let asked = exec.dir.as_deref();
    let workdir = match asked {
        Some(dir) if dir.starts_with('/') => dir.to_owned(),
        Some(dir) => format!("{}/{dir}", user.home),
        None => user.home.clone(),
    };
    match rustix::process::chdir(workdir.as_str()) {
        Ok(()) => Ok(workdir),
        // A sprite whose home was removed can still be entered to mend it.
        Err(_) if asked.is_none() && rustix::process::chdir("/").is_ok() => Ok("/".to_owned()),
        Err(errno) => Err(ProcessReport::Dir {
            workdir,
            errno: errno.raw_os_error(),
        }),
    }
}

/// Defaults, then the sprite's variables, then those of the exec; the last of a name counts.
fn variables(spec: &ProcessSpec, user: &User) -> Vec<(String, String)> {
    let own = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let mut all = vec![
        own("HOME", &user.home),
        own("USER", &user.name),
        own("LOGNAME", &user.name),
        own("SHELL", &user.shell),
        own(
            "PATH",
            &format!("{}/.local/bin:{SYSTEM_PATH}:{OWN_PROGRAMS}", user.home),
        ),
        own("BROWSER", &format!("{OWN_PROGRAMS}/{BROWSER}")),
        own("LANG", "C.UTF-8"),
    ];
    if spec.terminal.is_some() {
        all.push(own("TERM", "xterm-256color"));
    }
    let mut places: std::collections::HashMap<String, usize> = all
        .iter()
        .enumerate()
        .map(|(i, (name, _))| (name.clone(), i))
        .collect();
    for (name, value) in spec.environment.iter().chain(&spec.exec.env) {
        match places.get(name) {
            Some(&place) => all[place].1.clone_from(value),
            None => {
                places.insert(name.clone(), all.len());
                all.push((name.clone(), value.clone()));
            }
        }
    }
    all
}

fn value<'a>(variables: &'a [(String, String)], name: &str) -> Option<&'a str> {
    variables
        .iter()
        .find(|(n, _)| n == name)
        .map(|(_, value)| value.as_str())
}

/// The program's absolute path, or the exit status that says why there is none.
fn look_up(name: &str, path: &str) -> Result<CString, i32> {
    let terminated = |text: String| CString::new(text).map_err(|_| NOT_FOUND);
    if name.contains('/') {
        return terminated(name.to_owned());
    }
    let mut status = NOT_FOUND;
    for dir in path.split(':') {
        let dir = if dir.is_empty() { "." } else { dir };
        let candidate = format!("{dir}/{name}");
        let os = OsStr::from_bytes(candidate.as_bytes());
        if !std::fs::metadata(os).is_ok_and(|file| file.is_file()) {
            continue;
        }
        if rustix::fs::access(os, rustix::fs::Access::EXEC_OK).is_ok() {
            return terminated(candidate);
        }
        status = NOT_RUNNABLE;
    }
    Err(status)
}

/// Why a program cannot be run, as far as its file tells. Source: behaviour reference §4.3 (the words).
fn absence(ready: &Ready) -> Option<String> {
    let errno = match &ready.program {
        Ok(program) => rustix::fs::access(program.as_c_str(), rustix::fs::Access::EXEC_OK).err()?,
        Err(NOT_RUNNABLE) => rustix::io::Errno::ACCESS,
        Err(_) => rustix::io::Errno::NOENT,
    };
    let name = &ready.name;
    Some(match errno {
        rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR => {
            format!("executable file `{name}` not found: No such file or directory")
        }
        rustix::io::Errno::ACCESS => {
            format!("executable file `{name}` cannot be run: Permission denied")
        }
        other => format!("executable file `{name}` cannot be run: {other}"),
    })
}

/// Becomes the program; comes back only with an exit status.
fn run(ready: &Ready, report: &mut File) -> i32 {
    match (ready.purpose, absence(ready)) {
        (Purpose::Service, Some(message)) => {
            tell(report, &ProcessReport::Absent { message });
            return NOT_FOUND;
        }
        (Purpose::Session, _) | (Purpose::Service, None) => {}
    }
    tell(
        report,
        &ProcessReport::Running {
            pid: std::process::id(),
            command: ready.command.clone(),
            workdir: ready.workdir.clone(),
        },
    );
    let argv: Vec<&std::ffi::CStr> = ready.argv.iter().map(CString::as_c_str).collect();
    let envp: Vec<&std::ffi::CStr> = ready.envp.iter().map(CString::as_c_str).collect();
    let error = match &ready.program {
        Ok(program) => {
            let error = sys::exec(program, &argv, &envp);
            if error.raw_os_error() == Some(libc::ENOEXEC) {
                // A script without its interpreter's name is a shell script. Source: POSIX execvp.
                let mut script = vec![c"sh", program.as_c_str()];
                script.extend(argv.iter().skip(1).copied());
                sys::exec(c"/bin/sh", &script, &envp)
            } else {
                error
            }
        }
        Err(NOT_RUNNABLE) => io::Error::from_raw_os_error(libc::EACCES),
        Err(_) => io::Error::from_raw_os_error(libc::ENOENT),
    };
    let (status, reason) = match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) => (NOT_FOUND, "command not found".to_owned()),
        Some(libc::E2BIG) => (
            NOT_RUNNABLE,
            "arguments and variables are too long".to_owned(),
        ),
        _ => (NOT_RUNNABLE, error.to_string()),
    };
    // On the session's own stderr, where a shell would say it.
    let _ = writeln!(io::stderr(), "sprite: {}: {reason}", ready.name);
    status
}
