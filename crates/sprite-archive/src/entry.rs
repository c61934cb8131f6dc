//! What stands in an archive.

/// Something of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A file, a directory or a link. The bytes of a file are read next.
    Entry(Entry),
    /// What the writer tells beside the entries.
    Note(Note),
}

/// A file, a directory or a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its path below the top of the archive, as it was written: any bytes but zero, at most
    /// [`LONGEST_PATH`](crate::LONGEST_PATH). Nothing says yet that it stays below the top.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits, 0 to 0o7777.
    pub mode: u32,
    /// Last change.
    pub mtime: Time,
}

impl Entry {
    /// The name for people.
    #[must_use]
    pub fn shown(&self) -> String {
        String::from_utf8_lossy(&self.name).into_owned()
    }
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Bytes, so many.
    File {
        /// How many.
        size: u64,
    },
    /// Names.
    Directory,
    /// A symbolic link.
    Symlink {
        /// Where it leads: any bytes but zero, at most [`LONGEST_PATH`](crate::LONGEST_PATH).
        target: Vec<u8>,
    },
    /// Another name of a file that came before.
    HardLink {
        /// Its path below the top of the archive.
        target: Vec<u8>,
    },
}

/// A time since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time {
    /// Seconds, negative before 1970.
    pub seconds: i64,
    /// And nanoseconds, below 10⁹.
    pub nanos: u32,
}

/// What a writer tells beside the entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// A socket, a pipe or a device, which no archive of ours holds.
    LeftOut(String),
    /// A file got shorter while it was read: it ends in zeroes.
    Padded(String),
    /// The archive ends here, because this went wrong.
    Failed(String),
}

impl Note {
    /// Keyword and text.
    pub(crate) fn parts(&self) -> (&'static [u8], &str) {
        match self {
            Self::LeftOut(text) => (b"SPRITE.left_out", text),
            Self::Padded(text) => (b"SPRITE.padded", text),
            Self::Failed(text) => (b"SPRITE.failed", text),
        }
    }

    pub(crate) fn read(key: &[u8], text: String) -> Option<Self> {
        match key {
            b"SPRITE.left_out" => Some(Self::LeftOut(text)),
            b"SPRITE.padded" => Some(Self::Padded(text)),
            b"SPRITE.failed" => Some(Self::Failed(text)),
            _ => None,
        }
    }
}
