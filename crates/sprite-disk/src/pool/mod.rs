//! The pool: the local file system that can share blocks between files (reflink), with all that is cloned on it.
//!
//! ```text
//! DIR/pool.lock                 held by the process that uses the pool
//! DIR/pool.xfs                  only where the file system of DIR has no reflink: mounted at DIR/pool
//! DIR/pool/images/ID.ext4       base images, read-only by agreement; ID.json describes each
//! DIR/pool/images/ID-10g.ext4   the same in another size, made when first asked for
//! DIR/pool/disks/SPRITE.ext4    one disk for each sprite
//! DIR/pool/snapshots/SPRITE/    the memory of a sprite that sleeps without a machine
//! DIR/pool/golden/NAME/         memories that machines begin with
//! DIR/pool/checkpoints/SPRITE/  states of a disk that its sprite can go back to
//! ```
//!
//! Order and consistency: every file appears under its name complete and durable, or not at all. The mount stays
//! when the process dies, because machines may still run on it; the next [`Pool::open`] finds it.

mod checkpoints;
mod disks;
mod golden;
mod images;
mod open;
mod prospect;
mod purge;
mod snapshots;
mod space;
mod usage;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

pub use checkpoints::CheckpointError;
pub use disks::{CreateDiskError, DeleteDiskError, ListDisksError};
pub use golden::Goldens;
pub use images::{ImportImageError, ListImagesError, SizedImageError};
pub use open::OpenPoolError;
pub use prospect::{Obstacle, Prospect};
pub use purge::{ClosePoolError, PurgeError};
pub use snapshots::SnapshotsError;
pub use space::{Shortage, Space};
pub use usage::{MeasureError, SpriteSpace};

/// One GB of a disk's nominal size, in bytes.
pub(crate) const GB: u64 = 1 << 30;

/// Where a pool lives.
#[derive(Debug, Clone)]
pub struct PoolOptions {
    /// The server's data directory; made if it is missing.
    pub data_dir: PathBuf,
    /// What the pool is laid out on.
    pub layout: Layout,
}

impl PoolOptions {
    /// The pool of `data_dir`, laid out as fits the file system there.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            layout: Layout::Auto,
        }
    }
}

/// What a new pool is laid out on. A pool that exists stays what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// The directory itself where its file system has reflink, else a file as in [`Layout::File`] of a size
    /// that fits the host.
    Auto,
    /// A sparse XFS file, mounted through a loop device.
    File {
        /// Nominal size in bytes, at least 300 MiB (what XFS asks for).
        bytes: u64,
    },
}

/// The open pool. Clones share it.
///
/// The value's end does not unmount anything: machines may run on the pool, and they outlive this process.
/// [`Pool::close`] unmounts.
#[derive(Debug, Clone)]
pub struct Pool {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    data_dir: PathBuf,
    root: PathBuf,
    backing: Backing,
    /// Makes an image of another size; one at a time, so that many creates do not make the same one.
    resizing: Mutex<()>,
    /// Locked while the pool is used: two servers over one pool would delete each other's disks.
    _lock: File,
}

/// What the pool's directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backing {
    /// A directory of a file system with reflink that somebody else looks after.
    Directory,
    /// Our own XFS file, loop-mounted.
    File,
}

impl Pool {
    /// What the pool's directory is.
    #[must_use]
    pub fn backing(&self) -> Backing {
        self.inner.backing
    }

    /// The pool's directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    fn images_dir(&self) -> PathBuf {
        self.inner.root.join("images")
    }

    fn disks_dir(&self) -> PathBuf {
        self.inner.root.join("disks")
    }
}

/// Where things are in a data directory.
#[derive(Debug, Clone)]
struct Places {
    data_dir: PathBuf,
    lock: PathBuf,
    file: PathBuf,
    new_file: PathBuf,
    root: PathBuf,
}

impl Places {
    /// `data_dir` must be canonical: the kernel's tables show canonical paths.
    fn of(data_dir: PathBuf) -> Self {
        Self {
            lock: data_dir.join("pool.lock"),
            file: data_dir.join("pool.xfs"),
            new_file: data_dir.join("pool.xfs.new"),
            root: data_dir.join("pool"),
            data_dir,
        }
    }

    fn lock(&self) -> std::io::Result<File> {
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&self.lock)?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
        Ok(file)
    }
}
