//! A session's process, as its parent, the agent, has it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::io::unix::AsyncFd;

/// A process of the environment.
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

    /// Whether this is the group of that id.
    pub(crate) fn is(&self, id: i32) -> bool {
        self.pid == id
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

    /// Waits for the end and leaves the exit status: until that is taken, the group's number is its own.
    ///
    /// Cancel safe.
    pub(crate) async fn ended(&self) -> io::Result<()> {
        use rustix::process::{WaitId, WaitIdOptions, waitid};
        loop {
            let mut ready = self.fd.readable().await?;
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
            let id = WaitId::PidFd(std::os::fd::AsFd::as_fd(self.fd.get_ref()));
            if waitid(id, options)?.is_some() {
                return Ok(());
            }
            ready.clear_ready();
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
