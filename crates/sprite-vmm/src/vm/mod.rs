//! A machine on KVM: memory, vCPUs, devices, and the order in which they start, stand still and go on.
//!
//! ```text
//! boot ──▶ running ── pause ──▶ paused ── resume ──▶ running
//! load ──────────────────────▶ paused ── save (as often as wanted) ──▶ paused
//! ```
//! Pausing stops the vCPUs first and the devices then, so that nobody gives a device new work while it ends
//! what it has; resuming goes the other way. Between the two nothing touches the guest's memory.
//!
//! A machine that is loaded gets a new generation id and is told so, before its first instruction: what it
//! knows of randomness may be known to another one that was loaded from the same files.

mod assemble;
mod boot;
mod devices;
mod hypervisor;
mod load;
mod socket_file;

use std::io;
use std::sync::Arc;

use kvm_ioctls::VmFd;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::arch::native::state::{self, CpuState, PlatformState, StateError};
use crate::arch::native::time::{self, TimeError};
use crate::end::EndSignal;
use crate::memory::GuestMemory;
use crate::serial::{Serial, SerialState};
use crate::vcpu::{SaveError as VcpuSaveError, ThreadGone, VcpuHandle};
use crate::virtio::{Devices, TransportState};

pub use assemble::AssembleError;
pub use boot::BootError;
pub use devices::DeviceError;
pub use hypervisor::KvmHypervisor;
pub use load::LoadError;

use devices::Counts;
use socket_file::SocketFile;

/// A machine. Dropping it ends it wherever it is.
pub struct Vm {
    // Dropped in this order: no vCPU may run when devices go, and no device when the memory does.
    vcpus: Vec<VcpuHandle>,
    devices: Devices,
    serial: Arc<Serial>,
    counts: Counts,
    /// Only kept.
    _socket: Option<SocketFile>,
    fd: VmFd,
    memory: Arc<GuestMemory>,
    end: Arc<EndSignal>,
}

/// All that a machine is but its memory. Version 1: fields are only ever added, with a default.
#[derive(Debug, Serialize, Deserialize)]
pub struct VmState {
    vcpus: Vec<CpuState>,
    platform: PlatformState,
    serial: SerialState,
    devices: Vec<TransportState>,
}

/// A state could not be taken. The machine is as it was.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// A vCPU's.
    #[error(transparent)]
    Vcpu(#[from] VcpuSaveError),
    /// The moment.
    #[error(transparent)]
    Time(#[from] TimeError),
    /// That of the hardware that KVM keeps.
    #[error(transparent)]
    Platform(#[from] StateError),
    /// What the guest has written is not all on its disks' media.
    #[error("flush the disks")]
    Disks(#[source] io::Error),
}

impl Vm {
    /// Stops the machine. When this returns neither a vCPU nor a device touches memory or files. A machine
    /// that stands still already stays so.
    ///
    /// # Errors
    /// [`ThreadGone`]: some vCPUs may stand still and others not; it may be tried again.
    pub fn pause(&mut self) -> Result<(), ThreadGone> {
        let asked: Vec<_> = self
            .vcpus
            .iter()
            .map(VcpuHandle::pause)
            .collect::<Result<_, _>>()?;
        for pausing in asked {
            pausing.wait()?;
        }
        self.devices.pause();
        self.serial.put_rest();
        Ok(())
    }

    /// Lets the machine go on.
    ///
    /// # Errors
    /// [`ThreadGone`]: some vCPUs may run and others not; it may be tried again.
    pub fn resume(&mut self) -> Result<(), ThreadGone> {
        self.devices.resume();
        self.vcpus.iter().try_for_each(VcpuHandle::run)
    }

    /// The machine's state, while it is paused.
    ///
    /// # Errors
    /// [`SaveError`].
    ///
    /// # Crash safety
    /// What the guest had written to its disks is on their media: a state is never newer than its disks.
    pub fn save(&mut self) -> Result<VmState, SaveError> {
        self.devices.sync().map_err(SaveError::Disks)?;
        let moment = time::now(&self.fd)?;
        let vcpus = self
            .vcpus
            .iter()
            .map(|vcpu| vcpu.save(moment))
            .collect::<Result<_, _>>()?;
        Ok(VmState {
            vcpus,
            platform: state::save_platform(&self.fd, moment)?,
            serial: self.serial.save(),
            devices: self
                .devices
                .transports()
                .iter()
                .map(|transport| transport.save())
                .collect(),
        })
    }

    /// The guest's memory.
    #[must_use]
    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// Tells when the guest ends by itself.
    #[must_use]
    pub fn end(&self) -> Arc<EndSignal> {
        Arc::clone(&self.end)
    }

    /// The newest output of the guest's console.
    #[must_use]
    pub fn console(&self) -> Vec<u8> {
        self.serial.newest()
    }

    /// What was counted since this was last called, by device.
    #[must_use]
    pub fn take_counts(&self) -> Map<String, Value> {
        self.counts.take()
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        self.vcpus.clear();
        self.serial.put_rest();
    }
}
