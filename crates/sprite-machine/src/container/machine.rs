//! A machine that runs: its socket, its end, and what is removed after it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};
use sprite_agent_api::link::{BoxedTransport, Connect};
use sprite_types::DriverKind;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Mutex;

use super::log::AgentLog;
use super::record::{ProcessMark, Record};
use super::{Shared, network, step};
use crate::{Identity, Machine, MachineError, MachineExit, Statistics};

/// A killed agent takes all of its machine with it in the kernel; that takes moments.
const DIES_WITHIN: Duration = Duration::from_secs(20);

/// A machine of namespaces.
pub(super) struct ContainerMachine {
    shared: Arc<Shared>,
    record: Record,
    /// The agent's process. When it is gone, every process of the machine is.
    agent: AsyncFd<OwnedFd>,
    log: Option<AgentLog>,
    /// Marks the machine's range of user ids as taken, whatever the agent does with its own mark.
    _range: Option<OwnedFd>,
    /// Whether everything of it was removed.
    removed: Mutex<bool>,
}

impl ContainerMachine {
    /// The machine of a record, if its agent runs. `range` is our mark on its range of user ids.
    pub(super) fn open(
        shared: &Arc<Shared>,
        record: &Record,
        range: Option<OwnedFd>,
    ) -> Result<Option<Arc<dyn Machine>>, MachineError> {
        let Some(mark) = record.process else {
            return Ok(None);
        };
        let pid = i32::try_from(mark.pid).ok().and_then(Pid::from_raw);
        let Some(pid) = pid else {
            return Ok(None);
        };
        let pidfd = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(error) => return Err(step("open the agent's process")(error.into())),
        };
        // With the descriptor open the id cannot be used again: now it can be compared.
        if ProcessMark::of(mark.pid).ok() != Some(mark) {
            return Ok(None);
        }
        // One that ended but was not reaped by the host's init yet still has its id and its start.
        if has_ended(&pidfd).map_err(step("look at the agent's process"))? {
            return Ok(None);
        }
        // SAFETY: the descriptor is owned by the `AsyncFd`, so it stays open and its own for as long as that.
        let agent = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) };
        let agent = agent.map_err(|error| step("watch the agent")(error.into()))?;
        Ok(Some(Arc::new(Self {
            shared: shared.clone(),
            record: record.clone(),
            agent,
            log: AgentLog::open(&shared.records.log(record.identity.machine)).ok(),
            _range: range,
            removed: Mutex::new(false),
        })))
    }

    async fn gone(&self) {
        // The only error is the end of the runtime, and then nobody waits any more.
        if self.agent.readable().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[async_trait]
impl Connect for ContainerMachine {
    async fn connect(&self) -> io::Result<BoxedTransport> {
        let socket = self.shared.records.socket(self.record.identity.machine);
        match tokio::net::UnixStream::connect(socket).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(_) if has_ended(self.agent.get_ref())? => Err(io::Error::new(
                io::ErrorKind::NotConnected,
                "the machine has ended",
            )),
            Err(error) => Err(error),
        }
    }
}

#[async_trait]
impl Machine for ContainerMachine {
    fn identity(&self) -> Identity {
        self.record.identity
    }

    fn connector(self: Arc<Self>) -> Arc<dyn Connect> {
        self
    }

    async fn exited(&self) -> MachineExit {
        self.gone().await;
        let reason = match &self.log {
            Some(log) => log.last_lines(),
            None => "the agent ended; its log is gone".to_owned(),
        };
        MachineExit { reason }
    }

    async fn destroy(&self) -> Result<(), MachineError> {
        let mut removed = self.removed.lock().await;
        if *removed {
            return Ok(());
        }
        match rustix::process::pidfd_send_signal(self.agent.get_ref(), Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(step("end the agent")(error.into())),
        }
        // In version 1 of cgroups what is frozen does not die before it is thawed, and the agent not before that.
        // If the groups are gone already, so are the processes.
        if let Err(error) = self.thaw().await {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "thaw what is to end"
            );
        }
        if tokio::time::timeout(DIES_WITHIN, self.gone())
            .await
            .is_err()
        {
            let seconds = DIES_WITHIN.as_secs();
            return Err(MachineError::Timeout {
                step: "end the agent".to_owned(),
                seconds,
            });
        }
        remove(&self.shared, &self.record).await?;
        *removed = true;
        Ok(())
    }

    async fn freeze(&self) -> Result<(), MachineError> {
        self.shared.cgroups.freeze(&self.record.group(), true).await
    }

    async fn thaw(&self) -> Result<(), MachineError> {
        self.shared
            .cgroups
            .freeze(&self.record.group(), false)
            .await
    }

    async fn snapshot(&self) -> Result<(), MachineError> {
        Err(MachineError::Unsupported {
            operation: "write a snapshot",
            driver: DriverKind::Container,
        })
    }

    async fn statistics(&self) -> Result<Statistics, MachineError> {
        self.shared.cgroups.statistics(&self.record.group())
    }
}

/// Whether a process has ended, reaped or not.
fn has_ended(pidfd: &OwnedFd) -> io::Result<bool> {
    let mut polled = [PollFd::new(pidfd, PollFlags::IN)];
    Ok(rustix::event::poll(&mut polled, Some(&Timespec::default()))? > 0)
}

/// Removes what a machine has on the host; its record goes last. Idempotent.
pub(super) async fn remove(shared: &Shared, record: &Record) -> Result<(), MachineError> {
    shared.cgroups.remove(&record.group()).await?;
    if let Some(slot) = record.slot {
        shared
            .network
            .release(slot)
            .await
            .map_err(network("give back the network slot"))?;
    }
    shared.records.remove(record.identity.machine)
}
