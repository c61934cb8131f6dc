//! The `microvm` driver: a machine is a virtual machine on KVM, with a kernel of its own.
//!
//! Whichever monitor is run, ours or Firecracker, the driver is the same: it builds a jail around it, tells it over
//! its control socket what the machine is made of, and reaches the agent through its vsock. On the host a machine
//! has a directory under the run directory with its record and its console's pipe, one cgroup in each hierarchy, a
//! network slot with a tap, a user id, and one process. Its sockets are in its jail alone. Nothing of a sprite's
//! file system is ever mounted on the host, or read by it.
//!
//! | state of the monitor | by |
//! |---|---|
//! | jailed, empty | `launch` |
//! | booted or loaded | `boot`, `golden`, `snapshot` |
//! | standing still, running | `machine` |
//!
//! # Crash safety
//! The record is written before anything else is made. It names the process only once the machine has booted or
//! stands where its snapshot stood: what a crash leaves before that is removed at the next start of the server, and
//! what it leaves afterwards is adopted.

mod api;
mod arrivals;
mod boot;
mod console;
mod golden;
mod launch;
mod machine;
mod monitor;
mod request;
mod run_dir;
mod snapshot;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sprite_net::Network;
use sprite_types::{DriverKind, InstanceId, SpriteId};
use tokio::sync::{Mutex, OnceCell};
use tokio::time::Instant;

use self::api::Capabilities;
use self::arrivals::Arrivals;
pub use self::golden::{GoldenPlace, Goldens};
use self::machine::MicrovmMachine;
pub use self::monitor::{Monitor, UnfitMonitor, examine};
use crate::holdings::Holdings;
use crate::record::Record;
use crate::{Beginning, Identity, Machine, MachineDriver, MachineError, MachineSpec};

/// What a machine boots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestFiles {
    /// Names it, in records and snapshots.
    pub id: String,
    /// The kernel, which everybody may read.
    pub kernel: PathBuf,
    /// The archive with the agent as `/init`, which everybody may read.
    pub initramfs: PathBuf,
    /// The image of the kernel's modules, which everybody may read.
    pub modules: PathBuf,
}

/// Finds a guest system that machines booted earlier, by its id. Blocks.
pub type FindGuest = Arc<dyn Fn(&str) -> Option<GuestFiles> + Send + Sync>;

/// What the driver needs to know of its host.
#[derive(Clone)]
pub struct MicrovmOptions {
    /// The mark of the data directory, in the name of everything that the driver makes.
    pub instance: InstanceId,
    /// Where records and consoles live; gone after the host's reboot, as the machines are.
    pub run_dir: PathBuf,
    /// Where all servers of this host agree on ranges of user ids.
    pub ranges_dir: PathBuf,
    /// The agent's program, which builds jails.
    pub agent: PathBuf,
    /// The monitor's program: ours, or Firecracker 1.12 or newer. Static, and everybody may read it.
    pub monitor: PathBuf,
    /// What machines boot.
    pub guest: GuestFiles,
    /// What machines in snapshots booted.
    pub earlier_guests: FindGuest,
    /// What machines begin with instead of booting.
    pub goldens: Arc<dyn Goldens>,
    /// How long a boot may take until the agent answers, or a load.
    pub boot_within: Duration,
}

/// Makes virtual machines.
pub struct MicrovmDriver {
    shared: Arc<Shared>,
}

/// What the driver and its machines share.
struct Shared {
    agent: PathBuf,
    monitor: PathBuf,
    guest: GuestFiles,
    earlier_guests: FindGuest,
    goldens: Arc<dyn Goldens>,
    /// Held while one is looked for, or made. When one may be made again, after that failed.
    golden_turn: Mutex<Option<Instant>>,
    boot_within: Duration,
    holdings: Holdings,
    arrivals: Arrivals,
    /// What the monitor can do besides what Firecracker's description says; asked of the first one.
    capabilities: OnceCell<Capabilities>,
}

impl MicrovmDriver {
    /// A driver on this host. Within a tokio runtime.
    ///
    /// # Errors
    /// The host has no usable cgroups, or the run directory cannot be made.
    pub fn new(options: MicrovmOptions, network: Network) -> Result<Self, MachineError> {
        let MicrovmOptions {
            instance,
            run_dir,
            ranges_dir,
            agent,
            monitor,
            guest,
            earlier_guests,
            goldens,
            boot_within,
        } = options;
        let holdings = Holdings::open(&instance, &run_dir, ranges_dir, network)?;
        Ok(Self {
            shared: Arc::new(Shared {
                agent,
                monitor,
                guest,
                earlier_guests,
                goldens,
                golden_turn: Mutex::default(),
                boot_within,
                holdings,
                arrivals: Arrivals::begin()?,
                capabilities: OnceCell::new(),
            }),
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
impl MachineDriver for MicrovmDriver {
    fn kind(&self) -> DriverKind {
        DriverKind::Microvm
    }

    fn keeps_snapshots(&self) -> bool {
        true
    }

    async fn start(&self, spec: MachineSpec) -> Result<Arc<dyn Machine>, MachineError> {
        let holdings = &self.shared.holdings;
        let record = Record::new(spec.identity, DriverKind::Microvm);
        holdings.records.write(&record)?;
        let started = match &spec.beginning {
            Beginning::Boot => {
                // Connections are of a memory.
                if let Err(error) = holdings.forget(spec.identity.sprite).await {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, "what was kept for a memory that is dropped");
                }
                golden::begin(&self.shared, &spec, record).await
            }
            Beginning::Snapshot { of } => snapshot::load(&self.shared, &spec, *of, record).await,
        };
        match started {
            Ok(machine) => Ok(machine),
            Err(error) => {
                holdings.undo(spec.identity.machine).await;
                Err(error)
            }
        }
    }

    async fn adopt(&self) -> Result<Vec<Arc<dyn Machine>>, MachineError> {
        let holdings = &self.shared.holdings;
        let mut adopted: Vec<Arc<dyn Machine>> = Vec::new();
        let mut kept = Vec::new();
        let (asleep, others): (Vec<_>, Vec<_>) = holdings
            .records
            .all()?
            .into_iter()
            .partition(|record| record.asleep);
        let mut ended = Vec::new();
        for record in others {
            match self.shared.adopt(&record).await? {
                Some(machine) => {
                    kept.push(record);
                    adopted.push(machine);
                }
                None => ended.push(record),
            }
        }
        for record in asleep {
            if holdings.adopt_kept(&record).await? {
                kept.push(record);
            }
        }
        // Last: one of them may be a load that was cut off, and name what is kept of the machine before.
        for record in ended {
            holdings.remove(&record).await?;
        }
        holdings.sweep(&kept).await?;
        Ok(adopted)
    }

    async fn called(&self) -> Result<Vec<SpriteId>, MachineError> {
        self.shared.holdings.called().await
    }

    async fn pressed(&self) {
        // What sleeps is on the disk.
        std::future::pending().await
    }

    async fn forget(&self, sprite: SpriteId) -> Result<(), MachineError> {
        self.shared.holdings.forget(sprite).await
    }

    async fn is_outdated(
        &self,
        of: Identity,
        snapshots: Option<&Path>,
    ) -> Result<bool, MachineError> {
        let running = self.shared.holdings.records.read(of.machine)?;
        let guest = match running.and_then(|record| record.monitor) {
            Some(monitor) => Some(monitor.guest),
            None => snapshots.and_then(|directory| snapshot::guest_of(directory, of)),
        };
        Ok(guest.is_some_and(|guest| guest != self.shared.guest.id))
    }

    fn sleepers(&self) -> Vec<Identity> {
        self.shared.holdings.sleepers()
    }
}

impl Shared {
    /// The machine of a record, if it is one of ours, runs and has all that is its own.
    async fn adopt(
        self: &Arc<Self>,
        record: &Record,
    ) -> Result<Option<Arc<dyn Machine>>, MachineError> {
        match record.driver {
            DriverKind::Microvm => {}
            DriverKind::Container => return Ok(None),
        }
        let Some(found) = MicrovmMachine::find(self, record)? else {
            return Ok(None);
        };
        match self.holdings.adopt(record).await {
            Some(range) => Ok(Some(found.machine(range))),
            None => Ok(None),
        }
    }
}
