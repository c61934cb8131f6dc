//! What the pool of a data directory is, or would become, told without making it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::open::{fitting_size, has_reflink};
use super::{Backing, OpenPoolError, Places, Space, space};
use crate::mounts;
use crate::tool::{self, ToolError};

/// Where file systems that the kernel knows now are listed. Others may come with their modules.
const FILE_SYSTEMS: &str = "/proc/filesystems";
const LOOP_CONTROL: &str = "/dev/loop-control";

/// A pool that is there, or would be made.
#[derive(Debug)]
pub struct Prospect {
    /// What its directory is, or would be.
    pub backing: Backing,
    /// Whether it was made already.
    pub made: bool,
    /// How much room it has, or would have.
    pub space: Space,
    /// Programs that are missing for it and its disks.
    pub missing: Vec<ToolError>,
    /// What else keeps it from being made or mounted here, each with its remedy.
    pub obstacles: Vec<Obstacle>,
}

/// What a pool of a file needs of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// Files cannot be mounted.
    #[error("there is no /dev/loop-control")]
    NoLoop,
    /// The file system of the pool is not in the kernel now.
    #[error("the kernel does not know XFS now")]
    NoXfs,
}

impl Obstacle {
    /// What a person can do about it.
    #[must_use]
    pub fn remedy(self) -> &'static str {
        match self {
            Self::NoLoop => "load the module: modprobe loop",
            Self::NoXfs => {
                "load the module: modprobe xfs; or put the data directory on XFS or btrfs"
            }
        }
    }
}

impl Prospect {
    /// Looks at a data directory, which need not be there. Writes a block to files without a name, to see whether
    /// they can share it; changes nothing else.
    ///
    /// # Errors
    /// This user may not look.
    pub fn of(data_dir: &Path) -> Result<Self, OpenPoolError> {
        let existing = existing(data_dir);
        let canonical = existing
            .canonicalize()
            .map_err(|source| OpenPoolError::Directory {
                path: existing.to_owned(),
                source,
            })?;
        let there = canonical.join(data_dir.strip_prefix(existing).unwrap_or(Path::new("")));
        let places = Places::of(there);
        let mounted = mounts::at(&places.root).map_err(OpenPoolError::Inspect)?;
        let (backing, made) = if mounted.is_some() {
            let ours = places.file.exists();
            let backing = if ours {
                Backing::File
            } else {
                Backing::Directory
            };
            (backing, true)
        } else if places.file.exists() {
            (Backing::File, true)
        } else {
            writable(&canonical)?;
            let backing = if has_reflink(&canonical) {
                Backing::Directory
            } else {
                Backing::File
            };
            (backing, places.root.join("disks").exists())
        };
        let measured = |path: &Path| {
            space::measure(path).map_err(|source| OpenPoolError::Directory {
                path: path.to_owned(),
                source,
            })
        };
        let (outer_total, outer_free) = measured(&canonical)?;
        let (pool_total, pool_free) = match (backing, made) {
            (Backing::Directory, _) => (outer_total, outer_free),
            (Backing::File, true) if mounted.is_some() => measured(&places.root)?,
            (Backing::File, true) => {
                // It tells its free room only when it is mounted.
                let nominal = fs::metadata(&places.file).map_or(0, |file| file.len());
                (nominal, nominal)
            }
            (Backing::File, false) => {
                let fitting = fitting_size(&canonical)?;
                (fitting, fitting)
            }
        };
        Ok(Self {
            backing,
            made,
            space: Space {
                pool_total,
                pool_free,
                outer_total,
                outer_free,
            },
            missing: missing(backing, made),
            obstacles: obstacles(backing, mounted.is_some()),
        })
    }
}

/// The directory itself, or the nearest above it that is there.
fn existing(data_dir: &Path) -> &Path {
    let mut ancestors = data_dir.ancestors();
    let found = ancestors.find(|path| path.exists() && !path.as_os_str().is_empty());
    found.unwrap_or(Path::new("/"))
}

/// Without the right to write, a missing reflink and a missing right look alike.
fn writable(directory: &Path) -> Result<(), OpenPoolError> {
    use rustix::fs::{Access, AtFlags, CWD};
    rustix::fs::accessat(CWD, directory, Access::WRITE_OK, AtFlags::EACCESS).map_err(|error| {
        OpenPoolError::Directory {
            path: PathBuf::from(directory),
            source: io::Error::from(error),
        }
    })
}

fn missing(backing: Backing, made: bool) -> Vec<ToolError> {
    let mut tools = vec![tool::MKFS_EXT4, tool::RESIZE2FS];
    match (backing, made) {
        (Backing::File, false) => tools.push(tool::MKFS_XFS),
        (Backing::File, true) | (Backing::Directory, _) => {}
    }
    tools
        .into_iter()
        .filter_map(|tool| tool.find().err())
        .collect()
}

fn obstacles(backing: Backing, mounted: bool) -> Vec<Obstacle> {
    match backing {
        Backing::Directory => return Vec::new(),
        Backing::File if mounted => return Vec::new(),
        Backing::File => {}
    }
    let mut obstacles = Vec::new();
    if !Path::new(LOOP_CONTROL).exists() {
        obstacles.push(Obstacle::NoLoop);
    }
    let known = fs::read_to_string(FILE_SYSTEMS).unwrap_or_default();
    if !known.lines().any(|line| line.trim() == "xfs") && !has_module("xfs") {
        obstacles.push(Obstacle::NoXfs);
    }
    obstacles
}

/// Whether the kernel finds a module by itself when it is wanted. Source: modules.dep(5).
fn has_module(name: &str) -> bool {
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    let directory = Path::new("/lib/modules").join(release);
    ["modules.dep", "modules.builtin"].iter().any(|list| {
        let text = fs::read_to_string(directory.join(list)).unwrap_or_default();
        let file = format!("/{name}.ko");
        text.lines().any(|line| {
            line.split(':')
                .next()
                .is_some_and(|path| path.contains(&file))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_not_there_is_judged_by_the_one_above() {
        let home = tempfile::tempdir().expect("a directory");
        let data = home.path().join("not/there/yet");
        let prospect = Prospect::of(&data).expect("it can be looked at");
        assert!(!prospect.made);
        assert!(prospect.space.outer_total > 0 && prospect.space.pool_total > 0);
        assert!(!home.path().join("not").exists(), "nothing was made");
        assert_eq!(fs::read_dir(home.path()).expect("list").count(), 0);
    }

    #[test]
    fn a_pool_of_a_file_is_known_by_its_file() {
        let home = tempfile::tempdir().expect("a directory");
        let file = fs::File::create(home.path().join("pool.xfs")).expect("a file");
        file.set_len(300 << 20).expect("a sparse file");
        let prospect = Prospect::of(home.path()).expect("it can be looked at");
        assert_eq!((prospect.backing, prospect.made), (Backing::File, true));
        assert_eq!(prospect.space.pool_total, 300 << 20);
    }
}
