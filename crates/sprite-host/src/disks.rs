//! Where disks come from.

use std::path::PathBuf;

use async_trait::async_trait;
use sprite_types::{CheckpointId, SpriteId};

/// A failure of the pool.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The pool, or the file system below it, is too full for another disk.
    #[error("{step}: not enough space")]
    Full {
        /// Lower-case verb phrase with ids and paths.
        step: String,
    },
    /// The base image needs a larger disk than was asked for.
    #[error("{step}: {storage_gb} GB is too small for the image, which needs {smallest_gb} GB")]
    TooSmall {
        /// Lower-case verb phrase with ids and paths.
        step: String,
        /// What was asked for.
        storage_gb: u32,
        /// The least that holds the image.
        smallest_gb: u32,
    },
    /// A step failed.
    #[error("{step}")]
    Step {
        /// Lower-case verb phrase with ids and paths.
        step: String,
        /// What was said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// What a sprite takes of the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiskUsage {
    /// What of its disk no other file shares, in bytes: what deleting it would free.
    pub unique_bytes: u64,
    /// What is kept of its memory while it sleeps, in bytes.
    pub snapshot_bytes: u64,
}

/// The pool of disks, as far as the host needs it.
#[async_trait]
pub trait Disks: Send + Sync + 'static {
    /// Makes a sprite's disk from a base image. Idempotent: a disk that is complete stays as it is.
    ///
    /// # Errors
    /// There is no disk, or an incomplete one that [`Disks::delete`] removes.
    ///
    /// # Crash safety
    /// The disk is durable when this returns.
    async fn create(
        &self,
        sprite: SpriteId,
        image: &str,
        storage_gb: u32,
    ) -> Result<PathBuf, DiskError>;

    /// Where a sprite's disk is.
    fn path(&self, sprite: SpriteId) -> PathBuf;

    /// Where a sprite's memory is kept while it sleeps, if that is outside of a machine. An empty directory is made
    /// if there is none.
    ///
    /// # Errors
    /// It could not be made.
    async fn snapshots(&self, sprite: SpriteId) -> Result<PathBuf, DiskError>;

    /// What a sprite takes of the pool now. Takes some milliseconds.
    ///
    /// # Errors
    /// The pool cannot be read.
    async fn usage(&self, sprite: SpriteId) -> Result<DiskUsage, DiskError>;

    /// Deletes what is kept of a sprite's memory. Idempotent.
    ///
    /// # Errors
    /// Something could not be deleted; calling again tries again.
    async fn forget_memory(&self, sprite: SpriteId) -> Result<(), DiskError>;

    /// Puts memory that cannot be used where nothing will use it, for a person to look at. What was put there before
    /// is deleted.
    ///
    /// # Errors
    /// It is where it was.
    async fn set_memory_aside(&self, sprite: SpriteId) -> Result<(), DiskError>;

    /// Keeps the state of a sprite's disk as it is now, as if the power had been cut. Idempotent: one of that name that
    /// is complete stays as it is.
    ///
    /// # Errors
    /// There is no such checkpoint.
    ///
    /// # Crash safety
    /// It is durable when this returns. Before, it exists complete or not at all.
    async fn checkpoint(&self, sprite: SpriteId, id: CheckpointId) -> Result<(), DiskError>;

    /// Gives a sprite's disk, which nothing uses, the state of a checkpoint.
    ///
    /// # Errors
    /// The disk is as it was, or has the checkpoint's state.
    ///
    /// # Crash safety
    /// It has the checkpoint's state for good when this returns. Before, it is as it was or has that state.
    async fn restore(&self, sprite: SpriteId, to: CheckpointId) -> Result<(), DiskError>;

    /// Makes a sprite's disk as a copy of another's as it is now, or of a checkpoint of that one. Idempotent: a disk
    /// that is complete stays as it is.
    ///
    /// # Errors
    /// There is no disk.
    ///
    /// # Crash safety
    /// The disk is durable when this returns.
    async fn fork(
        &self,
        sprite: SpriteId,
        from: SpriteId,
        checkpoint: Option<CheckpointId>,
    ) -> Result<PathBuf, DiskError>;

    /// Deletes a checkpoint. Idempotent.
    ///
    /// # Errors
    /// It may still be there; calling again tries again.
    async fn delete_checkpoint(&self, sprite: SpriteId, id: CheckpointId) -> Result<(), DiskError>;

    /// Deletes a sprite's disk, its memory, its checkpoints and all that making them left. Idempotent.
    ///
    /// # Errors
    /// Something could not be deleted; calling again tries again.
    async fn delete(&self, sprite: SpriteId) -> Result<(), DiskError>;

    /// The sprites that have a disk.
    ///
    /// # Errors
    /// The pool cannot be read.
    async fn list(&self) -> Result<Vec<SpriteId>, DiskError>;
}
