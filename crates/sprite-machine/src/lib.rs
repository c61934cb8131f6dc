//! Machines, and the drivers that make them.
//!
//! A [`MachineDriver`] starts machines on disks; a [`Machine`] is one that runs. Whoever starts a machine
//! reaches its agent through [`Connect`](sprite_agent_api::link::Connect), and beside it only the ports of a machine
//! whose kernel is the host's ([`Machine::dial`]). A machine
//! outlives the process that started it: after a restart the driver hands out what still runs
//! ([`MachineDriver::adopt`]).
#![warn(missing_docs)]

mod allowed;
mod cgroup;
pub mod container;
mod failure;
mod holdings;
pub mod kvm;
mod launcher;
mod log;
pub mod microvm;
mod process;
mod range;
mod record;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use sprite_agent_api::link::Connect;
use sprite_types::{DriverKind, Egress, Generation, Incarnation, MachineId, Resources, SpriteId};
use tokio::net::TcpStream;

pub use holdings::purge;

/// Whose machine this is. Kept by the driver beside the machine, so that it can be told after a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The sprite that runs in it.
    pub sprite: SpriteId,
    /// The machine.
    pub machine: MachineId,
    /// Which run of the sprite this is.
    pub incarnation: Incarnation,
    /// Which owner started it.
    pub generation: Generation,
}

/// What a machine is made of.
#[derive(Debug, Clone)]
pub struct MachineSpec {
    /// Whose it is.
    pub identity: Identity,
    /// The sprite's disk: an ext4 image that no other machine uses.
    pub disk: PathBuf,
    /// How much of the host it may use.
    pub resources: Resources,
    /// Whether it reaches anything outside itself, from its first step on.
    pub egress: Egress,
    /// Where the sprite's memory is kept while it sleeps: an existing directory in the pool that no other sprite
    /// uses. `None` for drivers that keep no snapshots.
    pub snapshots: Option<PathBuf>,
    /// What it begins with.
    pub beginning: Beginning,
}

/// What a machine begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Beginning {
    /// Nothing: its kernel or its agent starts.
    Boot,
    /// The memory in the sprite's snapshot directory, which was written by the machine of this identity.
    Snapshot {
        /// Whose memory it must be; any other is refused.
        of: Identity,
    },
}

/// Why a machine is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineExit {
    /// For people: exit status or signal, and the last lines of its console.
    pub reason: String,
}

/// A failure of a driver. The step is named; the remedy too where there is one.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// A step of starting or stopping failed.
    #[error("{step}")]
    Step {
        /// Lower-case verb phrase with ids and paths.
        step: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The machine did not do in time what it was asked for.
    #[error("{step} took longer than {seconds} s")]
    Timeout {
        /// Lower-case verb phrase.
        step: String,
        /// The limit.
        seconds: u64,
    },
    /// The host is out of something that machines need.
    #[error("no free {what}: {remedy}")]
    Exhausted {
        /// What ran out.
        what: &'static str,
        /// What a person can do.
        remedy: String,
    },
    /// The snapshot can never be used here: it is of another machine or format, damaged, or of another CPU.
    #[error("use the snapshot: {reason}")]
    Unfit {
        /// What does not fit.
        reason: String,
    },
    /// This driver cannot do that.
    #[error("driver {driver} cannot {operation}")]
    Unsupported {
        /// The operation.
        operation: &'static str,
        /// The driver.
        driver: DriverKind,
    },
}

/// What a machine used so far. CPU time and bytes begin at 0 with the machine and never fall, whatever becomes of the
/// process that started it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statistics {
    /// CPU time in microseconds.
    pub cpu_usec: u64,
    /// Memory now, in bytes.
    pub memory_bytes: u64,
    /// Processes and threads now.
    pub pids: u64,
    /// What came to it from outside, in bytes: packets with all their headers.
    pub bytes_in: u64,
    /// What it sent to the outside, in bytes: packets with all their headers.
    pub bytes_out: u64,
}

/// Makes machines.
#[async_trait]
pub trait MachineDriver: Send + Sync + 'static {
    /// Which driver this is.
    fn kind(&self) -> DriverKind;

    /// Whether a machine's memory can be written to the host's disk, so that no machine is needed to keep it.
    fn keeps_snapshots(&self) -> bool;

    /// Starts a machine. One that boots: returns when its agent accepts connections (its environment is not built
    /// yet). One made from a snapshot: stands still as it stood then, and [`Machine::thaw`] lets it run on.
    ///
    /// # Errors
    /// Nothing of the machine is left. The snapshot is as it was.
    ///
    /// # Crash safety
    /// What a crash leaves is found by [`MachineDriver::adopt`] or removed by it.
    async fn start(&self, spec: MachineSpec) -> Result<Arc<dyn Machine>, MachineError>;

    /// The machines that an earlier process of this data directory started and that still run. Removes what is
    /// left of those that do not. Called once, before the first start.
    ///
    /// # Errors
    /// The host would not let us look or remove.
    async fn adopt(&self) -> Result<Vec<Arc<dyn Machine>>, MachineError>;

    /// Waits until something has come from outside for sprites that sleep, on connections that they opened, and says
    /// for which. Told again and again while it comes and they sleep. One caller at a time.
    ///
    /// # Errors
    /// The host does not tell.
    ///
    /// # Cancel safety
    /// Safe.
    async fn called(&self) -> Result<Vec<SpriteId>, MachineError>;

    /// Waits until the host is short of memory that machines which stand still could give back; told again and again
    /// while it is. Never returns where they have none, or where nobody can tell. One caller at a time.
    ///
    /// # Cancel safety
    /// Safe.
    async fn pressed(&self);

    /// Lets go of what is kept for a sprite that sleeps without a machine, for the one that goes on from its memory:
    /// its memory is dropped, or the sprite. Idempotent.
    ///
    /// # Errors
    /// Something could not be removed; calling again tries again.
    async fn forget(&self, sprite: SpriteId) -> Result<(), MachineError>;

    /// Whether a machine, or what is kept of its memory in its sprite's snapshot directory, has another agent or
    /// kernel than machines get now that boot.
    ///
    /// # Errors
    /// What is known of it cannot be read.
    async fn is_outdated(
        &self,
        of: Identity,
        snapshots: Option<&Path>,
    ) -> Result<bool, MachineError>;

    /// For which memories of sprites something is kept: the machines that wrote them.
    fn sleepers(&self) -> Vec<Identity>;
}

/// One running machine.
#[async_trait]
pub trait Machine: Connect {
    /// Whose it is.
    fn identity(&self) -> Identity;

    /// This machine as a connector, for [`sprite_agent_api::link::open`].
    fn connector(self: Arc<Self>) -> Arc<dyn Connect>;

    /// Connects to a port of the machine's own loopback interface, past its agent: `None` where that cannot be, and
    /// the agent has to.
    ///
    /// # Errors
    /// Nobody takes the connection.
    ///
    /// # Cancel safety
    /// Safe.
    async fn dial(&self, port: u16) -> Option<io::Result<TcpStream>> {
        let _ = port;
        None
    }

    /// Waits until the machine is gone, and tells why. May be called often, and after the end.
    async fn exited(&self) -> MachineExit;

    /// Ends the machine hard and removes everything that it had on the host. Idempotent. The disk stays.
    ///
    /// # Errors
    /// Something could not be removed; calling again tries again.
    async fn destroy(&self) -> Result<(), MachineError>;

    /// Stops every process of the machine where it is; memory stays.
    ///
    /// # Errors
    /// The driver cannot, or the kernel refused.
    async fn freeze(&self) -> Result<(), MachineError>;

    /// Ends a machine whose memory was written, and keeps its network for the one that goes on from there if there
    /// are connections to the outside. As [`Machine::destroy`] otherwise.
    ///
    /// # Errors
    /// As [`Machine::destroy`].
    async fn leave(&self) -> Result<(), MachineError>;

    /// Undoes [`Machine::freeze`].
    ///
    /// # Errors
    /// The kernel refused.
    async fn thaw(&self) -> Result<(), MachineError>;

    /// Stops the machine where it is, and writes its memory to the sprite's snapshot directory. Afterwards it
    /// stands still: either it is destroyed, or it runs on by [`Machine::thaw`], and then the snapshot must not be
    /// used any more.
    ///
    /// # Errors
    /// The driver cannot, or the disk is full or broken. The machine may stand still; [`Machine::thaw`] lets it run
    /// on. What was in the directory before is not usable any more.
    ///
    /// # Crash safety
    /// The snapshot is durable when this returns. Before, there is none.
    async fn snapshot(&self) -> Result<(), MachineError>;

    /// Closes it to the outside, or opens it again. When this returns, it is so, for connections that it has too.
    /// For a machine that was destroyed there is nothing to do. Idempotent.
    ///
    /// # Errors
    /// The kernel refused: it may be as it was.
    async fn set_egress(&self, egress: Egress) -> Result<(), MachineError>;

    /// Changes how much of the host it may use, as far as its driver can while it runs; the rest takes effect when
    /// the sprite's next machine boots. Less memory than is in use may end processes. What it may use from now on
    /// is what [`Machine::resources`] tells. For a machine that was destroyed there is nothing to do. Idempotent.
    ///
    /// # Errors
    /// The kernel refused: limits may be partly changed.
    async fn limit(&self, resources: &Resources) -> Result<(), MachineError>;

    /// How much of the host it may use now; `None` if another process started it and [`Machine::limit`] was not
    /// called since.
    fn resources(&self) -> Option<Resources>;

    /// What it uses, or has used if it has ended by itself. Takes some microseconds.
    ///
    /// # Errors
    /// The kernel's counters cannot be read; those of a machine that was destroyed are gone.
    async fn statistics(&self) -> Result<Statistics, MachineError>;
}
