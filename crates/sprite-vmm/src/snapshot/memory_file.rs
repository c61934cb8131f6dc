//! Writing a guest's memory.
//!
//! The guest and its devices are paused, so memory stands still. Pages of zeroes are left out of a new file and
//! punched out of an old one, but only where there are many together: a file in few large pieces is cloned,
//! read ahead and overwritten more quickly than one in many small ones.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use rustix::fs::FallocateFlags;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryError, GuestMemoryRegion};

use super::Origin;
use super::seal::SEAL_BYTES;
use crate::memory::{self, GuestMemory, MemoryError, PageRun};

const PAGE: usize = 4096;

/// How much is copied out of the guest at once. It counts as memory of this program.
const CHUNK: usize = 256 << 10;

/// Fewer zero pages than these together are written like any others.
const ZEROES_WORTH_A_HOLE: usize = 16;

/// Room that is left for others when a snapshot begins: the state file and the file system's own records.
const MARGIN: u64 = 8 << 20;

/// Memory that was not written, or not as a whole.
#[derive(Debug, thiserror::Error)]
pub enum MemoryFileError {
    /// What the guest wrote is not known.
    #[error(transparent)]
    Pages(#[from] MemoryError),
    /// The guest's memory does not read.
    #[error("copy guest memory")]
    Copy(#[source] GuestMemoryError),
    /// The file does not take it.
    #[error("write guest memory")]
    Write(#[source] io::Error),
    /// It would not fit.
    #[error("{needed} bytes are needed for memory, {available} are left")]
    NoRoom {
        /// What may have to be allocated.
        needed: u64,
        /// What the file system has.
        available: u64,
    },
}

/// Writes all memory into an empty file and makes it as long as memory and seal.
pub(super) fn write_all(
    memory: &GuestMemory,
    origin: Origin,
    to: &File,
) -> Result<(), MemoryFileError> {
    to.set_len(memory::size(memory) + SEAL_BYTES)
        .map_err(MemoryFileError::Write)?;
    let mut writer = Writer::new(memory, to, Zeroes::AreThereAlready);
    match origin {
        // What the guest never wrote reads as zero, in memory as in the new file.
        Origin::Zeroes => memory::visit_own_pages(memory, |run| writer.write(run)),
        Origin::File => {
            let mut file_offset = 0;
            for region in memory.iter() {
                writer.write(PageRun {
                    address: region.start_addr(),
                    file_offset,
                    length: region.len(),
                })?;
                file_offset += region.len();
            }
            Ok(())
        }
    }
}

/// Writes what the guest changed into the file that the rest is in already.
pub(super) fn write_changes(memory: &GuestMemory, to: &File) -> Result<(), MemoryFileError> {
    let mut writer = Writer::new(memory, to, Zeroes::MustBeMade);
    memory::visit_own_pages(memory, |run| writer.write(run))
}

/// Refuses when the file system visibly lacks the room for what the guest changed.
///
/// Of a machine that came from a file, all that it has not changed is left out of account: a whole new file may still
/// find no room. Blocks that the file has are written in place. Blocks that it shares with a clone are not, and cannot be
/// told from here: a clone that runs out of room leaves the file that it was cloned from as it is.
pub(super) fn check_room(memory: &GuestMemory, file: &File) -> Result<(), MemoryFileError> {
    let stat = rustix::fs::fstat(file).map_err(|error| MemoryFileError::Write(error.into()))?;
    let allocated = u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
    let holes = memory::size(memory).saturating_sub(allocated);
    let system =
        rustix::fs::fstatvfs(file).map_err(|error| MemoryFileError::Write(error.into()))?;
    let available = system.f_bavail.saturating_mul(system.f_frsize);
    let fits = |changed: u64| {
        let needed = changed.min(holes);
        match needed == 0 || needed + MARGIN <= available {
            true => Ok(()),
            false => Err(MemoryFileError::NoRoom { needed, available }),
        }
    };
    let mut changed = 0;
    memory::visit_own_pages::<MemoryFileError>(memory, |run| {
        changed += run.length;
        Ok(())
    })?;
    // Only where it matters is it worth to look which of these pages are zero and need no room.
    fits(changed).or_else(|_| fits(count_bytes(memory)?))
}

/// How much of what the guest changed is not zero.
fn count_bytes(memory: &GuestMemory) -> Result<u64, MemoryFileError> {
    let mut chunk = vec![0; CHUNK];
    let mut bytes = 0;
    memory::visit_own_pages::<MemoryFileError>(memory, |run| {
        for_each_chunk(memory, run, &mut chunk, |_, chunk| {
            let pieces = pieces(chunk).into_iter();
            let counted = pieces.map(|piece| match piece {
                Piece::Bytes(range) => range.len() as u64,
                Piece::Zeroes(_) => 0,
            });
            bytes += counted.sum::<u64>();
            Ok(())
        })
    })?;
    Ok(bytes)
}

/// Copies a run of pages out of the guest, part by part, and tells where in the file each part belongs.
fn for_each_chunk(
    memory: &GuestMemory,
    run: PageRun,
    buffer: &mut [u8],
    mut visit: impl FnMut(u64, &[u8]) -> Result<(), MemoryFileError>,
) -> Result<(), MemoryFileError> {
    let mut done = 0;
    while done < run.length {
        let length = usize::try_from(run.length - done).map_or(CHUNK, |left| left.min(CHUNK));
        let chunk = &mut buffer[..length];
        memory
            .read_slice(chunk, GuestAddress(run.address.0 + done))
            .map_err(MemoryFileError::Copy)?;
        visit(run.file_offset + done, chunk)?;
        done += length as u64;
    }
    Ok(())
}

/// What must be done for a page of zeroes.
#[derive(Clone, Copy)]
enum Zeroes {
    AreThereAlready,
    MustBeMade,
}

struct Writer<'a> {
    memory: &'a GuestMemory,
    to: &'a File,
    zeroes: Zeroes,
    chunk: Vec<u8>,
}

impl<'a> Writer<'a> {
    fn new(memory: &'a GuestMemory, to: &'a File, zeroes: Zeroes) -> Writer<'a> {
        Writer {
            memory,
            to,
            zeroes,
            chunk: vec![0; CHUNK],
        }
    }

    fn write(&mut self, run: PageRun) -> Result<(), MemoryFileError> {
        let (to, zeroes) = (self.to, self.zeroes);
        for_each_chunk(self.memory, run, &mut self.chunk, |offset, chunk| {
            for piece in pieces(chunk) {
                match (piece, zeroes) {
                    (Piece::Bytes(range), _) => {
                        to.write_all_at(&chunk[range.clone()], offset + range.start as u64)
                    }
                    (Piece::Zeroes(_), Zeroes::AreThereAlready) => Ok(()),
                    (Piece::Zeroes(range), Zeroes::MustBeMade) => {
                        make_zeroes(to, offset + range.start as u64, &chunk[range.clone()])
                    }
                }
                .map_err(MemoryFileError::Write)?;
            }
            Ok(())
        })
    }
}

/// Makes a part of the file zero, by a hole where the file system knows holes.
fn make_zeroes(file: &File, offset: u64, zeroes: &[u8]) -> io::Result<()> {
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    loop {
        match rustix::fs::fallocate(file, hole, offset, zeroes.len() as u64) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::OPNOTSUPP) => return file.write_all_at(zeroes, offset),
            Err(error) => return Err(error.into()),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Bytes(Range<usize>),
    Zeroes(Range<usize>),
}

/// Divides pages into what is written and what is zero and worth a hole.
fn pieces(chunk: &[u8]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut bytes_from = 0;
    let mut zeroes_from = 0;
    let mut at = 0;
    // The end closes a run of zeroes as a page of something else does.
    for page in chunk.chunks(PAGE).map(Some).chain([None]) {
        if page.is_some_and(is_zero) {
            at += PAGE;
            continue;
        }
        if at - zeroes_from >= ZEROES_WORTH_A_HOLE * PAGE {
            if bytes_from < zeroes_from {
                pieces.push(Piece::Bytes(bytes_from..zeroes_from));
            }
            pieces.push(Piece::Zeroes(zeroes_from..at));
            bytes_from = at;
        }
        at += PAGE;
        zeroes_from = at;
    }
    if bytes_from < chunk.len() {
        pieces.push(Piece::Bytes(bytes_from..chunk.len()));
    }
    pieces
}

fn is_zero(page: &[u8]) -> bool {
    // Eight bytes at a time; what is left over of a page that is none is looked at as well.
    let (words, rest) = page.as_chunks::<8>();
    words.iter().all(|word| u64::from_ne_bytes(*word) == 0) && rest.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(contents: &[u8]) -> Vec<u8> {
        contents
            .iter()
            .flat_map(|byte| std::iter::repeat_n(*byte, PAGE))
            .collect()
    }

    #[test]
    fn a_few_zero_pages_are_written_with_the_rest() {
        let mut contents = vec![1; 2];
        contents.extend([0; ZEROES_WORTH_A_HOLE - 1]);
        contents.push(1);
        let length = contents.len() * PAGE;
        assert_eq!(pieces(&pages(&contents)), [Piece::Bytes(0..length)]);
    }

    #[test]
    fn many_zero_pages_are_a_hole() {
        let mut contents = vec![1; 2];
        contents.extend([0; ZEROES_WORTH_A_HOLE]);
        contents.push(1);
        let hole = 2 * PAGE..(2 + ZEROES_WORTH_A_HOLE) * PAGE;
        assert_eq!(
            pieces(&pages(&contents)),
            [
                Piece::Bytes(0..hole.start),
                Piece::Zeroes(hole.clone()),
                Piece::Bytes(hole.end..hole.end + PAGE)
            ]
        );
    }

    #[test]
    fn a_file_that_takes_nothing_more_fails_the_snapshot() {
        let memory = memory::anonymous(64 * PAGE as u64).expect("memory");
        memory
            .write_slice(&[1; PAGE], GuestAddress(0))
            .expect("in range");
        let full = File::options().write(true).open("/dev/full");
        let written = write_changes(&memory, &full.expect("every Linux has it"));
        assert!(
            matches!(&written, Err(MemoryFileError::Write(error)) if error.kind() == io::ErrorKind::StorageFull),
            "{written:?}"
        );
    }

    #[test]
    fn zeroes_to_the_end_are_a_hole_and_nothing_is_nothing() {
        let length = ZEROES_WORTH_A_HOLE * PAGE;
        assert_eq!(
            pieces(&pages(&[0; ZEROES_WORTH_A_HOLE])),
            [Piece::Zeroes(0..length)]
        );
        assert_eq!(pieces(&[]), []);
    }

    proptest::proptest! {
        #[test]
        fn pieces_cover_all_in_order_and_only_zeroes_become_holes(
            contents in proptest::collection::vec(0..2_u8, 0..100),
        ) {
            let chunk = pages(&contents);
            let mut end = 0;
            for piece in pieces(&chunk) {
                let range = match piece {
                    Piece::Bytes(range) => range,
                    Piece::Zeroes(range) => {
                        proptest::prop_assert!(is_zero(&chunk[range.clone()]));
                        range
                    }
                };
                proptest::prop_assert_eq!(range.start, end);
                end = range.end;
            }
            proptest::prop_assert_eq!(end, chunk.len());
        }
    }
}
