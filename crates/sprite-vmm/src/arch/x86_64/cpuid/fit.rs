//! Whether a guest that was saved elsewhere can go on here.

use kvm_bindings::kvm_cpuid_entry2;

use super::{find, vendor};
use crate::config::Register::{self, Eax, Ebx, Ecx, Edx};

/// Where features are told: a guest that was told of one uses it.
const FEATURES: &[(u32, u32, Register)] = &[
    (0x1, 0, Ecx),
    (0x1, 0, Edx),
    (0x7, 0, Ebx),
    (0x7, 0, Ecx),
    (0x7, 0, Edx),
    (0x7, 1, Eax),
    (0x7, 1, Ebx),
    (0x7, 1, Ecx),
    (0x7, 1, Edx),
    (0x7, 2, Edx),
    (0xd, 0, Eax),
    (0xd, 0, Edx),
    (0xd, 1, Eax),
    (0x4000_0001, 0, Eax),
    (0x8000_0001, 0, Ecx),
    (0x8000_0001, 0, Edx),
    (0x8000_0007, 0, Edx),
    (0x8000_0008, 0, Ebx),
    (0x8000_0021, 0, Eax),
];

/// Bits among them that depend on the machine and not on the host: several CPUs, XSAVE switched on, legacy
/// counting of cores.
const OF_THE_MACHINE: &[(u32, Register, u32)] = &[
    (0x1, Edx, 1 << 28),
    (0x1, Ecx, 1 << 27),
    (0x8000_0001, Ecx, 1 << 1),
];

/// Why a guest cannot go on here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// The CPUs' makers differ.
    #[error(
        "the guest ran on a CPU of {}, this one is of {}",
        text(saved),
        text(here)
    )]
    Vendor {
        /// There.
        saved: [u8; 12],
        /// Here.
        here: [u8; 12],
    },
    /// The guest knows features that this host has not.
    #[error(
        "the guest uses CPU features that are not here: leaf {leaf:#x}.{subleaf:#x} {register:?} {bits:#x}"
    )]
    Features {
        /// Leaf.
        leaf: u32,
        /// Subleaf.
        subleaf: u32,
        /// Register.
        register: Register,
        /// The bits.
        bits: u32,
    },
}

fn text(vendor: &[u8; 12]) -> String {
    String::from_utf8_lossy(vendor).into_owned()
}

fn value(entries: &[kvm_cpuid_entry2], leaf: u32, subleaf: u32, register: Register) -> u32 {
    find(entries, leaf, subleaf).map_or(0, |entry| match register {
        Eax => entry.eax,
        Ebx => entry.ebx,
        Ecx => entry.ecx,
        Edx => entry.edx,
    })
}

/// Whether a guest with the CPUID `saved` can run where `here` is offered.
///
/// # Errors
/// [`Misfit`]: the first reason why not.
pub fn fits(saved: &[kvm_cpuid_entry2], here: &[kvm_cpuid_entry2]) -> Result<(), Misfit> {
    if vendor(saved) != vendor(here) {
        return Err(Misfit::Vendor {
            saved: vendor(saved),
            here: vendor(here),
        });
    }
    for &(leaf, subleaf, register) in FEATURES {
        let own = OF_THE_MACHINE
            .iter()
            .filter(|(own_leaf, own_register, _)| (*own_leaf, *own_register) == (leaf, register))
            .fold(0, |own, (_, _, bits)| own | bits);
        let bits =
            value(saved, leaf, subleaf, register) & !value(here, leaf, subleaf, register) & !own;
        if bits != 0 {
            return Err(Misfit::Features {
                leaf,
                subleaf,
                register,
                bits,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::leaf;
    use super::*;

    fn cpu(vendor: u32, features: u32) -> Vec<kvm_cpuid_entry2> {
        vec![
            leaf(0, 0, [7, vendor, vendor, vendor]),
            leaf(1, 0, [0; 4]),
            leaf(7, 0, [0, features, 0, 0]),
        ]
    }

    #[test]
    fn the_same_or_a_richer_cpu_fits() {
        assert_eq!(fits(&cpu(1, 0b01), &cpu(1, 0b01)), Ok(()));
        assert_eq!(fits(&cpu(1, 0b01), &cpu(1, 0b11)), Ok(()));
    }

    #[test]
    fn a_poorer_one_or_another_makers_does_not() {
        let poorer = fits(&cpu(1, 0b11), &cpu(1, 0b01));
        assert!(matches!(
            poorer,
            Err(Misfit::Features {
                leaf: 7,
                bits: 0b10,
                ..
            })
        ));
        let other = fits(&cpu(1, 0), &cpu(2, 0));
        assert!(matches!(other, Err(Misfit::Vendor { .. })));
    }

    #[test]
    fn what_differs_from_machine_to_machine_does_not_count() {
        let mut saved = cpu(1, 0);
        saved[1].edx = 1 << 28;
        saved[1].ecx = 1 << 27;
        assert_eq!(fits(&saved, &cpu(1, 0)), Ok(()));
    }
}
