//! A directory of a sprite, onto this computer.
//!
//! What a sprite sends is not believed: no name of it leads out of the directory that was asked for, no link is
//! followed in it, and nothing is written through one.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use sprite_archive::{Progress, Reader, Target, UnpackError};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

use super::Fs;
use super::archive::{Copied, Hear, Moved, PIECE, PIECES, TransferError, nobody, tell};
use crate::error::Error;

/// A directory that is to be copied out of a sprite; made by [`Fs::pull_dir`].
#[must_use = "nothing is copied before `receive`"]
pub struct PullDir {
    fs: Fs,
    remote: String,
    local: PathBuf,
    hear: Hear,
}

impl Fs {
    /// What the directory `remote` of a sprite holds, to be copied into `local` on this computer, as one stream.
    /// Modes (without set-id bits), times and symbolic links are kept. `local` is made if it is not there.
    ///
    /// What a sprite sends reaches nothing outside of `local`, whatever it is and whatever links are there. But links
    /// that it sends are made as they are, and may lead anywhere.
    pub fn pull_dir(&self, remote: impl Into<String>, local: impl Into<PathBuf>) -> PullDir {
        PullDir {
            fs: self.clone(),
            remote: remote.into(),
            local: local.into(),
            hear: nobody(),
        }
    }
}

impl PullDir {
    /// Tells how far it is, on another thread.
    pub fn on_progress(mut self, hear: impl Fn(Moved) + Send + Sync + 'static) -> Self {
        self.hear = Arc::new(hear);
        self
    }

    /// Copies it.
    ///
    /// # Errors
    /// When something cannot be read there or written here. What was copied before stays.
    ///
    /// # Cancel safety
    /// Cancelled, files that came whole stay.
    pub async fn receive(self) -> Result<Copied, TransferError> {
        let mut archive = self.fs.pack(&self.remote).await?;
        let (pieces, received) = mpsc::channel(PIECES);
        let (local, hear) = (self.local, self.hear);
        let unpacking = tokio::task::spawn_blocking(move || unpack(&local, &hear, received));
        loop {
            let mut piece = Vec::with_capacity(PIECE);
            let read = (&mut archive)
                .take(PIECE as u64)
                .read_buf(&mut piece)
                .await
                .map(|_| Bytes::from(piece));
            let last = !read.as_ref().is_ok_and(|piece| !piece.is_empty());
            if pieces.send(read).await.is_err() || last {
                break;
            }
        }
        drop(pieces);
        match unpacking.await {
            Ok(done) => done,
            Err(error) => Err(TransferError::here(
                "unpack",
                PathBuf::new(),
                io::Error::other(error),
            )),
        }
    }
}

fn unpack(
    local: &Path,
    hear: &Hear,
    pieces: mpsc::Receiver<io::Result<Bytes>>,
) -> Result<Copied, TransferError> {
    let cannot = |error| TransferError::here("open", local, error);
    let fresh = !local.exists();
    fs::create_dir_all(local).map_err(cannot)?;
    let top = File::open(local).map_err(cannot)?;
    let target = Target {
        top: top.as_fd(),
        fresh,
        modes: 0o777,
    };
    let mut archive = Reader::new(Inlet {
        pieces,
        piece: Bytes::new(),
        ended: false,
    });
    let unpacked = sprite_archive::unpack(&mut archive, target, &mut |progress| match progress {
        Progress::Bytes(bytes) => hear(Moved::Bytes(bytes)),
        Progress::Entry(name) => hear(Moved::Entry(name)),
        Progress::Note(note) => tell(hear, note),
    });
    match unpacked {
        Ok(unpacked) => Ok(Copied {
            files: unpacked.files,
            directories: unpacked.directories,
            links: unpacked.links,
            bytes: unpacked.bytes,
        }),
        Err(UnpackError::Told(why)) => Err(TransferError::There(why)),
        Err(UnpackError::Kernel { step, name, source }) => {
            Err(TransferError::here(step, local.join(name), source))
        }
        Err(UnpackError::Read(sprite_archive::ReadError::Read(source))) => {
            Err(TransferError::Call(Error::Interrupted {
                source: Some(Arc::new(source)),
            }))
        }
        Err(error @ (UnpackError::Read(_) | UnpackError::Refused { .. })) => {
            Err(TransferError::Archive(error.to_string()))
        }
    }
}

/// Pieces of the archive, as they come. The last one is empty: a channel that ends without it was given up.
struct Inlet {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
    ended: bool,
}

impl Read for Inlet {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() && !self.ended {
            let next = self.pieces.blocking_recv();
            self.piece = next.ok_or(io::ErrorKind::ConnectionAborted)??;
            self.ended = self.piece.is_empty();
        }
        let length = self.piece.len().min(buffer.len());
        self.piece.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}
