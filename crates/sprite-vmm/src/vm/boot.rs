//! A new machine: from a configuration to the kernel's first instruction.

use std::sync::Arc;

use super::assemble::{AssembleError, create_vcpu, create_vm, open_console, open_kvm, port_bus};
use super::devices::{self, DeviceError};
use super::{Vm, assemble};
use crate::arch::native::acpi::{self, AcpiError, Hardware};
use crate::arch::native::boot::{self, Entry, LoadError};
use crate::arch::native::cpuid::{self, CpuidError};
use crate::arch::native::interrupts;
use crate::arch::native::msr::{self, MsrError};
use crate::config::VmConfig;
use crate::end::EndSignal;
use crate::memory::{self, MemoryError};
use crate::serial::{self, Serial};
use crate::vcpu::{ThreadGone, Vcpu, VcpuHandle};
use crate::virtio::{Devices, ThreadSetup};

/// A machine did not boot. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// What every machine needs.
    #[error(transparent)]
    Assemble(#[from] AssembleError),
    /// Its memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// Its devices.
    #[error(transparent)]
    Devices(#[from] DeviceError),
    /// Its tables.
    #[error(transparent)]
    Acpi(#[from] AcpiError),
    /// Kernel, initramfs or command line.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// What its CPUs are.
    #[error(transparent)]
    Cpuid(#[from] CpuidError),
    /// Their registers.
    #[error(transparent)]
    Msrs(#[from] MsrError),
    /// KVM does not take what the CPU is to be.
    #[error("tell vCPU {vcpu} what it is")]
    Describe {
        /// Which.
        vcpu: u8,
        /// What KVM said.
        #[source]
        source: kvm_ioctls::Error,
    },
    /// KVM does not take where it begins.
    #[error("put vCPU {vcpu} to the kernel's entry")]
    Enter {
        /// Which.
        vcpu: u8,
        /// What KVM said.
        #[source]
        source: kvm_ioctls::Error,
    },
    /// A thread ended.
    #[error(transparent)]
    Gone(#[from] ThreadGone),
}

impl Vm {
    /// Makes a machine and lets it run from its kernel's first instruction.
    ///
    /// # Errors
    /// [`BootError`]; nothing of the machine is left then.
    pub fn boot(config: &VmConfig, setup: &ThreadSetup) -> Result<Vm, BootError> {
        let kvm = open_kvm()?;
        let memory = Arc::new(memory::anonymous(
            config.machine_config.mem_size_mib.bytes(),
        )?);
        let fd = create_vm(&kvm, &memory)?;
        let end = Arc::new(EndSignal::new().map_err(AssembleError::EndEvent)?);
        let console = open_console(&config.serial)?;
        let line = interrupts::line(&fd, serial::INTERRUPT).map_err(AssembleError::from)?;
        let serial = Arc::new(Serial::new(line, console));
        let ports = Arc::new(port_bus(&serial, &end)?);
        let assembled = devices::assemble(config, &fd, &memory, setup)?;
        let registers = Arc::new(assembled.bus);

        let count = config.machine_config.vcpu_count.get();
        let tables = acpi::write(
            &memory,
            &Hardware {
                cpus: count,
                virtio: assembled.slots,
            },
        )?;
        let entry = boot::load(
            &memory,
            &config.boot_source.kernel_image_path,
            config.boot_source.initrd_path.as_deref(),
            &config.command_line(),
            tables,
        )?;

        let common = cpuid::common(&kvm, &config.cpu_config)?;
        let msrs: Arc<[u32]> = msr::saved(&kvm)?.into();
        let mut vcpus = Vec::with_capacity(usize::from(count));
        for id in 0..count {
            let vcpu = Vcpu {
                id,
                fd: create_vcpu(&fd, id)?,
                cpuid: cpuid::of_cpu(&common, id, count)?,
                scaled: false,
                msrs: Arc::clone(&msrs),
                memory_bus: Arc::clone(&registers),
                port_bus: Arc::clone(&ports),
                end: Arc::clone(&end),
            };
            prepare(&vcpu, entry)?;
            vcpus.push(start(vcpu, setup)?);
        }
        let mut vm = Vm {
            vcpus,
            devices: Devices::start(assembled.transports, setup).map_err(DeviceError::Start)?,
            serial,
            counts: assembled.counts,
            _socket: assembled.socket,
            fd,
            memory,
            end,
        };
        vm.resume()?;
        Ok(vm)
    }
}

/// Makes a new CPU ready: the first one for the kernel's entry, the others for the first one's call.
fn prepare(vcpu: &Vcpu, entry: Entry) -> Result<(), BootError> {
    vcpu.fd
        .set_cpuid2(&vcpu.cpuid)
        .map_err(|source| BootError::Describe {
            vcpu: vcpu.id,
            source,
        })?;
    msr::write_boot_values(&vcpu.fd)?;
    if vcpu.id == 0 {
        boot::enter(&vcpu.fd, entry).map_err(|source| BootError::Enter {
            vcpu: vcpu.id,
            source,
        })?;
    }
    Ok(())
}

/// Starts a vCPU's thread; it stands still.
pub(super) fn start(
    vcpu: Vcpu,
    setup: &ThreadSetup,
) -> Result<VcpuHandle, assemble::AssembleError> {
    let id = vcpu.id;
    VcpuHandle::start(vcpu, setup).map_err(|source| AssembleError::StartVcpu { vcpu: id, source })
}
