//! What the guest's CPUs say of themselves.
//!
//! The guest's CPUID is that of the host as KVM can virtualize it, less what the template hides: features that
//! leave state behind which no snapshot holds, that belong to the host alone, or that differ from host to
//! host without need. A template has a name and never changes once a release had it: what is different later
//! is a new template, and a snapshot says which one its guest was made with.

mod fit;
mod template;
mod topology;

use kvm_bindings::{CpuId, kvm_cpuid_entry2};
use kvm_ioctls::Kvm;

pub use fit::{Misfit, fits};
pub use template::TEMPLATE;

use crate::config::{CpuConfig, Register};

/// A failure to make a guest's CPUID.
#[derive(Debug, thiserror::Error)]
pub enum CpuidError {
    /// KVM does not say what it can do.
    #[error("read what CPUs KVM can virtualize")]
    Supported(#[source] kvm_ioctls::Error),
    /// More leaves than KVM takes.
    #[error("describe a CPU in {leaves} leaves")]
    Leaves {
        /// How many there would be.
        leaves: usize,
    },
    /// A leaf is to be changed that is not there.
    #[error("change leaf {leaf:#x}.{subleaf:#x}, which the CPU does not have")]
    NoSuchLeaf {
        /// Leaf.
        leaf: u32,
        /// Subleaf.
        subleaf: u32,
    },
}

/// What all CPUs of the guest have in common: the template on this host, and the changes asked for.
///
/// # Errors
/// [`CpuidError`].
pub fn common(kvm: &Kvm, changes: &CpuConfig) -> Result<Vec<kvm_cpuid_entry2>, CpuidError> {
    let supported = kvm
        .get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES)
        .map_err(CpuidError::Supported)?;
    let mut entries = template::apply(supported.as_slice());
    for change in &changes.cpuid_modifiers {
        let entry = entries
            .iter_mut()
            .find(|entry| entry.function == change.leaf && entry.index == change.subleaf)
            .ok_or(CpuidError::NoSuchLeaf {
                leaf: change.leaf,
                subleaf: change.subleaf,
            })?;
        for modifier in &change.modifiers {
            let value = register(entry, modifier.register);
            *value = modifier.applied_to(*value);
        }
    }
    Ok(entries)
}

/// The CPUID of one of `count` CPUs.
///
/// # Errors
/// [`CpuidError::Leaves`].
pub fn of_cpu(common: &[kvm_cpuid_entry2], cpu: u8, count: u8) -> Result<CpuId, CpuidError> {
    let mut entries = common.to_vec();
    topology::apply(&mut entries, cpu, count);
    CpuId::from_entries(&entries).map_err(|_| CpuidError::Leaves {
        leaves: entries.len(),
    })
}

/// Who made the CPU: `GenuineIntel`, `AuthenticAMD`.
#[must_use]
pub fn vendor(entries: &[kvm_cpuid_entry2]) -> [u8; 12] {
    let mut vendor = [0; 12];
    if let Some(leaf) = find(entries, 0, 0) {
        for (part, register) in vendor
            .chunks_exact_mut(4)
            .zip([leaf.ebx, leaf.edx, leaf.ecx])
        {
            part.copy_from_slice(&register.to_le_bytes());
        }
    }
    vendor
}

fn find(entries: &[kvm_cpuid_entry2], leaf: u32, subleaf: u32) -> Option<&kvm_cpuid_entry2> {
    entries
        .iter()
        .find(|entry| entry.function == leaf && entry.index == subleaf)
}

fn find_mut(
    entries: &mut [kvm_cpuid_entry2],
    leaf: u32,
    subleaf: u32,
) -> Option<&mut kvm_cpuid_entry2> {
    entries
        .iter_mut()
        .find(|entry| entry.function == leaf && entry.index == subleaf)
}

fn register(entry: &mut kvm_cpuid_entry2, register: Register) -> &mut u32 {
    match register {
        Register::Eax => &mut entry.eax,
        Register::Ebx => &mut entry.ebx,
        Register::Ecx => &mut entry.ecx,
        Register::Edx => &mut entry.edx,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A leaf for tests: eax, ebx, ecx, edx.
    pub(crate) fn leaf(function: u32, index: u32, registers: [u32; 4]) -> kvm_cpuid_entry2 {
        let [eax, ebx, ecx, edx] = registers;
        kvm_cpuid_entry2 {
            function,
            index,
            eax,
            ebx,
            ecx,
            edx,
            ..kvm_cpuid_entry2::default()
        }
    }

    #[test]
    fn the_vendor_is_read_in_the_order_of_the_registers() {
        let intel = leaf(0, 0, [0x1f, 0x756e_6547, 0x6c65_746e, 0x4965_6e69]);
        assert_eq!(&vendor(&[intel]), b"GenuineIntel");
        assert_eq!(vendor(&[]), [0; 12]);
    }
}
