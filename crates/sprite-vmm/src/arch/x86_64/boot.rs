//! Into the guest's memory with kernel, initramfs and command line, and the first CPU to the kernel's entry.
//!
//! The boot protocol is PVH: the kernel is the uncompressed ELF file, entered in 32-bit protected mode without
//! paging, with the address of its start information in `ebx`.
//!
//! Source: "x86/HVM direct boot ABI", `docs/misc/pvh.pandoc` of Xen; `arch/x86/platform/pvh` of Linux.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use kvm_bindings::{kvm_regs, kvm_segment};
use kvm_ioctls::VcpuFd;
use linux_loader::configurator::pvh::PvhBootConfigurator;
use linux_loader::configurator::{BootConfigurator, BootParams};
use linux_loader::loader::elf::start_info::{
    XEN_HVM_MEMMAP_TYPE_RAM, XEN_HVM_MEMMAP_TYPE_RESERVED, XEN_HVM_START_MAGIC_VALUE,
    hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use linux_loader::loader::elf::{Elf, PvhBootCapability};
use linux_loader::loader::{KernelLoader, KernelLoaderResult};
use vm_memory::{Bytes, GuestAddress};

use super::layout::{
    ACPI_END, ACPI_START, COMMAND_LINE, COMMAND_LINE_MAX, CONVENTIONAL_END, HIGH_MEMORY_START,
    HOLE_END, HOLE_START, PAGE_SIZE, PVH_MEMORY_MAP, PVH_MODULES, PVH_START_INFO, low_memory_end,
};
use crate::memory::{self, GuestMemory};

/// A failure to make a guest ready to boot.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file cannot be opened or read.
    #[error("read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The kernel is not an ELF file, or does not fit into the memory.
    #[error("load the kernel {}", path.display())]
    Kernel {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: linux_loader::loader::Error,
    },
    /// The kernel has no PVH entry.
    #[error("find the PVH entry of the kernel {}", path.display())]
    NoEntry {
        /// Which.
        path: PathBuf,
    },
    /// The initramfs does not fit beside the kernel.
    #[error("put an initramfs of {bytes} bytes behind the kernel's end at {kernel_end:#x}")]
    InitramfsSize {
        /// Its size.
        bytes: u64,
        /// Where it must not be.
        kernel_end: u64,
    },
    /// The initramfs cannot be read.
    #[error("load the initramfs {}", path.display())]
    Initramfs {
        /// Which.
        path: PathBuf,
        /// What the memory said.
        #[source]
        source: vm_memory::GuestMemoryError,
    },
    /// The command line is too long.
    #[error("put a command line of {bytes} bytes into {COMMAND_LINE_MAX} with its end")]
    CommandLine {
        /// Its length.
        bytes: usize,
    },
    /// The guest has no memory where its start information belongs.
    #[error("write the command line")]
    WriteCommandLine(#[source] vm_memory::GuestMemoryError),
    /// The same.
    #[error("write the start information")]
    StartInfo(#[source] linux_loader::configurator::Error),
}

/// Where the first CPU begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry(pub GuestAddress);

/// Loads kernel, initramfs and command line and writes the start information.
///
/// # Errors
/// [`LoadError`].
pub fn load(
    memory: &GuestMemory,
    kernel: &Path,
    initramfs: Option<&Path>,
    command_line: &str,
    acpi: GuestAddress,
) -> Result<Entry, LoadError> {
    let loaded = load_kernel(memory, kernel)?;
    let entry = match loaded.pvh_boot_cap {
        PvhBootCapability::PvhEntryPresent(entry) => Entry(entry),
        PvhBootCapability::PvhEntryNotPresent | PvhBootCapability::PvhEntryIgnored => {
            return Err(LoadError::NoEntry {
                path: kernel.to_owned(),
            });
        }
    };
    let module = initramfs
        .map(|path| load_initramfs(memory, path, loaded.kernel_end))
        .transpose()?;
    write_command_line(memory, command_line)?;
    write_start_info(memory, module, acpi)?;
    Ok(entry)
}

fn open(path: &Path) -> Result<File, LoadError> {
    File::open(path).map_err(|source| LoadError::Read {
        path: path.to_owned(),
        source,
    })
}

fn load_kernel(memory: &GuestMemory, path: &Path) -> Result<KernelLoaderResult, LoadError> {
    let mut file = open(path)?;
    Elf::load(memory, None, &mut file, Some(HIGH_MEMORY_START)).map_err(|source| {
        LoadError::Kernel {
            path: path.to_owned(),
            source,
        }
    })
}

/// The initramfs goes to the end of low memory, out of the way of the kernel's own beginnings.
fn load_initramfs(
    memory: &GuestMemory,
    path: &Path,
    kernel_end: u64,
) -> Result<hvm_modlist_entry, LoadError> {
    let mut file = open(path)?;
    let size = file
        .metadata()
        .map_err(|source| LoadError::Read {
            path: path.to_owned(),
            source,
        })?
        .len();
    let start = low_memory_end(memory::size(memory))
        .checked_sub(size)
        .map(|start| start & !(PAGE_SIZE - 1))
        .filter(|start| *start >= kernel_end)
        .ok_or(LoadError::InitramfsSize {
            bytes: size,
            kernel_end,
        })?;
    let length = usize::try_from(size).map_err(|_| LoadError::InitramfsSize {
        bytes: size,
        kernel_end,
    })?;
    memory
        .read_exact_volatile_from(GuestAddress(start), &mut file, length)
        .map_err(|source| LoadError::Initramfs {
            path: path.to_owned(),
            source,
        })?;
    Ok(hvm_modlist_entry {
        paddr: start,
        size,
        ..hvm_modlist_entry::default()
    })
}

fn write_command_line(memory: &GuestMemory, command_line: &str) -> Result<(), LoadError> {
    if command_line.len() >= COMMAND_LINE_MAX {
        return Err(LoadError::CommandLine {
            bytes: command_line.len(),
        });
    }
    let mut bytes = command_line.as_bytes().to_vec();
    bytes.push(0);
    memory
        .write_slice(&bytes, COMMAND_LINE)
        .map_err(LoadError::WriteCommandLine)
}

fn write_start_info(
    memory: &GuestMemory,
    module: Option<hvm_modlist_entry>,
    acpi: GuestAddress,
) -> Result<(), LoadError> {
    let map = memory_map(memory::size(memory));
    let info = hvm_start_info {
        magic: XEN_HVM_START_MAGIC_VALUE,
        version: 1,
        nr_modules: u32::from(module.is_some()),
        modlist_paddr: module.map_or(0, |_| PVH_MODULES.0),
        cmdline_paddr: COMMAND_LINE.0,
        rsdp_paddr: acpi.0,
        memmap_paddr: PVH_MEMORY_MAP.0,
        memmap_entries: u32::try_from(map.len()).expect("five at most"),
        ..hvm_start_info::default()
    };
    let mut parameters = BootParams::new(&info, PVH_START_INFO);
    parameters.set_sections(&map, PVH_MEMORY_MAP);
    if let Some(module) = module {
        parameters.set_modules(&[module], PVH_MODULES);
    }
    PvhBootConfigurator::write_bootparams(&parameters, memory).map_err(LoadError::StartInfo)
}

/// What the kernel may use, and what it must leave alone: the generation id and the ACPI tables.
fn memory_map(size: u64) -> Vec<hvm_memmap_table_entry> {
    let range = |start: u64, end: u64, kind: u32| hvm_memmap_table_entry {
        addr: start,
        size: end - start,
        type_: kind,
        reserved: 0,
    };
    let mut map = vec![
        range(0, CONVENTIONAL_END, XEN_HVM_MEMMAP_TYPE_RAM),
        range(
            CONVENTIONAL_END,
            CONVENTIONAL_END + PAGE_SIZE,
            XEN_HVM_MEMMAP_TYPE_RESERVED,
        ),
        range(ACPI_START.0, ACPI_END, XEN_HVM_MEMMAP_TYPE_RESERVED),
    ];
    let low_end = low_memory_end(size);
    if low_end > HIGH_MEMORY_START.0 {
        map.push(range(HIGH_MEMORY_START.0, low_end, XEN_HVM_MEMMAP_TYPE_RAM));
    }
    if size > HOLE_START {
        let high_end = HOLE_END + (size - HOLE_START);
        map.push(range(HOLE_END, high_end, XEN_HVM_MEMMAP_TYPE_RAM));
    }
    map
}

/// A segment of 4 GiB from address 0.
fn flat(kind: u8) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: u32::MAX,
        type_: kind,
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..kvm_segment::default()
    }
}

/// Types of segments. Source: Intel SDM volume 3, tables 3-1 and 3-2.
const CODE: u8 = 0xb;
const DATA: u8 = 0x3;
const BUSY_TSS: u8 = 0xb;
/// Protected mode.
const CR0_PE: u64 = 1;
/// The bit of `rflags` that is always one.
const RFLAGS: u64 = 2;

/// Puts the first CPU where the boot protocol wants it.
///
/// # Errors
/// KVM refuses.
pub fn enter(vcpu: &VcpuFd, entry: Entry) -> Result<(), kvm_ioctls::Error> {
    let mut system = vcpu.get_sregs()?;
    system.cr0 = CR0_PE;
    system.cr4 = 0;
    system.efer = 0;
    system.cs = flat(CODE);
    for segment in [
        &mut system.ds,
        &mut system.es,
        &mut system.fs,
        &mut system.gs,
        &mut system.ss,
    ] {
        *segment = flat(DATA);
    }
    system.tr = kvm_segment {
        limit: 0x67,
        type_: BUSY_TSS,
        present: 1,
        ..kvm_segment::default()
    };
    vcpu.set_sregs(&system)?;
    vcpu.set_regs(&kvm_regs {
        rip: entry.0.0,
        rbx: PVH_START_INFO.0,
        rflags: RFLAGS,
        ..kvm_regs::default()
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vm_memory::GuestMemoryBackend;

    use super::*;

    fn temporary(bytes: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), bytes).expect("written");
        file
    }

    #[test]
    fn what_is_no_kernel_is_refused() {
        let memory = memory::anonymous(4 << 20).expect("memory");
        for bytes in [&b""[..], b"#!/bin/sh", &[0x7f; 4096]] {
            let file = temporary(bytes);
            let refused = load(&memory, file.path(), None, "", ACPI_START);
            assert!(matches!(refused, Err(LoadError::Kernel { .. })));
        }
        let missing = load(&memory, Path::new("/nonexistent"), None, "", ACPI_START);
        assert!(matches!(missing, Err(LoadError::Read { .. })));
    }

    #[test]
    fn an_initramfs_lies_whole_at_the_end_of_low_memory() {
        let memory = memory::anonymous(4 << 20).expect("memory");
        let file = temporary(&[7; 5000]);
        let module = load_initramfs(&memory, file.path(), 2 << 20).expect("it fits");
        assert_eq!((module.paddr, module.size), ((4 << 20) - 0x2000, 5000));
        let last: u8 = memory
            .read_obj(GuestAddress(module.paddr + 4999))
            .expect("in range");
        assert_eq!(last, 7);
    }

    #[test]
    fn an_initramfs_never_overwrites_the_kernel() {
        let memory = memory::anonymous(4 << 20).expect("memory");
        let file = temporary(&[7; 5000]);
        let limit = (4 << 20) - 0x2000;
        assert!(load_initramfs(&memory, file.path(), limit).is_ok());
        let refused = load_initramfs(&memory, file.path(), limit + 1);
        assert!(matches!(refused, Err(LoadError::InitramfsSize { .. })));
    }

    #[test]
    fn a_command_line_ends_with_a_zero_and_has_a_limit() {
        let memory = memory::anonymous(4 << 20).expect("memory");
        memory.write_obj(u64::MAX, COMMAND_LINE).expect("in range");
        write_command_line(&memory, "quiet").expect("it fits");
        let mut bytes = [0; 6];
        memory
            .read_slice(&mut bytes, COMMAND_LINE)
            .expect("in range");
        assert_eq!(&bytes, b"quiet\0");
        let longest = "x".repeat(COMMAND_LINE_MAX - 1);
        assert!(write_command_line(&memory, &longest).is_ok());
        let refused = write_command_line(&memory, &format!("{longest}x"));
        assert!(matches!(refused, Err(LoadError::CommandLine { .. })));
    }

    #[test]
    fn the_start_information_leads_to_everything() {
        let memory = memory::anonymous(4 << 20).expect("memory");
        let module = hvm_modlist_entry {
            paddr: 0x20_0000,
            size: 9,
            ..hvm_modlist_entry::default()
        };
        write_start_info(&memory, Some(module), ACPI_START).expect("written");
        let info: hvm_start_info = memory.read_obj(PVH_START_INFO).expect("in range");
        assert_eq!(info.magic, 0x336e_c578);
        let found: hvm_modlist_entry = memory
            .read_obj(GuestAddress(info.modlist_paddr))
            .expect("in range");
        assert_eq!((found.paddr, found.size), (0x20_0000, 9));
        let first: hvm_memmap_table_entry = memory
            .read_obj(GuestAddress(info.memmap_paddr))
            .expect("in range");
        assert_eq!(first, memory_map(4 << 20)[0]);
    }

    proptest! {
        #[test]
        fn the_memory_map_has_all_memory_and_gives_nothing_of_ours_away(pages in 256_u64..2_000_000) {
            let size = pages * PAGE_SIZE;
            let map = memory_map(size);
            let usable = |entry: &&hvm_memmap_table_entry| entry.type_ == XEN_HVM_MEMMAP_TYPE_RAM;
            for pair in map.windows(2) {
                prop_assert!(pair[0].addr + pair[0].size <= pair[1].addr);
            }
            // The first MiB lends 0x9F000 bytes of itself; everything else is the guest's.
            let total: u64 = map.iter().filter(usable).map(|entry| entry.size).sum();
            prop_assert_eq!(total, size - HIGH_MEMORY_START.0 + CONVENTIONAL_END);
            for entry in map.iter().filter(usable) {
                prop_assert!(entry.addr + entry.size <= HOLE_START || entry.addr >= HOLE_END);
            }
        }
    }

    #[test]
    fn the_memory_map_ends_where_the_memory_does() {
        let memory = memory::anonymous(4 << 20).expect("memory");
        let map = memory_map(4 << 20);
        let last = map.last().expect("not empty");
        assert_eq!(memory.last_addr().0 + 1, last.addr + last.size);
    }
}
