//! The `container` driver: a machine of namespaces, cgroups and seccomp on the host's own kernel.
//!
//! Weaker than a virtual machine, and it says so wherever it is shown. A machine has on the host: a directory
//! under the run directory with its record and its socket, two cgroups in each hierarchy, a network slot, a
//! range of user ids, and the processes below its agent. Its mounts live in its own mount namespace, and its
//! loop device and its lock on the disk go with the last of them, so a crash leaves none.
//!
//! # Crash safety
//! The record is written before anything else is made and says what a machine may have; what has no living
//! agent is removed at the next start of the server, by record and by name.

mod cgroup;
mod launch;
mod log;
mod machine;
mod range;
mod record;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use sprite_net::Network;
use sprite_types::{DriverKind, InstanceId, MachineId};

use self::cgroup::Cgroups;
use self::machine::ContainerMachine;
use self::record::{Record, RecordDirectory};
use crate::{Beginning, Machine, MachineDriver, MachineError, MachineSpec};

/// What the driver needs to know of its host.
#[derive(Debug, Clone)]
pub struct ContainerOptions {
    /// The mark of the data directory, in the name of everything that the driver makes.
    pub instance: InstanceId,
    /// Where records and sockets live; gone after the host's reboot, as the machines are.
    pub run_dir: PathBuf,
    /// Where all servers of this host agree on ranges of user ids.
    pub ranges_dir: PathBuf,
    /// The agent's program.
    pub agent: PathBuf,
}

/// Makes machines of namespaces.
pub struct ContainerDriver {
    shared: Arc<Shared>,
}

/// What the driver and its machines share.
struct Shared {
    options: ContainerOptions,
    cgroups: Cgroups,
    records: RecordDirectory,
    network: Network,
}

impl ContainerDriver {
    /// A driver on this host.
    ///
    /// # Errors
    /// The host has no usable cgroups, or the run directory cannot be made.
    pub fn new(options: ContainerOptions, network: Network) -> Result<Self, MachineError> {
        let cgroups = Cgroups::find(&options.instance)?;
        let records = RecordDirectory::open(&options.run_dir)?;
        Ok(Self {
            shared: Arc::new(Shared {
                options,
                cgroups,
                records,
                network,
            }),
        })
    }

    /// Removes what the driver itself has on the host, if no machine is left. The run directory may go then.
    ///
    /// # Errors
    /// Something could not be removed.
    pub fn close(&self) -> Result<(), MachineError> {
        if !self.shared.cgroups.all()?.is_empty() {
            return Ok(());
        }
        self.shared.cgroups.remove_parent()?;
        self.shared.records.remove_all()
    }

    /// Removes every machine of an instance, running or not: its processes, cgroups and records. Network slots
    /// are removed by [`Network::purge`]. Idempotent; for a data directory that no server uses.
    ///
    /// # Errors
    /// Something could not be removed.
    pub async fn purge(
        instance: &InstanceId,
        run_dir: &std::path::Path,
    ) -> Result<(), MachineError> {
        let cgroups = Cgroups::find(instance)?;
        for group in cgroups.all()? {
            cgroups.remove(&group).await?;
        }
        cgroups.remove_parent()?;
        RecordDirectory::open(run_dir)?.remove_all()
    }
}

#[async_trait]
impl MachineDriver for ContainerDriver {
    fn kind(&self) -> DriverKind {
        DriverKind::Container
    }

    fn keeps_snapshots(&self) -> bool {
        false
    }

    async fn start(&self, spec: MachineSpec) -> Result<Arc<dyn Machine>, MachineError> {
        match spec.beginning {
            Beginning::Boot => {}
            Beginning::Snapshot { .. } => {
                return Err(MachineError::Unsupported {
                    operation: "begin with a snapshot",
                    driver: DriverKind::Container,
                });
            }
        }
        let record = Record::new(spec.identity);
        self.shared.records.write(&record)?;
        let launched = launch::launch(&self.shared, &spec, record).await;
        if launched.is_err()
            && let Err(undo) = self.shared.undo(spec.identity.machine).await
        {
            // The first failure is the one to tell; what cannot be undone now is swept at the next start.
            tracing::warn!(
                error = &undo as &dyn std::error::Error,
                "undo a failed start"
            );
        }
        launched
    }

    async fn adopt(&self) -> Result<Vec<Arc<dyn Machine>>, MachineError> {
        let mut adopted: Vec<Arc<dyn Machine>> = Vec::new();
        let mut slots = Vec::new();
        let mut groups = Vec::new();
        for record in self.shared.records.all()? {
            match self.shared.adopt(&record).await? {
                Some(machine) => {
                    slots.extend(record.slot);
                    groups.push(record.group());
                    adopted.push(machine);
                }
                None => machine::remove(&self.shared, &record).await?,
            }
        }
        // What has no record: a crash between two steps, or a record that was lost.
        for group in self.shared.cgroups.all()? {
            if !groups.contains(&group) {
                self.shared.cgroups.remove(&group).await?;
            }
        }
        self.shared
            .network
            .sweep(&slots)
            .await
            .map_err(network("sweep network slots"))?;
        Ok(adopted)
    }
}

impl Shared {
    /// Removes what a start that failed has made, which its record says.
    async fn undo(&self, machine: MachineId) -> Result<(), MachineError> {
        match self.records.read(machine)? {
            Some(record) => machine::remove(self, &record).await,
            None => self.records.remove(machine),
        }
    }

    fn mark_range(&self, base: u32) -> std::io::Result<std::os::fd::OwnedFd> {
        range::mark(&self.options.ranges_dir, base)
    }

    /// The machine of a record, if it runs and has its network. One that lost a part of it is not kept: it was
    /// being ended, or somebody else took it apart.
    async fn adopt(
        self: &Arc<Self>,
        record: &Record,
    ) -> Result<Option<Arc<dyn Machine>>, MachineError> {
        let range = match record.id_base.map(|base| self.mark_range(base)) {
            Some(Err(error)) => {
                let machine = record.identity.machine;
                tracing::warn!(%machine, %error, "end a machine that let go of its user ids");
                return Ok(None);
            }
            Some(Ok(mark)) => Some(mark),
            None => None,
        };
        let Some(machine) = ContainerMachine::open(self, record, range)? else {
            return Ok(None);
        };
        let Some(slot) = record.slot else {
            return Ok(None);
        };
        match self.network.adopt(slot).await {
            Ok(_) => Ok(Some(machine)),
            Err(error) => {
                let machine = record.identity.machine;
                tracing::warn!(%machine, error = &error as &dyn std::error::Error, "end a machine without network");
                Ok(None)
            }
        }
    }
}

fn network(step: &str) -> impl FnOnce(sprite_net::NetError) -> MachineError {
    move |error| MachineError::Step {
        step: step.to_owned(),
        source: std::io::Error::other(error),
    }
}

fn step(step: impl Into<String>) -> impl FnOnce(std::io::Error) -> MachineError {
    move |source| MachineError::Step {
        step: step.into(),
        source,
    }
}
