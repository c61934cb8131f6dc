//! The process that handles files: a fork of the spawner that goes on inside the environment.
//!
//! Each operation is a thread with the rights of the user `sprite` over files, or those of root. The rights are the
//! thread's *file-system* identity: for signals and tracing it stays root's, so that the user cannot touch it.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sprite_agent_api::fs::{FsCall, FsReply, FsSpec};
use sprite_agent_api::wire;

use super::channel::{Channel, Stop};
use super::resolve::Paths;
use super::{MOST_THREADS, TAKEN, archive, change, copy, list, read, watch, write};
use crate::confine;
use crate::environment::guest;
use crate::log::say;
use crate::passwd::User;
use crate::process::reset_signals_and_limits;
use crate::step::{Step, StepError};
use crate::sys;
use crate::walls::Walls;

/// What an operation's thread needs: its largest buffers are on the heap.
const STACK: usize = 256 << 10;

/// Open files of the process: a directory for each level of a walk, in as many walks as there may be.
const MOST_FILES: u64 = 1 << 17;

/// Never returns: serves until `run` is gone.
pub(crate) fn become_helper(
    walls: Walls,
    environment: &OwnedFd,
    report: OwnedFd,
    socket: Option<OwnedFd>,
) -> ! {
    let mut report = File::from(report);
    let status = match prepare(walls, environment, &report, socket) {
        Ok(socket) => {
            // Whoever reads takes the end of the pipe for a failure.
            let _ = report.write_all(b"ready");
            drop(report);
            serve(&socket);
            0
        }
        Err(failure) => {
            let _ = write!(report, "{failure}");
            1
        }
    };
    // SAFETY: ends this process without running anything of the spawner's.
    unsafe { libc::_exit(status) }
}

fn prepare(
    walls: Walls,
    environment: &OwnedFd,
    report: &File,
    socket: Option<OwnedFd>,
) -> Result<UnixStream, StepError> {
    let socket = socket
        .ok_or(io::ErrorKind::InvalidInput)
        .step("find the socket")?;
    sys::setns(environment, walls.namespaces()).step("enter the environment")?;
    rustix::process::setsid().step("begin a session")?;
    close_all_but([report.as_raw_fd(), socket.as_raw_fd()]);
    reset_signals_and_limits();
    go_on_when_a_reader_is_gone();
    match walls {
        Walls::Container { .. } => {
            // As root of the environment: what is made without more ado is root's.
            sys::become_user(0, 0, &[]).step("become root of the environment")?;
            confine::limit_capabilities().step("limit capabilities")?;
            confine::filter_system_calls().step("filter system calls")?;
        }
        Walls::Guest => guest::be_ordinary().step("be as any other process")?,
    }
    // SAFETY: takes numbers and a terminated string that lives over the call.
    unsafe {
        libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
        libc::prctl(libc::PR_SET_NAME, c"sprite-files".as_ptr(), 0, 0, 0);
    }
    rustix::process::chdir("/").step("enter the root")?;
    Ok(UnixStream::from(socket))
}

fn go_on_when_a_reader_is_gone() {
    let files = libc::rlimit {
        rlim_cur: MOST_FILES,
        rlim_max: 1 << 20,
    };
    // SAFETY: changes a disposition and a limit of this process, which has one thread; the structure lives over the
    // call.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const files);
    }
}

/// Nothing of the spawner's stays open here but the log.
fn close_all_but(mut kept: [i32; 2]) {
    kept.sort_unstable();
    let mut first = 3;
    for fd in kept.into_iter().filter(|fd| *fd >= 3) {
        close_range(first, fd - 1);
        first = fd + 1;
    }
    close_range(first, i32::MAX);
}

fn close_range(first: i32, last: i32) {
    if first <= last {
        // SAFETY: closes descriptors of the spawner's, none of which this process uses or drops any more.
        unsafe { libc::close_range(first.cast_unsigned(), last.cast_unsigned(), 0) };
    }
}

fn serve(socket: &UnixStream) {
    let threads = Arc::new(AtomicUsize::new(0));
    // Ends when `run` does, or says what it never says.
    while let Ok(Some(((), fds))) = wire::receive::<()>(socket) {
        let Some(operation) = fds.into_iter().next().map(UnixStream::from) else {
            return;
        };
        if threads.fetch_add(1, Ordering::Relaxed) >= MOST_THREADS {
            // All hang: `run` sees that this one was not taken up, and starts another process.
            threads.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let leave = Leave(threads.clone());
        let thread = std::thread::Builder::new()
            .name("files".to_owned())
            .stack_size(STACK)
            .spawn(move || {
                let _leave = leave;
                take_up(operation);
            });
        if let Err(error) = thread {
            say(format_args!("start a thread for files: {error}"));
        }
    }
}

/// Counts a thread's end, also one by a panic.
struct Leave(Arc<AtomicUsize>);

impl Drop for Leave {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn take_up(mut socket: UnixStream) {
    if socket.write_all(&[TAKEN]).is_err() {
        return;
    }
    let mut channel = Channel::new(socket);
    let Ok(spec) = channel.message::<FsSpec>() else {
        return;
    };
    match perform(&spec, &mut channel) {
        Ok(()) => {}
        Err(Stop::Refused(error)) => {
            // Who is gone is not told.
            let _ = channel.say(&FsReply::Refused(error));
        }
        Err(Stop::Gone) => return,
    }
    channel.end();
}

fn perform(spec: &FsSpec, channel: &mut Channel) -> Result<(), Stop> {
    let user = User::load();
    if !spec.as_root {
        sys::thread_file_identity(user.uid, user.gid, &user.groups);
    }
    let paths = Paths::new(&user.home, spec.working_dir.as_deref())?;
    match &spec.call {
        FsCall::Read { path, range } => read::read(channel, &paths.absolute(path)?, *range),
        FsCall::Write {
            path,
            mode,
            parents,
        } => write::write(channel, &paths, path, *mode, *parents),
        FsCall::List {
            path,
            recursive,
            pattern,
        } => {
            let path = paths.absolute(path)?;
            list::list(channel, &path, *recursive, pattern.as_deref())
        }
        FsCall::Delete { path, recursive } => {
            change::delete(channel, &paths.absolute(path)?, *recursive)
        }
        FsCall::Rename { source, dest } => {
            change::rename(channel, &paths.absolute(source)?, &paths.absolute(dest)?)
        }
        FsCall::Copy {
            source,
            dest,
            recursive,
            preserve,
        } => {
            let how = copy::How {
                recursive: *recursive,
                preserve: *preserve,
            };
            copy::copy(
                channel,
                &paths.absolute(source)?,
                &paths.absolute(dest)?,
                how,
            )
        }
        FsCall::Chmod {
            path,
            mode,
            recursive,
        } => change::chmod(channel, &paths.absolute(path)?, *mode, *recursive),
        FsCall::Chown {
            path,
            user,
            group,
            recursive,
        } => {
            let owner = change::NewOwner::of(user.as_ref(), group.as_ref())?;
            change::chown(channel, &paths.absolute(path)?, owner, *recursive)
        }
        FsCall::Watch => watch::watch(channel, &user.home),
        FsCall::Unpack { path } => archive::unpack(channel, &paths.absolute(path)?),
        FsCall::Pack { path } => archive::pack(channel, &paths.absolute(path)?),
    }
}
