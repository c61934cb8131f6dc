//! Writes a regular file: beside its place at first, without a name, and put there whole.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use sprite_agent_api::FrameKind;
use sprite_agent_api::fs::{FsReply, Parents};

use super::channel::{Channel, Stop, Tried, refused};
use super::resolve::{self, Paths, is_directory, only_regular, permission_bits};

/// Mode of a file that nobody said one for.
const USUAL_MODE: u32 = 0o644;
const DIRECTORY_MODE: u32 = 0o755;

/// Most links in a row at the end of a path. Source: path_resolution(7).
const MOST_LINKS: usize = 40;

/// The kernel is told to begin writing to the disk after so many bytes, so that the end has little left to wait for
/// and little memory is used meanwhile.
const WRITE_BACK_EVERY: u64 = 8 << 20;

pub(super) fn write(
    channel: &mut Channel,
    paths: &Paths,
    path: &str,
    mode: Option<u32>,
    parents: Parents,
) -> Result<(), Stop> {
    let absolute = paths.absolute(path)?;
    if path.ends_with('/') || path.ends_with("/.") || absolute == "/" {
        return Err(refused(libc::EISDIR, "write", &absolute));
    }
    let place = Place::find(&absolute, parents)?;
    let path = place.path.clone();
    let mode = mode.or(place.mode).unwrap_or(USUAL_MODE) & 0o7777;
    let mut draft = Draft::begin(place)?;
    channel.say(&FsReply::Writing { path: path.clone() })?;
    let mut payload = Vec::new();
    loop {
        match channel.receive(&mut payload)? {
            FrameKind::Stdin if payload.is_empty() => break,
            FrameKind::Stdin => draft.add(&payload)?,
            // Of a later host; not for this one.
            FrameKind::Control | FrameKind::Stdout | FrameKind::Stderr => {}
        }
    }
    let size = draft.size;
    draft.set_mode(mode)?;
    draft.put(Durable::Now)?;
    channel.say(&FsReply::Written { path, size, mode })
}

/// Where a file is to be.
pub(super) struct Place {
    directory: OwnedFd,
    name: String,
    path: String,
    /// Mode of the file that is there.
    mode: Option<u32>,
}

impl Place {
    /// Follows links at the end of the path, and makes directories on the way.
    pub(super) fn find(path: &str, parents: Parents) -> Result<Self, Stop> {
        let mut path = path.to_owned();
        for _ in 0..MOST_LINKS {
            let (directory, name) = directory_of(&path, parents)?;
            let there = match rustix::fs::statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => Some(stat),
                Err(Errno::NOENT) => None,
                Err(errno) => return Err(errno).tried("look at", &path),
            };
            if let Some(stat) = &there {
                if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
                    path = beyond(&directory, &name, &path)?;
                    continue;
                }
                replaceable(&path, stat)?;
            }
            return Ok(Self {
                directory,
                name,
                path,
                mode: there.as_ref().map(permission_bits),
            });
        }
        Err(refused(libc::ELOOP, "follow links to", &path))
    }

    /// A name in a directory; a link that has it is itself replaced.
    pub(super) fn at(directory: OwnedFd, name: String, path: &str) -> Result<Self, Stop> {
        match rustix::fs::statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if is_directory(&stat) => Err(refused(libc::EISDIR, "replace", path)),
            Ok(_) | Err(Errno::NOENT) => Ok(Self {
                directory,
                name,
                path: path.to_owned(),
                mode: None,
            }),
            Err(errno) => Err(errno).tried("look at", path),
        }
    }

    /// Whether this very file is there.
    pub(super) fn is(&self, stat: &Stat) -> Result<bool, Errno> {
        match rustix::fs::statat(&self.directory, &self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(there) => Ok((there.st_dev, there.st_ino) == (stat.st_dev, stat.st_ino)),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(errno),
        }
    }
}

/// Where a link at the end of a path leads.
fn beyond(directory: &OwnedFd, name: &str, path: &str) -> Result<String, Stop> {
    let target =
        rustix::fs::readlinkat(directory, name, Vec::new()).tried("read the link", path)?;
    let target = target.to_str().map_err(|_| Errno::ILSEQ);
    let target = target.tried("read the link", path)?;
    let (above, _) = resolve::split(path)?;
    let from = Paths::new("/", Some(above))?;
    from.absolute(target)
}

/// Whoever may not write to a file may not replace it either.
fn replaceable(path: &str, stat: &Stat) -> Result<(), Stop> {
    only_regular(stat).tried("write", path)?;
    match resolve::open_regular(path, OFlags::WRONLY) {
        // A program that runs can be replaced, though not written to.
        Ok(_) | Err(Errno::TXTBSY | Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno).tried("write", path),
    }
}

fn directory_of(path: &str, parents: Parents) -> Result<(OwnedFd, String), Stop> {
    let (above, name) = resolve::split(path)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let found = resolve::open(above, flags, Mode::empty());
    let directory = match (found, parents) {
        (Err(Errno::NOENT), Parents::All) => make_directories(above)?,
        (Err(Errno::NOENT), Parents::One) => {
            let (directory, name) = resolve::parent(above)?;
            make_directory(&directory, name, above)?;
            resolve::open(above, flags, Mode::empty()).tried("open", above)?
        }
        (found, Parents::All | Parents::One | Parents::None) => {
            found.tried("find its directory", path)?
        }
    };
    Ok((directory, name.to_owned()))
}

/// Makes a directory and those above it that are missing, and opens it.
pub(super) fn make_directories(path: &str) -> Result<OwnedFd, Stop> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let open = |path: &str| resolve::open(path, flags, Mode::empty());
    let mut here = open("/").tried("open", "/")?;
    let mut end = 0;
    for name in path.split('/').skip(1).filter(|name| !name.is_empty()) {
        end += 1 + name.len();
        let reached = &path[..end];
        here = match open(reached) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => {
                make_directory(&here, name, reached)?;
                open(reached).tried("open", reached)?
            }
            Err(errno) => return Err(errno).tried("open", reached),
        };
    }
    Ok(here)
}

fn make_directory(above: &OwnedFd, name: &str, path: &str) -> Result<(), Stop> {
    match rustix::fs::mkdirat(above, name, Mode::from_raw_mode(DIRECTORY_MODE)) {
        // Somebody else made it in this moment.
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno).tried("make the directory", path),
    }
}

/// When what was written is on the disk.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Durable {
    /// Before it has its name.
    Now,
    /// When the whole of which it is a part is.
    Later,
}

/// A file that is being written, and has no name yet or one that nobody looks for. Dropped, it is gone.
pub(super) struct Draft {
    file: File,
    place: Place,
    /// Its name, where files cannot be without one.
    named: Option<String>,
    size: u64,
    written_back: u64,
}

impl Draft {
    pub(super) fn begin(place: Place) -> Result<Self, Stop> {
        let mode = Mode::from_raw_mode(0o600);
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let nameless = rustix::fs::openat(&place.directory, c".", flags | OFlags::TMPFILE, mode);
        let (file, named) = match nameless {
            Ok(file) => (file, None),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
                let name = unused_name();
                let flags = flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
                let file = rustix::fs::openat(&place.directory, &name, flags, mode);
                (file.tried("create", &place.path)?, Some(name))
            }
            Err(errno) => return Err(errno).tried("create", &place.path),
        };
        Ok(Self {
            file: File::from(file),
            place,
            named,
            size: 0,
            written_back: 0,
        })
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn path(&self) -> &str {
        &self.place.path
    }

    pub(super) fn add(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        self.file
            .write_all(bytes)
            .tried("write", &self.place.path)?;
        self.wrote(bytes.len() as u64);
        Ok(())
    }

    /// Counts bytes that were written, and has the kernel bring them to the disk.
    pub(super) fn wrote(&mut self, bytes: u64) {
        self.size += bytes;
        if self.size - self.written_back >= WRITE_BACK_EVERY {
            let from = i64::try_from(self.written_back).unwrap_or(i64::MAX);
            let length = i64::try_from(self.size - self.written_back).unwrap_or(i64::MAX);
            // Only sooner than otherwise: what goes wrong shows when all is brought there.
            // SAFETY: takes a descriptor and numbers, no memory.
            unsafe {
                let fd = self.file.as_raw_fd();
                libc::sync_file_range(fd, from, length, libc::SYNC_FILE_RANGE_WRITE)
            };
            self.written_back = self.size;
        }
    }

    pub(super) fn set_mode(&self, mode: u32) -> Result<(), Stop> {
        rustix::fs::fchmod(&self.file, Mode::from_raw_mode(mode))
            .tried("set the mode of", &self.place.path)
    }

    /// Gives it its name, in place of a file that has it.
    ///
    /// Bytes first, then the name, then the directory that knows it: whenever the machine ends, there is the old file
    /// or the new one, whole.
    pub(super) fn put(mut self, durable: Durable) -> Result<(), Stop> {
        let path = self.place.path.clone();
        if durable == Durable::Now {
            rustix::fs::fsync(&self.file).tried("bring to the disk", &path)?;
        }
        self.give_name().tried("put in place", &path)?;
        if durable == Durable::Now {
            sync_directory(&self.place.directory).tried("bring to the disk", &path)?;
        }
        Ok(())
    }

    fn give_name(&mut self) -> Result<(), Errno> {
        let place = &self.place;
        let draft = match &self.named {
            Some(name) => name.clone(),
            None => {
                let nameless = resolve::by_descriptor(&self.file);
                let link = |name: &str| {
                    let follow = AtFlags::SYMLINK_FOLLOW;
                    rustix::fs::linkat(CWD, &nameless, &place.directory, name, follow)
                };
                match link(&place.name) {
                    Err(Errno::EXIST) => {}
                    done => return done,
                }
                let name = unused_name();
                link(&name)?;
                self.named = Some(name.clone());
                name
            }
        };
        rustix::fs::renameat(&place.directory, &draft, &place.directory, &place.name)?;
        self.named = None;
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some(name) = &self.named {
            // It was given up; if even that fails, what stays has a name that says what it is.
            let _ = rustix::fs::unlinkat(&self.place.directory, name, AtFlags::empty());
        }
    }
}

/// A name that no other draft has.
fn unused_name() -> String {
    let mut random = [0; 8];
    // Never short for so few bytes. If there were none, the name would be refused as taken.
    // SAFETY: writes at most as many bytes as the array has.
    unsafe { libc::getrandom(random.as_mut_ptr().cast(), random.len(), 0) };
    format!(".sprite-write-{:016x}", u64::from_le_bytes(random))
}

/// Brings a directory's names to the disk.
pub(super) fn sync_directory(directory: &OwnedFd) -> Result<(), Errno> {
    match resolve::readable(directory) {
        Ok(directory) => rustix::fs::fsync(directory),
        // A directory that may be written to but not read cannot be opened for it: the whole file system, then.
        Err(Errno::ACCESS) => {
            let root = resolve::open("/", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
            rustix::fs::syncfs(root)
        }
        Err(errno) => Err(errno),
    }
}
