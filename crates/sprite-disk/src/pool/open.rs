//! Opening: find or make the file system with reflink.
//!
//! In this order, under the lock: a mount that is there already (ours from before a crash, or an operator's own);
//! our file, mounted again; the directory itself, if its file system has reflink; a new file.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustix::mount::MountFlags;

use super::{Backing, Inner, Layout, Places, Pool, PoolOptions, space};
use crate::durable;
use crate::loop_device::LoopDevice;
use crate::mounts;
use crate::progress::Progress;
use crate::tool::{self, ToolError};

/// Smallest nominal size of a new pool's file in bytes; it is sparse, so it may be more than is free.
const SMALLEST_FILE: u64 = 8 << 30;

/// Why the pool could not be opened. Nothing is mounted that was not mounted before.
#[derive(Debug, thiserror::Error)]
pub enum OpenPoolError {
    /// A directory could not be made or looked at.
    #[error("make directory {path}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another process uses the pool.
    #[error("{path} is locked: another server uses this data directory")]
    Busy {
        /// The lock.
        path: PathBuf,
    },
    /// The lock cannot be had for another reason.
    #[error("lock {path}")]
    Lock {
        /// The lock.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The tables of mounts and loop devices cannot be read.
    #[error("look for mounts and loop devices")]
    Inspect(#[source] io::Error),
    /// No reflink here, and no right to make a file system that has it.
    #[error(
        "the file system of {path} cannot share blocks between files (no reflink) and only root may mount one \
         that can: start as root, or put the data directory on XFS or btrfs"
    )]
    NoReflink {
        /// The data directory.
        path: PathBuf,
    },
    /// Somebody mounted something at the pool's place.
    #[error(
        "the {kind} mounted at {path} cannot share blocks between files (no reflink): unmount it"
    )]
    UnfitMount {
        /// The pool's directory.
        path: PathBuf,
        /// Type of the file system.
        kind: String,
    },
    /// The file system could not be made.
    #[error("make the file system {path}")]
    Make {
        /// The file.
        path: PathBuf,
        /// Which program failed, and how.
        #[source]
        source: ToolError,
    },
    /// The file could not be made.
    #[error("make the file {path}")]
    MakeFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file could not be attached to a loop device.
    #[error("attach {path} to a loop device")]
    Attach {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file system could not be mounted.
    #[error("mount {path} at {at}")]
    Mount {
        /// The file.
        path: PathBuf,
        /// The pool's directory.
        at: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl Pool {
    /// Opens the pool of a data directory, making what is missing.
    ///
    /// # Errors
    /// See [`OpenPoolError`]; where a person can help, the text says how.
    ///
    /// # Crash safety
    /// May be interrupted at any step and called again. A mount that an earlier process made is used as it is.
    pub fn open(options: &PoolOptions, progress: &dyn Progress) -> Result<Self, OpenPoolError> {
        make_directory(&options.data_dir)?;
        let data_dir = options.data_dir.canonicalize();
        let data_dir = data_dir.map_err(|source| directory_error(&options.data_dir, source))?;
        let places = Places::of(data_dir);
        let lock = places.lock().map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock => OpenPoolError::Busy {
                path: places.lock.clone(),
            },
            _ => OpenPoolError::Lock {
                path: places.lock.clone(),
                source,
            },
        })?;
        make_directory(&places.root)?;
        let backing = find_or_make(&places, options.layout, progress)?;
        for name in ["images", "disks", "snapshots", "checkpoints"] {
            make_directory(&places.root.join(name))?;
        }
        Ok(Self {
            inner: Arc::new(Inner {
                data_dir: places.data_dir,
                root: places.root,
                backing,
                resizing: Mutex::new(()),
                _lock: lock,
            }),
        })
    }
}

fn find_or_make(
    places: &Places,
    layout: Layout,
    progress: &dyn Progress,
) -> Result<Backing, OpenPoolError> {
    if let Some(mount) = mounts::at(&places.root).map_err(OpenPoolError::Inspect)? {
        if attached(places)?.is_some_and(|device| device.path() == mount.source) {
            return Ok(Backing::File);
        }
        let unfit = OpenPoolError::UnfitMount {
            path: places.root.clone(),
            kind: mount.kind,
        };
        return has_reflink(&places.root)
            .then_some(Backing::Directory)
            .ok_or(unfit);
    }
    if !places.file.exists() {
        let bytes = match layout {
            Layout::Auto if has_reflink(&places.root) => return Ok(Backing::Directory),
            Layout::Auto => fitting_size(&places.data_dir)?,
            Layout::File { bytes } => bytes,
        };
        refuse_without_root(places)?;
        make_file(places, bytes, progress)?;
    }
    refuse_without_root(places)?;
    mount(places, progress)?;
    Ok(Backing::File)
}

fn refuse_without_root(places: &Places) -> Result<(), OpenPoolError> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(OpenPoolError::NoReflink {
        path: places.data_dir.clone(),
    })
}

/// Whether a clone works in `directory`, found out by making one.
pub(super) fn has_reflink(directory: &Path) -> bool {
    let clone = || -> io::Result<()> {
        let from = durable::unnamed(directory)?;
        io::Write::write_all(&mut &from, &[1; 4096])?;
        rustix::fs::ioctl_ficlone(durable::unnamed(directory)?, from)?;
        Ok(())
    };
    clone().is_ok()
}

/// Nominal size of a new file: nine tenths of what is free now. The pool then says that it is full before the
/// file system below it is; a larger promise would come out as I/O errors in the middle of somebody's write.
pub(super) fn fitting_size(data_dir: &Path) -> Result<u64, OpenPoolError> {
    let (_, free) = space::measure(data_dir).map_err(|source| directory_error(data_dir, source))?;
    let whole_mib = (free / 10 * 9) >> 20 << 20;
    Ok(whole_mib.max(SMALLEST_FILE))
}

/// Makes the file under another name, so that a file system under the right name is always complete.
fn make_file(places: &Places, bytes: u64, progress: &dyn Progress) -> Result<(), OpenPoolError> {
    progress.step("make the pool: an XFS file, because the file system here has no reflink");
    let failed = |source| OpenPoolError::MakeFile {
        path: places.file.clone(),
        source,
    };
    durable::remove(&places.new_file).map_err(failed)?;
    let file = File::create_new(&places.new_file).map_err(failed)?;
    rustix::fs::fchmod(&file, rustix::fs::Mode::from_raw_mode(0o600))
        .map_err(|error| failed(error.into()))?;
    file.set_len(bytes).map_err(failed)?;
    let made = tool::MKFS_XFS.command().and_then(|mut command| {
        // Sectors of 4,096 bytes: see `loop_device::SECTOR_SIZE`.
        command.args([
            "-q",
            "-m",
            "reflink=1",
            "-s",
            "size=4096",
            "-L",
            "sprite-pool",
        ]);
        command.arg(&places.new_file);
        tool::MKFS_XFS.run(command, progress)
    });
    made.map_err(|source| OpenPoolError::Make {
        path: places.file.clone(),
        source,
    })?;
    file.sync_all().map_err(failed)?;
    fs::rename(&places.new_file, &places.file).map_err(failed)?;
    durable::sync_parent(&places.file).map_err(failed)
}

fn attached(places: &Places) -> Result<Option<LoopDevice>, OpenPoolError> {
    if !places.file.exists() {
        return Ok(None);
    }
    LoopDevice::find(&places.file).map_err(OpenPoolError::Inspect)
}

fn mount(places: &Places, progress: &dyn Progress) -> Result<(), OpenPoolError> {
    progress.step("mount the pool");
    let device = match attached(places)? {
        Some(device) => device,
        None => File::options()
            .read(true)
            .write(true)
            .open(&places.file)
            .and_then(|file| LoopDevice::attach(&file, &places.file))
            .map_err(|source| OpenPoolError::Attach {
                path: places.file.clone(),
                source,
            })?,
    };
    let flags = MountFlags::NOATIME | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    // With discard, deleting a sprite gives its blocks back to the file system below.
    rustix::mount::mount(device.path(), &places.root, "xfs", flags, Some(c"discard")).map_err(
        |error| OpenPoolError::Mount {
            path: places.file.clone(),
            at: places.root.clone(),
            source: error.into(),
        },
    )
}

fn make_directory(path: &Path) -> Result<(), OpenPoolError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| directory_error(path, source))
}

fn directory_error(path: &Path, source: io::Error) -> OpenPoolError {
    OpenPoolError::Directory {
        path: path.to_owned(),
        source,
    }
}
