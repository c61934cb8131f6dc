//! Unpacks an archive below a directory.
//!
//! Every name is taken apart, and every step down is one `openat` of one plain name that must be a directory itself:
//! neither `..`, nor an absolute name, nor a link that was there before, that came with the archive, or that somebody
//! makes meanwhile leads anywhere else. A file is written without a name and gets it when it is whole, in place of a
//! file or a link that has it, so nothing is ever written through a name.
//!
//! What is there belongs to whoever unpacks: owners that an archive tells are not read. Directories get their mode and
//! time when the archive goes on elsewhere, as both say what may still be made in them and when it was.
//!
//! What came before an error stays. Nothing is on the disk for sure: that is for the caller, to whom
//! [`Unpacked::systems`] says where.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;

use crate::draft::{Draft, replace, unused_name};
use crate::entry::{Entry, Item, Kind, Note, Time};
use crate::read::{ReadError, Reader};

/// Deepest tree: a directory is open for each level.
const DEEPEST: usize = 1000;

/// File systems that one archive may reach by mounts that are there.
const MOST_SYSTEMS: usize = 64;

/// Bytes of a file that are read and written at once.
const PIECE: usize = 128 << 10;

/// Mode of a directory that the archive does not name.
const DIRECTORY_MODE: u32 = 0o755;

/// Where to.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// An open directory that can be read.
    pub top: BorrowedFd<'a>,
    /// Whether the top was made for this archive. Only then it gets the mode and time that the archive says.
    pub fresh: bool,
    /// Those bits of modes that are taken; others are zero.
    pub modes: u32,
}

/// What is told while it goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// So many more bytes of files were written.
    Bytes(u64),
    /// An entry is next, by its name for people.
    Entry(String),
    /// The writer told this. After [`Note::Failed`] comes an error.
    Note(Note),
}

/// What was unpacked.
#[derive(Debug, Default)]
pub struct Unpacked {
    /// Files, other names of files among them.
    pub files: u64,
    /// Directories that the archive named.
    pub directories: u64,
    /// Symbolic links.
    pub links: u64,
    /// Bytes of files.
    pub bytes: u64,
    /// A directory of each file system that was reached, the top's among them.
    pub systems: Vec<OwnedFd>,
}

/// Why it was not unpacked to its end.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The archive cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The writer told why it did not go on.
    #[error("{0}")]
    Told(String),
    /// An entry is not taken.
    #[error("{reason}: {name:?}")]
    Refused {
        /// Why.
        reason: &'static str,
        /// The entry.
        name: String,
    },
    /// The kernel refused.
    #[error("{step} {name:?}")]
    Kernel {
        /// What was tried: lower-case verb phrase.
        step: &'static str,
        /// The entry.
        name: String,
        /// What it said.
        source: io::Error,
    },
}

/// Unpacks an archive to its end.
///
/// # Errors
/// It is none, it is cut off, an entry is not taken, or the kernel refuses. What came before stays.
///
/// # Crash safety
/// Nothing is durable before [`Unpacked::systems`] are flushed; every file is there whole or not at all, as far as its
/// file system promises that for names given after content.
pub fn unpack<R: Read>(
    archive: &mut Reader<R>,
    target: Target<'_>,
    hear: &mut dyn FnMut(Progress),
) -> Result<Unpacked, UnpackError> {
    let mut unpacking = Unpacking {
        target,
        hear,
        levels: Vec::new(),
        devices: Vec::new(),
        top: None,
        piece: Vec::new(),
        done: Unpacked::default(),
    };
    unpacking.reached(target.top).at("look at", "")?;
    let taken = unpacking.all(archive);
    let left = unpacking.end();
    taken.and(left)?;
    Ok(unpacking.done)
}

/// Names the step and the entry of a result.
trait At<T> {
    fn at(self, step: &'static str, name: &str) -> Result<T, UnpackError>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, step: &'static str, name: &str) -> Result<T, UnpackError> {
        self.map_err(|error| UnpackError::Kernel {
            step,
            name: name.to_owned(),
            source: error.into(),
        })
    }
}

/// Mode and time of a directory, to be set behind all that it holds.
type Last = Option<(u32, Time)>;

struct Level {
    name: Vec<u8>,
    directory: OwnedFd,
    last: Last,
}

struct Unpacking<'a> {
    target: Target<'a>,
    hear: &'a mut dyn FnMut(Progress),
    /// From the top down to where the last entry was.
    levels: Vec<Level>,
    /// The file systems in `done`.
    devices: Vec<u64>,
    top: Last,
    piece: Vec<u8>,
    done: Unpacked,
}

impl Unpacking<'_> {
    fn all<R: Read>(&mut self, archive: &mut Reader<R>) -> Result<(), UnpackError> {
        while let Some(item) = archive.next_item()? {
            match item {
                Item::Entry(entry) => {
                    (self.hear)(Progress::Entry(entry.shown()));
                    self.entry(&entry, archive)?;
                }
                Item::Note(note) => {
                    (self.hear)(Progress::Note(note.clone()));
                    if let Note::Failed(text) = note {
                        return Err(UnpackError::Told(text));
                    }
                }
            }
        }
        Ok(())
    }

    fn entry<R: Read>(
        &mut self,
        entry: &Entry,
        archive: &mut Reader<R>,
    ) -> Result<(), UnpackError> {
        let shown = entry.shown();
        let parts = parts(&entry.name, &shown)?;
        let mode = entry.mode & self.target.modes;
        let Some((name, above)) = parts.split_last() else {
            return match entry.kind {
                Kind::Directory => {
                    self.top = Some((mode, entry.mtime));
                    Ok(())
                }
                Kind::File { .. } | Kind::Symlink { .. } | Kind::HardLink { .. } => {
                    Err(refused("a file has no name", &shown))
                }
            };
        };
        match &entry.kind {
            Kind::Directory => {
                self.reach(&parts, &shown)?;
                let level = self.levels.last_mut().expect("it has a name");
                level.last = Some((mode, entry.mtime));
                open_to_owner(level.directory.as_fd()).at("look at", &shown)?;
                self.done.directories += 1;
            }
            Kind::File { .. } => {
                self.reach(above, &shown)?;
                self.file(name, mode, entry.mtime, &shown, archive)?;
                self.done.files += 1;
            }
            Kind::Symlink { target } => {
                self.reach(above, &shown)?;
                self.link(target, name, entry.mtime)
                    .at("make the link", &shown)?;
                self.done.links += 1;
            }
            Kind::HardLink { target } => {
                self.reach(above, &shown)?;
                self.other_name(target, name, &shown)?;
                self.done.files += 1;
            }
        }
        Ok(())
    }

    fn here(&self) -> BorrowedFd<'_> {
        match self.levels.last() {
            Some(level) => level.directory.as_fd(),
            None => self.target.top,
        }
    }

    /// Goes to a directory, and makes those on the way that are missing.
    fn reach(&mut self, parts: &[&[u8]], shown: &str) -> Result<(), UnpackError> {
        if parts.len() > DEEPEST {
            return Err(refused("it lies too deep", shown));
        }
        let mut levels = self.levels.iter();
        let same = parts
            .iter()
            .take_while(|part| levels.next().is_some_and(|level| level.name == **part));
        let same = same.count();
        while self.levels.len() > same {
            self.leave().at("set the mode of the directory of", shown)?;
        }
        for part in &parts[same..] {
            let (directory, made) = self.enter(part).at("enter the directory", shown)?;
            if !made {
                self.reached(directory.as_fd()).at("look at", shown)?;
            }
            self.levels.push(Level {
                name: part.to_vec(),
                directory,
                last: None,
            });
        }
        Ok(())
    }

    /// Opens a directory right below, and says whether it had to be made.
    fn enter(&self, name: &[u8]) -> Result<(OwnedFd, bool), Errno> {
        match open_directory(self.here(), name) {
            Err(Errno::NOENT) => {}
            opened => return Ok((opened?, false)),
        }
        let mode = Mode::from_raw_mode(DIRECTORY_MODE);
        let made = match rustix::fs::mkdirat(self.here(), name, mode) {
            Ok(()) => true,
            // Somebody else made it in this moment.
            Err(Errno::EXIST) => false,
            Err(errno) => return Err(errno),
        };
        Ok((open_directory(self.here(), name)?, made))
    }

    /// Gives the directory that is left what belongs to it.
    fn leave(&mut self) -> Result<(), Errno> {
        let Some(level) = self.levels.pop() else {
            return Ok(());
        };
        finish(level.directory.as_fd(), level.last)
    }

    /// Remembers the file system of a directory that was there before.
    fn reached(&mut self, directory: BorrowedFd<'_>) -> Result<(), Errno> {
        let device = rustix::fs::fstat(directory)?.st_dev;
        if self.devices.contains(&device) {
            return Ok(());
        }
        if self.devices.len() >= MOST_SYSTEMS {
            return Err(Errno::XDEV);
        }
        self.devices.push(device);
        let kept = directory.try_clone_to_owned();
        self.done.systems.push(kept.map_err(|_| Errno::MFILE)?);
        Ok(())
    }

    fn file<R: Read>(
        &mut self,
        name: &[u8],
        mode: u32,
        mtime: Time,
        shown: &str,
        archive: &mut Reader<R>,
    ) -> Result<(), UnpackError> {
        let here = match self.levels.last() {
            Some(level) => level.directory.as_fd(),
            None => self.target.top,
        };
        let draft = Draft::begin(here).at("create", shown)?;
        self.piece.resize(PIECE, 0);
        loop {
            let read = archive.read(&mut self.piece);
            let read = read.map_err(ReadError::Read)?;
            if read == 0 {
                break;
            }
            io::Write::write_all(&mut draft.file(), &self.piece[..read]).at("write", shown)?;
            self.done.bytes += read as u64;
            (self.hear)(Progress::Bytes(read as u64));
        }
        archive.whole()?;
        rustix::fs::fchmod(draft.file(), Mode::from_raw_mode(mode)).at("set the mode of", shown)?;
        rustix::fs::futimens(draft.file(), &times(mtime)).at("set the time of", shown)?;
        draft.put(name).at("put in place", shown)
    }

    fn link(&self, target: &[u8], name: &[u8], mtime: Time) -> Result<(), Errno> {
        let here = self.here();
        match rustix::fs::symlinkat(target, here, name) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let draft = unused_name();
                rustix::fs::symlinkat(target, here, &draft)?;
                replace(here, &draft, name)?;
            }
            Err(errno) => return Err(errno),
        }
        rustix::fs::utimensat(here, name, &times(mtime), AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Gives a file that is below the top another name.
    fn other_name(&self, target: &[u8], name: &[u8], shown: &str) -> Result<(), UnpackError> {
        let parts = parts(target, shown)?;
        let Some((last, above)) = parts.split_last() else {
            return Err(refused("it is another name of nothing", shown));
        };
        let mut directory = None;
        for part in above {
            let here = directory.as_ref().map_or(self.target.top, AsFd::as_fd);
            let below = open_directory(here, part).at("find the other name of", shown)?;
            directory = Some(below);
        }
        let from = directory.as_ref().map_or(self.target.top, AsFd::as_fd);
        let here = self.here();
        // A link that has the name is not followed: it gets another name itself.
        let link = |name: &[u8]| rustix::fs::linkat(from, *last, here, name, AtFlags::empty());
        let linked = match link(name) {
            Err(Errno::EXIST) => {
                let draft = unused_name();
                link(draft.as_bytes()).and_then(|()| replace(here, &draft, name))
            }
            linked => linked,
        };
        linked.at("give its other name to", shown)
    }

    /// Leaves all directories, also when an entry was not taken: their modes are told already.
    fn end(&mut self) -> Result<(), UnpackError> {
        let mut left = Ok(());
        while let Some(level) = self.levels.last() {
            let name = String::from_utf8_lossy(&level.name).into_owned();
            left = left.and(self.leave().at("set the mode of", &name));
        }
        if self.target.fresh {
            left = left.and(finish(self.target.top, self.top).at("set the mode of", ""));
        }
        left
    }
}

/// The names that a path goes through.
fn parts<'a>(path: &'a [u8], shown: &str) -> Result<Vec<&'a [u8]>, UnpackError> {
    if path.starts_with(b"/") {
        return Err(refused("its name is absolute", shown));
    }
    let parts = path.split(|byte| *byte == b'/');
    let parts: Vec<_> = parts
        .filter(|part| !part.is_empty() && *part != b".")
        .collect();
    if parts.contains(&&b".."[..]) {
        return Err(refused("its name leads upwards", shown));
    }
    if path.contains(&0) {
        return Err(refused("its name holds a zero byte", shown));
    }
    Ok(parts)
}

fn refused(reason: &'static str, name: &str) -> UnpackError {
    UnpackError::Refused {
        reason,
        name: name.to_owned(),
    }
}

/// A directory by one plain name; nothing that leads to one.
fn open_directory(above: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(above, name, flags, Mode::empty())
}

/// Lets its owner make things in a directory that was there, until its mode is set.
fn open_to_owner(directory: BorrowedFd<'_>) -> Result<(), Errno> {
    const OWNER: u32 = 0o700;
    let mode = rustix::fs::fstat(directory)?.st_mode & 0o7777;
    if mode & OWNER == OWNER {
        return Ok(());
    }
    match rustix::fs::fchmod(directory, Mode::from_raw_mode(mode | OWNER)) {
        // Somebody else's: whoever may make things in it does.
        Ok(()) | Err(Errno::PERM) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn finish(directory: BorrowedFd<'_>, last: Last) -> Result<(), Errno> {
    let Some((mode, mtime)) = last else {
        return Ok(());
    };
    let set = rustix::fs::fchmod(directory, Mode::from_raw_mode(mode));
    match set.and_then(|()| rustix::fs::futimens(directory, &times(mtime))) {
        // It was there, and is somebody else's: then it stays as it was.
        Ok(()) | Err(Errno::PERM) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn times(mtime: Time) -> Timestamps {
    let time = Timespec {
        tv_sec: mtime.seconds,
        tv_nsec: i64::from(mtime.nanos),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}
