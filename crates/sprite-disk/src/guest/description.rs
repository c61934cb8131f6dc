//! What a guest system is: its name, its files, and what it was made of.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Package;
use super::modules::EARLY;

/// Grows when guest systems are made in a way that the other inputs of an id do not show.
const FORMAT: u32 = 1;

/// Files of a guest system.
pub(super) const KERNEL: &str = "vmlinux";
pub(super) const MODULES: &str = "modules.ext4";
pub(super) const EARLY_MODULES: &str = "modules.cpio";
pub(super) const FILES: [&str; 3] = [KERNEL, MODULES, EARLY_MODULES];

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
    pub(super) bytes: u64,
    blake3: String,
}

/// What a file is known by.
pub(super) fn mark(path: &Path) -> io::Result<Mark> {
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

/// What each file of a directory is known by.
pub(super) fn marks(directory: &Path) -> io::Result<BTreeMap<String, Mark>> {
    FILES
        .into_iter()
        .map(|name| Ok((name.to_owned(), mark(&directory.join(name))?)))
        .collect()
}

/// Writes down what a new directory is.
pub(super) fn write_description(directory: &Path, description: &Description) -> io::Result<()> {
    let text = serde_json::to_string_pretty(description)?;
    fs::write(description_path(directory), text)
}

/// When a guest system was made; `None` if its description cannot be read.
pub(super) fn made_at(directory: &Path) -> Option<u64> {
    Some(read_description(directory).ok()?.made_at)
}

/// What the files of a directory are to be.
pub(super) fn read_description(directory: &Path) -> io::Result<Description> {
    let text = read_bounded(&description_path(directory))?;
    serde_json::from_str(&text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// A small file that people may have changed.
pub(super) fn read_bounded(path: &Path) -> io::Result<String> {
    if fs::metadata(path)?.len() > LONGEST {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    fs::read_to_string(path)
}
