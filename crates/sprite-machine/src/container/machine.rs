//! A machine that runs: its socket, its end, and what is removed after it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use async_trait::async_trait;
use sprite_agent_api::link::{BoxedTransport, Connect};
use sprite_net::SpareSockets;
use sprite_types::{DriverKind, Egress, Resources};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use super::Shared;
use super::launch::environment_limits;
use crate::allowed::Allowed;
use crate::cgroup::Part;
use crate::failure::gone;
use crate::log::AgentLog;
use crate::process::Process;
use crate::record::Record;
use crate::{Identity, Machine, MachineError, MachineExit, Statistics};

/// A machine of namespaces.
pub(super) struct ContainerMachine {
    shared: Arc<Shared>,
    record: Record,
    /// The agent's process. When it is gone, every process of the machine is.
    agent: Process,
    log: Option<AgentLog>,
    /// Marks the machine's range of user ids as taken, whatever the agent does with its own mark.
    _range: OwnedFd,
    /// Whether everything of it was removed.
    removed: Mutex<bool>,
    allowed: Allowed,
    sockets: SpareSockets,
}

impl ContainerMachine {
    /// Whether the agent of a record runs.
    pub(super) fn runs(record: &Record) -> Result<bool, MachineError> {
        Ok(Self::agent(record)?.is_some())
    }

    fn agent(record: &Record) -> Result<Option<Process>, MachineError> {
        match record.process {
            Some(mark) => Process::open(mark),
            None => Ok(None),
        }
    }

    /// The machine of a record, if its agent runs. `range` is our mark on its range of user ids.
    pub(super) fn open(
        shared: &Arc<Shared>,
        record: &Record,
        range: OwnedFd,
        allowed: Option<Resources>,
    ) -> Result<Option<Arc<dyn Machine>>, MachineError> {
        let Some(agent) = Self::agent(record)? else {
            return Ok(None);
        };
        let log = shared.holdings.records.log(record.identity.machine);
        Ok(Some(Arc::new(Self {
            shared: shared.clone(),
            record: record.clone(),
            agent,
            log: AgentLog::open(&log).ok(),
            _range: range,
            removed: Mutex::new(false),
            allowed: Allowed::new(allowed),
            sockets: SpareSockets::default(),
        })))
    }
}

#[async_trait]
impl Connect for ContainerMachine {
    async fn connect(&self) -> io::Result<BoxedTransport> {
        let socket = self
            .shared
            .holdings
            .records
            .socket(self.record.identity.machine);
        match tokio::net::UnixStream::connect(socket).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(_) if self.agent.has_ended()? => Err(io::Error::new(
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

    async fn dial(&self, port: u16) -> Option<io::Result<TcpStream>> {
        let slot = self.record.slot?;
        let network = &self.shared.holdings.network;
        Some(network.connect(slot, &self.sockets, port).await)
    }

    async fn exited(&self) -> MachineExit {
        self.agent.gone().await;
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
        self.agent.kill()?;
        // In version 1 of cgroups what is frozen does not die before it is thawed, and the agent not before that.
        // If the groups are gone already, so are the processes.
        if let Err(error) = self.thaw().await {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "thaw what is to end"
            );
        }
        self.agent.dies().await?;
        self.sockets.clear();
        self.shared.holdings.remove(&self.record).await?;
        *removed = true;
        Ok(())
    }

    async fn freeze(&self) -> Result<(), MachineError> {
        let Shared { holdings, .. } = &*self.shared;
        // First, so that nothing comes unheard.
        holdings.fall_asleep(&self.record).await?;
        let group = self.record.group();
        let frozen = holdings
            .cgroups
            .freeze(&group, Part::Environment, true)
            .await;
        if frozen.is_err() {
            holdings.wake(&self.record).await?;
        }
        frozen
    }

    async fn leave(&self) -> Result<(), MachineError> {
        self.destroy().await
    }

    async fn thaw(&self) -> Result<(), MachineError> {
        let Shared { holdings, .. } = &*self.shared;
        holdings
            .cgroups
            .freeze(&self.record.group(), Part::Environment, false)
            .await?;
        holdings.wake(&self.record).await
    }

    async fn snapshot(&self) -> Result<(), MachineError> {
        Err(MachineError::Unsupported {
            operation: "write a snapshot",
            driver: DriverKind::Container,
        })
    }

    async fn set_egress(&self, egress: Egress) -> Result<(), MachineError> {
        // Held over it, so that the slot is not given to another machine meanwhile.
        let removed = self.removed.lock().await;
        if *removed {
            return Ok(());
        }
        self.shared.holdings.set_egress(&self.record, egress).await
    }

    async fn limit(&self, resources: &Resources) -> Result<(), MachineError> {
        let removed = self.removed.lock().await;
        if *removed {
            return Ok(());
        }
        let cgroups = &self.shared.holdings.cgroups;
        let limits = environment_limits(resources);
        let memory = cgroups.change(&self.record.group(), Part::Environment, &limits)?;
        self.allowed.set(Resources {
            memory_mib: u32::try_from(memory >> 20).unwrap_or(u32::MAX),
            ..*resources
        });
        Ok(())
    }

    fn resources(&self) -> Option<Resources> {
        self.allowed.get()
    }

    async fn statistics(&self) -> Result<Statistics, MachineError> {
        // Held over it, so that the slot is not given to another machine meanwhile.
        let removed = self.removed.lock().await;
        if *removed {
            return Err(gone());
        }
        let holdings = &self.shared.holdings;
        holdings.statistics(&self.record, Part::Environment)
    }
}
