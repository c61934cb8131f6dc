//! Making a machine of a snapshot.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use super::envelope::{self, EnvelopeError};
use super::seal::{self, Seal, SealError};
use super::{CpuIdentity, DiskGeneration, Lineage, LoadSnapshot, Payload};
use crate::config::{Serial, VmConfig};
use crate::control::{Failure, FaultKind, Hypervisor, Machine, NotLoaded};
use crate::memory::{self, MemoryError};

/// No machine was made. No file was changed, nothing of the machine is left.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The state file is refused.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// The guest would find itself on another CPU.
    #[error("the snapshot is for another CPU: {snapshot}; this one is {here}")]
    OtherCpu {
        /// The CPU that the guest has seen.
        snapshot: Box<CpuIdentity>,
        /// The one that it would see.
        here: Box<CpuIdentity>,
    },
    /// The disk is not as the guest left it.
    #[error("the snapshot belongs to {}, and the disk is {}", told(snapshot.as_ref()), told(here.as_ref()))]
    OtherDisk {
        /// The disk that the guest has seen.
        snapshot: Option<DiskGeneration>,
        /// The disk that is there.
        here: Option<DiskGeneration>,
    },
    /// A device is to be given something else, and there is no such device.
    #[error("the snapshot has no {what}")]
    NoSuchDevice {
        /// What it has not.
        what: String,
    },
    /// The memory file does not open.
    #[error("open memory file {path}")]
    OpenMemory {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The memory file does not say what it is.
    #[error("use memory file {path}")]
    Seal {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: SealError,
    },
    /// The memory file is of another snapshot, or was not written to its end.
    #[error("memory file {path} is not the memory of this snapshot")]
    OtherMemory {
        /// The file.
        path: PathBuf,
    },
    /// The memory cannot be mapped.
    #[error("map memory file")]
    Map(#[source] MemoryError),
    /// There is no name for this process on files.
    #[error("name this process")]
    Name(#[source] io::Error),
    /// The guest cannot run on this host.
    #[error("the snapshot does not fit this host")]
    Unfit(#[source] Failure),
    /// The machine itself was not made.
    #[error("make the machine")]
    Machine(#[source] Failure),
}

impl LoadError {
    pub(crate) fn kind(&self) -> FaultKind {
        match self {
            LoadError::Envelope(error) => match error {
                EnvelopeError::Version { .. } => FaultKind::SnapshotUnfit,
                EnvelopeError::Read { .. } => FaultKind::Failed,
                EnvelopeError::Alien
                | EnvelopeError::TooLong { .. }
                | EnvelopeError::Length
                | EnvelopeError::Damaged
                | EnvelopeError::Payload(_) => FaultKind::SnapshotDamaged,
            },
            LoadError::OtherCpu { .. } | LoadError::Unfit(_) => FaultKind::SnapshotUnfit,
            LoadError::Seal { source, .. } => match source {
                SealError::Read(_) => FaultKind::Failed,
                SealError::Length { .. } | SealError::Invalid => FaultKind::SnapshotDamaged,
            },
            LoadError::OtherDisk { .. } | LoadError::OtherMemory { .. } => {
                FaultKind::SnapshotDamaged
            }
            LoadError::NoSuchDevice { .. } => FaultKind::Invalid,
            LoadError::OpenMemory { .. }
            | LoadError::Map(_)
            | LoadError::Name(_)
            | LoadError::Machine(_) => FaultKind::Failed,
        }
    }
}

/// A machine that stands where its snapshot was made.
#[derive(Debug)]
pub struct Loaded<M> {
    /// What it is made of.
    pub config: VmConfig,
    /// The machine, paused.
    pub machine: M,
    /// Where its memory comes from.
    pub lineage: Lineage,
}

/// Makes a machine of a snapshot. `serial` is where its console goes, if that was said.
///
/// # Errors
/// [`LoadError`] says why the snapshot is refused. Everything that can be known of it is looked at before
/// anything is made.
pub fn load<H: Hypervisor>(
    params: &LoadSnapshot,
    hypervisor: &H,
    serial: &Serial,
) -> Result<Loaded<H::Machine>, LoadError> {
    let payload: Payload<<H::Machine as Machine>::State> = envelope::read(&params.snapshot_path)?;
    let here = hypervisor.cpu();
    if payload.cpu != here {
        return Err(LoadError::OtherCpu {
            snapshot: Box::new(payload.cpu),
            here: Box::new(here),
        });
    }
    if payload.disk_generation != params.disk_generation {
        return Err(LoadError::OtherDisk {
            snapshot: payload.disk_generation,
            here: params.disk_generation.clone(),
        });
    }
    let mut config = payload.config;
    override_devices(&mut config, params, serial)?;

    let path = &params.mem_file_path;
    let file = File::open(path).map_err(|source| LoadError::OpenMemory {
        path: path.clone(),
        source,
    })?;
    let bytes = config.machine_config.mem_size_mib.bytes();
    let seal = seal::read(&file, bytes).map_err(|source| LoadError::Seal {
        path: path.clone(),
        source,
    })?;
    match seal {
        Seal::Sealed(id) if id == payload.id => {}
        Seal::Sealed(_) | Seal::Writing { .. } => {
            return Err(LoadError::OtherMemory { path: path.clone() });
        }
    }
    let memory = memory::from_file(file, bytes).map_err(LoadError::Map)?;
    let lineage = Lineage::loaded(payload.id).map_err(LoadError::Name)?;
    let machine =
        hypervisor
            .load(&config, payload.machine, memory)
            .map_err(|error| match error {
                NotLoaded::Unfit(why) => LoadError::Unfit(why),
                NotLoaded::Failed(why) => LoadError::Machine(why),
            })?;
    Ok(Loaded {
        config,
        machine,
        lineage,
    })
}

/// Gives devices what they have on this host.
fn override_devices(
    config: &mut VmConfig,
    params: &LoadSnapshot,
    serial: &Serial,
) -> Result<(), LoadError> {
    for replacement in &params.network_overrides {
        let interface = config
            .network_interfaces
            .iter_mut()
            .find(|interface| interface.iface_id == replacement.iface_id)
            .ok_or_else(|| LoadError::NoSuchDevice {
                what: format!("network interface {}", replacement.iface_id),
            })?;
        interface.host_dev_name = replacement.host_dev_name.clone();
    }
    if let Some(replacement) = &params.vsock_override {
        let vsock = config
            .vsock
            .as_mut()
            .ok_or_else(|| LoadError::NoSuchDevice {
                what: "vsock".to_owned(),
            })?;
        vsock.uds_path = replacement.uds_path.clone();
    }
    config.serial = serial.clone();
    Ok(())
}

fn told(generation: Option<&DiskGeneration>) -> String {
    match generation {
        Some(generation) => format!("disk generation {generation}"),
        None => "no named disk generation".to_owned(),
    }
}
