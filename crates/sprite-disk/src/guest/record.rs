//! The guest systems of a server, and which of them its machines boot.

use std::fs::{self, DirBuilder, File, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::description::{
    Description, FILES, GuestId, KERNEL, MODULES, Mark, description_path, mark, read_bounded,
    read_description, write_description,
};
use super::{GuestBuildError, GuestSystem, InitramfsError, Package, build, initramfs};
use crate::cache;
use crate::durable;
use crate::progress::Progress;

/// Version of the record that says which guest system is current.
const RECORD_FORMAT: u32 = 1;

const CURRENT: &str = "current.json";

/// Modes of files. Source: inode(7).
const ALL_READ: u32 = 0o444;
const OTHERS_WRITE: u32 = 0o022;

/// The content of `current.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Current {
    format: u32,
    guest: GuestId,
}

/// Which guest system a server boots, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Guest {
    /// Its id.
    pub id: GuestId,
    /// Version of its kernel.
    pub version: String,
    /// The packages that it was made of.
    pub packages: Vec<Package>,
    /// When it was made, in seconds since 1970.
    pub made_at: u64,
}

/// Where guest systems are.
#[derive(Debug, Clone)]
pub struct GuestOptions {
    /// The server's own directory of them; made if it is missing.
    pub directory: PathBuf,
    /// The cache that servers share.
    pub cache_dir: PathBuf,
}

/// Which guest system is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestSource {
    /// The one that is recorded. Where none is, the newest that the distribution has; if that cannot be had, the
    /// last that the cache has. It is recorded then.
    Recorded,
    /// One that was recorded before.
    Earlier(GuestId),
}

/// Why there is no guest system. What was recorded stays recorded.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// No new one could be made.
    #[error("make the guest system")]
    Build(#[from] GuestBuildError),
    /// A file or directory cannot be used.
    #[error("use {path}")]
    File {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The record is of another version of this program, or damaged.
    #[error(
        "read {path}: it is damaged, or of a later version of sprited; remove it to take the newest kernel"
    )]
    Record {
        /// The record.
        path: PathBuf,
    },
    /// A guest system lost files, or they were changed.
    #[error("{path} is not what was recorded; remove {} to have it made anew", path.parent().unwrap_or(path).display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The archive with the agent could not be written.
    #[error("write the guest's initramfs")]
    Initramfs(#[from] InitramfsError),
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> GuestError {
    let path = path.to_owned();
    move |source| GuestError::File { path, source }
}

impl Guest {
    /// A guest system whose first program is `agent`. Takes minutes and the network if it has to be made.
    ///
    /// # Errors
    /// Names the step, and the remedy where there is one.
    ///
    /// # Crash safety
    /// May be interrupted at any step and called again. A guest system is recorded when all of it is durable.
    pub fn open(
        options: &GuestOptions,
        source: &GuestSource,
        agent: &[u8],
        progress: &dyn Progress,
    ) -> Result<GuestSystem, GuestError> {
        let directory = &options.directory;
        let _lock = lock(directory, progress)?;
        let id = match source {
            GuestSource::Earlier(id) => id.clone(),
            GuestSource::Recorded => match current(directory)? {
                Some(id) if directory.join(id.to_string()).is_dir() => id,
                Some(_) | None => take_any(options, progress)?,
            },
        };
        let own = directory.join(id.to_string());
        let description = description_of(&own)?;
        for name in FILES {
            let path = own.join(name);
            let length = fs::metadata(&path).map_err(failed(&path))?.len();
            if description
                .files
                .get(name)
                .is_none_or(|mark| mark.bytes != length)
            {
                return Err(GuestError::Damaged { path });
            }
        }
        Ok(GuestSystem {
            id,
            version: description.version,
            kernel: own.join(KERNEL),
            initramfs: initramfs::ensure(&own, agent)?,
            modules: own.join(MODULES),
        })
    }

    /// Takes the newest guest system that the distribution has, and records it: machines that start from now on
    /// boot it. Those that run or sleep keep theirs.
    ///
    /// # Errors
    /// Names the step, and the remedy where there is one.
    ///
    /// # Crash safety
    /// As [`Guest::open`].
    pub fn update(options: &GuestOptions, progress: &dyn Progress) -> Result<Self, GuestError> {
        let _lock = lock(&options.directory, progress)?;
        let id = take_newest(options, progress)?;
        Self::read(&options.directory, id)
    }

    /// What a server boots now; `None` if it has no guest system yet. Changes nothing.
    ///
    /// # Errors
    /// The record cannot be read.
    pub fn recorded(directory: &Path) -> Result<Option<Self>, GuestError> {
        let id = current(directory)?;
        id.map(|id| Self::read(directory, id)).transpose()
    }

    fn read(directory: &Path, id: GuestId) -> Result<Self, GuestError> {
        let description = description_of(&directory.join(id.to_string()))?;
        Ok(Self {
            id,
            version: description.version,
            packages: description.packages,
            made_at: description.made_at,
        })
    }
}

/// Nobody else changes the directory while the file is open.
fn lock(directory: &Path, progress: &dyn Progress) -> Result<File, GuestError> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(directory).map_err(failed(directory))?;
    cache::lock(directory, "guest", "guest system", progress).map_err(failed(directory))
}

/// Takes the newest over, and records it.
fn take_newest(options: &GuestOptions, progress: &dyn Progress) -> Result<GuestId, GuestError> {
    let (id, cached) = build::newest(&options.cache_dir, progress)?;
    take(&options.directory, id, &cached)
}

/// Takes the newest over; if there is none to be had, one that was made before, such as on a host without a network.
fn take_any(options: &GuestOptions, progress: &dyn Progress) -> Result<GuestId, GuestError> {
    let failure = match build::newest(&options.cache_dir, progress) {
        Ok((id, cached)) => return take(&options.directory, id, &cached),
        Err(failure) => failure,
    };
    // Whatever hides the cache is told by what failed first.
    let Ok(Some((id, cached))) = build::made_last(&options.cache_dir) else {
        return Err(failure.into());
    };
    progress.step(&format!("{failure}; use the kernel that the cache has"));
    take(&options.directory, id, &cached)
}

/// Takes a guest system over from the cache, and records it.
fn take(directory: &Path, id: GuestId, cached: &Path) -> Result<GuestId, GuestError> {
    let own = directory.join(id.to_string());
    if !own.is_dir() {
        import(cached, &own)?;
    }
    let record = Current {
        format: RECORD_FORMAT,
        guest: id.clone(),
    };
    let text = serde_json::to_string(&record).expect("a record has no maps");
    let path = directory.join(CURRENT);
    replace(&path, text.as_bytes()).map_err(failed(&path))?;
    Ok(id)
}

fn import(cached: &Path, own: &Path) -> Result<(), GuestError> {
    let new = own.with_extension("new");
    cache::remove_tree(&new).map_err(failed(&new))?;
    DirBuilder::new()
        .mode(0o700)
        .create(&new)
        .map_err(failed(&new))?;
    let description = description_of(cached)?;
    for name in FILES {
        let (from, to) = (cached.join(name), new.join(name));
        let expected = description.files.get(name);
        let taken = match link(&from, &to).map_err(failed(&from))? {
            // Nobody changed it since it was hashed where it was made.
            Link::Made { bytes } => expected.is_some_and(|mark| mark.bytes == bytes),
            Link::Refused => expected == Some(&copy(&from, &to).map_err(failed(&from))?),
        };
        if !taken {
            return Err(GuestError::Damaged { path: from });
        }
    }
    write_description(&new, &description)
        .and_then(|()| File::open(description_path(&new))?.sync_all())
        .and_then(|()| File::open(&new)?.sync_all())
        .and_then(|()| fs::rename(&new, own))
        .and_then(|()| durable::sync_parent(own))
        .map_err(failed(own))
}

/// What came of the attempt to give a file a second name.
enum Link {
    /// It has one now.
    Made { bytes: u64 },
    /// Others can write to the file, or it lies on another file system.
    Refused,
}

/// Gives a file of the cache a second name where nobody but this user and root can have changed it.
fn link(from: &Path, to: &Path) -> io::Result<Link> {
    let euid = rustix::process::geteuid().as_raw();
    let file = fs::metadata(from)?;
    let mut above = from.ancestors().skip(1).take(2);
    let ours = |of: &Metadata| [0, euid].contains(&of.uid()) && of.mode() & OTHERS_WRITE == 0;
    let safe =
        ours(&file) && above.all(|directory| fs::metadata(directory).is_ok_and(|of| ours(&of)));
    // Machines read it, each as a user of its own.
    if !safe || file.mode() & ALL_READ != ALL_READ || fs::hard_link(from, to).is_err() {
        return Ok(Link::Refused);
    }
    Ok(Link::Made { bytes: file.len() })
}

/// Copies a file of the cache; what the copy is known by.
fn copy(from: &Path, to: &Path) -> io::Result<Mark> {
    // Shares its blocks where the file system can.
    fs::copy(from, to)?;
    let copy = File::open(to)?;
    copy.set_permissions(fs::Permissions::from_mode(ALL_READ))?;
    copy.sync_all()?;
    mark(to)
}

fn description_of(directory: &Path) -> Result<Description, GuestError> {
    let path = description_path(directory);
    match read_description(directory) {
        Ok(description) => Ok(description),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(GuestError::Damaged { path })
        }
        Err(source) => Err(GuestError::File { path, source }),
    }
}

fn current(directory: &Path) -> Result<Option<GuestId>, GuestError> {
    let path = directory.join(CURRENT);
    let text = match read_bounded(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(GuestError::File { path, source }),
    };
    match serde_json::from_str(&text) {
        Ok(Current {
            format: RECORD_FORMAT,
            guest,
        }) => Ok(Some(guest)),
        Ok(Current { .. }) | Err(_) => Err(GuestError::Record { path }),
    }
}

/// Replaces a small file; a reader sees the old or the new content.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, content)?;
    File::open(&new)?.sync_all()?;
    fs::rename(&new, path)?;
    durable::sync_parent(path)
}

#[cfg(test)]
mod tests {
    use super::super::description::marks;
    use super::*;

    /// A guest system in a cache.
    fn cached(cache: &Path) -> PathBuf {
        let path = cache.join("guest");
        fs::create_dir(&path).expect("a directory");
        for name in FILES {
            fs::write(path.join(name), name).expect("a file");
        }
        let description = Description {
            version: "6.12".to_owned(),
            packages: Vec::new(),
            made_at: 0,
            files: marks(&path).expect("files"),
        };
        write_description(&path, &description).expect("a description");
        path
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("ours");
    }

    #[test]
    fn what_nobody_else_can_change_is_linked_and_all_else_is_copied_and_looked_through() {
        let directory = tempfile::tempdir().expect("a directory");
        let cached = cached(directory.path());
        let inode = |path: PathBuf| fs::metadata(path).expect("a file").ino();
        let own = directory.path().join("linked");
        import(&cached, &own).expect("a guest system");
        for name in FILES {
            assert_eq!(inode(own.join(name)), inode(cached.join(name)), "{name}");
        }
        set_mode(&cached, 0o777);
        let own = directory.path().join("copied");
        import(&cached, &own).expect("a guest system");
        for name in FILES {
            assert_ne!(inode(own.join(name)), inode(cached.join(name)), "{name}");
        }
        // As long as it was, and not what it was.
        let changed = cached.join(KERNEL);
        fs::write(&changed, "x".repeat(KERNEL.len())).expect("write");
        let refused = import(&cached, &directory.path().join("changed"));
        assert!(matches!(refused, Err(GuestError::Damaged { path }) if path == changed));
    }

    #[test]
    fn a_cut_file_is_refused_however_it_is_taken() {
        let directory = tempfile::tempdir().expect("a directory");
        let cached = cached(directory.path());
        fs::write(cached.join(MODULES), "").expect("write");
        let own = directory.path().join("own");
        assert!(matches!(
            import(&cached, &own),
            Err(GuestError::Damaged { .. })
        ));
        assert!(!own.exists());
    }
}
