//! Where everything is in the guest's physical memory.
//!
//! ```text
//! 0x0000_0000  first page: never used        0xC000_0000  end of low memory, devices begin
//! 0x0000_6000  PVH start information         0xFEC0_0000  I/O APIC
//! 0x0000_7000  memory map of the start       0xFEE0_0000  local APICs
//! 0x0002_0000  kernel command line           0xFFFB_C000  KVM's own pages (4)
//! 0x0009_F000  VM generation id (a page)     0x1_0000_0000  memory goes on
//! 0x000E_0000  ACPI tables
//! 0x0010_0000  kernel; initramfs at the end of low memory
//! ```

use vm_memory::GuestAddress;

/// A page of the architecture.
pub const PAGE_SIZE: u64 = 4096;

/// The PVH start information: what the kernel's entry gets in `rbx`.
pub const PVH_START_INFO: GuestAddress = GuestAddress(0x6000);
/// The module list (the initramfs) of the start information, in the same page.
pub const PVH_MODULES: GuestAddress = GuestAddress(0x6040);
/// The memory map of the start information.
pub const PVH_MEMORY_MAP: GuestAddress = GuestAddress(0x7000);
/// The kernel's command line.
pub const COMMAND_LINE: GuestAddress = GuestAddress(0x2_0000);
/// Longest command line with its final zero. Source: `COMMAND_LINE_SIZE` of Linux on x86.
pub const COMMAND_LINE_MAX: usize = 2048;

/// The page that holds the VM generation id; conventional memory ends here.
pub const GENERATION_ID: GuestAddress = GuestAddress(0x9_F000);
/// Where conventional memory ends.
pub const CONVENTIONAL_END: u64 = GENERATION_ID.0;

/// The ACPI tables. The root pointer comes first, where a scan of the BIOS area looks for it too.
pub const ACPI_START: GuestAddress = GuestAddress(0xE_0000);
/// Where the ACPI tables must end.
pub const ACPI_END: u64 = 0x10_0000;

/// Where memory above the first MiB begins: kernels are loaded here or above.
pub const HIGH_MEMORY_START: GuestAddress = GuestAddress(0x10_0000);

/// Where low memory ends at the latest and the addresses of devices begin.
pub const HOLE_START: u64 = 0xC000_0000;
/// Where memory goes on above the devices.
pub const HOLE_END: u64 = 0x1_0000_0000;

/// The first virtio device's registers.
pub const VIRTIO_START: u64 = 0xC000_1000;
/// Room for each virtio device's registers.
pub const VIRTIO_SIZE: u64 = 0x1000;

/// The I/O APIC. Source: KVM puts it here.
pub const IO_APIC: u32 = 0xFEC0_0000;
/// The local APICs. Source: the architecture's reset value of `IA32_APIC_BASE`.
pub const LOCAL_APIC: u32 = 0xFEE0_0000;
/// KVM's identity map: a page that no device and no memory has. Source: `KVM_SET_IDENTITY_MAP_ADDR`.
pub const KVM_IDENTITY_MAP: u64 = 0xFFFB_C000;
/// KVM's task state segment: three pages. Source: `KVM_SET_TSS_ADDR`.
pub const KVM_TSS: usize = 0xFFFB_D000;

const _: () = assert!(PVH_MODULES.0 < PVH_MEMORY_MAP.0);
const _: () = assert!(COMMAND_LINE.0 + COMMAND_LINE_MAX as u64 <= CONVENTIONAL_END);
const _: () = assert!(GENERATION_ID.0 + PAGE_SIZE <= 0xA_0000);
const _: () = assert!(ACPI_END == HIGH_MEMORY_START.0);
const _: () = assert!(HOLE_START <= VIRTIO_START && VIRTIO_START < IO_APIC as u64);
const _: () = assert!(KVM_IDENTITY_MAP + PAGE_SIZE == KVM_TSS as u64);
const _: () = assert!(KVM_TSS as u64 + 3 * PAGE_SIZE <= HOLE_END);

/// The ranges of a guest's memory: (start, length in bytes), in order. In a memory file they follow each
/// other without a gap.
pub fn memory_ranges(size: u64) -> Vec<(GuestAddress, u64)> {
    match size.checked_sub(HOLE_START) {
        None | Some(0) => vec![(GuestAddress(0), size)],
        Some(above) => vec![
            (GuestAddress(0), HOLE_START),
            (GuestAddress(HOLE_END), above),
        ],
    }
}

/// The last address (exclusive) of the memory below the devices.
pub fn low_memory_end(size: u64) -> u64 {
    size.min(HOLE_START)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_goes_around_the_devices() {
        assert_eq!(memory_ranges(1 << 30), vec![(GuestAddress(0), 1 << 30)]);
        assert_eq!(
            memory_ranges(HOLE_START),
            vec![(GuestAddress(0), HOLE_START)]
        );
        assert_eq!(
            memory_ranges(HOLE_START + PAGE_SIZE),
            vec![
                (GuestAddress(0), HOLE_START),
                (GuestAddress(HOLE_END), PAGE_SIZE)
            ]
        );
    }
}
