//! The last page of a memory file: which snapshot the memory before it is of.
//!
//! | bytes of the page | what |
//! |---|---|
//! | 0–7 | magic: `SPRTMEM` and a zero |
//! | 8–11 | version: 1 |
//! | 12–15 | 1: sealed; 2: being written |
//! | 16–23 | bytes of memory before it |
//! | 24–39 | sealed: the snapshot; being written: the snapshot that it was |
//! | 40–55 | being written: by whom |
//! | 4064–4095 | BLAKE3 of the bytes before |
//!
//! Numbers are little-endian; all other bytes are zero.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::SnapshotId;

/// How much longer a memory file is than the memory.
pub(super) const SEAL_BYTES: u64 = 4096;

const PAGE: usize = 4096;
const MAGIC: [u8; 8] = *b"SPRTMEM\0";
const VERSION: u32 = 1;
const SEALED: u32 = 1;
const WRITING: u32 = 2;
const CHECKSUM_AT: usize = PAGE - 32;

/// What the last page of a memory file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seal {
    /// The memory is that of this snapshot.
    Sealed(SnapshotId),
    /// Somebody writes changes into it, or stopped in the middle.
    Writing {
        /// What it was before.
        base: SnapshotId,
        /// Who writes.
        writer: SnapshotId,
    },
}

/// A memory file that does not say what it is.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// It is longer or shorter than memory and seal.
    #[error("the memory file has {found} bytes, {expected} were expected")]
    Length {
        /// Memory and seal.
        expected: u64,
        /// The file's length.
        found: u64,
    },
    /// It does not read.
    #[error("read the memory file's seal")]
    Read(#[source] io::Error),
    /// It has no seal, or one that is damaged or unknown.
    #[error("the memory file has no valid seal")]
    Invalid,
}

/// Reads the seal of a file with `memory_bytes` of memory.
///
/// # Errors
/// [`SealError`] says what is wrong with the file.
pub(super) fn read(file: &File, memory_bytes: u64) -> Result<Seal, SealError> {
    let found = file.metadata().map_err(SealError::Read)?.len();
    let expected = memory_bytes + SEAL_BYTES;
    if found != expected {
        return Err(SealError::Length { expected, found });
    }
    let mut page = [0; PAGE];
    file.read_exact_at(&mut page, memory_bytes)
        .map_err(SealError::Read)?;
    decode(&page, memory_bytes).ok_or(SealError::Invalid)
}

/// Writes the seal behind the memory. It is on the medium only after a flush.
///
/// # Errors
/// What the system said.
pub(super) fn write(file: &File, memory_bytes: u64, seal: Seal) -> io::Result<()> {
    file.write_all_at(&encode(seal, memory_bytes), memory_bytes)
}

fn encode(seal: Seal, memory_bytes: u64) -> [u8; PAGE] {
    let (kind, snapshot, writer) = match seal {
        Seal::Sealed(snapshot) => (SEALED, snapshot, [0; 16]),
        Seal::Writing { base, writer } => (WRITING, base, writer.0),
    };
    let mut page = [0; PAGE];
    page[0..8].copy_from_slice(&MAGIC);
    page[8..12].copy_from_slice(&VERSION.to_le_bytes());
    page[12..16].copy_from_slice(&kind.to_le_bytes());
    page[16..24].copy_from_slice(&memory_bytes.to_le_bytes());
    page[24..40].copy_from_slice(&snapshot.0);
    page[40..56].copy_from_slice(&writer);
    let checksum = blake3::hash(&page[..CHECKSUM_AT]);
    page[CHECKSUM_AT..].copy_from_slice(checksum.as_bytes());
    page
}

pub(super) fn decode(page: &[u8; PAGE], memory_bytes: u64) -> Option<Seal> {
    let id = |at: usize| {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&page[at..at + 16]);
        SnapshotId(bytes)
    };
    let seal = match page[12] {
        1 => Seal::Sealed(id(24)),
        2 => Seal::Writing {
            base: id(24),
            writer: id(40),
        },
        _ => return None,
    };
    // There is one way to write a seal, so what is not written that way is none.
    (encode(seal, memory_bytes) == *page).then_some(seal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_reads_as_it_was_written() {
        for seal in [
            Seal::Sealed(SnapshotId([7; 16])),
            Seal::Writing {
                base: SnapshotId([8; 16]),
                writer: SnapshotId([9; 16]),
            },
        ] {
            assert_eq!(decode(&encode(seal, 1 << 20), 1 << 20), Some(seal));
        }
    }

    #[test]
    fn a_seal_with_any_byte_changed_is_none() {
        let page = encode(Seal::Sealed(SnapshotId([7; 16])), 1 << 20);
        for position in 0..PAGE {
            let mut changed = page;
            changed[position] ^= 0x10;
            assert_eq!(decode(&changed, 1 << 20), None, "byte {position}");
        }
    }

    #[test]
    fn a_seal_of_another_size_is_none() {
        let page = encode(Seal::Sealed(SnapshotId([7; 16])), 1 << 20);
        assert_eq!(decode(&page, 2 << 20), None);
    }
}
