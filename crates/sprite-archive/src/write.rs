//! Writes an archive.

use std::io::{self, Read, Write};

use tar::{EntryType, Header};

use crate::entry::{Entry, Kind, Note};
use crate::read::padding;
use crate::{BLOCK, pax};

/// Bytes of a content that are read and written at once.
const PIECE: usize = 128 << 10;

/// Largest size that a header's own field tells in octal digits. Source: POSIX.1-2017, pax, "ustar".
const LARGEST_SIZE: u64 = 0o777_7777_7777;

/// Longest text of a note.
const LONGEST_NOTE: usize = 4 << 10;

/// Why a content was not written.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// It cannot be read.
    #[error("read the content")]
    Read(#[source] io::Error),
    /// The archive cannot be written on.
    #[error("write the archive")]
    Write(#[source] io::Error),
}

/// Whether a content was as long as it was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whole {
    /// It was, or longer: then its beginning is in the archive.
    Yes,
    /// It was shorter, and ends in zeroes.
    Padded,
}

/// An archive that is written.
#[derive(Debug)]
pub struct Writer<W> {
    to: W,
    piece: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// An archive, from its first byte.
    pub fn new(to: W) -> Self {
        Self {
            to,
            piece: Vec::new(),
        }
    }

    /// Writes what stands before an entry's content. Of a file, [`content`](Self::content) is next.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        let mut name = entry.name.clone();
        let (kind, size, target): (_, _, &[u8]) = match &entry.kind {
            Kind::File { size } => (EntryType::Regular, *size, b""),
            Kind::Directory => (EntryType::Directory, 0, b""),
            Kind::Symlink { target } => (EntryType::Symlink, 0, target),
            Kind::HardLink { target } => (EntryType::Link, 0, target),
        };
        if kind == EntryType::Directory && !name.ends_with(b"/") {
            name.push(b'/');
        }
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(entry.mode & 0o7777);
        let old = header.as_old_mut();
        let mut records = Vec::new();
        if !put(&mut old.name, &name) {
            pax::push(&mut records, b"path", &name);
        }
        if !put(&mut old.linkname, target) {
            pax::push(&mut records, b"linkpath", target);
        }
        if size > LARGEST_SIZE {
            pax::push(&mut records, b"size", size.to_string().as_bytes());
        }
        if entry.mtime.nanos != 0 || entry.mtime.seconds < 0 {
            let time = pax::time_text(entry.mtime);
            pax::push(&mut records, b"mtime", time.as_bytes());
        }
        if !records.is_empty() {
            self.records(EntryType::XHeader, &records)?;
        }
        header.set_size(size);
        header.set_mtime(u64::try_from(entry.mtime.seconds).unwrap_or(0));
        // Nobody's: whoever unpacks it is the owner.
        header.set_uid(0);
        header.set_gid(0);
        header.set_cksum();
        self.to.write_all(header.as_bytes())
    }

    /// Writes the content of the file that was told last: exactly `size` bytes, cut or filled up with zeroes. `moved`
    /// hears of every piece.
    ///
    /// # Errors
    /// It cannot be read, or not be written. Then the archive is none any more.
    pub fn content(
        &mut self,
        size: u64,
        from: &mut impl Read,
        mut moved: impl FnMut(u64),
    ) -> Result<Whole, CopyError> {
        let mut left = size;
        let mut whole = Whole::Yes;
        self.piece.resize(PIECE, 0);
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            let piece = &mut self.piece[..most];
            let mut length = most;
            if whole == Whole::Yes {
                length = read(from, piece).map_err(CopyError::Read)?;
                if length == 0 {
                    whole = Whole::Padded;
                }
            }
            if whole == Whole::Padded {
                piece.fill(0);
                length = most;
            }
            let written = self.to.write_all(&piece[..length]);
            written.map_err(CopyError::Write)?;
            left -= length as u64;
            moved(length as u64);
        }
        self.pad(size).map_err(CopyError::Write)?;
        Ok(whole)
    }

    /// Tells something beside the entries; at most 4 KiB of a text.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn note(&mut self, note: &Note) -> io::Result<()> {
        let (key, text) = note.parts();
        let end = text.floor_char_boundary(LONGEST_NOTE);
        let mut records = Vec::new();
        pax::push(&mut records, key, &text.as_bytes()[..end]);
        self.records(EntryType::XGlobalHeader, &records)
    }

    /// Writes the end, without which an archive is none.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn finish(mut self) -> io::Result<W> {
        self.to.write_all(&[0; 2 * BLOCK])?;
        self.to.flush()?;
        Ok(self.to)
    }

    /// Gives back what it writes to; the archive has no end.
    pub fn into_inner(self) -> W {
        self.to
    }

    fn records(&mut self, kind: EntryType, records: &[u8]) -> io::Result<()> {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        put(&mut header.as_old_mut().name, b"PaxHeaders/entry");
        header.set_mode(0o644);
        header.set_size(records.len() as u64);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_cksum();
        self.to.write_all(header.as_bytes())?;
        self.to.write_all(records)?;
        self.pad(records.len() as u64)
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let padding = usize::try_from(padding(size)).expect("less than a block");
        self.to.write_all(&[0; BLOCK][..padding])
    }
}

/// Puts as much of a text into a field as it holds; whether that is all.
fn put(field: &mut [u8], text: &[u8]) -> bool {
    let length = text.len().min(field.len());
    field[..length].copy_from_slice(&text[..length]);
    length == text.len()
}

fn read(from: &mut impl Read, piece: &mut [u8]) -> io::Result<usize> {
    loop {
        match from.read(piece) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}
