//! The guest systems of a server, and which of them its machines boot.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::modules::EARLY;
use super::{GuestBuildError, GuestSystem, InitramfsError, Package, build, initramfs};
use crate::cache;
use crate::durable;
use crate::progress::Progress;

/// Grows when guest systems are made in a way that the other inputs of an id do not show.
const FORMAT: u32 = 1;

/// Version of the record that says which guest system is current.
const RECORD_FORMAT: u32 = 1;

/// Files of a guest system.
pub(super) const KERNEL: &str = "vmlinux";
pub(super) const MODULES: &str = "modules.ext4";
pub(super) const EARLY_MODULES: &str = "modules.cpio";
pub(super) const FILES: [&str; 3] = [KERNEL, MODULES, EARLY_MODULES];

const CURRENT: &str = "current.json";

/// Longest record or description that is read, in bytes.
const LONGEST: u64 = 64 << 10;

/// Names a guest system: the hash of the packages that it is made of, and of how.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GuestId(String);

/// A text that is no id of a guest system.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("guest system id must be {} characters of 0-9a-f", GuestId::LEN)]
pub struct ParseGuestIdError;

impl GuestId {
    /// Length of the text: 128 bits, so that nobody meets two guest systems with one id.
    pub const LEN: usize = 32;

    /// The id of the guest system that is made of these packages.
    pub(super) fn of(packages: &[Package]) -> Self {
        let mut hasher = blake3::Hasher::new();
        let mut add = |bytes: &[u8]| {
            // With its length, so that no two lists of parts read as the same bytes.
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        add(b"sprited guest system");
        add(&FORMAT.to_le_bytes());
        add(std::env::consts::ARCH.as_bytes());
        EARLY.iter().for_each(|early| add(early.name.as_bytes()));
        for package in packages {
            add(package.name.as_bytes());
            add(package.version.as_bytes());
            add(package.sha256.as_bytes());
        }
        Self(hasher.finalize().to_hex()[..Self::LEN].to_owned())
    }
}

impl fmt::Display for GuestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for GuestId {
    type Err = ParseGuestIdError;

    fn from_str(text: &str) -> Result<Self, ParseGuestIdError> {
        let digits = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() == Self::LEN && text.bytes().all(digits) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseGuestIdError)
        }
    }
}

impl TryFrom<String> for GuestId {
    type Error = ParseGuestIdError;

    fn try_from(text: String) -> Result<Self, ParseGuestIdError> {
        text.parse()
    }
}

impl From<GuestId> for String {
    fn from(id: GuestId) -> String {
        id.0
    }
}

/// What a guest system is. Fields are only ever added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Description {
    /// Version of the kernel.
    pub(super) version: String,
    /// What it was made of.
    pub(super) packages: Vec<Package>,
    /// When it was made, in seconds since 1970.
    pub(super) made_at: u64,
    /// BLAKE3 and length of each file.
    pub(super) files: BTreeMap<String, Mark>,
}

/// What a file is known by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    bytes: u64,
    blake3: String,
}

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
    /// The one that is recorded; where none is, the newest that the distribution has, which is recorded then.
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
                Some(_) | None => take_newest(options, progress)?,
            },
        };
        let own = directory.join(id.to_string());
        let description = read_description(&own)?;
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
        let description = read_description(&directory.join(id.to_string()))?;
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

/// Takes the newest over from the cache, and records it.
fn take_newest(options: &GuestOptions, progress: &dyn Progress) -> Result<GuestId, GuestError> {
    let (id, cached) = build::newest(&options.cache_dir, progress)?;
    let directory = &options.directory;
    let own = directory.join(id.to_string());
    if !own.is_dir() {
        import(&cached, &own)?;
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
    let description = read_description(cached)?;
    for name in FILES {
        let (from, to) = (cached.join(name), new.join(name));
        // Shares its blocks where the file system can.
        fs::copy(&from, &to).map_err(failed(&from))?;
        let copy = File::open(&to).map_err(failed(&to))?;
        // Machines read it, each as a user of its own.
        let readable = fs::Permissions::from_mode(0o644);
        copy.set_permissions(readable)
            .and_then(|()| copy.sync_all())
            .map_err(failed(&to))?;
        let mark = mark(&to).map_err(failed(&to))?;
        if description.files.get(name) != Some(&mark) {
            return Err(GuestError::Damaged { path: from });
        }
    }
    describe(&new, description)
        .and_then(|()| File::open(description_path(&new))?.sync_all())
        .and_then(|()| File::open(&new)?.sync_all())
        .and_then(|()| fs::rename(&new, own))
        .and_then(|()| durable::sync_parent(own))
        .map_err(failed(own))
}

fn mark(path: &Path) -> io::Result<Mark> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?)?;
    Ok(Mark {
        bytes: hasher.count(),
        blake3: hasher.finalize().to_hex().to_string(),
    })
}

pub(super) fn description_path(directory: &Path) -> PathBuf {
    directory.join("guest.json")
}

/// Writes down what the files of a new directory are.
pub(super) fn describe(directory: &Path, mut description: Description) -> io::Result<()> {
    for name in FILES {
        description
            .files
            .insert(name.to_owned(), mark(&directory.join(name))?);
    }
    let text = serde_json::to_string_pretty(&description)?;
    fs::write(description_path(directory), text)
}

fn read_description(directory: &Path) -> Result<Description, GuestError> {
    let path = description_path(directory);
    let text = read_bounded(&path).map_err(failed(&path))?;
    serde_json::from_str(&text).map_err(|_| GuestError::Damaged { path })
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

fn read_bounded(path: &Path) -> io::Result<String> {
    if fs::metadata(path)?.len() > LONGEST {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    fs::read_to_string(path)
}

/// Replaces a small file; a reader sees the old or the new content.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, content)?;
    File::open(&new)?.sync_all()?;
    fs::rename(&new, path)?;
    durable::sync_parent(path)
}
