//! A directory of this computer, into a sprite.

use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::Method;
use hyper::body::Frame;
use sprite_archive::{CopyError, Entry, Kind, Note, Time, Whole, Writer};
use tokio::sync::{mpsc, oneshot};

use super::Fs;
use super::archive::{Copied, Hear, Moved, PIECE, PIECES, TransferError, nobody, tell};
use crate::client::Call;
use crate::error::Error;

/// A directory that is to be copied into a sprite; made by [`Fs::push_dir`].
#[must_use = "nothing is copied before `send`"]
pub struct PushDir {
    fs: Fs,
    local: PathBuf,
    remote: String,
    hear: Hear,
}

impl Fs {
    /// What the directory `local` of this computer holds, to be copied into `remote`, as one stream. Modes, times and
    /// symbolic links are kept; sockets, pipes and devices are left out. `remote` is made if it is not there.
    ///
    /// ```no_run
    /// # async fn example(client: sprite_client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let fs = client.sprite("scratch").fs();
    /// let copied = fs.push_dir("site", "/srv/site").send().await?;
    /// println!("{} files, {} bytes", copied.files, copied.bytes);
    /// fs.pull_dir("/srv/site", "back").receive().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn push_dir(&self, local: impl Into<PathBuf>, remote: impl Into<String>) -> PushDir {
        PushDir {
            fs: self.clone(),
            local: local.into(),
            remote: remote.into(),
            hear: nobody(),
        }
    }
}

impl PushDir {
    /// Tells how far it is, on another thread.
    pub fn on_progress(mut self, hear: impl Fn(Moved) + Send + Sync + 'static) -> Self {
        self.hear = Arc::new(hear);
        self
    }

    /// Copies it. When this returns, all of it is on the sprite's disk.
    ///
    /// # Errors
    /// When something cannot be read here or written there. What was copied before stays.
    ///
    /// # Cancel safety
    /// Cancelled, files that came whole stay.
    pub async fn send(self) -> Result<Copied, TransferError> {
        let call = Call::new(Method::PUT, self.fs.query("archive", &self.remote)?);
        let (pieces, received) = mpsc::channel(PIECES);
        let (local, hear) = (self.local, self.hear);
        let packing = tokio::task::spawn_blocking(move || pack(&local, &hear, pieces));
        let (read_all, all_read) = oneshot::channel::<()>();
        let begun = Some((received, read_all));
        let body = stream::unfold(begun, |state| async move {
            let (mut received, read_all) = state?;
            let piece: Option<Option<Bytes>> = received.recv().await;
            match piece {
                Some(Some(piece)) => Some((Ok(Frame::data(piece)), Some((received, read_all)))),
                // It was packed to its end.
                Some(None) => None,
                None => Some((Err(io::Error::other("packing broke off")), None)),
            }
        });
        let body = StreamBody::new(body).boxed_unsync();
        let answer: Result<Copied, Error> =
            self.fs.sprite.client().upload(&call, body, all_read).await;
        let packed = packing.await.map_err(|error| {
            TransferError::here("pack", PathBuf::new(), io::Error::other(error))
        })?;
        match packed {
            Err(Stop::Here(error)) => Err(error),
            // Whoever does not take it says why.
            Ok(()) | Err(Stop::Gone) => Ok(answer?),
        }
    }
}

/// Why packing ended early.
enum Stop {
    Here(TransferError),
    /// Nobody takes what is packed.
    Gone,
}

trait Here<T> {
    fn here(self, step: &'static str, path: &Path) -> Result<T, Stop>;
}

impl<T> Here<T> for io::Result<T> {
    fn here(self, step: &'static str, path: &Path) -> Result<T, Stop> {
        self.map_err(|error| Stop::Here(TransferError::here(step, path, error)))
    }
}

/// Packs a directory; sends `None` behind its end.
fn pack(local: &Path, hear: &Hear, pieces: mpsc::Sender<Option<Bytes>>) -> Result<(), Stop> {
    let outlet = Outlet {
        buffer: Vec::with_capacity(PIECE),
        pieces,
    };
    let mut packing = Packing {
        archive: Writer::new(outlet),
        hear,
    };
    let top = fs::metadata(local).here("read", local)?;
    packing.put(&entry(b".".to_vec(), Kind::Directory, &top))?;
    packing.directory(local)?;
    let outlet = packing.archive.finish().map_err(|_| Stop::Gone)?;
    outlet.pieces.blocking_send(None).map_err(|_| Stop::Gone)
}

struct Packing<'a> {
    archive: Writer<Outlet>,
    hear: &'a Hear,
}

impl Packing<'_> {
    /// All that a directory holds, depth first. What is held meanwhile are the names of the directories on the way.
    fn directory(&mut self, top: &Path) -> Result<(), Stop> {
        let mut levels = vec![names(top)?];
        // Where it is, here and in the archive.
        let (mut local, mut name) = (top.to_owned(), PathBuf::new());
        while let Some(level) = levels.last_mut() {
            let Some(next) = level.next() else {
                levels.pop();
                local.pop();
                name.pop();
                continue;
            };
            local.push(&next);
            name.push(&next);
            if self.one(&local, &name)? {
                levels.push(names(&local)?);
            } else {
                local.pop();
                name.pop();
            }
        }
        Ok(())
    }

    /// Whether it is a directory, which is gone into next.
    fn one(&mut self, local: &Path, name: &Path) -> Result<bool, Stop> {
        let found = match fs::symlink_metadata(local) {
            Ok(found) => found,
            // Gone since its name was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error).here("read", local),
        };
        (self.hear)(Moved::Entry(name.display().to_string()));
        let bytes = name.as_os_str().as_bytes().to_vec();
        let kind = found.file_type();
        if kind.is_dir() {
            self.put(&entry(bytes, Kind::Directory, &found))?;
            return Ok(true);
        }
        if kind.is_symlink() {
            let target = fs::read_link(local).here("read the link", local)?;
            let target = target.into_os_string().into_vec();
            self.put(&entry(bytes, Kind::Symlink { target }, &found))?;
        } else if kind.is_file() {
            self.file(local, bytes)?;
        } else {
            self.note(Note::LeftOut(local.display().to_string()))?;
        }
        Ok(false)
    }

    fn file(&mut self, local: &Path, name: Vec<u8>) -> Result<(), Stop> {
        // It may be another one by now: this neither follows a link nor waits for a pipe.
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let flags = i32::try_from(flags.bits()).expect("flags fit into the kernel's type");
        let opened = File::options().read(true).custom_flags(flags).open(local);
        let mut file = opened.here("open", local)?;
        let found = file.metadata().here("read", local)?;
        if !found.is_file() {
            return self.note(Note::LeftOut(local.display().to_string()));
        }
        let size = found.len();
        self.put(&entry(name, Kind::File { size }, &found))?;
        let hear = self.hear;
        let content = self
            .archive
            .content(size, &mut file, |bytes| hear(Moved::Bytes(bytes)));
        match content {
            Ok(Whole::Yes) => Ok(()),
            Ok(Whole::Padded) => self.note(Note::Padded(local.display().to_string())),
            Err(CopyError::Read(error)) => Err(error).here("read", local),
            Err(CopyError::Write(_)) => Err(Stop::Gone),
        }
    }

    fn put(&mut self, entry: &Entry) -> Result<(), Stop> {
        self.archive.entry(entry).map_err(|_| Stop::Gone)
    }

    fn note(&mut self, note: Note) -> Result<(), Stop> {
        let written = self.archive.note(&note);
        tell(self.hear, note);
        written.map_err(|_| Stop::Gone)
    }
}

/// The names in a directory, in their order.
fn names(directory: &Path) -> Result<std::vec::IntoIter<std::ffi::OsString>, Stop> {
    let entries = fs::read_dir(directory).here("list", directory)?;
    let names = entries.map(|entry| entry.map(|entry| entry.file_name()));
    let mut names: Vec<_> = names.collect::<io::Result<_>>().here("list", directory)?;
    names.sort_unstable();
    Ok(names.into_iter())
}

fn entry(name: Vec<u8>, kind: Kind, found: &Metadata) -> Entry {
    Entry {
        name,
        kind,
        mode: found.mode() & 0o7777,
        mtime: Time {
            seconds: found.mtime(),
            nanos: u32::try_from(found.mtime_nsec()).unwrap_or(0),
        },
    }
}

/// Pieces of the archive, at the pace at which they are sent.
struct Outlet {
    buffer: Vec<u8>,
    pieces: mpsc::Sender<Option<Bytes>>,
}

impl Write for Outlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() >= PIECE {
            self.flush()?;
        }
        let taken = bytes.len().min(PIECE - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.buffer, Vec::with_capacity(PIECE));
        let sent = self.pieces.blocking_send(Some(Bytes::from(piece)));
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}
