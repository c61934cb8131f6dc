//! Reads an archive, entry by entry.

use std::io::{self, Read};

use tar::{EntryType, Header};

use crate::entry::{Entry, Item, Kind, Note, Time};
use crate::{BLOCK, LONGEST_PATH, pax};

/// Longest extended header. Names are shorter; what else stands there is passed over.
const LONGEST_EXTENSION: u64 = 1 << 20;

/// Longest text of a note.
const LONGEST_NOTE: usize = 8 << 10;

/// What is wrong with an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// It ends before its end.
    #[error("the archive is cut off")]
    CutOff,
    /// A header's checksum is wrong.
    #[error("the archive is damaged, or is none: a checksum is wrong")]
    Checksum,
    /// A number of a header is none.
    #[error("the archive is damaged: a number is none")]
    Number,
    /// A record of an extended header is none.
    #[error("the archive is damaged: a record of an extended header is none")]
    Record,
    /// An extended header is longer than any that is needed.
    #[error("an extended header is longer than 1 MiB")]
    LongExtension,
    /// A name is longer than a path may be.
    #[error("a name is longer than 4095 bytes")]
    LongName,
    /// A sparse file, whose holes are told by a map.
    #[error("sparse files are not taken")]
    Sparse,
    /// A device, a pipe, or something that is not known.
    #[error("devices, pipes and what is not known are not taken")]
    Kind,
}

/// Why an archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The bytes do not come.
    #[error("read the archive")]
    Read(#[source] io::Error),
    /// It is no archive that can be taken.
    #[error("{damage}, at {name:?}")]
    Damaged {
        /// What is wrong.
        damage: Damage,
        /// The entry at which it is, or the last one before; empty at the beginning.
        name: String,
    },
}

/// An archive that is read.
///
/// Its bytes are those of the entry that [`next_item`](Self::next_item) told last; what is not read of them is passed over.
#[derive(Debug)]
pub struct Reader<R> {
    from: R,
    /// What of the entry's bytes was not read yet.
    left: u64,
    /// Bytes between them and the next header.
    padding: u64,
    name: Vec<u8>,
    ended: bool,
}

/// What extended headers say of the entry that follows.
#[derive(Default)]
struct Extra {
    name: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    size: Option<u64>,
    mtime: Option<Time>,
    sparse: bool,
}

impl<R: Read> Reader<R> {
    /// An archive, from its first byte.
    pub fn new(from: R) -> Self {
        Self {
            from,
            left: 0,
            padding: 0,
            name: Vec::new(),
            ended: false,
        }
    }

    /// The next thing; `None` when the archive was read to its end, and what comes behind that too.
    ///
    /// # Errors
    /// The bytes do not come, or are no archive that can be taken.
    pub fn next_item(&mut self) -> Result<Option<Item>, ReadError> {
        if self.ended {
            return Ok(None);
        }
        self.pass_over(self.left + self.padding)?;
        (self.left, self.padding) = (0, 0);
        let mut extra = Extra::default();
        loop {
            let Some(header) = self.header()? else {
                self.ended = true;
                self.drain()?;
                return Ok(None);
            };
            let size = header.entry_size();
            let size = size.map_err(|_| self.damaged(Damage::Number))?;
            match header.entry_type() {
                EntryType::XHeader => {
                    let records = self.extension(size)?;
                    self.extend(&mut extra, &records)?;
                }
                EntryType::XGlobalHeader => {
                    let records = self.extension(size)?;
                    if let Some(note) = self.note(&records)? {
                        return Ok(Some(Item::Note(note)));
                    }
                }
                EntryType::GNULongName => extra.name = Some(self.long_name(size)?),
                EntryType::GNULongLink => extra.target = Some(self.long_name(size)?),
                kind => return self.entry(&header, kind, size, extra).map(Some),
            }
        }
    }

    fn entry(
        &mut self,
        header: &Header,
        kind: EntryType,
        size: u64,
        extra: Extra,
    ) -> Result<Item, ReadError> {
        let name = extra.name.unwrap_or_else(|| header.path_bytes().into());
        self.name.clone_from(&name);
        if extra.sparse {
            return Err(self.damaged(Damage::Sparse));
        }
        let target = || {
            let target = extra.target.clone();
            target.unwrap_or_else(|| header.link_name_bytes().unwrap_or_default().into())
        };
        let size = extra.size.unwrap_or(size);
        let kind = match kind {
            // Before there was a type for directories, their names ended so.
            EntryType::Regular if size == 0 && name.ends_with(b"/") => Kind::Directory,
            EntryType::Regular | EntryType::Continuous => Kind::File { size },
            EntryType::Directory => Kind::Directory,
            EntryType::Symlink => Kind::Symlink { target: target() },
            EntryType::Link => Kind::HardLink { target: target() },
            EntryType::GNUSparse => return Err(self.damaged(Damage::Sparse)),
            _device_or_unknown => return Err(self.damaged(Damage::Kind)),
        };
        let named = match &kind {
            Kind::File { size } => {
                self.left = *size;
                self.padding = padding(*size);
                0
            }
            Kind::Directory => 0,
            Kind::Symlink { target } | Kind::HardLink { target } => target.len(),
        };
        if name.len().max(named) > LONGEST_PATH {
            return Err(self.damaged(Damage::LongName));
        }
        let number = |read: io::Result<u64>| read.map_err(|_| self.damaged(Damage::Number));
        let seconds = i64::try_from(number(header.mtime())?).unwrap_or(i64::MAX);
        let mode = number(header.mode().map(u64::from))? & 0o7777;
        Ok(Item::Entry(Entry {
            name,
            kind,
            mode: u32::try_from(mode).expect("it was masked"),
            mtime: extra.mtime.unwrap_or(Time { seconds, nanos: 0 }),
        }))
    }

    /// The next header; `None` at the end of the archive.
    fn header(&mut self) -> Result<Option<Header>, ReadError> {
        let mut header = Header::new_old();
        self.fill(header.as_mut_bytes())?;
        if header.as_bytes().iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let mut summed = header.clone();
        summed.set_cksum();
        match (header.cksum(), summed.cksum()) {
            (Ok(told), Ok(sum)) if told == sum => Ok(Some(header)),
            (Ok(_) | Err(_), _) => Err(self.damaged(Damage::Checksum)),
        }
    }

    /// The content of an extended header, and what fills its last block.
    fn extension(&mut self, size: u64) -> Result<Vec<u8>, ReadError> {
        let length = usize::try_from(size).ok();
        let length = length.filter(|_| size <= LONGEST_EXTENSION);
        let length = length.ok_or_else(|| self.damaged(Damage::LongExtension))?;
        let mut content = vec![0; length];
        self.fill(&mut content)?;
        self.pass_over(padding(size))?;
        Ok(content)
    }

    fn long_name(&mut self, size: u64) -> Result<Vec<u8>, ReadError> {
        let mut name = self.extension(size)?;
        let end = name.iter().position(|byte| *byte == 0);
        name.truncate(end.unwrap_or(name.len()));
        Ok(name)
    }

    fn extend(&self, extra: &mut Extra, mut records: &[u8]) -> Result<(), ReadError> {
        while !records.is_empty() {
            let (key, value, rest) =
                pax::split(records).ok_or_else(|| self.damaged(Damage::Record))?;
            records = rest;
            let number = || self.damaged(Damage::Number);
            match key {
                b"path" => extra.name = Some(value.to_vec()),
                b"linkpath" => extra.target = Some(value.to_vec()),
                b"size" => extra.size = Some(pax::number(value).ok_or_else(number)?),
                b"mtime" => extra.mtime = Some(pax::time(value).ok_or_else(number)?),
                key => extra.sparse |= key.starts_with(b"GNU.sparse."),
            }
        }
        Ok(())
    }

    fn note(&self, mut records: &[u8]) -> Result<Option<Note>, ReadError> {
        while !records.is_empty() {
            let (key, value, rest) =
                pax::split(records).ok_or_else(|| self.damaged(Damage::Record))?;
            records = rest;
            let text = String::from_utf8_lossy(&value[..value.len().min(LONGEST_NOTE)]);
            if let Some(note) = Note::read(key, text.into_owned()) {
                return Ok(Some(note));
            }
        }
        Ok(None)
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), ReadError> {
        self.from
            .read_exact(buffer)
            .map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => self.damaged(Damage::CutOff),
                _other => ReadError::Read(error),
            })
    }

    fn pass_over(&mut self, count: u64) -> Result<(), ReadError> {
        let passed = io::copy(&mut (&mut self.from).take(count), &mut io::sink());
        match passed.map_err(ReadError::Read)? {
            passed if passed == count => Ok(()),
            _fewer => Err(self.damaged(Damage::CutOff)),
        }
    }

    /// What writers fill their last record with.
    fn drain(&mut self) -> Result<(), ReadError> {
        let drained = io::copy(&mut self.from, &mut io::sink());
        drained.map(drop).map_err(ReadError::Read)
    }

    fn damaged(&self, damage: Damage) -> ReadError {
        let name = &self.name[..self.name.len().min(LONGEST_PATH)];
        ReadError::Damaged {
            damage,
            name: String::from_utf8_lossy(name).into_owned(),
        }
    }

    /// That all bytes of the entry were there.
    pub(crate) fn whole(&self) -> Result<(), ReadError> {
        match self.left {
            0 => Ok(()),
            _some => Err(self.damaged(Damage::CutOff)),
        }
    }
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let most = most.min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let read = self.from.read(&mut buffer[..most])?;
        self.left -= read as u64;
        Ok(read)
    }
}

/// Bytes from the end of a content to the next block.
pub(crate) fn padding(size: u64) -> u64 {
    let over = size % BLOCK as u64;
    if over == 0 { 0 } else { BLOCK as u64 - over }
}
