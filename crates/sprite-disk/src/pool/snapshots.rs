//! Snapshots: a directory for each sprite in which its driver keeps the memory of a sprite that sleeps. What the
//! files in it are is the driver's.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use sprite_types::SpriteId;

use super::Pool;
use crate::durable;

/// What the name of a directory ends in that was set aside.
const ASIDE: &str = ".unfit";

/// Why a sprite's snapshots are not as they should be.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotsError {
    /// The directory could not be made.
    #[error("make directory {path}")]
    Make {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Something could not be deleted.
    #[error("delete directory {path}")]
    Delete {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The directory could not be renamed.
    #[error("rename directory {path}")]
    Rename {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl Pool {
    pub(super) fn snapshots_path(&self, sprite: SpriteId) -> PathBuf {
        self.inner.root.join("snapshots").join(sprite.to_string())
    }

    pub(super) fn snapshots_aside(&self, sprite: SpriteId) -> PathBuf {
        let name = format!("{sprite}{ASIDE}");
        self.inner.root.join("snapshots").join(name)
    }

    /// The directory of a sprite's snapshots; made if there is none.
    ///
    /// # Errors
    /// It could not be made.
    pub fn make_snapshots(&self, sprite: SpriteId) -> Result<PathBuf, SnapshotsError> {
        let path = self.snapshots_path(sprite);
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => match durable::sync_parent(&path) {
                Ok(()) => Ok(path),
                Err(source) => Err(SnapshotsError::Make { path, source }),
            },
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(path),
            Err(source) => Err(SnapshotsError::Make { path, source }),
        }
    }

    /// Deletes a sprite's snapshots, and what was set aside. Nothing happens if there are none.
    ///
    /// # Errors
    /// Some may still be there.
    ///
    /// # Crash safety
    /// Calling again deletes the rest.
    pub fn delete_snapshots(&self, sprite: SpriteId) -> Result<(), SnapshotsError> {
        for path in [self.snapshots_path(sprite), self.snapshots_aside(sprite)] {
            remove(&path).map_err(|source| SnapshotsError::Delete { path, source })?;
        }
        Ok(())
    }

    /// Renames a sprite's snapshots so that nothing uses them any more; what was set aside before is deleted.
    /// Nothing happens if there are none.
    ///
    /// # Errors
    /// They are where they were.
    pub fn set_snapshots_aside(&self, sprite: SpriteId) -> Result<(), SnapshotsError> {
        let (path, aside) = (self.snapshots_path(sprite), self.snapshots_aside(sprite));
        if !path.exists() {
            return Ok(());
        }
        remove(&aside).map_err(|source| SnapshotsError::Delete {
            path: aside.clone(),
            source,
        })?;
        fs::rename(&path, &aside)
            .and_then(|()| durable::sync_parent(&aside))
            .map_err(|source| SnapshotsError::Rename { path, source })
    }
}

fn remove(directory: &std::path::Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Ok(()) => durable::sync_parent(directory),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}
