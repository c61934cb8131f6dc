//! The state of CPUs and of the hardware that KVM keeps: taken, and put back in an order that works.
//!
//! The order of a CPU's parts is not free. Source: `Documentation/virt/kvm/api.rst` of Linux.
//! * The state of multiprocessing is read first: reading it makes KVM finish what an interrupt to start a CPU
//!   has begun, which changes registers. It is written before the registers for the same reason.
//! * CPUID comes before all that it makes possible; the system registers hold the local APIC's base, so they
//!   come before the local APIC.
//! * Model-specific registers come after the local APIC, which some of them change.
//! * Pending events come after them, for other writes drop them.
//! * Time comes last of all ([`super::time`]): from then on a timer may come.

use kvm_bindings::{
    CpuId, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, kvm_cpuid_entry2,
    kvm_debugregs, kvm_irqchip, kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_pit_state2,
    kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::{Cap, Kvm, VcpuFd, VmFd};
use serde::{Deserialize, Serialize};

use super::msr::{self, MsrError};
use super::time::{self, Cpu, CpuTime, Moment, TimeError};

/// How far the TSC's frequency of a host may be from the guest's without scaling it: 250 parts per million.
/// Source: `tsc_tolerance_ppm` of KVM.
const TSC_TOLERANCE: u32 = 4000;

/// A step of taking or putting back state failed.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// KVM refuses.
    #[error("{verb} the {part}", verb = if *.saving { "save" } else { "restore" })]
    Kvm {
        /// Which part.
        part: &'static str,
        /// Taken, or put back.
        saving: bool,
        /// What KVM said.
        #[source]
        source: kvm_ioctls::Error,
    },
    /// Registers.
    #[error("take care of the model-specific registers")]
    Msrs(#[from] MsrError),
    /// Time.
    #[error(transparent)]
    Time(#[from] TimeError),
    /// More leaves of CPUID than KVM takes.
    #[error("restore {leaves} leaves of CPUID")]
    Leaves {
        /// How many.
        leaves: usize,
    },
    /// The XSAVE area is larger than what a snapshot holds.
    #[error("save the XSAVE area: KVM needs {bytes} bytes for it")]
    XsaveSize {
        /// What KVM needs.
        bytes: i32,
    },
    /// The TSC counts at another speed, and this host cannot scale it.
    #[error("run a guest of {saved} kHz on a host of {here} kHz that cannot scale")]
    TscFrequency {
        /// The guest's.
        saved: u32,
        /// The host's.
        here: u32,
    },
}

impl StateError {
    /// Whether the guest cannot run on this host, however often it is tried.
    #[must_use]
    pub fn is_unfit(&self) -> bool {
        match self {
            StateError::XsaveSize { .. }
            | StateError::TscFrequency { .. }
            | StateError::Msrs(MsrError::Refused { .. })
            | StateError::Time(TimeError::Msrs(MsrError::Refused { .. })) => true,
            StateError::Kvm { .. }
            | StateError::Msrs(MsrError::List(_) | MsrError::Read(_) | MsrError::Write(_))
            | StateError::Time(
                TimeError::Msrs(MsrError::List(_) | MsrError::Read(_) | MsrError::Write(_))
                | TimeError::ReadClock(_)
                | TimeError::SetClock(_)
                | TimeError::SetOffset(_),
            )
            | StateError::Leaves { .. } => false,
        }
    }
}

fn saving(part: &'static str) -> impl Fn(kvm_ioctls::Error) -> StateError {
    move |source| StateError::Kvm {
        part,
        saving: true,
        source,
    }
}

fn restoring(part: &'static str) -> impl Fn(kvm_ioctls::Error) -> StateError {
    move |source| StateError::Kvm {
        part,
        saving: false,
        source,
    }
}

/// All that a CPU is.
#[derive(Debug, Serialize, Deserialize)]
pub struct CpuState {
    /// What it says of itself.
    pub cpuid: Vec<kvm_cpuid_entry2>,
    time: CpuTime,
    mp_state: kvm_mp_state,
    regs: kvm_regs,
    sregs: kvm_sregs,
    xcrs: kvm_xcrs,
    xsave: kvm_xsave,
    debug_regs: kvm_debugregs,
    lapic: kvm_lapic_state,
    msrs: Vec<kvm_msr_entry>,
    events: kvm_vcpu_events,
}

/// Takes the state of a CPU that stands still, its time as of `moment`.
///
/// # Errors
/// [`StateError`].
pub fn save_cpu(
    cpu: Cpu<'_>,
    cpuid: &CpuId,
    msrs: &[u32],
    moment: Moment,
) -> Result<CpuState, StateError> {
    let vcpu = cpu.fd;
    let mp_state = vcpu
        .get_mp_state()
        .map_err(saving("state of multiprocessing"))?;
    Ok(CpuState {
        cpuid: cpuid.as_slice().to_vec(),
        time: time::save(cpu, moment)?,
        mp_state,
        regs: vcpu.get_regs().map_err(saving("registers"))?,
        sregs: vcpu.get_sregs().map_err(saving("system registers"))?,
        xcrs: vcpu
            .get_xcrs()
            .map_err(saving("extended control registers"))?,
        xsave: vcpu.get_xsave().map_err(saving("XSAVE area"))?,
        debug_regs: vcpu.get_debug_regs().map_err(saving("debug registers"))?,
        lapic: vcpu.get_lapic().map_err(saving("local APIC"))?,
        msrs: msr::read(vcpu, msrs)?,
        // After everything that could bring an event forth.
        events: vcpu.get_vcpu_events().map_err(saving("pending events"))?,
    })
}

/// Puts a saved state into a new CPU, all but its time. What comes back is whether its TSC counts at another
/// speed than the host's.
///
/// # Errors
/// [`StateError`].
pub fn restore_cpu(kvm: &Kvm, vcpu: &VcpuFd, state: &CpuState) -> Result<bool, StateError> {
    let cpuid = CpuId::from_entries(&state.cpuid).map_err(|_| StateError::Leaves {
        leaves: state.cpuid.len(),
    })?;
    vcpu.set_cpuid2(&cpuid).map_err(restoring("CPUID"))?;
    let scaled = match state.time.khz {
        Some(khz) => restore_tsc_frequency(kvm, vcpu, khz)?,
        None => false,
    };
    vcpu.set_mp_state(state.mp_state)
        .map_err(restoring("state of multiprocessing"))?;
    vcpu.set_sregs(&state.sregs)
        .map_err(restoring("system registers"))?;
    vcpu.set_regs(&state.regs).map_err(restoring("registers"))?;
    // SAFETY: the area is 4096 bytes, and `check_xsave` refused hosts on which KVM reads more: no part of the
    // area that has to be asked for was asked for.
    unsafe { vcpu.set_xsave(&state.xsave) }.map_err(restoring("XSAVE area"))?;
    vcpu.set_xcrs(&state.xcrs)
        .map_err(restoring("extended control registers"))?;
    vcpu.set_debug_regs(&state.debug_regs)
        .map_err(restoring("debug registers"))?;
    vcpu.set_lapic(&state.lapic)
        .map_err(restoring("local APIC"))?;
    msr::write(vcpu, &state.msrs)?;
    vcpu.set_vcpu_events(&state.events)
        .map_err(restoring("pending events"))?;
    Ok(scaled)
}

/// Sets the clock and all CPUs' time. The last step before the guest goes on.
///
/// # Errors
/// [`StateError::Time`].
pub fn restore_time<'a>(
    vm: &VmFd,
    platform: &PlatformState,
    cpus: impl Iterator<Item = (Cpu<'a>, &'a CpuState)>,
) -> Result<(), StateError> {
    let cpus: Vec<_> = cpus.map(|(cpu, state)| (cpu, &state.time)).collect();
    Ok(time::restore(vm, platform.clock, &cpus)?)
}

/// Refuses a host on which KVM's XSAVE area is larger than the one in a snapshot.
///
/// # Errors
/// [`StateError::XsaveSize`].
pub fn check_xsave(vm: &VmFd) -> Result<(), StateError> {
    let bytes = vm.check_extension_int(Cap::Xsave2);
    let ours = i32::try_from(std::mem::size_of::<kvm_xsave>()).expect("4096");
    if bytes > ours {
        return Err(StateError::XsaveSize { bytes });
    }
    Ok(())
}

/// What comes back is whether the guest's TSC is scaled from now on.
fn restore_tsc_frequency(kvm: &Kvm, vcpu: &VcpuFd, saved: u32) -> Result<bool, StateError> {
    let here = vcpu.get_tsc_khz().map_err(restoring("TSC frequency"))?;
    if here.abs_diff(saved) <= saved / TSC_TOLERANCE {
        return Ok(false);
    }
    if !kvm.check_extension(Cap::TscControl) {
        return Err(StateError::TscFrequency { saved, here });
    }
    vcpu.set_tsc_khz(saved)
        .map_err(restoring("TSC frequency"))?;
    Ok(true)
}

/// The hardware outside the CPUs that KVM keeps.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlatformState {
    pic_first: kvm_irqchip,
    pic_second: kvm_irqchip,
    io_apic: kvm_irqchip,
    timer: kvm_pit_state2,
    /// In nanoseconds.
    clock: u64,
}

/// Takes the state of interrupt controllers and timer, and the clock as of `moment`.
///
/// # Errors
/// [`StateError`].
pub fn save_platform(vm: &VmFd, moment: Moment) -> Result<PlatformState, StateError> {
    Ok(PlatformState {
        pic_first: save_controller(vm, KVM_IRQCHIP_PIC_MASTER)?,
        pic_second: save_controller(vm, KVM_IRQCHIP_PIC_SLAVE)?,
        io_apic: save_controller(vm, KVM_IRQCHIP_IOAPIC)?,
        timer: vm.get_pit2().map_err(saving("interval timer"))?,
        clock: moment.clock,
    })
}

fn save_controller(vm: &VmFd, chip_id: u32) -> Result<kvm_irqchip, StateError> {
    let mut controller = kvm_irqchip {
        chip_id,
        ..kvm_irqchip::default()
    };
    vm.get_irqchip(&mut controller)
        .map_err(saving("interrupt controllers"))?;
    Ok(controller)
}

/// Puts interrupt controllers and timer back. After the CPUs.
///
/// # Errors
/// [`StateError`].
pub fn restore_platform(vm: &VmFd, state: &PlatformState) -> Result<(), StateError> {
    for controller in [&state.pic_first, &state.pic_second, &state.io_apic] {
        vm.set_irqchip(controller)
            .map_err(restoring("interrupt controllers"))?;
    }
    vm.set_pit2(&state.timer)
        .map_err(restoring("interval timer"))
}
