//! Base images in the pool, in the sizes that disks are cloned in.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use super::{GB, Pool};
use crate::durable;
use crate::ext4;
use crate::image::{ImageId, StoredImage, store};
use crate::progress::{Progress, Silent};
use crate::sparse;
use crate::tool::{self, ToolError};

/// Sizes of one image that are kept beside its own. Anyone may ask for any size, and each that is kept takes
/// some tens of MiB.
const MOST_SIZES: usize = 8;

/// Why an image is not in the pool. Nothing of it is left there.
#[derive(Debug, thiserror::Error)]
pub enum ImportImageError {
    /// The file to import cannot be read.
    #[error("read image {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is no ext4 image of whole GB.
    #[error("{path} is not a base image: {reason}")]
    NotAnImage {
        /// The file.
        path: PathBuf,
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// A step of the copy failed.
    #[error("copy image {path} into the pool")]
    Copy {
        /// The file that was read.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Why the images cannot be told.
#[derive(Debug, thiserror::Error)]
#[error("list the images in {path}")]
pub struct ListImagesError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Why an image cannot be had in a size.
#[derive(Debug, thiserror::Error)]
pub enum SizedImageError {
    /// The pool does not have the image in any size.
    #[error("image {image} is not in the pool; import it first")]
    Missing {
        /// The image.
        image: ImageId,
    },
    /// The image's content needs more room.
    #[error(
        "a disk of {storage_gb} GB is too small for this image, it needs at least {smallest_gb} GB"
    )]
    TooSmall {
        /// The size asked for.
        storage_gb: u32,
        /// The least size.
        smallest_gb: u32,
    },
    /// A file could not be read or written.
    #[error("use {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file system in the image could not be resized.
    #[error("resize the file system of the image")]
    Resize(#[from] ToolError),
}

impl Pool {
    /// The base images in the pool, in the order of their ids.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn images(&self) -> Result<Vec<StoredImage>, ListImagesError> {
        let path = self.images_dir();
        store::list(&path).map_err(|source| ListImagesError { path, source })
    }

    /// Whether the pool has the image.
    #[must_use]
    pub fn has_image(&self, image: &ImageId) -> bool {
        store::image_path(&self.images_dir(), image).is_file()
    }

    /// Copies a finished image into the pool, without its holes, and by reflink where it can. An image that is
    /// there already stays.
    ///
    /// # Errors
    /// The image is not in the pool, and nothing of it is left there.
    ///
    /// # Crash safety
    /// The image is durable when this returns. Before, it exists complete or not at all.
    pub fn import_image(
        &self,
        image: &ImageId,
        from: &Path,
        progress: &dyn Progress,
    ) -> Result<(), ImportImageError> {
        if self.has_image(image) {
            return Ok(());
        }
        progress.step("copy the base image into the pool");
        let unreadable = |source| ImportImageError::Read {
            path: from.to_owned(),
            source,
        };
        let source = File::open(from).map_err(unreadable)?;
        let length = source.metadata().map_err(unreadable)?.len();
        ext4::check(&source, length)
            .map_err(unreadable)?
            .map_err(|reason| ImportImageError::NotAnImage {
                path: from.to_owned(),
                reason,
            })?;
        self.copy_image(image, from, &source, progress)
            .map_err(|source| ImportImageError::Copy {
                path: from.to_owned(),
                source,
            })
    }

    fn copy_image(
        &self,
        image: &ImageId,
        from: &Path,
        source: &File,
        progress: &dyn Progress,
    ) -> io::Result<()> {
        let directory = self.images_dir();
        let copy = durable::unnamed(&directory)?;
        let mut told = 0;
        sparse::copy(source, &copy, &mut |done| {
            // Each quarter of a GB is a line.
            if done / (GB / 4) > told {
                told = done / (GB / 4);
                progress.detail(&format!("{} MiB copied", done >> 20));
            }
        })?;
        // The content first: a name that leads to unwritten blocks would be a broken image for ever.
        copy.sync_all()?;
        if let Some(text) = store::read_description(from)? {
            let description = durable::unnamed(&directory)?;
            (&description).write_all(text.as_bytes())?;
            durable::publish(&description, &store::description_path(&directory, image))?;
        }
        durable::publish(&copy, &store::image_path(&directory, image))?;
        Ok(())
    }

    /// The image in the size asked for, open for reading; made if the pool does not have it yet.
    pub(super) fn sized_image(
        &self,
        image: &ImageId,
        storage_gb: u32,
    ) -> Result<File, SizedImageError> {
        let path = store::image_path(&self.images_dir(), image);
        let base = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(SizedImageError::Missing {
                    image: image.clone(),
                });
            }
            Err(source) => return Err(SizedImageError::File { path, source }),
        };
        let failed = |source| SizedImageError::File {
            path: path.clone(),
            source,
        };
        let bytes = u64::from(storage_gb) * GB;
        if base.metadata().map_err(failed)?.len() == bytes {
            return Ok(base);
        }
        let _one_at_a_time = self
            .inner
            .resizing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let sized = store::sized_path(&self.images_dir(), image, storage_gb);
        match File::open(&sized) {
            Ok(file) => Ok(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make_size(image, &base, storage_gb, &sized)
            }
            Err(source) => Err(SizedImageError::File {
                path: sized,
                source,
            }),
        }
    }

    /// Makes the image in another size, by resizing a clone. The image is our own work, so our tools may read it.
    fn make_size(
        &self,
        image: &ImageId,
        base: &File,
        storage_gb: u32,
        path: &Path,
    ) -> Result<File, SizedImageError> {
        let failed = |source| SizedImageError::File {
            path: path.to_owned(),
            source,
        };
        let bytes = u64::from(storage_gb) * GB;
        let shrinks = bytes < base.metadata().map_err(failed)?.len();
        if shrinks {
            let smallest_gb = smallest_gb(base)?;
            if storage_gb < smallest_gb {
                return Err(SizedImageError::TooSmall {
                    storage_gb,
                    smallest_gb,
                });
            }
        }
        let clone = durable::unnamed(&self.images_dir()).map_err(failed)?;
        rustix::fs::ioctl_ficlone(&clone, base).map_err(|error| failed(error.into()))?;
        if !shrinks {
            clone.set_len(bytes).map_err(failed)?;
        }
        let mut command = tool::RESIZE2FS.command()?;
        command.arg(path_of(&clone)).arg(format!("{storage_gb}G"));
        tool::RESIZE2FS.run(command, &Silent)?;
        clone.set_len(bytes).map_err(failed)?;
        clone.sync_all().map_err(failed)?;
        self.forget_old_sizes(image).map_err(failed)?;
        durable::publish(&clone, path).map_err(failed)?;
        File::open(path).map_err(failed)
    }

    /// Makes room for one more size. Disks do not need the image that they were cloned from.
    fn forget_old_sizes(&self, image: &ImageId) -> io::Result<()> {
        let mut sizes = Vec::new();
        for path in store::sized_paths(&self.images_dir(), image)? {
            sizes.push((fs::metadata(&path)?.modified()?, path));
        }
        sizes.sort();
        let too_many = (sizes.len() + 1).saturating_sub(MOST_SIZES);
        sizes
            .iter()
            .take(too_many)
            .try_for_each(|(_, path)| durable::remove(path))
    }
}

/// The least whole GB that the content of the image fits in, with a little room to work in.
fn smallest_gb(image: &File) -> Result<u32, SizedImageError> {
    const ROOM: u64 = 64 << 20;
    let mut command = tool::RESIZE2FS.command()?;
    command.arg("-P").arg(path_of(image));
    let said = tool::RESIZE2FS.ask(command)?;
    let blocks = said
        .rsplit(' ')
        .next()
        .and_then(|number| number.trim().parse::<u64>().ok());
    let bytes = blocks
        .unwrap_or(0)
        .saturating_mul(ext4::BLOCK_SIZE)
        .saturating_add(ROOM);
    Ok(u32::try_from(bytes.div_ceil(GB)).unwrap_or(u32::MAX))
}

/// A path by which a program that we start can open the file, even if it has no name.
fn path_of(file: &File) -> PathBuf {
    PathBuf::from(format!(
        "/proc/{}/fd/{}",
        std::process::id(),
        file.as_raw_fd()
    ))
}
