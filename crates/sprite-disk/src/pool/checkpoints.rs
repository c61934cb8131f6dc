//! Checkpoints: clones of a sprite's disk, each as it was at one instant.
//!
//! ```text
//! DIR/pool/checkpoints/SPRITE/v1.ext4
//! DIR/pool/checkpoints/SPRITE/auto-1.ext4
//! ```
//!
//! Cloning (`FICLONE`) is atomic on XFS also beside writers: it locks the file, writes its pages out and shares its
//! blocks. So a clone is an exact prefix of what was written, as a power cut would leave it.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use sprite_types::{CheckpointId, SpriteId};

use super::Pool;
use super::space::Shortage;
use crate::durable;

/// Why a sprite's checkpoints are not as they should be.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Another would endanger what exists.
    #[error("refuse another checkpoint")]
    Full(#[source] Shortage),
    /// A step failed.
    #[error("{step} {path}")]
    Step {
        /// What was to be done.
        step: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

fn step(step: &'static str, path: PathBuf) -> impl FnOnce(io::Error) -> CheckpointError {
    move |source| CheckpointError::Step { step, path, source }
}

impl Pool {
    fn checkpoints_path(&self, sprite: SpriteId) -> PathBuf {
        self.inner.root.join("checkpoints").join(sprite.to_string())
    }

    /// Where a checkpoint of a sprite is, whether it exists or not.
    #[must_use]
    pub fn checkpoint_path(&self, sprite: SpriteId, id: CheckpointId) -> PathBuf {
        self.checkpoints_path(sprite).join(format!("{id}.ext4"))
    }

    /// Keeps the state of a sprite's disk as it is now. One of that name that exists stays as it is. Takes a few
    /// milliseconds; whoever writes to the disk meanwhile waits about 15 µs for each extent of it.
    ///
    /// # Errors
    /// There is no such checkpoint, and nothing of it is left.
    ///
    /// # Crash safety
    /// It is durable when this returns. Before, it exists complete or not at all.
    pub fn create_checkpoint(
        &self,
        sprite: SpriteId,
        id: CheckpointId,
    ) -> Result<(), CheckpointError> {
        let path = self.checkpoint_path(sprite, id);
        let failed = || step("make checkpoint", path.clone());
        self.check_room().map_err(failed())??;
        // Opened first: of a sprite without a disk nothing is made.
        let disk = File::open(self.disk_path(sprite)).map_err(failed())?;
        let directory = self.checkpoints_path(sprite);
        match DirBuilder::new().mode(0o700).create(&directory) {
            Ok(()) => durable::sync_parent(&directory).map_err(failed())?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed()(error)),
        }
        let clone = durable::unnamed(&directory).map_err(failed())?;
        rustix::fs::ioctl_ficlone(&clone, &disk).map_err(|error| failed()(error.into()))?;
        durable::publish(&clone, &path).map_err(failed())?;
        Ok(())
    }

    /// Gives a sprite's disk the state of a checkpoint. Nothing may use the disk.
    ///
    /// # Errors
    /// The disk is as it was, or has the checkpoint's state.
    ///
    /// # Crash safety
    /// It has the checkpoint's state for good when this returns. Before, it is as it was or has that state.
    pub fn restore_checkpoint(
        &self,
        sprite: SpriteId,
        id: CheckpointId,
    ) -> Result<(), CheckpointError> {
        let path = self.checkpoint_path(sprite, id);
        let failed = || step("restore checkpoint", path.clone());
        let from = File::open(&path).map_err(failed())?;
        let clone = durable::unnamed(&self.disks_dir()).map_err(failed())?;
        rustix::fs::ioctl_ficlone(&clone, &from).map_err(|error| failed()(error.into()))?;
        durable::replace(&clone, &self.disk_path(sprite)).map_err(failed())
    }

    /// Makes a sprite's disk as a clone of another's, or of a checkpoint of that one. A disk that exists stays as it is.
    /// Takes a few milliseconds, however large it is.
    ///
    /// # Errors
    /// There is no disk, and nothing of it is left.
    ///
    /// # Crash safety
    /// The disk is durable when this returns. Before, it exists complete or not at all.
    pub fn fork_disk(
        &self,
        sprite: SpriteId,
        from: SpriteId,
        checkpoint: Option<CheckpointId>,
    ) -> Result<PathBuf, CheckpointError> {
        let path = self.disk_path(sprite);
        let failed = || step("make disk", path.clone());
        self.check_room().map_err(failed())??;
        let source = match checkpoint {
            Some(id) => self.checkpoint_path(from, id),
            None => self.disk_path(from),
        };
        let source = File::open(&source).map_err(step("fork", source))?;
        let disk = durable::unnamed(&self.disks_dir()).map_err(failed())?;
        rustix::fs::ioctl_ficlone(&disk, &source).map_err(|error| failed()(error.into()))?;
        durable::publish(&disk, &path).map_err(failed())?;
        Ok(path)
    }

    /// Whether there is room for another clone.
    fn check_room(&self) -> io::Result<Result<(), CheckpointError>> {
        Ok(match self.space()?.shortage() {
            Some(shortage) => Err(CheckpointError::Full(shortage)),
            None => Ok(()),
        })
    }

    /// Deletes a checkpoint. Nothing happens if there is none.
    ///
    /// # Errors
    /// It may still be there.
    ///
    /// # Crash safety
    /// It is gone for good when this returns.
    pub fn delete_checkpoint(
        &self,
        sprite: SpriteId,
        id: CheckpointId,
    ) -> Result<(), CheckpointError> {
        let path = self.checkpoint_path(sprite, id);
        durable::remove(&path).map_err(step("delete checkpoint", path.clone()))
    }

    /// Deletes all checkpoints of a sprite. Nothing happens if there are none.
    ///
    /// # Errors
    /// Some may still be there.
    ///
    /// # Crash safety
    /// Calling again deletes the rest.
    pub fn delete_checkpoints(&self, sprite: SpriteId) -> Result<(), CheckpointError> {
        let path = self.checkpoints_path(sprite);
        let deleted = match fs::remove_dir_all(&path) {
            Ok(()) => durable::sync_parent(&path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        };
        deleted.map_err(step("delete checkpoints", path))
    }
}
