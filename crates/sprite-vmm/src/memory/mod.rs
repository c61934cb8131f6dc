//! The guest's memory, and which of its pages are its own.
//!
//! At boot it is anonymous; at load it is a *private* mapping of a memory file: pages come from the file when
//! they are first touched, and what the guest writes stays in this process. So loading costs nothing per GiB,
//! and the file changes only when a snapshot writes to it.
//!
//! A memory file is the guest's memory ranges one after another ([`arch::native::layout::memory_ranges`]), and
//! behind them what a snapshot writes there for itself ([`crate::snapshot`]).
//!
//! Which pages a snapshot has to write, the kernel's page table already knows: a page that is present and
//! not of a file, or swapped, was written by the guest or a device since boot or load ([`visit_own_pages`]).
//! No dirty log is switched on for it, so the guest runs at full speed, and writes by devices count as well.

mod own;

use std::fs::File;
use std::io;
use std::sync::Arc;

use vm_memory::mmap::MmapRegionError;
use vm_memory::{FileOffset, GuestMemoryBackend, GuestMemoryRegion, GuestRegionMmap, MmapRegion};

use crate::arch::native::layout::{PAGE_SIZE, memory_ranges};

pub use own::{PageRun, visit_own_pages};

/// The memory of a guest, shared by everything that touches it.
pub type GuestMemory = vm_memory::GuestMemoryMmap<()>;

/// A failure to make or to look at a guest's memory.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// Whole pages only, and not none.
    #[error("use {bytes} bytes as the guest's memory: not a whole number of pages")]
    Size {
        /// What was asked for.
        bytes: u64,
    },
    /// The memory file is too short for the guest.
    #[error("map a memory file of {found} bytes for a guest of {expected} bytes")]
    FileSize {
        /// The guest's memory.
        expected: u64,
        /// The file's length.
        found: u64,
    },
    /// The file could not be looked at.
    #[error("read the memory file's size")]
    FileMetadata(#[source] io::Error),
    /// The system gave no address space.
    #[error("map {bytes} bytes of guest memory")]
    Map {
        /// Length of the range.
        bytes: u64,
        /// What the system said.
        #[source]
        source: MmapRegionError,
    },
    /// Which pages are the guest's own is not known.
    #[error("read the page map")]
    PageMap(#[source] io::Error),
}

/// Makes memory for a guest that boots: zeroes, taken from the host when they are first written.
///
/// # Errors
/// [`MemoryError`]: a size that is not whole pages, or no address space.
pub fn anonymous(bytes: u64) -> Result<GuestMemory, MemoryError> {
    map(bytes, None)
}

/// Maps a memory file for a guest that is loaded. Nothing that the guest writes reaches the file, and what the
/// file has behind the guest's memory is not mapped.
///
/// # Errors
/// [`MemoryError`]: the file is shorter than the guest's memory, or no address space.
pub fn from_file(file: File, bytes: u64) -> Result<GuestMemory, MemoryError> {
    let found = file.metadata().map_err(MemoryError::FileMetadata)?.len();
    if found < bytes {
        return Err(MemoryError::FileSize {
            expected: bytes,
            found,
        });
    }
    map(bytes, Some(Arc::new(file)))
}

fn map(bytes: u64, file: Option<Arc<File>>) -> Result<GuestMemory, MemoryError> {
    if bytes == 0 || !bytes.is_multiple_of(PAGE_SIZE) {
        return Err(MemoryError::Size { bytes });
    }
    let anonymous = match file {
        Some(_) => 0,
        None => libc::MAP_ANONYMOUS,
    };
    let mut regions = Vec::new();
    let mut offset = 0;
    for (start, length) in memory_ranges(bytes) {
        let size = usize::try_from(length).map_err(|_| MemoryError::Size { bytes })?;
        let mapping = MmapRegion::build(
            file.as_ref()
                .map(|file| FileOffset::from_arc(Arc::clone(file), offset)),
            size,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_NORESERVE | anonymous,
        )
        .map_err(|source| MemoryError::Map {
            bytes: length,
            source,
        })?;
        regions.push(
            GuestRegionMmap::new(mapping, start).expect("the ranges end below the last address"),
        );
        offset += length;
    }
    Ok(GuestMemory::from_regions(regions).expect("the ranges are in order and do not overlap"))
}

/// How many bytes of memory a guest has.
pub fn size(memory: &GuestMemory) -> u64 {
    memory.iter().map(GuestMemoryRegion::len).sum()
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::FileExt;

    use vm_memory::{Bytes, GuestAddress};

    use super::*;

    fn own(memory: &GuestMemory) -> Vec<PageRun> {
        let mut runs = Vec::new();
        visit_own_pages::<MemoryError>(memory, |run| {
            runs.push(run);
            Ok(())
        })
        .expect("the page map is readable");
        runs
    }

    fn file_of(pages: u8) -> File {
        let mut file = tempfile::tempfile().expect("a file");
        for page in 0..pages {
            file.write_all(&[page + 1; 4096]).expect("written");
        }
        file
    }

    #[test]
    fn memory_is_whole_pages_and_not_none() {
        for bytes in [0, 1, PAGE_SIZE - 1, PAGE_SIZE + 1] {
            assert!(matches!(anonymous(bytes), Err(MemoryError::Size { .. })));
        }
        assert_eq!(size(&anonymous(PAGE_SIZE).expect("one page")), PAGE_SIZE);
    }

    #[test]
    fn a_file_that_is_too_short_is_refused() {
        assert!(matches!(
            from_file(file_of(1), 2 * PAGE_SIZE),
            Err(MemoryError::FileSize { .. })
        ));
    }

    #[test]
    fn what_a_file_has_behind_the_memory_is_not_the_guests() {
        let memory = from_file(file_of(3), 2 * PAGE_SIZE).expect("memory");
        assert_eq!(size(&memory), 2 * PAGE_SIZE);
    }

    #[test]
    fn a_guest_that_booted_owns_what_it_wrote() {
        let memory = anonymous(64 * PAGE_SIZE).expect("memory");
        assert_eq!(own(&memory), vec![]);
        memory
            .write_obj(7_u8, GuestAddress(5 * PAGE_SIZE))
            .expect("in range");
        let runs = own(&memory);
        assert!(runs.iter().any(|run| run.address.0 <= 5 * PAGE_SIZE
            && run.address.0 + run.length > 5 * PAGE_SIZE
            && run.file_offset == run.address.0));
    }

    #[test]
    fn reading_a_memory_file_makes_no_page_the_guests_own_and_writing_does() {
        let memory = from_file(file_of(8), 8 * PAGE_SIZE).expect("memory");
        for page in 0..8_u8 {
            let read: u8 = memory
                .read_obj(GuestAddress(u64::from(page) * PAGE_SIZE))
                .expect("in range");
            assert_eq!(read, page + 1);
        }
        assert_eq!(own(&memory), vec![]);
        for page in [2, 3, 7] {
            memory
                .write_obj(0_u8, GuestAddress(page * PAGE_SIZE + 9))
                .expect("in range");
        }
        assert_eq!(
            own(&memory),
            vec![
                PageRun {
                    address: GuestAddress(2 * PAGE_SIZE),
                    file_offset: 2 * PAGE_SIZE,
                    length: 2 * PAGE_SIZE
                },
                PageRun {
                    address: GuestAddress(7 * PAGE_SIZE),
                    file_offset: 7 * PAGE_SIZE,
                    length: PAGE_SIZE
                },
            ]
        );
    }

    #[test]
    fn what_the_guest_writes_does_not_reach_the_file() {
        let file = file_of(2);
        let memory = from_file(
            file.try_clone().expect("a second descriptor"),
            2 * PAGE_SIZE,
        )
        .expect("memory");
        memory.write_obj(99_u8, GuestAddress(0)).expect("in range");
        let mut first = [0];
        file.read_exact_at(&mut first, 0).expect("read");
        assert_eq!(first, [1]);
    }

    #[test]
    fn the_range_above_the_devices_follows_in_the_file() {
        use crate::arch::native::layout::{HOLE_END, HOLE_START};
        let memory = anonymous(HOLE_START + 16 * PAGE_SIZE).expect("address space alone is taken");
        memory
            .write_obj(1_u8, GuestAddress(HOLE_END + 3 * PAGE_SIZE))
            .expect("in range");
        let runs = own(&memory);
        assert!(
            runs.iter()
                .all(|run| run.file_offset == run.address.0 - (HOLE_END - HOLE_START)),
            "{runs:?}"
        );
        assert!(!runs.is_empty());
    }
}
