//! From the text of a path to a descriptor.
//!
//! The process's root is the environment's, so no path leads out of it. `openat2` says so once more, and refuses
//! the links of `/proc` that lead into processes.

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use sprite_agent_api::fs::LONGEST_PATH;

use super::channel::{Stop, Tried, refused};

/// How often a path is tried that somebody renames a part of meanwhile.
const TRIES: usize = 128;

/// Where relative paths begin.
pub(super) struct Paths {
    working: String,
}

impl Paths {
    pub(super) fn new(home: &str, working_dir: Option<&str>) -> Result<Self, Stop> {
        let home = Self {
            working: clean("/", home)?,
        };
        match working_dir.filter(|dir| !dir.is_empty()) {
            Some(dir) => Ok(Self {
                working: home.absolute(dir)?,
            }),
            None => Ok(home),
        }
    }

    /// The absolute path, without `.` and doubled `/`; `..` is left to the kernel, which knows where links lead.
    pub(super) fn absolute(&self, path: &str) -> Result<String, Stop> {
        if path.is_empty() {
            return Err(refused(libc::EINVAL, "read an empty path", path));
        }
        if path.contains('\0') {
            return Err(refused(libc::EINVAL, "read a path with a zero byte", ""));
        }
        clean(&self.working, path)
    }
}

fn clean(base: &str, path: &str) -> Result<String, Stop> {
    let base = if path.starts_with('/') { "" } else { base };
    let parts = base.split('/').chain(path.split('/'));
    let mut whole = String::new();
    for part in parts.filter(|part| !part.is_empty() && *part != ".") {
        whole.push('/');
        whole.push_str(part);
    }
    if whole.len() > LONGEST_PATH {
        let shown: String = path.chars().take(80).collect();
        return Err(refused(libc::ENAMETOOLONG, "read a path", &shown));
    }
    if whole.is_empty() {
        whole.push('/');
    }
    Ok(whole)
}

/// Opens an absolute path.
pub(super) fn open(path: &str, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    // Where something is only located, the kernel refuses what has a meaning for an open file alone.
    let opens = if flags.contains(OFlags::PATH) {
        OFlags::empty()
    } else {
        OFlags::NOCTTY
    };
    let flags = flags | OFlags::CLOEXEC | opens;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..TRIES {
        match rustix::fs::openat2(CWD, path, flags, mode, resolve) {
            // Told when something was renamed on the way: the kernel cannot know any more where `..` leads.
            Err(Errno::AGAIN | Errno::INTR) => {}
            opened => return opened,
        }
    }
    Err(Errno::AGAIN)
}

/// A descriptor that only says where something is, links followed.
pub(super) fn locate(path: &str) -> Result<(OwnedFd, Stat), Errno> {
    let place = open(path, OFlags::PATH, Mode::empty())?;
    let stat = rustix::fs::fstat(&place)?;
    Ok((place, stat))
}

/// A descriptor that only says where something is; a link at the end is the thing.
pub(super) fn locate_link(path: &str) -> Result<(OwnedFd, Stat), Errno> {
    let place = open(path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())?;
    let stat = rustix::fs::fstat(&place)?;
    Ok((place, stat))
}

/// Opens a regular file and nothing else: opening a pipe waits, and opening a device may do anything.
pub(super) fn open_regular(path: &str, access: OFlags) -> Result<(OwnedFd, Stat), Errno> {
    let (_place, before) = locate(path)?;
    only_regular(&before)?;
    // It may be another one by now; then this neither waits nor is it used.
    let file = open(path, access | OFlags::NONBLOCK, Mode::empty())?;
    let stat = rustix::fs::fstat(&file)?;
    only_regular(&stat)?;
    Ok((file, stat))
}

pub(super) fn only_regular(stat: &Stat) -> Result<(), Errno> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(()),
        FileType::Directory => Err(Errno::ISDIR),
        FileType::Symlink => Err(Errno::LOOP),
        FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => Err(Errno::INVAL),
    }
}

pub(super) fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// The directory that holds a path's last name, and that name.
pub(super) fn parent(path: &str) -> Result<(OwnedFd, &str), Stop> {
    let (directory, name) = split(path)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let directory = open(directory, flags, Mode::empty()).tried("find its directory", path)?;
    Ok((directory, name))
}

/// A path's directory and its last name.
pub(super) fn split(path: &str) -> Result<(&str, &str), Stop> {
    match path.rsplit_once('/') {
        Some((_, "" | "..")) | None => Err(refused(libc::EINVAL, "find the name", path)),
        Some(("", name)) => Ok(("/", name)),
        Some((directory, name)) => Ok((directory, name)),
    }
}

/// How a descriptor of ours is named for calls that take only names.
pub(super) fn by_descriptor(fd: &impl AsRawFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// A directory that can be read, from one that is only located.
pub(super) fn readable(place: &OwnedFd) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(place, c".", flags, Mode::empty())
}

/// Mode without the kind of file.
pub(super) fn permission_bits(stat: &Stat) -> u32 {
    stat.st_mode & 0o7777
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_begin_at_the_working_directory_and_that_at_home() {
        let absolute = |dir: Option<&str>, path: &str| {
            let paths = Paths::new("/home/sprite", dir).expect("a directory");
            paths.absolute(path).expect("a path")
        };
        for (dir, path, expected) in [
            (None, "a", "/home/sprite/a"),
            (None, "/a//b/./c/", "/a/b/c"),
            (Some(""), ".", "/home/sprite"),
            (Some("work"), "a/../b", "/home/sprite/work/a/../b"),
            (Some("/"), "a", "/a"),
            (Some("/srv"), "/", "/"),
        ] {
            assert_eq!(absolute(dir, path), expected, "{dir:?} {path}");
        }
    }

    #[test]
    fn paths_that_no_kernel_takes_are_refused() {
        let paths = Paths::new("/home/sprite", None).expect("a directory");
        for path in ["", "a\0b"] {
            assert!(paths.absolute(path).is_err(), "{path:?}");
        }
        let longest = format!("/{}", "x".repeat(LONGEST_PATH - 1));
        assert!(paths.absolute(&longest).is_ok());
        assert!(paths.absolute(&format!("{longest}x")).is_err());
        for path in ["/", "/a/.."] {
            assert!(split(path).is_err(), "{path}");
        }
        assert_eq!(split("/a").ok(), Some(("/", "a")));
    }
}
