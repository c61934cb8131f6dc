//! Directories as one stream, in the format of tar.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use hyper::Method;
use serde::{Deserialize, Serialize};
use sprite_archive::Note;
use tokio::io::AsyncRead;

use super::read::FileReader;
use super::{Fs, read, write};
use crate::client::Call;
use crate::error::Error;

/// Bytes between this side's files and the connection, in pieces of [`PIECE`]: as much is held at most.
pub(super) const PIECES: usize = 4;
pub(super) const PIECE: usize = 128 << 10;

/// What was copied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copied {
    /// Files.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Symbolic links.
    pub links: u64,
    /// Bytes of files.
    pub bytes: u64,
}

/// What is told while a directory is copied.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Moved {
    /// So many more bytes of files.
    Bytes(u64),
    /// A file, directory or link is next: its path below the directory that is copied.
    Entry(String),
    /// A socket, a pipe or a device is not copied, nor what is on another file system of the sprite.
    LeftOut(String),
    /// A file got shorter while it was read: the copy ends in zeroes.
    Padded(String),
}

/// Who hears of it.
pub(super) type Hear = Arc<dyn Fn(Moved) + Send + Sync>;

pub(super) fn nobody() -> Hear {
    Arc::new(|_| {})
}

/// Tells of a note. One that ends the archive is an error instead.
pub(super) fn tell(hear: &Hear, note: Note) {
    match note {
        Note::LeftOut(path) => hear(Moved::LeftOut(path)),
        Note::Padded(path) => hear(Moved::Padded(path)),
        Note::Failed(_) => {}
    }
}

/// Why a directory was not copied. What was copied before stays.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TransferError {
    /// The server or the sprite refused, or cannot be reached.
    #[error(transparent)]
    Call(#[from] Error),
    /// Something here cannot be read or written.
    #[error("{step} {path}")]
    Here {
        /// What was tried: lower-case verb phrase.
        step: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The sprite cannot read all of it.
    #[error("the sprite cannot go on: {0}")]
    There(String),
    /// What the sprite sent is no archive that can be unpacked here.
    #[error("{0}")]
    Archive(String),
}

impl TransferError {
    pub(super) fn here(step: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Here {
            step,
            path: path.into(),
            source: Arc::new(source),
        }
    }
}

impl Fs {
    /// Puts what an archive (tar) holds below a directory, which is made if it is not there. When this returns, all
    /// of it is on the sprite's disk.
    ///
    /// # Errors
    /// When it is no archive, or something in it is not taken; what came before stays. If `archive` fails, so does
    /// this.
    ///
    /// # Cancel safety
    /// Cancelled, files that came whole stay.
    pub async fn unpack(
        &self,
        path: &str,
        archive: impl AsyncRead + Send + Unpin + 'static,
    ) -> Result<Copied, Error> {
        let call = Call::new(Method::PUT, self.query("archive", path)?);
        let (body, all_read) = write::body(archive);
        self.sprite.client().upload(&call, body, all_read).await
    }

    /// A directory with all it holds, as an archive (tar). Reading fails if it breaks off.
    ///
    /// # Errors
    /// [`Error::is_not_found`] when there is no such directory.
    pub async fn pack(&self, path: &str) -> Result<FileReader, Error> {
        read::accept(self, Call::new(Method::GET, self.query("archive", path)?)).await
    }
}
