//! Deletes, renames, and changes modes and owners.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;
use sprite_agent_api::fs::{FsChanged, FsPair, FsReply, MOST_NAMED, Owner};

use super::channel::{Channel, Stop, Tried, refused};
use super::resolve::{self, by_descriptor, is_directory, locate, locate_link, readable};
use super::walk::{Found, Then, Visit, walk};
use super::write::sync_directory;
use crate::passwd;

/// What was changed so far.
pub(super) struct Changes<'a> {
    channel: &'a mut Channel,
    changed: FsChanged,
}

impl<'a> Changes<'a> {
    pub(super) fn new(channel: &'a mut Channel) -> Self {
        let changed = FsChanged::default();
        Self { channel, changed }
    }

    pub(super) fn add(&mut self, path: &str, dest: Option<&str>) -> Result<(), Stop> {
        self.changed.count += 1;
        if self.changed.paths.len() < MOST_NAMED {
            self.changed.paths.push(FsPair {
                path: path.to_owned(),
                dest: dest.map(str::to_owned),
            });
        }
        self.alive()
    }

    pub(super) fn alive(&mut self) -> Result<(), Stop> {
        self.channel.alive(self.changed.count)
    }

    pub(super) fn bytes(&mut self, bytes: u64) {
        self.changed.bytes += bytes;
    }

    pub(super) fn tell(self) -> Result<(), Stop> {
        self.channel.say(&FsReply::Changed(self.changed))
    }
}

pub(super) fn delete(channel: &mut Channel, path: &str, recursive: bool) -> Result<(), Stop> {
    let (directory, name) = resolve::parent(path)?;
    let (place, stat) = locate_link(path).tried("delete", path)?;
    let mut changes = Changes::new(channel);
    if is_directory(&stat) {
        if recursive {
            empty(&place, path, &mut changes)?;
        }
        rustix::fs::unlinkat(&directory, name, AtFlags::REMOVEDIR).tried("delete", path)?;
    } else {
        rustix::fs::unlinkat(&directory, name, AtFlags::empty()).tried("delete", path)?;
    }
    sync_directory(&directory).tried("bring to the disk", path)?;
    changes.add(path, None)?;
    changes.tell()
}

fn empty(place: &OwnedFd, path: &str, changes: &mut Changes<'_>) -> Result<(), Stop> {
    let directory = match readable(place) {
        Ok(directory) => directory,
        // What is empty can be removed without being read.
        Err(Errno::ACCESS) => return Ok(()),
        Err(errno) => return Err(errno).tried("open", path),
    };
    walk(directory, path, &mut Delete { changes })
}

struct Delete<'a, 'b> {
    changes: &'a mut Changes<'b>,
}

impl Visit for Delete<'_, '_> {
    fn file(&mut self, found: &Found<'_>) -> Result<(), Stop> {
        match rustix::fs::unlinkat(found.directory, found.name, AtFlags::empty()) {
            Ok(()) => self.changes.add(found.path, None),
            // Somebody else was faster.
            Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno).tried("delete", found.path),
        }
    }

    fn enter(
        &mut self,
        found: &Found<'_>,
        opened: Result<BorrowedFd<'_>, Errno>,
    ) -> Result<Then, Stop> {
        match opened {
            Ok(_) => Ok(Then::Enter),
            Err(Errno::NOENT) => Ok(Then::Pass),
            Err(Errno::ACCESS) => {
                let done = rustix::fs::unlinkat(found.directory, found.name, AtFlags::REMOVEDIR);
                match done {
                    Ok(()) => self.changes.add(found.path, None)?,
                    Err(Errno::NOENT) => {}
                    // It is not empty; that it may not be looked into is what stands in the way.
                    Err(_) => return Err(Errno::ACCESS).tried("delete", found.path),
                }
                Ok(Then::Pass)
            }
            Err(errno) => Err(errno).tried("delete", found.path),
        }
    }

    fn leave(&mut self, found: &Found<'_>) -> Result<(), Stop> {
        match rustix::fs::unlinkat(found.directory, found.name, AtFlags::REMOVEDIR) {
            Ok(()) => self.changes.add(found.path, None),
            Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno).tried("delete", found.path),
        }
    }
}

pub(super) fn rename(channel: &mut Channel, source: &str, dest: &str) -> Result<(), Stop> {
    let (from, name) = resolve::parent(source)?;
    let (to, new_name) = resolve::parent(dest)?;
    rustix::fs::renameat(&from, name, &to, new_name).tried("rename", source)?;
    for directory in [&to, &from] {
        sync_directory(directory).tried("bring to the disk", dest)?;
    }
    let mut changes = Changes::new(channel);
    changes.add(source, Some(dest))?;
    changes.tell()
}

/// Does something to one file or directory, and to all below it if that is asked for.
fn each(
    place: &OwnedFd,
    stat: &Stat,
    path: &str,
    recursive: bool,
    one: &mut impl Visit,
) -> Result<(), Stop> {
    if recursive && is_directory(stat) {
        let directory = readable(place).tried("open", path)?;
        walk(directory, path, one)?;
    }
    Ok(())
}

pub(super) fn chmod(
    channel: &mut Channel,
    path: &str,
    mode: u32,
    recursive: bool,
) -> Result<(), Stop> {
    let (place, stat) = locate(path).tried("find", path)?;
    let mut chmod = Chmod {
        changes: Changes::new(channel),
        mode: Mode::from_raw_mode(mode & 0o7777),
        opened: false,
    };
    // What opens a directory comes before what it holds, what closes it after.
    let opens = mode & 0o500 == 0o500;
    if opens {
        chmod.set(&place, path)?;
    }
    each(&place, &stat, path, recursive, &mut chmod)?;
    if !opens {
        chmod.set(&place, path)?;
    }
    chmod.changes.tell()
}

struct Chmod<'a> {
    changes: Changes<'a>,
    mode: Mode,
    /// The directory at hand has the mode already: it could not be opened without.
    opened: bool,
}

impl Chmod<'_> {
    fn set(&mut self, place: &OwnedFd, path: &str) -> Result<(), Stop> {
        rustix::fs::chmodat(CWD, by_descriptor(place), self.mode, AtFlags::empty())
            .tried("change the mode of", path)?;
        self.changes.add(path, None)
    }

    fn set_below(&mut self, found: &Found<'_>) -> Result<(), Stop> {
        match locate_below(found) {
            Ok(place) => self.set(&place, found.path),
            Err(Errno::NOENT | Errno::LOOP) => Ok(()),
            Err(errno) => Err(errno).tried("find", found.path),
        }
    }

    fn opens(&self) -> bool {
        self.mode.contains(Mode::RUSR | Mode::XUSR)
    }
}

/// Says where something is that a walk found; refuses a link.
fn locate_below(found: &Found<'_>) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let place = rustix::fs::openat(found.directory, found.name, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&place)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
        return Err(Errno::LOOP);
    }
    Ok(place)
}

impl Visit for Chmod<'_> {
    fn file(&mut self, found: &Found<'_>) -> Result<(), Stop> {
        self.set_below(found)
    }

    fn enter(
        &mut self,
        found: &Found<'_>,
        opened: Result<BorrowedFd<'_>, Errno>,
    ) -> Result<Then, Stop> {
        match opened {
            Err(Errno::ACCESS) if self.opens() => {
                self.set_below(found)?;
                self.opened = true;
                Ok(Then::Retry)
            }
            Err(errno) => Err(errno).tried("open", found.path),
            Ok(_) => {
                if !std::mem::take(&mut self.opened) && self.opens() {
                    self.set_below(found)?;
                }
                Ok(Then::Enter)
            }
        }
    }

    fn leave(&mut self, found: &Found<'_>) -> Result<(), Stop> {
        if self.opens() {
            return Ok(());
        }
        self.set_below(found)
    }
}

/// An owner and a group; either may stay.
#[derive(Clone, Copy)]
pub(super) struct NewOwner {
    uid: Option<u32>,
    gid: Option<u32>,
}

impl NewOwner {
    pub(super) fn of(user: Option<&Owner>, group: Option<&Owner>) -> Result<Self, Stop> {
        if user.is_none() && group.is_none() {
            return Err(refused(libc::EINVAL, "change to no owner and no group", ""));
        }
        Ok(Self {
            uid: user.map(|user| id(user, "/etc/passwd")).transpose()?,
            gid: group.map(|group| id(group, "/etc/group")).transpose()?,
        })
    }
}

fn id(owner: &Owner, file: &str) -> Result<u32, Stop> {
    let number = match owner {
        Owner::Id(id) => Some(*id),
        Owner::Name(name) => match name.parse() {
            Ok(id) => Some(id),
            Err(_) => passwd::find_id(
                &passwd::read_bounded(Path::new(file)).unwrap_or_default(),
                name,
            ),
        },
    };
    // All ones stands for "no change" in the calls that take an id.
    let number = number.filter(|id| *id != u32::MAX);
    number.ok_or_else(|| refused(libc::EINVAL, "find the user or group in", file))
}

pub(super) fn chown(
    channel: &mut Channel,
    path: &str,
    owner: NewOwner,
    recursive: bool,
) -> Result<(), Stop> {
    let (place, stat) = locate(path).tried("find", path)?;
    let mut changes = Changes::new(channel);
    changes.changed.uid = Some(owner.uid.unwrap_or(stat.st_uid));
    changes.changed.gid = Some(owner.gid.unwrap_or(stat.st_gid));
    let mut chown = Chown { changes, owner };
    chown.set(place.as_fd(), c"", path)?;
    each(&place, &stat, path, recursive, &mut chown)?;
    chown.changes.tell()
}

struct Chown<'a> {
    changes: Changes<'a>,
    owner: NewOwner,
}

impl Chown<'_> {
    /// An empty name is the descriptor itself. A link itself is changed.
    fn set(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &std::ffi::CStr,
        path: &str,
    ) -> Result<(), Stop> {
        let flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW;
        let uid = self.owner.uid.map(Uid::from_raw);
        let gid = self.owner.gid.map(Gid::from_raw);
        match rustix::fs::chownat(directory, name, uid, gid, flags) {
            Ok(()) => self.changes.add(path, None),
            Err(Errno::NOENT) if !name.is_empty() => Ok(()),
            Err(errno) => Err(io::Error::from(errno)).tried("change the owner of", path),
        }
    }
}

impl Visit for Chown<'_> {
    fn file(&mut self, found: &Found<'_>) -> Result<(), Stop> {
        self.set(found.directory, found.name, found.path)
    }

    fn enter(
        &mut self,
        found: &Found<'_>,
        opened: Result<BorrowedFd<'_>, Errno>,
    ) -> Result<Then, Stop> {
        opened.tried("open", found.path)?;
        self.set(found.directory, found.name, found.path)?;
        Ok(Then::Enter)
    }

    fn leave(&mut self, _: &Found<'_>) -> Result<(), Stop> {
        Ok(())
    }
}
