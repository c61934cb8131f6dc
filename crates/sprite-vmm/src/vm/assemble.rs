//! What booting and loading have in common: a VM of KVM with memory, controllers and devices.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use kvm_bindings::{
    KVM_API_VERSION, KVM_CAP_PMU_CAPABILITY, KVM_PMU_CAP_DISABLE, kvm_enable_cap,
    kvm_userspace_memory_region,
};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};
use vmm_sys_util::errno;

use crate::arch::native::interrupts::{self, InterruptError};
use crate::arch::native::state::{self, StateError};
use crate::bus::{Bus, BusDevice, BusError};
use crate::config::Serial as SerialConfig;
use crate::console::Console;
use crate::end::EndSignal;
use crate::memory::GuestMemory;
use crate::power::{self, AcpiPower, KeyboardController};
use crate::serial::{self, Serial};
use crate::vcpu;

/// A step of putting a machine together failed. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    /// No `/dev/kvm`, or no right to it.
    #[error("open /dev/kvm")]
    OpenKvm(#[source] kvm_ioctls::Error),
    /// A KVM of another kind.
    #[error("use KVM with interface version {found}: this program knows {KVM_API_VERSION}")]
    KvmVersion {
        /// What it says.
        found: i32,
    },
    /// No VM.
    #[error("create a virtual machine")]
    CreateVm(#[source] kvm_ioctls::Error),
    /// The signal that interrupts vCPUs.
    #[error("handle the signal that interrupts vCPUs")]
    Signal(#[source] errno::Error),
    /// KVM does not take the memory.
    #[error("give the guest its memory")]
    Memory(#[source] kvm_ioctls::Error),
    /// Interrupt controllers, timer or a line.
    #[error(transparent)]
    Interrupts(#[from] InterruptError),
    /// What a CPU is cannot be saved on this host.
    #[error(transparent)]
    State(#[from] StateError),
    /// The event that tells the guest's end.
    #[error("make the event of the guest's end")]
    EndEvent(#[source] io::Error),
    /// The console's file.
    #[error("open the console's file {}", path.display())]
    OpenConsole {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Standard output as console.
    #[error("take standard output for the console")]
    StandardOutput(#[source] io::Error),
    /// Two devices at one address.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// No vCPU.
    #[error("create vCPU {vcpu}")]
    CreateVcpu {
        /// Which.
        vcpu: u8,
        /// What KVM said.
        #[source]
        source: kvm_ioctls::Error,
    },
    /// A vCPU's thread.
    #[error("start the thread of vCPU {vcpu}")]
    StartVcpu {
        /// Which.
        vcpu: u8,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Opens KVM.
pub(super) fn open_kvm() -> Result<Kvm, AssembleError> {
    let kvm = Kvm::new().map_err(AssembleError::OpenKvm)?;
    let found = kvm.get_api_version();
    if u32::try_from(found) == Ok(KVM_API_VERSION) {
        Ok(kvm)
    } else {
        Err(AssembleError::KvmVersion { found })
    }
}

/// A VM with memory, interrupt controllers and timer.
pub(super) fn create_vm(kvm: &Kvm, memory: &GuestMemory) -> Result<VmFd, AssembleError> {
    vcpu::install_handler().map_err(AssembleError::Signal)?;
    let vm = loop {
        match kvm.create_vm() {
            Ok(vm) => break vm,
            Err(error) if error.errno() == libc::EINTR => {}
            Err(error) => return Err(AssembleError::CreateVm(error)),
        }
    };
    state::check_xsave(&vm)?;
    hide_performance_counters(&vm);
    for (slot, region) in (0..).zip(memory.iter()) {
        let mapped = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: region.start_addr().0,
            memory_size: region.len(),
            userspace_addr: region.as_ptr() as u64,
        };
        // SAFETY: the mapping is the region's own, of this length, and outlives the VM: `Vm` drops the
        // memory after the VM's descriptor.
        unsafe { vm.set_user_memory_region(mapped) }.map_err(AssembleError::Memory)?;
    }
    interrupts::create_controllers(&vm)?;
    Ok(vm)
}

/// The template shows none; this spares KVM the work for them. An older KVM cannot, and need not.
fn hide_performance_counters(vm: &VmFd) {
    if vm.check_extension_raw(KVM_CAP_PMU_CAPABILITY.into()) > 0 {
        let mut off = kvm_enable_cap {
            cap: KVM_CAP_PMU_CAPABILITY,
            ..kvm_enable_cap::default()
        };
        off.args[0] = u64::from(KVM_PMU_CAP_DISABLE);
        // Whether it took it or not, the guest sees none.
        let _ = vm.enable_cap(&off);
    }
}

/// Where the guest's console goes.
pub(super) fn open_console(config: &SerialConfig) -> Result<Console, AssembleError> {
    match &config.serial_out_path {
        Some(path) => OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .and_then(Console::new)
            .map_err(|source| AssembleError::OpenConsole {
                path: path.clone(),
                source,
            }),
        None => io::stdout()
            .as_fd()
            .try_clone_to_owned()
            .and_then(|output| Console::new(File::from(output)))
            .map_err(AssembleError::StandardOutput),
    }
}

/// The ports that every machine has: console, keyboard controller, ACPI's registers.
pub(super) fn port_bus(serial: &Arc<Serial>, end: &Arc<EndSignal>) -> Result<Bus, AssembleError> {
    let devices: [(u16, u16, Arc<dyn BusDevice>); 3] = [
        (
            power::KEYBOARD_CONTROLLER,
            1,
            Arc::new(KeyboardController::new(Arc::clone(end))),
        ),
        (
            serial::PORT,
            serial::PORT_LENGTH,
            Arc::<Serial>::clone(serial),
        ),
        (
            power::ACPI_PORTS,
            power::ACPI_PORTS_LENGTH,
            Arc::new(AcpiPower::new(Arc::clone(end))),
        ),
    ];
    let mut bus = Bus::new();
    for (first, count, device) in devices {
        bus.insert(u64::from(first), u64::from(count), device)?;
    }
    Ok(bus)
}

/// A CPU of KVM.
pub(super) fn create_vcpu(vm: &VmFd, vcpu: u8) -> Result<VcpuFd, AssembleError> {
    vm.create_vcpu(u64::from(vcpu))
        .map_err(|source| AssembleError::CreateVcpu { vcpu, source })
}
