//! Model-specific registers: which are saved, and what a new CPU begins with.
//!
//! Which registers there are is KVM's own list. What is not taken from it belongs to things that the guest
//! does not have ([`super::cpuid`]): performance counters, nested virtualization, another hypervisor's
//! interface. The memory type registers are not on the list of older kernels, so they are added.

use std::ops::RangeInclusive;

use kvm_bindings::{Msrs, kvm_msr_entry};
use kvm_ioctls::{Kvm, VcpuFd};

/// Numbers. Source: Intel SDM volume 4; AMD APM volume 2, appendix A.
pub(super) const TSC: u32 = 0x10;
pub(super) const TSC_DEADLINE: u32 = 0x6e0;
const MISC_ENABLE: u32 = 0x1a0;
const MTRR_DEFAULT_TYPE: u32 = 0x2ff;

/// MISC_ENABLE: fast string instructions.
const FAST_STRINGS: u64 = 1;
/// MTRR_DEFAULT_TYPE: switched on, memory is cached and written back.
const WRITE_BACK: u64 = 1 << 11 | 6;

/// What is on KVM's list but not the guest's, or not taken here.
const NOT_OURS: &[RangeInclusive<u32>] = &[
    // Time is taken by itself.
    TSC..=TSC,
    TSC_DEADLINE..=TSC_DEADLINE,
    // Performance counters of Intel: counters, event selects, fixed counters and their control, alternatives.
    0xc1..=0xc8,
    0x186..=0x18d,
    0x309..=0x30c,
    0x345..=0x345,
    0x38d..=0x392,
    0x3f1..=0x3f1,
    0x4c1..=0x4c8,
    0x600..=0x600,
    // What nested VMX could do.
    0x480..=0x4ff,
    // Processor trace.
    0x560..=0x587,
    // The interface of Hyper-V.
    0x4000_0000..=0x4000_01ff,
    // Performance counters of AMD, old and new.
    0xc001_0000..=0xc001_0007,
    0xc001_0200..=0xc001_020b,
    0xc000_0300..=0xc000_0303,
    // Asynchronous page faults and live migration, which the template hides.
    0x4b56_4d02..=0x4b56_4d02,
    0x4b56_4d06..=0x4b56_4d08,
];

/// The memory type registers: fixed ranges, default, variable ranges.
const MEMORY_TYPES: &[RangeInclusive<u32>] = &[
    0x200..=0x20f,
    0x250..=0x250,
    0x258..=0x259,
    0x268..=0x26f,
    0x277..=0x277,
    0x2ff..=0x2ff,
];

/// How many registers KVM takes at once.
const AT_ONCE: usize = 256;

/// A failure with model-specific registers.
#[derive(Debug, thiserror::Error)]
pub enum MsrError {
    /// KVM does not say which there are.
    #[error("list the model-specific registers")]
    List(#[source] kvm_ioctls::Error),
    /// Reading.
    #[error("read model-specific registers")]
    Read(#[source] kvm_ioctls::Error),
    /// Writing.
    #[error("write model-specific registers")]
    Write(#[source] kvm_ioctls::Error),
    /// KVM refuses a value.
    #[error("write {value:#x} to model-specific register {index:#x}")]
    Refused {
        /// Which register.
        index: u32,
        /// What it should hold.
        value: u64,
    },
}

/// The registers of a guest that a snapshot holds.
///
/// # Errors
/// [`MsrError::List`].
pub fn saved(kvm: &Kvm) -> Result<Vec<u32>, MsrError> {
    let list = kvm.get_msr_index_list().map_err(MsrError::List)?;
    Ok(choose(list.as_slice()))
}

fn choose(list: &[u32]) -> Vec<u32> {
    let within = |ranges: &[RangeInclusive<u32>], index: &u32| {
        ranges.iter().any(|range| range.contains(index))
    };
    let mut chosen: Vec<u32> = list
        .iter()
        .copied()
        .filter(|index| !within(NOT_OURS, index))
        .collect();
    let missing = |index: &u32| !list.contains(index);
    chosen.extend(MEMORY_TYPES.iter().cloned().flatten().filter(missing));
    chosen
}

/// Reads registers. Those that this CPU does not have are left out: nothing can be in them.
///
/// # Errors
/// [`MsrError::Read`].
pub fn read(vcpu: &VcpuFd, indices: &[u32]) -> Result<Vec<kvm_msr_entry>, MsrError> {
    let mut values = Vec::with_capacity(indices.len());
    let mut rest = indices;
    while !rest.is_empty() {
        let (now, _) = rest.split_at(rest.len().min(AT_ONCE));
        let mut msrs = entries(now.iter().map(|index| (*index, 0)));
        let count = vcpu.get_msrs(&mut msrs).map_err(MsrError::Read)?;
        values.extend_from_slice(&msrs.as_slice()[..count]);
        // KVM stops at the first that it cannot read.
        let done = if count < now.len() { count + 1 } else { count };
        rest = &rest[done..];
    }
    Ok(values)
}

/// Writes registers.
///
/// # Errors
/// [`MsrError`]: KVM refuses a value and the register does not hold it already.
pub fn write(vcpu: &VcpuFd, values: &[kvm_msr_entry]) -> Result<(), MsrError> {
    let mut rest = values;
    while !rest.is_empty() {
        let (now, _) = rest.split_at(rest.len().min(AT_ONCE));
        let msrs = entries(now.iter().map(|entry| (entry.index, entry.data)));
        let count = vcpu.set_msrs(&msrs).map_err(MsrError::Write)?;
        rest = &rest[count..];
        if count < now.len() {
            // KVM stops at the first that it does not take.
            let kvm_msr_entry {
                index, data: value, ..
            } = rest[0];
            let held = read(vcpu, &[index])?;
            if held.first().map(|entry| entry.data) != Some(value) {
                return Err(MsrError::Refused { index, value });
            }
            rest = &rest[1..];
        }
    }
    Ok(())
}

/// What the registers of a CPU that boots begin with, where KVM's own beginning is not the right one.
///
/// # Errors
/// [`MsrError`].
pub fn write_boot_values(vcpu: &VcpuFd) -> Result<(), MsrError> {
    let values = [
        (MISC_ENABLE, FAST_STRINGS),
        (MTRR_DEFAULT_TYPE, WRITE_BACK),
        (TSC, 0),
    ];
    let msrs = entries(values.into_iter());
    let count = vcpu.set_msrs(&msrs).map_err(MsrError::Write)?;
    match values.get(count) {
        None => Ok(()),
        Some(&(index, value)) => Err(MsrError::Refused { index, value }),
    }
}

fn entries(values: impl Iterator<Item = (u32, u64)>) -> Msrs {
    let entries: Vec<kvm_msr_entry> = values
        .map(|(index, data)| kvm_msr_entry {
            index,
            data,
            ..kvm_msr_entry::default()
        })
        .collect();
    Msrs::from_entries(&entries).expect("no more than KVM takes at once")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_guest_does_not_have_is_not_saved() {
        let list = [
            0x1b,
            TSC,
            0xc1,
            0x480,
            0x4000_0000,
            0x4b56_4d01,
            0xc001_0004,
        ];
        let chosen = choose(&list);
        assert!(chosen.contains(&0x1b) && chosen.contains(&0x4b56_4d01));
        for index in [TSC, 0xc1, 0x480, 0x4000_0000, 0xc001_0004] {
            assert!(!chosen.contains(&index), "{index:#x}");
        }
    }

    #[test]
    fn memory_types_are_saved_once_whether_or_not_kvm_lists_them() {
        for list in [vec![], vec![MTRR_DEFAULT_TYPE, 0x250]] {
            let chosen = choose(&list);
            let count = |index| chosen.iter().filter(|chosen| **chosen == index).count();
            assert_eq!(count(MTRR_DEFAULT_TYPE), 1);
            assert_eq!(count(0x250), 1);
            assert_eq!(chosen.len(), 16 + 1 + 2 + 8 + 1 + 1);
        }
    }
}
