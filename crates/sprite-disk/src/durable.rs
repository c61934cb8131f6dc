//! Files that appear whole or not at all.
//!
//! Inside the pool a new file has no name until it is complete (`O_TMPFILE`), so a crash leaves nothing to sweep.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};

/// Only root reads a sprite's disk.
const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);

/// A new file in `directory` that has no name yet; it is gone with its descriptor.
pub(crate) fn unnamed(directory: &Path) -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(directory, flags, PRIVATE)?))
}

/// Gives a file of [`unnamed`] its name and makes both durable. Returns whether the name was still free; if it
/// was not, the file that has it stays as it is.
///
/// # Crash safety
/// The name leads to the complete file or does not exist.
pub(crate) fn publish(file: &File, path: &Path) -> io::Result<Published> {
    let from = format!("/proc/self/fd/{}", file.as_raw_fd());
    let published = match rustix::fs::linkat(CWD, &from, CWD, path, AtFlags::SYMLINK_FOLLOW) {
        Ok(()) => Published::Now,
        Err(rustix::io::Errno::EXIST) => Published::Before,
        Err(error) => return Err(error.into()),
    };
    // After the link, so that one journal commit carries the content and the name: a file system orders what
    // made the content before the name. The directory's sync then finds nothing left to write.
    match published {
        Published::Now => file.sync_all()?,
        Published::Before => {}
    }
    sync_parent(path)?;
    Ok(published)
}

/// Gives a file of [`unnamed`] the name of another, which is gone then, and makes that durable.
///
/// # Crash safety
/// The name leads to the one file or to the other, complete. The new one may be left beside it; the next call and
/// [`discard_replacement`] remove that.
pub(crate) fn replace(file: &File, path: &Path) -> io::Result<()> {
    discard_replacement(path)?;
    let new = replacement(path);
    match publish(file, &new)? {
        Published::Now => {}
        Published::Before => return Err(io::ErrorKind::AlreadyExists.into()),
    }
    std::fs::rename(new, path)?;
    sync_parent(path)
}

/// Removes what a [`replace`] left that did not end.
pub(crate) fn discard_replacement(path: &Path) -> io::Result<()> {
    remove(&replacement(path))
}

fn replacement(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

/// Who gave a name to the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Published {
    /// This call.
    Now,
    /// Somebody earlier.
    Before,
}

/// Makes the entry of `path` in its directory durable.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

/// Removes a file if it exists, durably.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Ok(()) => sync_parent(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}
