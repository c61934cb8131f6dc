//! The pool as the host of sprites uses it: its calls block, so they run on threads of their own.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use async_trait::async_trait;
use sprite_disk::{CheckpointError, CreateDiskError, ImageId, Pool, SizedImageError};
use sprite_host::{DiskError, DiskUsage, Disks};
use sprite_types::{CheckpointId, SpriteId};
use tokio::sync::Semaphore;

/// The disks of a pool.
pub(crate) struct PoolDisks {
    pub(crate) pool: Pool,
}

/// Disks that are measured at the same time: who asks for all of a thousand keeps nobody from creating one.
static MEASURED_AT_ONCE: Semaphore = Semaphore::const_new(2);

fn step<E: Error + Send + Sync + 'static>(step: String) -> impl FnOnce(E) -> DiskError {
    move |source| DiskError::Step {
        step,
        source: Box::new(source),
    }
}

async fn blocking<T, E, F>(name: String, work: F) -> Result<T, DiskError>
where
    T: Send + 'static,
    E: Error + Send + Sync + 'static,
    F: FnOnce() -> Result<T, E> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(step(name)),
        Err(error) => Err(step(name)(io::Error::other(error))),
    }
}

/// What was cloned, or was not for want of room.
async fn cloned<T: Send + 'static>(
    name: String,
    work: impl FnOnce() -> Result<T, CheckpointError> + Send + 'static,
) -> Result<T, DiskError> {
    let made = tokio::task::spawn_blocking(work).await;
    match made.map_err(|error| step(name.clone())(io::Error::other(error)))? {
        Ok(made) => Ok(made),
        Err(CheckpointError::Full(_)) => Err(DiskError::Full { step: name }),
        Err(error @ CheckpointError::Step { .. }) => Err(step(name)(error)),
    }
}

#[async_trait]
impl Disks for PoolDisks {
    async fn create(
        &self,
        sprite: SpriteId,
        image: &str,
        storage_gb: u32,
    ) -> Result<PathBuf, DiskError> {
        let name = format!("create the disk of {sprite}");
        let image: ImageId = image.parse().map_err(step(name.clone()))?;
        let pool = self.pool.clone();
        let created =
            tokio::task::spawn_blocking(move || pool.create_disk(sprite, &image, storage_gb)).await;
        match created.map_err(|error| step(name.clone())(io::Error::other(error)))? {
            Ok(path) => Ok(path),
            Err(CreateDiskError::Full(_)) => Err(DiskError::Full { step: name }),
            Err(CreateDiskError::Image {
                source:
                    SizedImageError::TooSmall {
                        storage_gb,
                        smallest_gb,
                    },
                ..
            }) => Err(DiskError::TooSmall {
                step: name,
                storage_gb,
                smallest_gb,
            }),
            Err(error) => Err(step(name)(error)),
        }
    }

    fn path(&self, sprite: SpriteId) -> PathBuf {
        self.pool.disk_path(sprite)
    }

    async fn snapshots(&self, sprite: SpriteId) -> Result<PathBuf, DiskError> {
        let pool = self.pool.clone();
        blocking(
            format!("make a place for the memory of {sprite}"),
            move || pool.make_snapshots(sprite),
        )
        .await
    }

    async fn usage(&self, sprite: SpriteId) -> Result<DiskUsage, DiskError> {
        // Nobody closes it.
        let _turn = MEASURED_AT_ONCE.acquire().await;
        let pool = self.pool.clone();
        let space = blocking(format!("measure the disk of {sprite}"), move || {
            pool.sprite_space(sprite)
        })
        .await?;
        Ok(DiskUsage {
            unique_bytes: space.unique_bytes,
            snapshot_bytes: space.snapshot_bytes,
        })
    }

    async fn forget_memory(&self, sprite: SpriteId) -> Result<(), DiskError> {
        let pool = self.pool.clone();
        blocking(format!("delete the memory of {sprite}"), move || {
            pool.delete_snapshots(sprite)
        })
        .await
    }

    async fn set_memory_aside(&self, sprite: SpriteId) -> Result<(), DiskError> {
        let pool = self.pool.clone();
        blocking(format!("set the memory of {sprite} aside"), move || {
            pool.set_snapshots_aside(sprite)
        })
        .await
    }

    async fn checkpoint(&self, sprite: SpriteId, id: CheckpointId) -> Result<(), DiskError> {
        let name = format!("make checkpoint {id} of {sprite}");
        let pool = self.pool.clone();
        cloned(name, move || pool.create_checkpoint(sprite, id)).await
    }

    async fn restore(&self, sprite: SpriteId, to: CheckpointId) -> Result<(), DiskError> {
        let pool = self.pool.clone();
        blocking(format!("restore checkpoint {to} of {sprite}"), move || {
            pool.restore_checkpoint(sprite, to)
        })
        .await
    }

    async fn fork(
        &self,
        sprite: SpriteId,
        from: SpriteId,
        checkpoint: Option<CheckpointId>,
    ) -> Result<PathBuf, DiskError> {
        let name = format!("make the disk of {sprite} from that of {from}");
        let pool = self.pool.clone();
        cloned(name, move || pool.fork_disk(sprite, from, checkpoint)).await
    }

    async fn delete_checkpoint(&self, sprite: SpriteId, id: CheckpointId) -> Result<(), DiskError> {
        let pool = self.pool.clone();
        blocking(format!("delete checkpoint {id} of {sprite}"), move || {
            pool.delete_checkpoint(sprite, id)
        })
        .await
    }

    async fn delete(&self, sprite: SpriteId) -> Result<(), DiskError> {
        // The disk goes last: as long as it is there, the rest is found.
        self.forget_memory(sprite).await?;
        let pool = self.pool.clone();
        blocking(format!("delete the checkpoints of {sprite}"), move || {
            pool.delete_checkpoints(sprite)
        })
        .await?;
        let pool = self.pool.clone();
        blocking(format!("delete the disk of {sprite}"), move || {
            pool.delete_disk(sprite)
        })
        .await
    }

    async fn list(&self) -> Result<Vec<SpriteId>, DiskError> {
        let pool = self.pool.clone();
        blocking("list disks".to_owned(), move || pool.disks()).await
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use sprite_disk::{Layout, PoolOptions, Silent};

    use super::*;

    /// An image that needs more than 1 GB because its journal does: made in no time.
    #[tokio::test]
    async fn a_disk_too_small_for_the_image_is_told_with_the_least_size() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: only root can mount; run cargo xtask test --all");
            return;
        }
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("image.ext4");
        let file = std::fs::File::create(&path).expect("a file");
        file.set_len(100 << 30).expect("a sparse file");
        let made = Command::new("mkfs.ext4")
            .args(["-q", "-F", "-m", "0", "-J", "size=1200"])
            .args(["-E", "lazy_itable_init=1,lazy_journal_init=1"])
            .arg(&path)
            .status();
        assert!(made.expect("mkfs.ext4").success());
        let options = PoolOptions {
            data_dir: home.path().to_owned(),
            layout: Layout::File { bytes: 4 << 30 },
        };
        let pool = Pool::open(&options, &Silent).expect("open the pool");
        let image: ImageId = "a".repeat(ImageId::LEN).parse().expect("an id");
        pool.import_image(&image, &path, &Silent).expect("import");
        let disks = PoolDisks { pool: pool.clone() };
        let sprite = SpriteId::random();
        let refused = disks.create(sprite, image.as_str(), 1).await;
        let Err(DiskError::TooSmall { smallest_gb, .. }) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(disks.list().await.expect("list"), []);
        assert!(smallest_gb >= 2, "{smallest_gb}");
        drop(disks);
        pool.close().expect("close the pool");
    }
}
