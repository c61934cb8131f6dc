//! Lists a directory.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;
use sprite_agent_api::fs::{FsEntry, FsKind, FsReply};

use super::channel::{Channel, Stop, Tried};
use super::pattern::Pattern;
use super::resolve::{is_directory, locate, locate_link, permission_bits, readable, split};
use super::walk::{Found, Then, Visit, walk};

/// Bytes of names that are told at once, about.
const BATCH: usize = 64 << 10;

pub(super) fn list(
    channel: &mut Channel,
    path: &str,
    recursive: bool,
    pattern: Option<&str>,
) -> Result<(), Stop> {
    let (place, stat) = match locate(path) {
        // A link that leads nowhere is there all the same.
        Err(Errno::NOENT | Errno::LOOP) => locate_link(path),
        located => located,
    }
    .tried("find", path)?;
    if !is_directory(&stat) {
        let (place, stat) = locate_link(path).tried("find", path)?;
        let (_, name) = split(path)?;
        let target = link_target(place.as_fd(), c"", &stat);
        channel.say(&FsReply::Listing {
            path: path.to_owned(),
        })?;
        let entries = vec![entry(name.to_owned(), path.to_owned(), &stat, target, None)];
        channel.say(&FsReply::Entries { entries })?;
        return channel.say(&FsReply::Done);
    }
    let directory = readable(&place).tried("open", path)?;
    channel.say(&FsReply::Listing {
        path: path.to_owned(),
    })?;
    let mut listing = Listing {
        channel,
        root: path.trim_end_matches('/').len() + 1,
        recursive,
        pattern: pattern
            .filter(|pattern| !pattern.is_empty())
            .map(Pattern::new),
        batch: Vec::new(),
        bytes: 0,
        count: 0,
    };
    walk(directory, path, &mut listing)?;
    listing.flush()?;
    channel.say(&FsReply::Done)
}

struct Listing<'a> {
    channel: &'a mut Channel,
    /// Where paths below the one that is listed begin.
    root: usize,
    recursive: bool,
    pattern: Option<Pattern>,
    batch: Vec<FsEntry>,
    bytes: usize,
    count: u64,
}

impl Listing<'_> {
    fn add(&mut self, found: &Found<'_>, closed: Option<Errno>) -> Result<(), Stop> {
        self.count += 1;
        let below = &found.path[self.root..];
        if self
            .pattern
            .as_ref()
            .is_some_and(|pattern| !pattern.matches(below))
        {
            return self.channel.alive(self.count);
        }
        let name = found.name.to_string_lossy().into_owned();
        let target = link_target(found.directory, found.name, &found.stat);
        self.bytes += found.path.len() + name.len() + 64;
        let errno = closed.map(Errno::raw_os_error);
        let entry = entry(name, found.path.to_owned(), &found.stat, target, errno);
        self.batch.push(entry);
        if self.bytes >= BATCH {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Stop> {
        self.bytes = 0;
        let entries = std::mem::take(&mut self.batch);
        if entries.is_empty() {
            return Ok(());
        }
        self.channel.say(&FsReply::Entries { entries })
    }
}

impl Visit for Listing<'_> {
    fn file(&mut self, found: &Found<'_>) -> Result<(), Stop> {
        self.add(found, None)
    }

    fn enter(
        &mut self,
        found: &Found<'_>,
        opened: Result<BorrowedFd<'_>, Errno>,
    ) -> Result<Then, Stop> {
        if !self.recursive {
            self.add(found, None)?;
            return Ok(Then::Pass);
        }
        // That a directory's content is missing is told in its entry: the list is whole, or says where it is not.
        self.add(found, opened.err())?;
        Ok(match opened {
            Ok(_) => Then::Enter,
            Err(_) => Then::Pass,
        })
    }

    fn leave(&mut self, _: &Found<'_>) -> Result<(), Stop> {
        Ok(())
    }
}

/// Where a link leads; an empty name is the descriptor itself.
fn link_target(directory: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> Option<String> {
    if kind(stat) != FsKind::Symlink {
        return None;
    }
    // Gone since it was looked at: then nobody knows.
    let target = rustix::fs::readlinkat(directory, name, Vec::new()).ok()?;
    Some(target.to_string_lossy().into_owned())
}

fn entry(
    name: String,
    path: String,
    stat: &Stat,
    target: Option<String>,
    errno: Option<i32>,
) -> FsEntry {
    FsEntry {
        name,
        path,
        kind: kind(stat),
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mode: permission_bits(stat),
        mtime: stat.st_mtime,
        mtime_nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
        uid: stat.st_uid,
        gid: stat.st_gid,
        target,
        errno,
    }
}

fn kind(stat: &Stat) -> FsKind {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => FsKind::File,
        FileType::Directory => FsKind::Directory,
        FileType::Symlink => FsKind::Symlink,
        FileType::Fifo => FsKind::Fifo,
        FileType::Socket => FsKind::Socket,
        FileType::BlockDevice => FsKind::BlockDevice,
        FileType::CharacterDevice => FsKind::CharDevice,
        FileType::Unknown => FsKind::Unknown,
    }
}
