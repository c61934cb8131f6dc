//! Where journals lie: unnamed files on the sprite's own disk, all together within a bound.
//!
//! Such a file is in no directory, so that nothing in the environment can open, replace or link it, and the kernel
//! frees it when the last descriptor is closed: with the session's memory, or with the machine, however that ends.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{Mode, OFlags};

use super::ring::Ring;
use crate::sys;

/// All journals on the disk of a machine together at most.
const MOST: u64 = 1 << 30;

/// And at most one part in so many of the disk.
const PART: u64 = 16;

/// Journals at once; each takes a descriptor of the agent.
const MOST_FILES: usize = 512;

/// Room for rings.
#[derive(Debug)]
pub(crate) struct Store {
    directory: OwnedFd,
    /// Whose files they are, as the agent names it: ids that the disk does not know cannot own any.
    owner: u32,
    most: u64,
    used: Arc<AtomicU64>,
    /// One reference for each ring, and the store's own.
    files: Arc<()>,
}

/// A ring's share of the store's room; given back when dropped.
#[derive(Debug)]
pub(super) struct Reserved {
    bytes: u64,
    used: Arc<AtomicU64>,
    _file: Arc<()>,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Why there is no ring.
#[derive(Debug)]
pub(crate) enum NoRing {
    /// Others have all the room.
    Room,
    /// The disk does not want it.
    Disk(io::Error),
}

impl Store {
    /// A store on the disk that is mounted at `disk`.
    ///
    /// # Errors
    /// There is no such directory.
    pub(crate) fn open(disk: &Path, owner: u32) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(disk, flags, Mode::empty())?;
        let statistics = rustix::fs::statvfs(disk)?;
        let whole = statistics.f_blocks.saturating_mul(statistics.f_frsize);
        Ok(Self {
            directory,
            owner,
            most: MOST.min(whole / PART),
            used: Arc::default(),
            files: Arc::default(),
        })
    }

    /// A new ring of `size` bytes for output from the offset `at` on; blocks.
    ///
    /// # Errors
    /// There is no room, or the disk does not want it.
    pub(super) fn ring(&self, at: u64, size: u64) -> Result<Ring, NoRing> {
        let reserved = self.reserve(size).ok_or(NoRing::Room)?;
        let file = self.file().map_err(NoRing::Disk)?;
        Ok(Ring::new(file, size, at, reserved))
    }

    fn reserve(&self, bytes: u64) -> Option<Reserved> {
        if Arc::strong_count(&self.files) > MOST_FILES {
            return None;
        }
        let more = |used: u64| {
            let then = used + bytes;
            (then <= self.most).then_some(then)
        };
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .ok()?;
        Some(Reserved {
            bytes,
            used: self.used.clone(),
            _file: self.files.clone(),
        })
    }

    fn file(&self) -> io::Result<File> {
        // Excluded from links: it never gets a name.
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::EXCL | OFlags::CLOEXEC;
        sys::file_identity(self.owner, self.owner);
        let mode = Mode::from_raw_mode(0o600);
        let file = rustix::fs::openat(&self.directory, ".", flags, mode);
        sys::file_identity(0, 0);
        Ok(File::from(file?))
    }
}
