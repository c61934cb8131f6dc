//! Disks: one ext4 image for each sprite, a reflink clone of a base image.

use std::fs;
use std::io;
use std::path::PathBuf;

use sprite_types::SpriteId;

use super::Pool;
use super::images::SizedImageError;
use super::space::Shortage;
use crate::durable::{self, Published};
use crate::image::ImageId;

/// What a disk's file name ends in.
const SUFFIX: &str = ".ext4";

/// Why there is no disk. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum CreateDiskError {
    /// Another disk would endanger those that exist.
    #[error("refuse another disk")]
    Full(#[source] Shortage),
    /// The file system cannot say how full it is.
    #[error("measure the room in the pool")]
    Measure(#[source] io::Error),
    /// The image in that size cannot be had.
    #[error("find image {image} with {storage_gb} GB")]
    Image {
        /// The image.
        image: ImageId,
        /// Nominal size in GB.
        storage_gb: u32,
        /// Why not.
        #[source]
        source: SizedImageError,
    },
    /// A step of the clone failed.
    #[error("clone image {image} to {path}")]
    Clone {
        /// The image.
        image: ImageId,
        /// The disk.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Why a disk is still there.
#[derive(Debug, thiserror::Error)]
#[error("delete disk {path}")]
pub struct DeleteDiskError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Why the disks cannot be told.
#[derive(Debug, thiserror::Error)]
#[error("list the disks in {path}")]
pub struct ListDisksError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl Pool {
    /// Where a sprite's disk is, whether it exists or not.
    #[must_use]
    pub fn disk_path(&self, sprite: SpriteId) -> PathBuf {
        self.disks_dir().join(format!("{sprite}{SUFFIX}"))
    }

    /// Makes a sprite's disk of `storage_gb` GB (2^30 bytes) from a base image. A disk that exists stays as it
    /// is, whatever it was made from. Takes a few milliseconds; the first disk of a size that the image does not
    /// have yet takes some seconds.
    ///
    /// # Errors
    /// There is no disk, and nothing of it is left.
    ///
    /// # Crash safety
    /// The disk is durable when this returns. Before, it exists complete or not at all.
    pub fn create_disk(
        &self,
        sprite: SpriteId,
        image: &ImageId,
        storage_gb: u32,
    ) -> Result<PathBuf, CreateDiskError> {
        let path = self.disk_path(sprite);
        let failed = |source| CreateDiskError::Clone {
            image: image.clone(),
            path: path.clone(),
            source,
        };
        if path.try_exists().map_err(failed)? {
            // Perhaps made by a process that died before it could make it durable.
            fs::File::open(&path)
                .and_then(|disk| disk.sync_all())
                .map_err(failed)?;
            durable::sync_parent(&path).map_err(failed)?;
            return Ok(path);
        }
        let space = self.space().map_err(CreateDiskError::Measure)?;
        space
            .shortage()
            .map_or(Ok(()), |shortage| Err(CreateDiskError::Full(shortage)))?;
        let from =
            self.sized_image(image, storage_gb)
                .map_err(|source| CreateDiskError::Image {
                    image: image.clone(),
                    storage_gb,
                    source,
                })?;
        let disk = durable::unnamed(&self.disks_dir()).map_err(failed)?;
        rustix::fs::ioctl_ficlone(&disk, &from).map_err(|error| failed(error.into()))?;
        match durable::publish(&disk, &path).map_err(failed)? {
            Published::Now | Published::Before => Ok(path),
        }
    }

    /// Deletes a sprite's disk. Nothing happens if there is none.
    ///
    /// # Errors
    /// The disk may still be there.
    ///
    /// # Crash safety
    /// The disk is gone for good when this returns.
    pub fn delete_disk(&self, sprite: SpriteId) -> Result<(), DeleteDiskError> {
        let path = self.disk_path(sprite);
        durable::discard_replacement(&path)
            .and_then(|()| durable::remove(&path))
            .map_err(|source| DeleteDiskError { path, source })
    }

    /// The sprites that have a disk, in no order. Files that we did not make are left out.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn disks(&self) -> Result<Vec<SpriteId>, ListDisksError> {
        let path = self.disks_dir();
        let list = || -> io::Result<Vec<SpriteId>> {
            let mut disks = Vec::new();
            for entry in fs::read_dir(&path)? {
                let name = entry?.file_name();
                let id = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
                disks.extend(id.and_then(|id| id.parse::<SpriteId>().ok()));
            }
            Ok(disks)
        };
        list().map_err(|source| ListDisksError {
            path: path.clone(),
            source,
        })
    }
}
