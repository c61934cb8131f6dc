//! What differs from CPU to CPU: one package, `count` cores in it with a thread each, APIC ids from 0.
//!
//! Source: Intel SDM volume 2A, CPUID leaves 1, 4, 0xB, 0x1F; AMD APM volume 3, leaves 0x8000_0008,
//! 0x8000_001D, 0x8000_001E.

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

/// Kinds of levels in leaf 0xB.
const THREADS: u32 = 1;
const CORES: u32 = 2;
/// The cache that all cores share.
const SHARED_CACHE: u32 = 3;
/// Leaf 1, edx: there is more than one logical processor.
const SEVERAL: u32 = 1 << 28;
/// Leaf 0x8000_0001, ecx: what leaf 1 says in `SEVERAL` counts cores; leaf 0x8000_001E is there.
const LEGACY_CORES: u32 = 1 << 1;

/// Writes the place of one CPU into the leaves.
pub(super) fn apply(entries: &mut Vec<kvm_cpuid_entry2>, cpu: u8, count: u8) {
    let (id, cpus) = (u32::from(cpu), u32::from(count));
    replace_levels(entries, id, cpus);
    for entry in entries {
        match entry.function {
            0x1 => {
                // Initial APIC id, how many ids, cache line size as it was.
                entry.ebx = id << 24 | cpus << 16 | entry.ebx & 0xffff;
                entry.edx = entry.edx & !SEVERAL | if cpus > 1 { SEVERAL } else { 0 };
            }
            0x4 => {
                entry.eax = share_cache(entry.eax, cpus);
                if entry.eax & 0x1f != 0 {
                    entry.eax |= (id_space(cpus) - 1) << 26;
                }
            }
            0x8000_0001 => {
                entry.ecx = entry.ecx & !LEGACY_CORES | if cpus > 1 { LEGACY_CORES } else { 0 };
            }
            0x8000_0008 => entry.ecx = id_bits(cpus) << 12 | (cpus - 1),
            0x8000_001d => entry.eax = share_cache(entry.eax, cpus),
            0x8000_001e => {
                entry.eax = id;
                entry.ebx = id;
                entry.ecx = 0;
            }
            _ => {}
        }
    }
}

/// How many CPUs share a cache: all the last level, one every other.
fn share_cache(eax: u32, cpus: u32) -> u32 {
    let level = eax >> 5 & 0x7;
    let sharing = if level == SHARED_CACHE { cpus - 1 } else { 0 };
    eax & 0x3fff | sharing << 14
}

/// How many bits of the APIC id tell the cores apart.
fn id_bits(cpus: u32) -> u32 {
    u32::BITS - (cpus - 1).leading_zeros()
}

/// How many APIC ids they leave room for.
fn id_space(cpus: u32) -> u32 {
    1 << id_bits(cpus)
}

/// Leaves 0xB and 0x1F, if the host has them: a level of threads, one of cores, and the end.
fn replace_levels(entries: &mut Vec<kvm_cpuid_entry2>, id: u32, cpus: u32) {
    for leaf in [0xb, 0x1f] {
        let before = entries.len();
        entries.retain(|entry| entry.function != leaf);
        if entries.len() == before {
            continue;
        }
        let levels = [(0, 1, THREADS), (id_bits(cpus), cpus, CORES), (0, 0, 0)];
        entries.extend(
            (0..)
                .zip(levels)
                .map(|(index, (shift, logical, kind))| kvm_cpuid_entry2 {
                    function: leaf,
                    index,
                    flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
                    eax: shift,
                    ebx: logical,
                    ecx: kind << 8 | index,
                    edx: id,
                    ..kvm_cpuid_entry2::default()
                }),
        );
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::find;
    use super::super::tests::leaf;
    use super::*;

    #[test]
    fn a_single_cpu_is_alone() {
        let mut entries = vec![
            leaf(1, 0, [0, 0x0080_0800, 0, u32::MAX]),
            leaf(0xb, 0, [9; 4]),
        ];
        apply(&mut entries, 0, 1);
        let first = find(&entries, 1, 0).expect("kept");
        assert_eq!((first.ebx, first.edx & SEVERAL), (0x0001_0800, 0));
        let cores = find(&entries, 0xb, 1).expect("made");
        assert_eq!((cores.eax, cores.ebx), (0, 1));
    }

    #[test]
    fn leaves_that_the_host_does_not_have_are_not_made_up() {
        let mut entries = vec![leaf(1, 0, [0; 4])];
        apply(&mut entries, 0, 4);
        assert_eq!(entries.len(), 1);
    }

    #[test]
    fn the_last_level_of_cache_is_everybodys_and_the_first_ones_own() {
        let (first_level, third_level) = (1 | 1 << 5 | 7 << 14, 3 | 3 << 5);
        let mut entries = vec![
            leaf(4, 0, [first_level, 0, 0, 0]),
            leaf(4, 3, [third_level, 0, 0, 0]),
            leaf(4, 4, [0; 4]),
        ];
        apply(&mut entries, 2, 4);
        assert_eq!(entries[0].eax >> 14 & 0xfff, 0);
        assert_eq!(entries[1].eax >> 14 & 0xfff, 3);
        assert_eq!(entries[1].eax >> 26, 3);
        assert_eq!(entries[2].eax, 0, "the end of the list stays one");
    }

    proptest! {
        #[test]
        fn every_cpu_has_an_id_of_its_own_within_the_package(count in 1_u8..=32) {
            for cpu in 0..count {
                let mut entries = vec![leaf(0xb, 0, [0; 4]), leaf(0x1f, 0, [0; 4])];
                apply(&mut entries, cpu, count);
                for function in [0xb, 0x1f] {
                    let cores = find(&entries, function, 1).expect("made");
                    prop_assert_eq!(cores.edx, u32::from(cpu));
                    prop_assert_eq!(cores.ebx, u32::from(count));
                    prop_assert_eq!(u32::from(cpu) >> cores.eax, 0, "all in one package");
                }
            }
        }
    }
}
