//! Disks that are empty files.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use sprite_host::{DiskError, DiskUsage, Disks};
use sprite_types::{CheckpointId, SpriteId};
use tempfile::TempDir;

use crate::switch::{Chance, Held, Shared, Step};

/// A pool in a temporary directory; a disk is a file that holds the image's name and the size asked for.
pub struct FakeDisks {
    dir: TempDir,
    /// The sprites that have one, in the order in which these were made.
    made: Mutex<Vec<SpriteId>>,
    snapshots: TempDir,
    checkpoints: TempDir,
    switches: Shared,
    /// What the image needs, in GB.
    smallest_gb: AtomicU32,
}

impl Default for FakeDisks {
    fn default() -> Self {
        let directory = |what: &str| tempfile::tempdir_in(crate::host::quick()).expect(what);
        Self {
            dir: directory("make a directory for disks"),
            made: Mutex::default(),
            snapshots: directory("make a directory for memory"),
            checkpoints: directory("make a directory for checkpoints"),
            switches: Shared::default(),
            smallest_gb: AtomicU32::new(1),
        }
    }
}

impl FakeDisks {
    /// Makes a step fail the next `times` times.
    pub fn fail(&self, step: Step, times: u32) {
        self.switches.fail(step, times);
    }

    /// Lets chance decide on every step from now on.
    pub fn chance(&self, chance: Chance) {
        self.switches.chance(chance);
    }

    /// Makes a step wait as long as what comes back lives.
    #[must_use]
    pub fn hold(&self, step: Step) -> Held {
        self.switches.hold(step)
    }

    /// Makes the image need disks of at least this size from now on.
    pub fn need(&self, smallest_gb: u32) {
        self.smallest_gb.store(smallest_gb, Ordering::Relaxed);
    }

    /// What was written to the disk when it was made: image and size. `None`: there is none.
    #[must_use]
    pub fn made_from(&self, sprite: SpriteId) -> Option<String> {
        fs::read_to_string(self.path(sprite)).ok()
    }

    fn made(&self) -> MutexGuard<'_, Vec<SpriteId>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes to a disk, as what runs in a machine does.
    ///
    /// # Panics
    /// It cannot be written.
    pub fn write(&self, sprite: SpriteId, text: &str) {
        fs::write(self.path(sprite), text).expect("write to a disk");
    }

    /// What is on a sprite's disk, or in a checkpoint of it.
    #[must_use]
    pub fn state(&self, sprite: SpriteId, of: Option<CheckpointId>) -> Option<String> {
        let path = of.map_or_else(|| self.path(sprite), |id| self.checkpoint_path(sprite, id));
        fs::read_to_string(path).ok()
    }

    /// The checkpoints of a sprite that have a file.
    ///
    /// # Panics
    /// The directory cannot be read.
    #[must_use]
    pub fn checkpoints(&self, sprite: SpriteId) -> BTreeSet<CheckpointId> {
        let of_it = format!("{sprite}.");
        let files = fs::read_dir(self.checkpoints.path()).expect("list checkpoints");
        files
            .filter_map(|file| {
                let name = file.expect("list checkpoints").file_name();
                name.to_str()?.strip_prefix(&of_it)?.parse().ok()
            })
            .collect()
    }

    fn checkpoint_path(&self, sprite: SpriteId, id: CheckpointId) -> PathBuf {
        self.checkpoints.path().join(format!("{sprite}.{id}"))
    }

    fn memory(&self, sprite: SpriteId) -> PathBuf {
        self.snapshots.path().join(sprite.to_string())
    }

    fn failed(step: &str, source: io::Error) -> DiskError {
        DiskError::Step {
            step: step.to_owned(),
            source: Box::new(source),
        }
    }
}

#[async_trait]
impl Disks for FakeDisks {
    async fn create(
        &self,
        sprite: SpriteId,
        image: &str,
        storage_gb: u32,
    ) -> Result<PathBuf, DiskError> {
        let fail = |source| Self::failed("make a disk", source);
        self.switches
            .pass(Step::CreateDisk, sprite)
            .await
            .map_err(fail)?;
        if self.switches.fails(Step::CreateDiskFull) {
            return Err(DiskError::Full {
                step: "make a disk".to_owned(),
            });
        }
        let smallest_gb = self.smallest_gb.load(Ordering::Relaxed);
        if storage_gb < smallest_gb {
            return Err(DiskError::TooSmall {
                step: "make a disk".to_owned(),
                storage_gb,
                smallest_gb,
            });
        }
        let path = self.path(sprite);
        if !path.exists() {
            fs::write(&path, format!("{image} {storage_gb}")).map_err(fail)?;
            self.made().push(sprite);
        }
        Ok(path)
    }

    fn path(&self, sprite: SpriteId) -> PathBuf {
        self.dir.path().join(sprite.to_string())
    }

    async fn snapshots(&self, sprite: SpriteId) -> Result<PathBuf, DiskError> {
        let path = self.memory(sprite);
        match fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(Self::failed("make a place for memory", error))
            }
            _made_or_there => Ok(path),
        }
    }

    async fn usage(&self, sprite: SpriteId) -> Result<DiskUsage, DiskError> {
        let fail = |source| Self::failed("measure a disk", source);
        let disk = match fs::metadata(self.path(sprite)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            disk => disk.map_err(fail)?.len(),
        };
        let memory = fs::read_dir(self.memory(sprite)).into_iter().flatten();
        let memory = memory.map(|file| file.and_then(|file| file.metadata()));
        let memory: Vec<_> = memory.collect::<io::Result<_>>().map_err(fail)?;
        Ok(DiskUsage {
            unique_bytes: disk,
            snapshot_bytes: memory.iter().map(fs::Metadata::len).sum(),
        })
    }

    async fn forget_memory(&self, sprite: SpriteId) -> Result<(), DiskError> {
        let passed = self.switches.pass(Step::ForgetMemory, sprite).await;
        passed.map_err(|error| Self::failed("delete memory", error))?;
        match fs::remove_dir_all(self.memory(sprite)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Self::failed("delete memory", error))
            }
            _gone => Ok(()),
        }
    }

    async fn set_memory_aside(&self, sprite: SpriteId) -> Result<(), DiskError> {
        let passed = self.switches.pass(Step::SetMemoryAside, sprite).await;
        passed.map_err(|error| Self::failed("set memory aside", error))?;
        let aside = self.memory(sprite).with_extension("unfit");
        // What was put there before is deleted.
        let _ = fs::remove_dir_all(&aside);
        fs::rename(self.memory(sprite), aside)
            .map_err(|error| Self::failed("set memory aside", error))
    }

    async fn checkpoint(&self, sprite: SpriteId, id: CheckpointId) -> Result<(), DiskError> {
        let fail = |source| Self::failed("make a checkpoint", source);
        let passed = self.switches.pass(Step::Checkpoint, sprite).await;
        passed.map_err(fail)?;
        let path = self.checkpoint_path(sprite, id);
        if path.exists() {
            return Ok(());
        }
        fs::copy(self.path(sprite), path).map(drop).map_err(fail)
    }

    async fn restore(&self, sprite: SpriteId, to: CheckpointId) -> Result<(), DiskError> {
        let fail = |source| Self::failed("restore a checkpoint", source);
        let passed = self.switches.pass(Step::Restore, sprite).await;
        passed.map_err(fail)?;
        fs::copy(self.checkpoint_path(sprite, to), self.path(sprite))
            .map(drop)
            .map_err(fail)
    }

    async fn fork(
        &self,
        sprite: SpriteId,
        from: SpriteId,
        checkpoint: Option<CheckpointId>,
    ) -> Result<PathBuf, DiskError> {
        let fail = |source| Self::failed("make a disk", source);
        let passed = self.switches.pass(Step::CreateDisk, sprite).await;
        passed.map_err(fail)?;
        let state = self.state(from, checkpoint);
        let state = state.ok_or_else(|| fail(io::ErrorKind::NotFound.into()))?;
        let path = self.path(sprite);
        if !path.exists() {
            fs::write(&path, state).map_err(fail)?;
            self.made().push(sprite);
        }
        Ok(path)
    }

    async fn delete_checkpoint(&self, sprite: SpriteId, id: CheckpointId) -> Result<(), DiskError> {
        let fail = |source| Self::failed("delete a checkpoint", source);
        let passed = self.switches.pass(Step::DeleteCheckpoint, sprite).await;
        passed.map_err(fail)?;
        match fs::remove_file(self.checkpoint_path(sprite, id)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(fail),
        }
    }

    async fn delete(&self, sprite: SpriteId) -> Result<(), DiskError> {
        let fail = |source| Self::failed("delete a disk", source);
        self.switches
            .pass(Step::DeleteDisk, sprite)
            .await
            .map_err(fail)?;
        self.forget_memory(sprite).await?;
        let of_it = format!("{sprite}.");
        for file in fs::read_dir(self.checkpoints.path()).map_err(fail)? {
            let file = file.map_err(fail)?;
            if file.file_name().to_string_lossy().starts_with(&of_it) {
                fs::remove_file(file.path()).map_err(fail)?;
            }
        }
        self.made().retain(|made| *made != sprite);
        match fs::remove_file(self.path(sprite)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(fail),
        }
    }

    async fn list(&self) -> Result<Vec<SpriteId>, DiskError> {
        Ok(self.made().clone())
    }
}
