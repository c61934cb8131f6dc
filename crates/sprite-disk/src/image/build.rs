//! Building an image into the cache.
//!
//! ```text
//! CACHE/ID.ext4, ID.json   a finished image
//! ```
//! Beside them what [`cache`] needs while it is built.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::store::{self, Description, StoredImage};
use super::{DebianError, ExtractError, FinishError, ImageId, Recipe, archive, debian, finish};
use crate::cache::{self, WorkDirectory};
use crate::durable;
use crate::ext4;
use crate::progress::Progress;
use crate::tool::{self, ToolError};

/// A finished image in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// Its id.
    pub id: ImageId,
    /// The image.
    pub path: PathBuf,
}

/// Why there is no image. Nothing half-made is left under its name.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Files of every owner have to be made.
    #[error("only root can make a base image: it has files of several owners")]
    NotRoot,
    /// The cache cannot be used.
    #[error("use {path}")]
    Cache {
        /// File or directory of the cache.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The packages could not be installed.
    #[error("install Debian")]
    Debian(#[from] DebianError),
    /// The tarball could not be extracted.
    #[error("extract {path}")]
    Extract {
        /// The tarball.
        path: PathBuf,
        /// Which step failed.
        #[source]
        source: ExtractError,
    },
    /// The files of every sprite could not be written.
    #[error("finish the root file system")]
    Finish(#[from] FinishError),
    /// The image could not be written.
    #[error("write the image")]
    Image(#[source] ToolError),
}

/// The image of a recipe in a cache: the one that is there, or a new one. Takes up to some minutes; needs the
/// network for a recipe of packages. Processes may build in one cache at once; they wait for each other where
/// they want the same image.
///
/// # Errors
/// Names the step, and the remedy where there is one.
///
/// # Crash safety
/// The image appears under its name complete and durable, or not at all. What an interrupted build leaves is
/// removed by the next one.
pub fn build(
    recipe: &Recipe,
    cache_dir: &Path,
    progress: &dyn Progress,
) -> Result<Built, BuildError> {
    let id = recipe.id();
    let path = store::image_path(cache_dir, &id);
    if path.is_file() {
        return Ok(Built { id, path });
    }
    if !rustix::process::geteuid().is_root() {
        return Err(BuildError::NotRoot);
    }
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| BuildError::Cache { path, source }
    };
    let cache_dir = cache::open(cache_dir).map_err(failed(cache_dir))?;
    let lock = cache::lock(&cache_dir, id.as_str(), "base image", progress);
    let _lock = lock.map_err(failed(&cache::lock_path(&cache_dir, id.as_str())))?;
    if !path.is_file() {
        cache::sweep(&cache_dir, |name| name.parse::<ImageId>().is_ok())
            .map_err(failed(&cache_dir))?;
        let work = WorkDirectory::make(&cache_dir, id.as_str()).map_err(failed(&cache_dir))?;
        make(recipe, &work, progress)?;
        publish(recipe, &work, &path).map_err(failed(&path))?;
    }
    Ok(Built { id, path })
}

/// The finished images of a cache, in the order of their ids.
///
/// # Errors
/// The directory cannot be read.
pub fn cached(cache_dir: &Path) -> io::Result<Vec<StoredImage>> {
    store::list(cache_dir)
}

/// Programs and keys that are missing for making the image of a recipe.
#[must_use]
pub fn missing_tools(recipe: &Recipe) -> Vec<ToolError> {
    let of_the_source = match recipe {
        Recipe::Debian { .. } => debian::missing_tools(),
        Recipe::Tar { path, .. } => archive::missing_tools(path),
    };
    let writes = tool::MKFS_EXT4.find().err();
    of_the_source.into_iter().chain(writes).collect()
}

fn make(recipe: &Recipe, work: &WorkDirectory, progress: &dyn Progress) -> Result<(), BuildError> {
    // Before minutes of work, not after.
    tool::MKFS_EXT4.find().map_err(BuildError::Image)?;
    match recipe {
        Recipe::Debian {
            suite,
            variant,
            trust,
        } => {
            debian::install(*suite, *variant, trust, work, progress)?;
        }
        Recipe::Tar { path, digest } => {
            archive::extract(path, digest, work, progress).map_err(|source| {
                BuildError::Extract {
                    path: path.clone(),
                    source,
                }
            })?
        }
    }
    progress.step("add the user sprite");
    finish::finish(&work.tree())?;
    progress.step("write the image");
    ext4::make(&work.tree(), &built(work), progress).map_err(BuildError::Image)
}

/// Where the image is until it has its name.
fn built(work: &WorkDirectory) -> PathBuf {
    work.path().join("image.ext4")
}

fn publish(recipe: &Recipe, work: &WorkDirectory, path: &Path) -> io::Result<()> {
    let made_at = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |age| age.as_secs());
    let description = Description {
        description: recipe.describe(),
        made_at,
    };
    let text = serde_json::to_string(&description)?;
    let new = work.path().join("description");
    fs::write(&new, text)?;
    fs::rename(&new, path.with_extension("json"))?;
    fs::rename(built(work), path)?;
    durable::sync_parent(path)
}
