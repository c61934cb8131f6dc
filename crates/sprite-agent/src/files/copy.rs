//! Copies a file, or a tree.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use sprite_agent_api::fs::Parents;

use super::change::Changes;
use super::channel::{Channel, Stop, Tried, refused};
use super::resolve::{self, is_directory, locate, locate_link, only_regular, permission_bits};
use super::walk::{Found, Then, Visit, walk};
use super::write::{Draft, Durable, Place, sync_directory};

/// Bytes that are copied between two signs of life.
const PIECE: usize = 32 << 20;

/// What is copied.
#[derive(Clone, Copy)]
pub(super) struct How {
    pub(super) recursive: bool,
    pub(super) preserve: bool,
}

pub(super) fn copy(channel: &mut Channel, source: &str, dest: &str, how: How) -> Result<(), Stop> {
    let located = if how.recursive {
        locate_link(source)
    } else {
        locate(source)
    };
    let (place, stat) = located.tried("find", source)?;
    let mut changes = Changes::new(channel);
    if is_directory(&stat) {
        if !how.recursive {
            return Err(refused(libc::EISDIR, "copy, unless recursively,", source));
        }
        copy_tree(&place, &stat, source, dest, how, &mut changes)?;
        return changes.tell();
    }
    if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
        let (directory, name) = resolve::parent(dest)?;
        let target =
            rustix::fs::readlinkat(&place, c"", Vec::new()).tried("read the link", source)?;
        rustix::fs::symlinkat(target, &directory, name).tried("make the link", dest)?;
        sync_directory(&directory).tried("bring to the disk", dest)?;
    } else {
        let (file, stat) = resolve::open_regular(source, OFlags::RDONLY).tried("open", source)?;
        let place = Place::find(dest, Parents::None)?;
        let copied = place.is(&stat).tried("look at", dest)?;
        if copied {
            return Err(refused(libc::EINVAL, "copy a file to itself,", source));
        }
        copy_file(&file, &stat, place, how, Durable::Now, &mut changes)?;
    }
    changes.add(source, Some(dest))?;
    changes.tell()
}

/// Copies bytes, mode, and what else is asked for.
fn copy_file(
    source: &OwnedFd,
    stat: &Stat,
    place: Place,
    how: How,
    durable: Durable,
    changes: &mut Changes<'_>,
) -> Result<(), Stop> {
    let mut draft = Draft::begin(place)?;
    let path = draft.path().to_owned();
    loop {
        let copied = copy_piece(source, draft.file()).tried("copy to", &path)?;
        if copied == 0 {
            break;
        }
        draft.wrote(copied as u64);
        changes.bytes(copied as u64);
        changes.alive()?;
    }
    if how.preserve {
        preserve(draft.file().as_fd(), stat);
    }
    draft.set_mode(permission_bits(stat) & if how.preserve { 0o7777 } else { 0o777 })?;
    draft.put(durable)
}

/// Copies by the kernel, which shares what it can share; from where both files are.
fn copy_piece(from: &OwnedFd, to: &File) -> Result<usize, Errno> {
    match rustix::fs::copy_file_range(from, None, to, None, PIECE) {
        Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) => {
            let mut buffer = vec![0; 128 << 10];
            let read = rustix::io::retry_on_intr(|| rustix::io::read(from, &mut buffer[..]))?;
            let mut rest = &buffer[..read];
            while !rest.is_empty() {
                let written = rustix::io::retry_on_intr(|| rustix::io::write(to, rest))?;
                rest = &rest[written..];
            }
            Ok(read)
        }
        copied => copied,
    }
}

/// Owner and times. Whoever may not give files away keeps them, as `cp -p` does.
fn preserve(copy: BorrowedFd<'_>, stat: &Stat) {
    let uid = Some(Uid::from_raw(stat.st_uid));
    let gid = Some(Gid::from_raw(stat.st_gid));
    if rustix::fs::fchown(copy, uid, gid).is_err() {
        let _ = rustix::fs::fchown(copy, None, gid);
    }
    let _ = rustix::fs::futimens(copy, &times(stat));
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds, nanos| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanos).unwrap_or(0),
    };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

fn copy_tree(
    place: &OwnedFd,
    stat: &Stat,
    source: &str,
    dest: &str,
    how: How,
    changes: &mut Changes<'_>,
) -> Result<(), Stop> {
    let from = resolve::readable(place).tried("open", source)?;
    let (above, name) = resolve::parent(dest)?;
    let to = make_or_open(above.as_fd(), name, dest)?;
    let root = rustix::fs::fstat(&to).tried("look at", dest)?;
    changes.add(source, Some(dest))?;
    let mut tree = Tree {
        changes,
        how,
        root: (root.st_dev, root.st_ino),
        source: source.trim_end_matches('/').len(),
        dest: dest.trim_end_matches('/'),
        levels: vec![to],
    };
    walk(from, source, &mut tree)?;
    let to = tree.levels.pop().expect("what was entered was left");
    finish_directory(&to, stat, how);
    // One for all: what is told is on the disk.
    rustix::fs::syncfs(&to).tried("bring to the disk", dest)
}

fn make_or_open(above: BorrowedFd<'_>, name: &str, path: &str) -> Result<OwnedFd, Stop> {
    match rustix::fs::mkdirat(above, name, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno).tried("make the directory", path),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(above, name, flags, Mode::empty()).tried("open", path)
}

/// Last, since a directory may be closed to its owner.
fn finish_directory(directory: &OwnedFd, stat: &Stat, how: How) {
    if how.preserve {
        preserve(directory.as_fd(), stat);
    }
    // A directory that was there and is somebody else's keeps its mode.
    let _ = rustix::fs::fchmod(directory, Mode::from_raw_mode(permission_bits(stat)));
}

struct Tree<'a, 'b> {
    changes: &'a mut Changes<'b>,
    how: How,
    /// The copy's own directory: a tree that holds it would have no end.
    root: (u64, u64),
    /// Length of the path that is copied.
    source: usize,
    dest: &'a str,
    /// Where copies go, a directory for each level.
    levels: Vec<OwnedFd>,
}

impl Tree<'_, '_> {
    fn dest(&self, found: &Found<'_>) -> String {
        format!("{}{}", self.dest, &found.path[self.source..])
    }

    fn here(&self) -> &OwnedFd {
        self.levels.last().expect("the top stays")
    }
}

impl Visit for Tree<'_, '_> {
    fn file(&mut self, found: &Found<'_>) -> Result<(), Stop> {
        let dest = self.dest(found);
        if FileType::from_raw_mode(found.stat.st_mode) == FileType::Symlink {
            let target = rustix::fs::readlinkat(found.directory, found.name, Vec::new());
            let target = target.tried("read the link", found.path)?;
            match rustix::fs::unlinkat(self.here(), found.name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno).tried("replace", &dest),
            }
            rustix::fs::symlinkat(target, self.here(), found.name).tried("make the link", &dest)?;
        } else {
            only_regular(&found.stat).tried("copy", found.path)?;
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = rustix::fs::openat(found.directory, found.name, flags, Mode::empty());
            let file = file.tried("open", found.path)?;
            let stat = rustix::fs::fstat(&file).tried("look at", found.path)?;
            only_regular(&stat).tried("copy", found.path)?;
            let here = self.here().try_clone().tried("open", &dest)?;
            let name = found.name.to_string_lossy().into_owned();
            let place = Place::at(here, name, &dest)?;
            copy_file(&file, &stat, place, self.how, Durable::Later, self.changes)?;
        }
        self.changes.add(found.path, Some(&dest))
    }

    fn enter(
        &mut self,
        found: &Found<'_>,
        opened: Result<BorrowedFd<'_>, Errno>,
    ) -> Result<Then, Stop> {
        opened.tried("open", found.path)?;
        if (found.stat.st_dev, found.stat.st_ino) == self.root {
            return Err(refused(
                libc::EINVAL,
                "copy a directory into itself,",
                found.path,
            ));
        }
        let dest = self.dest(found);
        let name = found.name.to_str().map_err(|_| Errno::ILSEQ);
        let made = make_or_open(self.here().as_fd(), name.tried("copy", found.path)?, &dest)?;
        self.levels.push(made);
        self.changes.add(found.path, Some(&dest))?;
        Ok(Then::Enter)
    }

    fn leave(&mut self, found: &Found<'_>) -> Result<(), Stop> {
        let made = self.levels.pop().expect("what was entered is left");
        finish_directory(&made, &found.stat, self.how);
        Ok(())
    }
}
