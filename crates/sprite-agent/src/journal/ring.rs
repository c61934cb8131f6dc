//! Output of a stream on the disk: a file without a name, written round and round.
//!
//! The file holds the bytes from `start` to `end`; the byte with offset `o` lies at `o % size`. What is about to be
//! overwritten leaves the range before it is, so a reader that finds its range unchanged afterwards read what it
//! wanted.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;

use super::store::Reserved;

/// A file, the part of it that is valid, and the room for it on the disk.
#[derive(Debug)]
pub(crate) struct Ring {
    file: Arc<File>,
    size: u64,
    start: u64,
    end: u64,
    /// A write failed: what is there can be read, and nothing is added.
    broken: bool,
    _reserved: Reserved,
}

/// A piece of a ring's file.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    file: Arc<File>,
    /// Where it begins in the file.
    position: u64,
    /// Its length in bytes; it does not go round.
    length: usize,
}

impl Piece {
    /// Reads it; blocks.
    ///
    /// # Errors
    /// The disk does not give it.
    pub(crate) fn read(&self) -> io::Result<Bytes> {
        let mut bytes = vec![0; self.length];
        self.file.read_exact_at(&mut bytes, self.position)?;
        Ok(Bytes::from(bytes))
    }

    /// Writes it, from the bytes that `rest` begins with, and takes them off; blocks.
    fn write(&self, rest: &mut Vec<Bytes>) -> io::Result<()> {
        let mut position = self.position;
        let end = self.position + self.length as u64;
        while position < end {
            let chunk = rest.first_mut().ok_or(io::ErrorKind::InvalidInput)?;
            let fits = usize::try_from(end - position).map_or(chunk.len(), |n| n.min(chunk.len()));
            self.file.write_all_at(&chunk[..fits], position)?;
            position += fits as u64;
            drop(chunk.split_to(fits));
            if chunk.is_empty() {
                rest.remove(0);
            }
        }
        Ok(())
    }
}

/// Writes chunks behind each other into pieces of their length together; blocks.
pub(super) fn write(pieces: &[Piece], mut chunks: Vec<Bytes>) -> io::Result<()> {
    pieces.iter().try_for_each(|piece| piece.write(&mut chunks))
}

impl Ring {
    /// A ring of `size` bytes, empty, whose first byte has the offset `at`.
    pub(super) fn new(file: File, size: u64, at: u64, reserved: Reserved) -> Self {
        Self {
            file: Arc::new(file),
            size,
            start: at,
            end: at,
            broken: false,
            _reserved: reserved,
        }
    }

    pub(super) fn start(&self) -> u64 {
        self.start
    }

    pub(super) fn end(&self) -> u64 {
        self.end
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Makes room for the next `length` bytes: what they overwrite is not there any more.
    pub(super) fn begin(&mut self, length: u64) -> Vec<Piece> {
        debug_assert!(length <= self.size, "a write goes round at most once");
        self.start = self
            .start
            .max((self.end + length).saturating_sub(self.size));
        let first = self.piece(self.end, length);
        let rest = length - first.length as u64;
        if rest == 0 {
            return vec![first];
        }
        let second = self.piece(self.end + first.length as u64, rest);
        vec![first, second]
    }

    /// The next `length` bytes are there.
    pub(super) fn wrote(&mut self, length: u64) {
        self.end += length;
    }

    /// The next bytes could not be written.
    pub(super) fn broke(&mut self) {
        self.broken = true;
    }

    /// The piece that begins at `offset`, at most `most` bytes; it must lie in the valid range.
    pub(super) fn read(&self, offset: u64, most: u64) -> Piece {
        self.piece(offset, most.min(self.end - offset))
    }

    fn piece(&self, offset: u64, length: u64) -> Piece {
        let position = offset % self.size;
        let length = length.min(self.size - position);
        Piece {
            file: self.file.clone(),
            position,
            length: usize::try_from(length).expect("a ring fits in memory"),
        }
    }
}
