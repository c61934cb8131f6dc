//! Which pages are the guest's own.
//!
//! The kernel is asked for ranges (`PAGEMAP_SCAN`, since Linux 6.7): it skips what was never touched, so the
//! answer costs by what the guest has in memory and not by how much it could have. Older kernels are asked
//! page by page.
//!
//! Source: `Documentation/admin-guide/mm/pagemap.rst` of Linux; `linux/fs.h`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use vm_memory::{Address, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};
use vmm_sys_util::ioctl::ioctl_with_mut_ref;

use super::{GuestMemory, MemoryError};
use crate::arch::native::layout::PAGE_SIZE;

/// Pages that follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRun {
    /// Where the guest has them.
    pub address: GuestAddress,
    /// Where a memory file has them.
    pub file_offset: u64,
    /// How many bytes: whole pages.
    pub length: u64,
}

/// Bits of an entry of `/proc/self/pagemap`.
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const OF_A_FILE: u64 = 1 << 61;

/// How many entries are read at once: 64 KiB of them tell of 32 MiB.
const ENTRIES_AT_ONCE: usize = 8192;

/// Whether a page differs (or may differ) from the file, or from zero where there is none.
///
/// A page that is on its way to another place in memory shows as swapped, so it counts.
fn is_own(entry: u64) -> bool {
    entry & SWAPPED != 0 || entry & (PRESENT | OF_A_FILE) == PRESENT
}

/// The question for ranges of pages.
mod scan {
    use vmm_sys_util::ioctl_iowr_nr;

    /// Categories of pages.
    pub(super) const OF_A_FILE: u64 = 1 << 2;
    pub(super) const PRESENT: u64 = 1 << 3;
    pub(super) const SWAPPED: u64 = 1 << 4;

    /// `struct pm_scan_arg`.
    #[repr(C)]
    #[derive(Default)]
    pub struct Question {
        pub size: u64,
        pub flags: u64,
        pub start: u64,
        pub end: u64,
        pub walk_end: u64,
        pub vec: u64,
        pub vec_len: u64,
        pub max_pages: u64,
        pub category_inverted: u64,
        pub category_mask: u64,
        pub category_anyof_mask: u64,
        pub return_mask: u64,
    }

    /// `struct page_region`.
    #[repr(C)]
    #[derive(Clone, Copy, Default)]
    pub struct Range {
        pub start: u64,
        pub end: u64,
        pub categories: u64,
    }

    ioctl_iowr_nr!(PAGEMAP_SCAN, b'f' as u32, 16, Question);
}

/// How many ranges are told at once.
const RANGES_AT_ONCE: usize = 512;

/// How the kernel is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// For ranges.
    Scan,
    /// Page by page.
    Read,
}

/// Calls `visit` for every run of pages that are the guest's own: not those of the memory file it was loaded
/// from, and for a guest that booted not those it never wrote. In order of the file; runs may touch each
/// other.
///
/// The guest and its devices must be paused, or pages that become its own meanwhile are missed.
///
/// # Errors
/// [`MemoryError::PageMap`] as `E`, and the first failure of `visit`.
pub fn visit_own_pages<E: From<MemoryError>>(
    memory: &GuestMemory,
    visit: impl FnMut(PageRun) -> Result<(), E>,
) -> Result<(), E> {
    let page_map = File::open("/proc/self/pagemap").map_err(MemoryError::PageMap)?;
    let way = best_way(&page_map)?;
    visit_by(way, &page_map, memory, visit)
}

/// Whether this kernel tells ranges.
fn best_way(page_map: &File) -> Result<Way, MemoryError> {
    match ask(page_map, 0, 0, &mut []) {
        Ok(_) => Ok(Way::Scan),
        Err(error) if error.raw_os_error() == Some(libc::ENOTTY) => Ok(Way::Read),
        Err(error) => Err(MemoryError::PageMap(error)),
    }
}

fn visit_by<E: From<MemoryError>>(
    way: Way,
    page_map: &File,
    memory: &GuestMemory,
    mut visit: impl FnMut(PageRun) -> Result<(), E>,
) -> Result<(), E> {
    let mut file_offset = 0;
    for region in memory.iter() {
        let here = region.as_ptr() as u64;
        let mut tell = |start: u64, end: u64| {
            visit(PageRun {
                address: region.start_addr().unchecked_add(start - here),
                file_offset: file_offset + (start - here),
                length: end - start,
            })
        };
        match way {
            Way::Scan => scan_ranges(page_map, here, here + region.len(), &mut tell)?,
            Way::Read => read_entries(page_map, here, here + region.len(), &mut tell)?,
        }
        file_offset += region.len();
    }
    Ok(())
}

/// Own pages between two addresses of this process, by ranges.
fn scan_ranges<E: From<MemoryError>>(
    page_map: &File,
    mut start: u64,
    end: u64,
    tell: &mut impl FnMut(u64, u64) -> Result<(), E>,
) -> Result<(), E> {
    let mut ranges = [scan::Range::default(); RANGES_AT_ONCE];
    while start < end {
        let (count, next) = ask(page_map, start, end, &mut ranges).map_err(MemoryError::PageMap)?;
        for range in &ranges[..count] {
            tell(range.start, range.end)?;
        }
        start = next;
    }
    Ok(())
}

/// Asks for ranges of own pages from `start` on. What comes back is how many there are, and where the kernel
/// stopped looking.
fn ask(
    page_map: &File,
    start: u64,
    end: u64,
    ranges: &mut [scan::Range],
) -> io::Result<(usize, u64)> {
    let mut question = scan::Question {
        size: std::mem::size_of::<scan::Question>() as u64,
        start,
        end,
        vec: ranges.as_mut_ptr() as u64,
        vec_len: ranges.len() as u64,
        // Of no file, and present or swapped.
        category_inverted: scan::OF_A_FILE,
        category_mask: scan::OF_A_FILE,
        category_anyof_mask: scan::PRESENT | scan::SWAPPED,
        return_mask: scan::PRESENT | scan::SWAPPED,
        ..scan::Question::default()
    };
    // SAFETY: the kernel writes the question's `walk_end` and at most `vec_len` ranges to `vec`, which are
    // exclusively ours until after the call.
    let count = unsafe { ioctl_with_mut_ref(page_map, scan::PAGEMAP_SCAN(), &mut question) };
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    if start < end && question.walk_end <= start {
        // It would be asked the same for ever.
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok((count, question.walk_end))
}

/// Own pages between two addresses of this process, page by page.
fn read_entries<E: From<MemoryError>>(
    page_map: &File,
    start: u64,
    end: u64,
    tell: &mut impl FnMut(u64, u64) -> Result<(), E>,
) -> Result<(), E> {
    let mut buffer = vec![0_u8; ENTRIES_AT_ONCE * 8];
    let mut at = start;
    while at < end {
        let count = usize::try_from((end - at) / PAGE_SIZE)
            .map_or(ENTRIES_AT_ONCE, |left| left.min(ENTRIES_AT_ONCE));
        let entries = &mut buffer[..count * 8];
        page_map
            .read_exact_at(entries, at / PAGE_SIZE * 8)
            .map_err(MemoryError::PageMap)?;
        for (first, last) in own_runs(entries) {
            tell(at + first * PAGE_SIZE, at + last * PAGE_SIZE)?;
        }
        at += count as u64 * PAGE_SIZE;
    }
    Ok(())
}

/// The runs (first, end) of own pages in a part of the page map.
fn own_runs(entries: &[u8]) -> impl Iterator<Item = (u64, u64)> {
    let mut own = entries
        .chunks_exact(8)
        .map(|entry| {
            is_own(u64::from_ne_bytes(
                entry.try_into().expect("chunks of eight bytes"),
            ))
        })
        .zip(0_u64..)
        .peekable();
    std::iter::from_fn(move || {
        let (_, begin) = own.by_ref().find(|(is_own, _)| *is_own)?;
        let mut end = begin + 1;
        while own.next_if(|(is_own, _)| *is_own).is_some() {
            end += 1;
        }
        Some((begin, end))
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;
    use vm_memory::Bytes;

    use super::super::{anonymous, from_file};
    use super::*;

    const PAGES: u64 = 1500;

    fn own_by(way: Way, memory: &GuestMemory) -> Vec<u64> {
        let page_map = File::open("/proc/self/pagemap").expect("this process's own");
        let mut pages = Vec::new();
        visit_by::<MemoryError>(way, &page_map, memory, |run| {
            assert_eq!(run.address.0, run.file_offset, "there is one region");
            pages
                .extend((0..run.length / PAGE_SIZE).map(|page| run.file_offset / PAGE_SIZE + page));
            Ok(())
        })
        .expect("the kernel answers");
        pages
    }

    fn ways() -> Vec<Way> {
        let page_map = File::open("/proc/self/pagemap").expect("this process's own");
        match best_way(&page_map).expect("the kernel answers") {
            Way::Scan => vec![Way::Scan, Way::Read],
            Way::Read => vec![Way::Read],
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20))]

        #[test]
        fn both_ways_tell_the_pages_that_were_written(
            read in proptest::collection::vec(0..PAGES, 0..200),
            written in proptest::collection::btree_set(0..PAGES, 0..900),
        ) {
            let mut file = tempfile::tempfile().expect("a file");
            file.write_all(&vec![1; usize::try_from(PAGES * PAGE_SIZE).expect("small")])
                .expect("written");
            let memory = from_file(file, PAGES * PAGE_SIZE).expect("memory");
            for page in read {
                let _: u8 = memory.read_obj(GuestAddress(page * PAGE_SIZE)).expect("in range");
            }
            for page in &written {
                memory.write_obj(2_u8, GuestAddress(page * PAGE_SIZE)).expect("in range");
            }
            let expected: Vec<u64> = written.into_iter().collect();
            for way in ways() {
                prop_assert_eq!(&own_by(way, &memory), &expected, "{:?}", way);
            }
        }

        #[test]
        fn runs_tell_exactly_the_own_pages(own in proptest::collection::vec(any::<bool>(), 0..200)) {
            let entries: Vec<u8> = own
                .iter()
                .flat_map(|own| if *own { PRESENT } else { PRESENT | OF_A_FILE }.to_ne_bytes())
                .collect();
            let mut told = vec![false; own.len()];
            let mut last_end = None;
            for (begin, end) in own_runs(&entries) {
                prop_assert!(begin < end);
                prop_assert!(last_end.is_none_or(|last| last < begin));
                last_end = Some(end);
                for page in begin..end {
                    told[usize::try_from(page).expect("small")] = true;
                }
            }
            prop_assert_eq!(told, own);
        }
    }

    #[test]
    fn much_memory_that_was_never_touched_is_none() {
        let memory = anonymous(1 << 40).expect("address space alone is taken");
        if ways().contains(&Way::Scan) {
            assert!(own_by(Way::Scan, &memory).is_empty());
        }
    }
}
