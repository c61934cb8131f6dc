//! Goes through a tree: depth first, in bounded memory, without following a link.
//!
//! Every directory is opened below the one before, by its name alone, so that nobody who moves things meanwhile
//! leads the walk anywhere else. Other file systems are not entered.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, RawDir, ResolveFlags, Stat};
use rustix::io::Errno;

use super::channel::{Stop, Tried, refused};
use super::resolve::is_directory;

/// Deepest tree: an open directory for each level.
const DEEPEST: usize = 1000;

/// Names held at once, over all levels; so many of one directory are told in their order.
const NAMES: usize = 1 << 14;
/// Names held of a directory however many are held already.
const FEWEST_NAMES: usize = 16;

/// Bytes of entries asked of the kernel at once.
const ENTRIES: usize = 32 << 10;
const FEW_ENTRIES: usize = 1 << 10;

/// Something in a tree.
pub(super) struct Found<'a> {
    /// The directory that holds it.
    pub(super) directory: BorrowedFd<'a>,
    pub(super) name: &'a CStr,
    /// From the path at which the walk began.
    pub(super) path: &'a str,
    /// Of itself, if it is a link.
    pub(super) stat: Stat,
}

/// What to do about a directory.
pub(super) enum Then {
    Enter,
    Pass,
    /// Open it once more: it could not be, and something was done about that.
    Retry,
}

/// What a walk does.
pub(super) trait Visit {
    /// Everything that is no directory.
    fn file(&mut self, found: &Found<'_>) -> Result<(), Stop>;

    /// A directory, and whether it could be opened.
    fn enter(
        &mut self,
        found: &Found<'_>,
        opened: Result<BorrowedFd<'_>, Errno>,
    ) -> Result<Then, Stop>;

    /// A directory that was entered, behind all that it holds.
    fn leave(&mut self, found: &Found<'_>) -> Result<(), Stop>;
}

struct Level {
    directory: OwnedFd,
    /// Where its path ends.
    path: usize,
    /// What it is for the one above; `None` at the top.
    found: Option<(CString, Stat)>,
    names: std::vec::IntoIter<CString>,
    /// Whether the kernel has more names.
    more: bool,
    /// Names that were held.
    held: usize,
}

/// Goes through all that a directory holds, not the directory itself.
pub(super) fn walk(top: OwnedFd, path: &str, visit: &mut impl Visit) -> Result<(), Stop> {
    let mut text = path.trim_end_matches('/').to_owned();
    let mut levels = vec![Level::new(top, text.len(), None)];
    let mut held = 0;
    while let Some(level) = levels.last_mut() {
        text.truncate(level.path);
        let Some(name) = level.next(&mut held, &text)? else {
            let done = levels.pop().expect("it was just looked at");
            held -= done.held;
            if let (Some((name, stat)), Some(above)) = (done.found, levels.last()) {
                visit.leave(&Found {
                    directory: above.directory.as_fd(),
                    name: &name,
                    path: &text,
                    stat,
                })?;
            }
            continue;
        };
        text.push('/');
        text.push_str(&name.to_string_lossy());
        let stat = match rustix::fs::statat(&level.directory, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            // Gone since its name was read.
            Err(Errno::NOENT) => continue,
            Err(errno) => return Err(errno).tried("look at", &text),
        };
        let found = Found {
            directory: level.directory.as_fd(),
            name: &name,
            path: &text,
            stat,
        };
        if !is_directory(&stat) {
            visit.file(&found)?;
            continue;
        }
        if let Some(directory) = enter(&found, visit)? {
            if levels.len() >= DEEPEST {
                return Err(refused(libc::ELOOP, "go any deeper", &text));
            }
            let path = text.len();
            levels.push(Level::new(directory, path, Some((name, stat))));
        }
    }
    Ok(())
}

fn enter(found: &Found<'_>, visit: &mut impl Visit) -> Result<Option<OwnedFd>, Stop> {
    let mut opened = open_below(found);
    let mut then = visit.enter(found, as_borrowed(&opened))?;
    if matches!(then, Then::Retry) {
        opened = open_below(found);
        then = visit.enter(found, as_borrowed(&opened))?;
    }
    match (then, opened) {
        (Then::Enter, Ok(directory)) => Ok(Some(directory)),
        (Then::Pass, _) => Ok(None),
        (Then::Enter | Then::Retry, Err(errno)) => Err(errno).tried("open", found.path),
        (Then::Retry, Ok(_)) => Err(refused(libc::EAGAIN, "open", found.path)),
    }
}

fn as_borrowed(opened: &Result<OwnedFd, Errno>) -> Result<BorrowedFd<'_>, Errno> {
    opened.as_ref().map(AsFd::as_fd).map_err(|errno| *errno)
}

fn open_below(found: &Found<'_>) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    rustix::fs::openat2(found.directory, found.name, flags, Mode::empty(), resolve)
}

impl Level {
    fn new(directory: OwnedFd, path: usize, found: Option<(CString, Stat)>) -> Self {
        Self {
            directory,
            path,
            found,
            names: Vec::new().into_iter(),
            more: true,
            held: 0,
        }
    }

    fn next(&mut self, held: &mut usize, path: &str) -> Result<Option<CString>, Stop> {
        if let Some(name) = self.names.next() {
            return Ok(Some(name));
        }
        if !self.more {
            return Ok(None);
        }
        *held -= self.held;
        let most = NAMES.saturating_sub(*held).max(FEWEST_NAMES);
        let mut names = self.read(most).tried("list", path)?;
        names.sort_unstable();
        self.held = names.len();
        *held += self.held;
        self.names = names.into_iter();
        Ok(self.names.next())
    }

    /// About so many names, or all that there are.
    fn read(&mut self, most: usize) -> Result<Vec<CString>, Errno> {
        let mut names = Vec::new();
        let mut buffer = [MaybeUninit::uninit(); ENTRIES];
        // Deep down few names are held, and no more are read.
        let few = if most <= FEWEST_NAMES {
            FEW_ENTRIES
        } else {
            ENTRIES
        };
        let buffer = &mut buffer[..few];
        while names.len() < most {
            // A reader takes what it asked for: it is made anew, so that what it read beyond is not lost.
            let mut reader = RawDir::new(&self.directory, buffer);
            let mut any = false;
            while let Some(entry) = reader.next() {
                let entry = entry?;
                any = true;
                let name = entry.file_name();
                if name != c"." && name != c".." {
                    names.push(name.to_owned());
                }
                if reader.is_buffer_empty() {
                    break;
                }
            }
            if !any {
                self.more = false;
                break;
            }
        }
        Ok(names)
    }
}
