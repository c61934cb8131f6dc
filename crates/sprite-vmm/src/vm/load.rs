//! A machine that goes on where a saved one was.

use std::io;
use std::sync::Arc;

use kvm_bindings::CpuId;
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use vm_memory::Bytes;

use super::assemble::{AssembleError, create_vcpu, create_vm, open_console, open_kvm, port_bus};
use super::boot::start;
use super::devices::{self, DeviceError};
use super::{Vm, VmState};
use crate::arch::native::cpuid::{self, CpuidError, Misfit};
use crate::arch::native::interrupts::{self, EVENT_LINE};
use crate::arch::native::layout::GENERATION_ID;
use crate::arch::native::msr::{self, MsrError};
use crate::arch::native::state::{self, CpuState, StateError};
use crate::arch::native::time::Cpu;
use crate::config::VmConfig;
use crate::end::EndSignal;
use crate::memory::GuestMemory;
use crate::serial::{self, Serial, SerialError};
use crate::vcpu::Vcpu;
use crate::virtio::{Devices, MmioTransport, RestoreError, ThreadSetup, TransportState};

/// A machine was not loaded. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// What every machine needs.
    #[error(transparent)]
    Assemble(#[from] AssembleError),
    /// Its devices.
    #[error(transparent)]
    Devices(#[from] DeviceError),
    /// What CPUs are here.
    #[error(transparent)]
    Cpuid(#[from] CpuidError),
    /// Which registers are here.
    #[error(transparent)]
    Msrs(#[from] MsrError),
    /// The guest cannot run on this host.
    #[error(transparent)]
    Misfit(#[from] Misfit),
    /// Configuration and state are of two machines.
    #[error("load {saved} {what} into a machine of {configured}")]
    Count {
        /// Of what.
        what: &'static str,
        /// In the state.
        saved: usize,
        /// In the configuration.
        configured: usize,
    },
    /// A vCPU.
    #[error("load vCPU {vcpu}")]
    Vcpu {
        /// Which.
        vcpu: u8,
        /// What failed.
        #[source]
        source: StateError,
    },
    /// The hardware that KVM keeps.
    #[error(transparent)]
    Platform(#[from] StateError),
    /// The serial port.
    #[error(transparent)]
    Serial(#[from] SerialError),
    /// A virtio device.
    #[error("load device {number}")]
    Device {
        /// Counted from 0.
        number: usize,
        /// What does not fit.
        #[source]
        source: RestoreError,
    },
    /// There is no randomness for a generation id.
    #[error("make a generation id")]
    GenerationId(#[source] io::Error),
    /// It cannot be written where the guest looks for it.
    #[error("write the generation id")]
    WriteGenerationId(#[source] vm_memory::GuestMemoryError),
    /// The guest cannot be told.
    #[error("tell the guest of its generation id")]
    TellGenerationId(#[source] io::Error),
}

impl LoadError {
    /// Whether the guest cannot run on this host, however often it is tried.
    #[must_use]
    pub fn is_unfit(&self) -> bool {
        match self {
            LoadError::Misfit(_) => true,
            LoadError::Vcpu { source, .. } | LoadError::Platform(source) => source.is_unfit(),
            LoadError::Assemble(_)
            | LoadError::Devices(_)
            | LoadError::Cpuid(_)
            | LoadError::Msrs(_)
            | LoadError::Count { .. }
            | LoadError::Serial(_)
            | LoadError::Device { .. }
            | LoadError::GenerationId(_)
            | LoadError::WriteGenerationId(_)
            | LoadError::TellGenerationId(_) => false,
        }
    }
}

impl Vm {
    /// Makes a machine that stands where `state` was saved, over `memory`. It is paused.
    ///
    /// # Errors
    /// [`LoadError`]; nothing of the machine is left then.
    pub fn load(
        config: &VmConfig,
        state: &VmState,
        memory: GuestMemory,
        setup: &ThreadSetup,
    ) -> Result<Vm, LoadError> {
        let count = config.machine_config.vcpu_count.get();
        same_count("vCPUs", state.vcpus.len(), usize::from(count))?;
        let kvm = open_kvm()?;
        let here = cpuid::common(&kvm, &config.cpu_config)?;
        for saved in &state.vcpus {
            cpuid::fits(&saved.cpuid, &here)?;
        }
        let memory = Arc::new(memory);
        let fd = create_vm(&kvm, &memory)?;
        let end = Arc::new(EndSignal::new().map_err(AssembleError::EndEvent)?);
        let console = open_console(&config.serial)?;
        let line = interrupts::line(&fd, serial::INTERRUPT).map_err(AssembleError::from)?;
        let assembled = devices::assemble(config, &fd, &memory, setup)?;
        same_count("devices", state.devices.len(), assembled.transports.len())?;

        let ready = restore_vcpus(&kvm, &fd, &state.vcpus)?;
        state::restore_platform(&fd, &state.platform)?;
        // After the interrupt controllers: a line may be raised at once.
        let serial = Arc::new(Serial::restore(state.serial.clone(), line, console)?);
        restore_devices(&assembled.transports, &state.devices)?;
        renew_generation_id(&memory, &fd)?;
        state::restore_time(&fd, &state.platform, ready.iter().map(Ready::cpu))?;

        let ports = Arc::new(port_bus(&serial, &end)?);
        let registers = Arc::new(assembled.bus);
        let msrs: Arc<[u32]> = msr::saved(&kvm)?.into();
        let mut vcpus = Vec::with_capacity(ready.len());
        for ready in ready {
            let vcpu = Vcpu {
                id: ready.id,
                fd: ready.fd,
                cpuid: CpuId::from_entries(&ready.saved.cpuid)
                    .expect("as many entries as were restored just now"),
                scaled: ready.scaled,
                msrs: Arc::clone(&msrs),
                memory_bus: Arc::clone(&registers),
                port_bus: Arc::clone(&ports),
                end: Arc::clone(&end),
            };
            vcpus.push(start(vcpu, setup)?);
        }
        Ok(Vm {
            vcpus,
            devices: Devices::start(assembled.transports, setup).map_err(DeviceError::Start)?,
            serial,
            counts: assembled.counts,
            _socket: assembled.socket,
            fd,
            memory,
            end,
        })
    }
}

/// A vCPU that has its state, but no thread yet.
struct Ready<'a> {
    id: u8,
    fd: VcpuFd,
    scaled: bool,
    saved: &'a CpuState,
}

impl Ready<'_> {
    fn cpu(&self) -> (Cpu<'_>, &CpuState) {
        let cpu = Cpu {
            fd: &self.fd,
            scaled: self.scaled,
        };
        (cpu, self.saved)
    }
}

/// Makes vCPUs with their state.
fn restore_vcpus<'a>(
    kvm: &Kvm,
    vm: &VmFd,
    states: &'a [CpuState],
) -> Result<Vec<Ready<'a>>, LoadError> {
    (0..)
        .zip(states)
        .map(|(id, saved)| {
            let fd = create_vcpu(vm, id)?;
            let scaled = state::restore_cpu(kvm, &fd, saved)
                .map_err(|source| LoadError::Vcpu { vcpu: id, source })?;
            Ok(Ready {
                id,
                fd,
                scaled,
                saved,
            })
        })
        .collect()
}

/// Gives devices their state.
fn restore_devices(
    transports: &[Arc<MmioTransport>],
    states: &[TransportState],
) -> Result<(), LoadError> {
    for (number, (transport, saved)) in transports.iter().zip(states).enumerate() {
        transport
            .restore(saved)
            .map_err(|source| LoadError::Device { number, source })?;
    }
    Ok(())
}

fn same_count(what: &'static str, saved: usize, configured: usize) -> Result<(), LoadError> {
    if saved == configured {
        Ok(())
    } else {
        Err(LoadError::Count {
            what,
            saved,
            configured,
        })
    }
}

/// Gives the guest a new generation id and raises the line that tells it so.
fn renew_generation_id(memory: &GuestMemory, fd: &VmFd) -> Result<(), LoadError> {
    let mut id = [0_u8; 16];
    let got = rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| LoadError::GenerationId(error.into()))?;
    if got != id.len() {
        let short = io::Error::from(io::ErrorKind::UnexpectedEof);
        return Err(LoadError::GenerationId(short));
    }
    memory
        .write_slice(&id, GENERATION_ID)
        .map_err(LoadError::WriteGenerationId)?;
    let line = interrupts::line(fd, EVENT_LINE).map_err(AssembleError::from)?;
    line.write(1).map_err(LoadError::TellGenerationId)
}
