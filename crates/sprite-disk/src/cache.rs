//! A directory in which processes build things that are slow to make, and share them.
//!
//! ```text
//! CACHE/NAME.lock    held by the process that builds NAME; stays, empty
//! CACHE/NAME.build/  where it is built; one that nobody's lock covers is a dead process's and is removed
//! ```

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use crate::progress::Progress;

/// Makes the cache's directory, and says where it really is: programs are told paths below it, some of them
/// after they changed their directory.
pub(crate) fn open(cache_dir: &Path) -> io::Result<PathBuf> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(cache_dir)?;
    cache_dir.canonicalize()
}

/// Waits until no other process builds `name`; nobody else does while the file is open.
pub(crate) fn lock(
    cache_dir: &Path,
    name: &str,
    what: &str,
    progress: &dyn Progress,
) -> io::Result<File> {
    let file = open_lock(cache_dir, name)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => return Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => {}
        Err(error) => return Err(error.into()),
    }
    progress.step(&format!("wait for the process that makes this {what} now"));
    loop {
        match rustix::fs::flock(&file, FlockOperation::LockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The path of the lock of `name`.
pub(crate) fn lock_path(cache_dir: &Path, name: &str) -> PathBuf {
    cache_dir.join(format!("{name}.lock"))
}

fn open_lock(cache_dir: &Path, name: &str) -> io::Result<File> {
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(lock_path(cache_dir, name))
}

/// Removes what builds of dead processes left, of the names that are `ours`.
pub(crate) fn sweep(cache_dir: &Path, ours: impl Fn(&str) -> bool) -> io::Result<()> {
    for entry in fs::read_dir(cache_dir)? {
        let file_name = entry?.file_name();
        let name = file_name
            .to_str()
            .and_then(|file_name| file_name.strip_suffix(".build"))
            .filter(|name| ours(name));
        let Some(name) = name else {
            continue;
        };
        let lock = open_lock(cache_dir, name)?;
        // Our own build's lock is held by us through another descriptor, so it counts as taken here.
        if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            remove_tree(&work_path(cache_dir, name))?;
        }
    }
    Ok(())
}

fn work_path(cache_dir: &Path, name: &str) -> PathBuf {
    cache_dir.join(format!("{name}.build"))
}

/// Removes a directory with all that is in it, if it is there.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The directory of one build, removed at its end.
#[derive(Debug)]
pub(crate) struct WorkDirectory(PathBuf);

impl WorkDirectory {
    /// A new one, for whoever holds the lock of `name`.
    pub(crate) fn make(cache_dir: &Path, name: &str) -> io::Result<Self> {
        let path = work_path(cache_dir, name);
        remove_tree(&path)?;
        // Not for others' eyes: files of an image keep their set-user-id bits here.
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The root file system in it.
    pub(crate) fn tree(&self) -> PathBuf {
        self.0.join("root")
    }
}

impl Drop for WorkDirectory {
    fn drop(&mut self) {
        if let Err(error) = remove_tree(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "remove the directory of a build");
        }
    }
}
