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

mod launch;
mod machine;
mod pressure;
mod probe;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use sprite_net::Network;
use sprite_types::{DriverKind, InstanceId, SpriteId};

pub use self::probe::{Unusable, Usable, probe};

use self::machine::ContainerMachine;
use self::pressure::Pressure;
use crate::holdings::Holdings;
use crate::record::Record;
use crate::{Beginning, Identity, Machine, MachineDriver, MachineError, MachineSpec};

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
    pressure: Pressure,
}

/// What the driver and its machines share.
struct Shared {
    /// The agent's program.
    agent: PathBuf,
    holdings: Holdings,
}

impl ContainerDriver {
    /// A driver on this host.
    ///
    /// # Errors
    /// The host has no usable cgroups, or the run directory cannot be made.
    pub fn new(options: ContainerOptions, network: Network) -> Result<Self, MachineError> {
        let ContainerOptions {
            instance,
            run_dir,
            ranges_dir,
            agent,
        } = options;
        let holdings = Holdings::open(&instance, &run_dir, ranges_dir, network)?;
        let shared = Arc::new(Shared { agent, holdings });
        Ok(Self {
            shared,
            pressure: Pressure::default(),
        })
    }

    /// Removes what the driver itself has on the host, if no machine is left. The run directory may go then.
    ///
    /// # Errors
    /// Something could not be removed.
    pub fn close(&self) -> Result<(), MachineError> {
        self.shared.holdings.close()
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
        let holdings = &self.shared.holdings;
        let record = Record::new(spec.identity, DriverKind::Container);
        let record = record.with_system(&self.shared.system());
        holdings.records.write(&record)?;
        let launched = launch::launch(&self.shared, &spec, record).await;
        if launched.is_err() {
            holdings.undo(spec.identity.machine).await;
        }
        launched
    }

    async fn adopt(&self) -> Result<Vec<Arc<dyn Machine>>, MachineError> {
        let holdings = &self.shared.holdings;
        let mut adopted: Vec<Arc<dyn Machine>> = Vec::new();
        let mut kept = Vec::new();
        for record in holdings.records.all()? {
            match self.shared.adopt(&record).await? {
                Some(machine) => {
                    kept.push(record);
                    adopted.push(machine);
                }
                None => holdings.remove(&record).await?,
            }
        }
        holdings.sweep(&kept).await?;
        Ok(adopted)
    }

    async fn called(&self) -> Result<Vec<SpriteId>, MachineError> {
        self.shared.holdings.called().await
    }

    async fn pressed(&self) {
        self.pressure.told().await;
    }

    async fn forget(&self, sprite: SpriteId) -> Result<(), MachineError> {
        self.shared.holdings.forget(sprite).await
    }

    async fn is_outdated(
        &self,
        of: Identity,
        _snapshots: Option<&Path>,
    ) -> Result<bool, MachineError> {
        let record = self.shared.holdings.records.read(of.machine)?;
        Ok(record.is_some_and(|record| record.system != Some(self.shared.system())))
    }

    fn sleepers(&self) -> Vec<Identity> {
        self.shared.holdings.sleepers()
    }
}

impl Shared {
    /// The agent's program has its hash in its name.
    fn system(&self) -> String {
        let name = self.agent.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// The machine of a record, if it is one of ours, runs and has all that is its own.
    async fn adopt(
        self: &Arc<Self>,
        record: &Record,
    ) -> Result<Option<Arc<dyn Machine>>, MachineError> {
        match record.driver {
            DriverKind::Container => {}
            DriverKind::Microvm => return Ok(None),
        }
        if !ContainerMachine::runs(record)? {
            return Ok(None);
        }
        match self.holdings.adopt(record).await {
            Some(range) => ContainerMachine::open(self, record, range, None),
            None => Ok(None),
        }
    }
}
