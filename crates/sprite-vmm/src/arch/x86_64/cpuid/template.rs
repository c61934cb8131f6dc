//! The template `sprite-1`: what of the host's CPU a guest does not see.
//!
//! Source for leaves and bits: Intel SDM volume 2A, CPUID; AMD APM volume 3, appendix E;
//! `Documentation/virt/kvm/x86/cpuid.rst` of Linux.

use kvm_bindings::kvm_cpuid_entry2;

use super::{find_mut, register};
use crate::config::Register::{self, Eax, Ebx, Ecx, Edx};

/// The template's name, as a snapshot records it.
pub const TEMPLATE: &str = "sprite-1";

/// Bits that are not shown.
struct Hidden {
    leaf: u32,
    subleaf: u32,
    register: Register,
    bits: u32,
}

const fn hidden(leaf: u32, subleaf: u32, register: Register, bits: &[u32]) -> Hidden {
    let mut mask = 0;
    let mut at = 0;
    while at < bits.len() {
        mask |= 1 << bits[at];
        at += 1;
    }
    Hidden {
        leaf,
        subleaf,
        register,
        bits: mask,
    }
}

const HIDDEN: &[Hidden] = &[
    // Debug store, MONITOR, VMX, SMX, SpeedStep, thermal monitor, performance capabilities: no snapshot holds
    // the state of nested guests, and the rest is the host's.
    hidden(1, 0, Ecx, &[2, 3, 4, 5, 6, 7, 8, 10, 11, 15]),
    // Debug store, thermal control, thermal monitor, pending break.
    hidden(1, 0, Edx, &[21, 22, 29, 31]),
    // SGX, HLE, resource monitoring and allocation, RTM, processor trace.
    hidden(7, 0, Ebx, &[2, 4, 11, 12, 15, 25]),
    // Shadow stacks (their registers are in no snapshot), five-level paging, key locker, bus lock detection,
    // ENQCMD, SGX launch configuration, supervisor protection keys.
    hidden(7, 0, Ecx, &[7, 16, 23, 24, 29, 30, 31]),
    // User interrupts, RTM always aborts, TSX force abort, PCONFIG, architectural LBR, indirect branch
    // tracking, AMX (its registers need more room than a snapshot gives).
    hidden(7, 0, Edx, &[5, 11, 13, 18, 19, 20, 22, 24, 25]),
    // AMX FP16, history reset, linear address masking.
    hidden(7, 1, Eax, &[17, 21, 22, 26]),
    // AMX complex, user timer events, AVX10.
    hidden(7, 1, Edx, &[8, 13, 19]),
    // AMX state.
    hidden(0xd, 0, Eax, &[17, 18]),
    // SVM, instruction based sampling, SKINIT, watchdog, lightweight profiling, performance counters, MWAITX.
    hidden(
        0x8000_0001,
        0,
        Ecx,
        &[2, 10, 12, 13, 15, 23, 24, 27, 28, 29],
    ),
    // Asynchronous page faults (they would be on their way when a snapshot is made) and live migration.
    hidden(0x4000_0001, 0, Eax, &[4, 10, 14, 17]),
];

/// Leaves of which nothing is shown: MONITOR, performance counters, SGX, processor trace, clock ratios, key
/// locker, AMX, AVX10; AMD: SVM, instruction based sampling, memory encryption, performance counters.
const EMPTY: &[u32] = &[
    0x5,
    0xa,
    0xf,
    0x10,
    0x12,
    0x14,
    0x15,
    0x16,
    0x18,
    0x19,
    0x1a,
    0x1d,
    0x1e,
    0x20,
    0x23,
    0x24,
    0x8000_000a,
    0x8000_001b,
    0x8000_001f,
    0x8000_0020,
    0x8000_0022,
];

/// Leaf 1, ecx: the timer of the local APIC counts by the TSC. KVM has it for every CPU, and asks whoever
/// uses it to say so.
const TSC_DEADLINE: u32 = 1 << 24;
/// Leaf 1, ecx: this is a virtual machine.
const HYPERVISOR: u32 = 1 << 31;
/// Leaf 6, eax: the timer of the local APIC runs always.
const TIMER_ALWAYS_RUNS: u32 = 1 << 2;
/// Leaf 0x80000007, edx: the TSC counts always and everywhere alike.
const INVARIANT_TSC: u32 = 1 << 8;

/// The XSAVE area's leaf, and where the parts that a guest may have begin and end in it: subleaf by subleaf
/// from 2 on. The first two take 512 bytes and a header of 64.
const XSAVE: u32 = 0xd;
const XSAVE_LEGACY: u32 = 576;

/// The template applied to what KVM supports on this host.
pub(super) fn apply(supported: &[kvm_cpuid_entry2]) -> Vec<kvm_cpuid_entry2> {
    let mut entries: Vec<kvm_cpuid_entry2> = supported
        .iter()
        .copied()
        .filter(|entry| !EMPTY.contains(&entry.function))
        .collect();
    for hidden in HIDDEN {
        if let Some(entry) = find_mut(&mut entries, hidden.leaf, hidden.subleaf) {
            *register(entry, hidden.register) &= !hidden.bits;
        }
    }
    if let Some(leaf) = find_mut(&mut entries, 1, 0) {
        leaf.ecx |= TSC_DEADLINE | HYPERVISOR;
    }
    if let Some(leaf) = find_mut(&mut entries, 6, 0) {
        *leaf = kvm_cpuid_entry2 {
            eax: leaf.eax & TIMER_ALWAYS_RUNS,
            ebx: 0,
            ecx: 0,
            edx: 0,
            ..*leaf
        };
    }
    if let Some(leaf) = find_mut(&mut entries, 0x8000_0007, 0) {
        leaf.eax = 0;
        leaf.ebx = 0;
        leaf.ecx = 0;
        leaf.edx &= INVARIANT_TSC;
    }
    limit_xsave(&mut entries);
    entries
}

/// Leaves only those parts of the XSAVE area that are shown, and says how large it is with them.
fn limit_xsave(entries: &mut Vec<kvm_cpuid_entry2>) {
    let shown = find_mut(entries, XSAVE, 0).map_or(0, |leaf| leaf.eax);
    // Parts of supervisor state are in no snapshot; subleaf 1 tells of them in ecx and edx.
    if let Some(leaf) = find_mut(entries, XSAVE, 1) {
        leaf.ecx = 0;
        leaf.edx = 0;
    }
    entries.retain(|entry| {
        entry.function != XSAVE
            || entry.index < 2
            || (entry.index < 32 && shown & 1 << entry.index != 0)
    });
    let size = entries
        .iter()
        .filter(|entry| entry.function == XSAVE && entry.index >= 2)
        .map(|part| part.ebx.saturating_add(part.eax))
        .fold(XSAVE_LEGACY, u32::max);
    if let Some(leaf) = find_mut(entries, XSAVE, 0) {
        leaf.ecx = size;
    }
}

#[cfg(test)]
mod tests {
    use super::super::find;
    use super::super::tests::leaf;
    use super::*;

    const ALL: [u32; 4] = [u32::MAX; 4];

    #[test]
    fn features_whose_state_no_snapshot_holds_are_hidden() {
        let entries = apply(&[
            leaf(1, 0, ALL),
            leaf(7, 0, ALL),
            leaf(0x8000_0001, 0, ALL),
            leaf(0x4000_0001, 0, ALL),
        ]);
        let vmx = find(&entries, 1, 0).expect("kept").ecx & 1 << 5;
        let amx = find(&entries, 7, 0).expect("kept").edx & 1 << 24;
        let svm = find(&entries, 0x8000_0001, 0).expect("kept").ecx & 1 << 2;
        let faults = find(&entries, 0x4000_0001, 0).expect("kept").eax & 1 << 4;
        assert_eq!([vmx, amx, svm, faults], [0; 4]);
    }

    #[test]
    fn what_is_not_named_is_shown_as_it_is() {
        let entries = apply(&[leaf(7, 0, ALL), leaf(0x8000_0002, 0, [1, 2, 3, 4])]);
        // AVX2.
        assert_ne!(find(&entries, 7, 0).expect("kept").ebx & 1 << 5, 0);
        assert_eq!(find(&entries, 0x8000_0002, 0).expect("kept").edx, 4);
    }

    #[test]
    fn the_guest_knows_that_it_is_one_and_has_a_timer() {
        let entries = apply(&[leaf(1, 0, [0; 4]), leaf(6, 0, ALL)]);
        assert_eq!(
            find(&entries, 1, 0).expect("kept").ecx,
            TSC_DEADLINE | HYPERVISOR
        );
        assert_eq!(find(&entries, 6, 0).expect("kept").eax, TIMER_ALWAYS_RUNS);
    }

    #[test]
    fn nothing_is_left_of_performance_counters() {
        assert!(apply(&[leaf(0xa, 0, ALL), leaf(0x14, 0, ALL), leaf(0x14, 1, ALL)]).is_empty());
    }

    #[test]
    fn the_xsave_area_has_the_parts_that_are_shown_and_their_size() {
        let with_tiles = [
            leaf(0xd, 0, [0x0006_0007, 11_008, 11_008, 0]),
            leaf(0xd, 1, [0xf, 0, 0x1800, 0]),
            leaf(0xd, 2, [256, 576, 0, 0]),
            leaf(0xd, 17, [64, 2752, 2, 0]),
            leaf(0xd, 18, [8192, 2816, 6, 0]),
        ];
        let entries = apply(&with_tiles);
        let parts: Vec<u32> = entries.iter().map(|entry| entry.index).collect();
        assert_eq!(parts, [0, 1, 2]);
        let first = find(&entries, 0xd, 0).expect("kept");
        assert_eq!((first.eax, first.ecx), (0x7, 832));
        assert_eq!(find(&entries, 0xd, 1).expect("kept").ecx, 0);
    }
}
