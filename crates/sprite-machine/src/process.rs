//! The first process of a machine: found again after a restart of the server, watched, and ended.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::MachineError;
use crate::failure::step;

/// How long what was killed may take to end. The last process of a machine unmounts its disk, and that waits until all
/// that was written there is on the host's: gigabytes, on a disk that others use too.
pub(crate) const DIES_WITHIN: Duration = Duration::from_secs(120);

/// A process of the host, told apart from a later one with the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessMark {
    pub(crate) pid: u32,
    /// Start time in clock ticks since boot. Source: proc(5), stat field 22.
    pub(crate) started: u64,
}

impl ProcessMark {
    /// The mark of a process that exists.
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The second field may hold anything, blanks and parentheses too; it ends at the last parenthesis.
        let started = stat
            .rsplit_once(')')
            .and_then(|(_, rest)| rest.split_ascii_whitespace().nth(19))
            .and_then(|field| field.parse().ok())
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no start time"))?;
        Ok(Self { pid, started })
    }
}

/// A process that is watched.
#[derive(Debug)]
pub(crate) struct Process {
    pidfd: AsyncFd<OwnedFd>,
}

impl Process {
    /// The process of a mark, if it runs.
    pub(crate) fn open(mark: ProcessMark) -> Result<Option<Self>, MachineError> {
        let pid = i32::try_from(mark.pid).ok().and_then(Pid::from_raw);
        let Some(pid) = pid else {
            return Ok(None);
        };
        let pidfd = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(error) => return Err(step("open the machine's process")(error.into())),
        };
        // With the descriptor open the id cannot be used again: now it can be compared.
        if ProcessMark::of(mark.pid).ok() != Some(mark) {
            return Ok(None);
        }
        // One that ended but was not reaped by the host's init yet still has its id and its start.
        if has_ended(&pidfd).map_err(step("look at the machine's process"))? {
            return Ok(None);
        }
        // SAFETY: the descriptor is owned by the `AsyncFd`, so it stays open and its own for as long as that.
        let pidfd = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) };
        let pidfd = pidfd.map_err(|error| step("watch the machine's process")(error.into()))?;
        Ok(Some(Self { pidfd }))
    }

    /// Waits for its end.
    ///
    /// # Cancel safety
    /// May be dropped and called again.
    pub(crate) async fn gone(&self) {
        // The only error is the end of the runtime, and then nobody waits any more.
        if self.pidfd.readable().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether it has ended, reaped or not.
    pub(crate) fn has_ended(&self) -> io::Result<bool> {
        has_ended(self.pidfd.get_ref())
    }

    /// Kills it; one that is gone is gone.
    pub(crate) fn kill(&self) -> Result<(), MachineError> {
        match rustix::process::pidfd_send_signal(self.pidfd.get_ref(), Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(step("end the machine's process")(error.into())),
        }
    }

    /// Waits for the end of one that was killed.
    pub(crate) async fn dies(&self) -> Result<(), MachineError> {
        let died = tokio::time::timeout(DIES_WITHIN, self.gone()).await;
        died.map_err(|_| MachineError::Timeout {
            step: "end the machine's process".to_owned(),
            seconds: DIES_WITHIN.as_secs(),
        })
    }
}

fn has_ended(pidfd: &OwnedFd) -> io::Result<bool> {
    let mut polled = [PollFd::new(pidfd, PollFlags::IN)];
    Ok(rustix::event::poll(&mut polled, Some(&Timespec::default()))? > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_one_mark() {
        let own = ProcessMark::of(std::process::id()).expect("we exist");
        assert_eq!(own, ProcessMark::of(std::process::id()).expect("we exist"));
        assert!(own.started > 0);
    }

    #[tokio::test]
    async fn only_the_very_process_is_found_and_its_end_is_seen() {
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .expect("starts");
        let mark = ProcessMark::of(child.id()).expect("it runs");
        let other = ProcessMark {
            started: mark.started + 1,
            ..mark
        };
        assert!(Process::open(other).expect("looks").is_none());
        let process = Process::open(mark).expect("looks").expect("it runs");
        assert!(!process.has_ended().expect("looks"));
        process.kill().expect("kills");
        process.dies().await.expect("dies");
        // Not reaped yet.
        assert!(process.has_ended().expect("looks"));
        assert!(Process::open(mark).expect("looks").is_none());
        child.wait().expect("reaped");
        process.kill().expect("gone is gone");
    }
}
