//! Building an image into the cache.
//!
//! ```text
//! CACHE/ID.ext4, ID.json   a finished image
//! CACHE/ID.lock            held by the process that builds it; stays, empty
//! CACHE/ID.build/          where it is built; one that nobody's lock covers is a dead process's and is removed
//! ```

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::FlockOperation;

use super::store::{self, Description, StoredImage};
use super::{DebianError, ExtractError, FinishError, ImageId, Recipe, archive, debian, finish};
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
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(cache_dir)
        .map_err(|source| BuildError::Cache {
            path: cache_dir.to_owned(),
            source,
        })?;
    // Programs are told paths below the cache, some of them after they changed their directory.
    let cache_dir = cache_dir
        .canonicalize()
        .map_err(|source| BuildError::Cache {
            path: cache_dir.to_owned(),
            source,
        })?;
    let _lock = lock(&cache_dir, &id, progress)?;
    if !path.is_file() {
        sweep(&cache_dir).map_err(|source| BuildError::Cache {
            path: cache_dir.clone(),
            source,
        })?;
        let work = WorkDirectory::make(build_path(&cache_dir, &id))?;
        make(recipe, &work, progress)?;
        publish(recipe, &work, &path).map_err(|source| BuildError::Cache {
            path: path.clone(),
            source,
        })?;
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

fn build_path(cache_dir: &Path, id: &ImageId) -> PathBuf {
    cache_dir.join(format!("{id}.build"))
}

fn lock_path(cache_dir: &Path, id: &ImageId) -> PathBuf {
    cache_dir.join(format!("{id}.lock"))
}

fn lock(cache_dir: &Path, id: &ImageId, progress: &dyn Progress) -> Result<File, BuildError> {
    let path = lock_path(cache_dir, id);
    let failed = |source| BuildError::Cache {
        path: path.clone(),
        source,
    };
    let file = open_lock(&path).map_err(failed)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => return Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => {}
        Err(error) => return Err(failed(error.into())),
    }
    progress.step("wait for the process that makes this base image now");
    loop {
        match rustix::fs::flock(&file, FlockOperation::LockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(failed(error.into())),
        }
    }
}

fn open_lock(path: &Path) -> io::Result<File> {
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
}

/// Removes what builds of dead processes left.
fn sweep(cache_dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(cache_dir)? {
        let name = entry?.file_name();
        let id = name.to_str().and_then(|name| name.strip_suffix(".build"));
        let Some(id) = id.and_then(|id| id.parse::<ImageId>().ok()) else {
            continue;
        };
        let lock = open_lock(&lock_path(cache_dir, &id))?;
        // Our own build's lock is held by us through another descriptor, so it counts as taken here.
        if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            remove_tree(&build_path(cache_dir, &id))?;
        }
    }
    Ok(())
}

fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The directory of one build, removed at its end.
#[derive(Debug)]
pub(super) struct WorkDirectory(PathBuf);

impl WorkDirectory {
    fn make(path: PathBuf) -> Result<Self, BuildError> {
        let fresh = || -> io::Result<()> {
            remove_tree(&path)?;
            // Not for others' eyes: files of the image keep their set-user-id bits here.
            fs::DirBuilder::new().mode(0o700).create(&path)
        };
        fresh().map_err(|source| BuildError::Cache {
            path: path.clone(),
            source,
        })?;
        Ok(Self(path))
    }

    /// The directory.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// The root file system in it.
    pub(super) fn tree(&self) -> PathBuf {
        self.0.join("root")
    }

    fn image(&self) -> PathBuf {
        self.0.join("image.ext4")
    }
}

impl Drop for WorkDirectory {
    fn drop(&mut self) {
        if let Err(error) = remove_tree(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "remove the directory of a build");
        }
    }
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
    ext4::make(&work.tree(), &work.image(), progress).map_err(BuildError::Image)
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
    fs::rename(work.image(), path)?;
    durable::sync_parent(path)
}
