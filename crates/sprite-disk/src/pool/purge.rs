//! Closing and purging: the host without our mounts and loop devices. Files are not deleted here.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::mount::UnmountFlags;

use super::{Backing, Places, Pool};
use crate::loop_device::{self, LoopDevice};
use crate::mounts;

/// Why the pool is still mounted.
#[derive(Debug, thiserror::Error)]
pub enum ClosePoolError {
    /// Somebody in this process, or a machine, still uses it.
    #[error("{path} is in use")]
    InUse {
        /// The pool's directory.
        path: PathBuf,
    },
    /// The kernel refused.
    #[error("unmount {path}")]
    Unmount {
        /// The pool's directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Why something of a data directory is still set up on this host.
#[derive(Debug, thiserror::Error)]
pub enum PurgeError {
    /// A server runs on it.
    #[error("{path} is locked: stop the server that uses this data directory")]
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
    /// A disk's loop device cannot be detached.
    #[error("detach the loop devices of {path}")]
    Detach {
        /// The file or directory whose devices they are.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The pool is still mounted.
    #[error(transparent)]
    Unmount(#[from] ClosePoolError),
}

impl Pool {
    /// Unmounts the pool, unless somebody uses it. Does nothing where it is a plain directory.
    ///
    /// # Errors
    /// The pool stays mounted and may be opened again.
    pub fn close(self) -> Result<(), ClosePoolError> {
        let root = self.inner.root.clone();
        let inner = Arc::into_inner(self.inner).ok_or(ClosePoolError::InUse { path: root })?;
        match inner.backing {
            Backing::Directory => Ok(()),
            // The loop device goes with its last user, which the mount is.
            Backing::File => unmount(&inner.root),
        }
    }

    /// Unmounts and detaches everything that pools of this data directory ever set up, and nothing else. The
    /// files stay; with them nothing more than removing the directory is to be done. Idempotent, and content with
    /// a directory that does not exist.
    ///
    /// # Errors
    /// A server or a machine uses the pool.
    ///
    /// # Crash safety
    /// May be interrupted at any step and called again.
    pub fn purge(data_dir: &Path) -> Result<(), PurgeError> {
        let data_dir = match data_dir.canonicalize() {
            Ok(path) => path,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(PurgeError::Inspect(error)),
        };
        let places = Places::of(data_dir);
        if !places.lock.exists() {
            return Ok(());
        }
        let _lock = places.lock().map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock => PurgeError::Busy {
                path: places.lock.clone(),
            },
            _ => PurgeError::Lock {
                path: places.lock.clone(),
                source,
            },
        })?;
        let detach = |source| PurgeError::Detach {
            path: places.root.clone(),
            source,
        };
        loop_device::detach_below(&places.root).map_err(detach)?;
        if !places.file.exists() {
            return Ok(());
        }
        while let Some(device) = LoopDevice::find(&places.file).map_err(PurgeError::Inspect)? {
            let mount = mounts::at(&places.root).map_err(PurgeError::Inspect)?;
            if mount.is_some_and(|mount| mount.source == device.path()) {
                drop(device);
                unmount(&places.root)?;
            } else {
                let detach = |source| PurgeError::Detach {
                    path: places.file.clone(),
                    source,
                };
                return device.detach().map_err(detach);
            }
        }
        Ok(())
    }
}

fn unmount(root: &Path) -> Result<(), ClosePoolError> {
    match rustix::mount::unmount(root, UnmountFlags::NOFOLLOW) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::BUSY) => Err(ClosePoolError::InUse {
            path: root.to_owned(),
        }),
        Err(error) => Err(ClosePoolError::Unmount {
            path: root.to_owned(),
            source: error.into(),
        }),
    }
}
