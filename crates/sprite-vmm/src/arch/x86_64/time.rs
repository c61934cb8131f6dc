//! The guest's time: KVM's clock and the TSC of each CPU, taken at one moment and put back as of one moment.
//!
//! A guest's clocks stop while it is saved and go on from where they were: nothing in it sees a jump, and who
//! wants to know the hour asks the host. What must not differ is how far the clock and the TSCs are from each
//! other; a guest that notices distrusts its TSC from then on. KVM tells the host's TSC at which it read its
//! clock, and how far each CPU's TSC is from the host's, so nothing depends on how long the calls take. Where
//! it does not (the host's own TSC is no clock), the values are read and written one after another as quickly
//! as can be.
//!
//! Source: `Documentation/virt/kvm/devices/vcpu.rst` of Linux, section 4.1; `KVM_GET_CLOCK` in `api.rst`.

use kvm_bindings::{
    KVM_CLOCK_HOST_TSC, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, kvm_clock_data, kvm_device_attr,
    kvm_msr_entry,
};
use kvm_ioctls::{VcpuFd, VmFd};
use serde::{Deserialize, Serialize};
use vmm_sys_util::ioctl::ioctl_with_ref;

use super::msr::{self, MsrError, TSC, TSC_DEADLINE};

/// Calls that `kvm-ioctls` has for other architectures alone. Source: `linux/kvm.h`.
mod call {
    use kvm_bindings::{KVMIO, kvm_device_attr};
    use vmm_sys_util::ioctl_iow_nr;

    ioctl_iow_nr!(KVM_SET_DEVICE_ATTR, KVMIO, 0xe1, kvm_device_attr);
    ioctl_iow_nr!(KVM_GET_DEVICE_ATTR, KVMIO, 0xe2, kvm_device_attr);
}

/// A step with the guest's time failed.
#[derive(Debug, thiserror::Error)]
pub enum TimeError {
    /// The clock.
    #[error("read the guest's clock")]
    ReadClock(#[source] kvm_ioctls::Error),
    /// The clock.
    #[error("set the guest's clock")]
    SetClock(#[source] kvm_ioctls::Error),
    /// The TSC.
    #[error("set the guest's TSC by its distance from the host's")]
    SetOffset(#[source] kvm_ioctls::Error),
    /// The TSC, or the deadline.
    #[error(transparent)]
    Msrs(#[from] MsrError),
}

/// A reading of the guest's clock.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// What the guest's clock said, in nanoseconds.
    pub clock: u64,
    /// What the host's TSC was, if KVM can tell.
    host_tsc: Option<u64>,
}

/// A CPU's own time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CpuTime {
    /// The TSC at the moment.
    tsc: u64,
    /// How many thousand times it counts in a second; none if KVM cannot tell.
    pub khz: Option<u32>,
    /// When the local APIC's timer is to come, in its counts; none if the CPU cannot be set so.
    deadline: Option<u64>,
}

/// A CPU whose time is taken or set.
#[derive(Clone, Copy)]
pub struct Cpu<'a> {
    /// KVM's side of it.
    pub fd: &'a VcpuFd,
    /// Whether its TSC counts at another speed than the host's.
    pub scaled: bool,
}

/// Reads the guest's clock.
///
/// # Errors
/// [`TimeError::ReadClock`].
pub fn now(vm: &VmFd) -> Result<Moment, TimeError> {
    let clock = vm.get_clock().map_err(TimeError::ReadClock)?;
    let tells = clock.flags & KVM_CLOCK_HOST_TSC != 0;
    Ok(Moment {
        clock: clock.clock,
        host_tsc: tells.then_some(clock.host_tsc),
    })
}

/// The time of a CPU that stands still, as of `moment`.
///
/// # Errors
/// [`TimeError::Msrs`].
pub fn save(cpu: Cpu<'_>, moment: Moment) -> Result<CpuTime, TimeError> {
    let tsc = match (moment.host_tsc, offset(cpu)) {
        (Some(host), Some(offset)) => host.wrapping_add(offset),
        (Some(_) | None, _) => read(cpu, TSC)?.unwrap_or(0),
    };
    Ok(CpuTime {
        tsc,
        khz: cpu.fd.get_tsc_khz().ok(),
        deadline: read(cpu, TSC_DEADLINE)?,
    })
}

/// Sets the clock and the time of all CPUs: all as of one moment. After everything else of the CPUs, for a
/// timer may come at once.
///
/// # Errors
/// [`TimeError`].
pub fn restore(vm: &VmFd, clock: u64, cpus: &[(Cpu<'_>, &CpuTime)]) -> Result<(), TimeError> {
    for (cpu, time) in cpus {
        write(*cpu, TSC, time.tsc)?;
    }
    let wanted = kvm_clock_data {
        clock,
        ..kvm_clock_data::default()
    };
    vm.set_clock(&wanted).map_err(TimeError::SetClock)?;
    let here = now(vm)?;
    if let Some(host) = here.host_tsc {
        let passed = here.clock.saturating_sub(clock);
        for (cpu, time) in cpus {
            if let (Some(_), Some(khz)) = (offset(*cpu), time.khz) {
                let tsc = time.tsc.wrapping_add(counts(passed, khz));
                set_offset(*cpu, tsc.wrapping_sub(host))?;
            }
        }
    }
    for (cpu, time) in cpus {
        if let Some(deadline) = time.deadline {
            write(*cpu, TSC_DEADLINE, deadline)?;
        }
    }
    Ok(())
}

/// How often a TSC counts in so many nanoseconds.
fn counts(nanoseconds: u64, khz: u32) -> u64 {
    let counts = u128::from(nanoseconds) * u128::from(khz) / 1_000_000;
    u64::try_from(counts).unwrap_or(u64::MAX)
}

fn read(cpu: Cpu<'_>, index: u32) -> Result<Option<u64>, MsrError> {
    let values = msr::read(cpu.fd, &[index])?;
    Ok(values.first().map(|entry| entry.data))
}

fn write(cpu: Cpu<'_>, index: u32, data: u64) -> Result<(), MsrError> {
    msr::write(
        cpu.fd,
        &[kvm_msr_entry {
            index,
            data,
            ..kvm_msr_entry::default()
        }],
    )
}

/// How far a CPU's TSC is from the host's. Nothing if KVM does not tell, or if the two count differently.
fn offset(cpu: Cpu<'_>) -> Option<u64> {
    if cpu.scaled {
        return None;
    }
    let mut offset = 0_u64;
    let attribute = offset_attribute(&raw mut offset as u64);
    // SAFETY: KVM writes the eight bytes that the attribute points to, which live until after the call.
    let told = unsafe { ioctl_with_ref(cpu.fd, call::KVM_GET_DEVICE_ATTR(), &attribute) };
    (told == 0).then_some(offset)
}

fn set_offset(cpu: Cpu<'_>, offset: u64) -> Result<(), TimeError> {
    let attribute = offset_attribute(&raw const offset as u64);
    // SAFETY: KVM reads the eight bytes that the attribute points to, which live until after the call.
    match unsafe { ioctl_with_ref(cpu.fd, call::KVM_SET_DEVICE_ATTR(), &attribute) } {
        0 => Ok(()),
        _ => Err(TimeError::SetOffset(kvm_ioctls::Error::last())),
    }
}

fn offset_attribute(addr: u64) -> kvm_device_attr {
    kvm_device_attr {
        flags: 0,
        group: KVM_VCPU_TSC_CTRL,
        attr: u64::from(KVM_VCPU_TSC_OFFSET),
        addr,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nanoseconds_are_counts_at_any_speed() {
        assert_eq!(counts(1_000_000_000, 2_000_000), 2_000_000_000);
        assert_eq!(counts(1, 2_999_999), 2);
        assert_eq!(counts(0, u32::MAX), 0);
        assert_eq!(counts(u64::MAX, u32::MAX), u64::MAX);
    }
}
