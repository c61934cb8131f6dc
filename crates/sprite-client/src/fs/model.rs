//! What is told of files.

use serde::{Deserialize, Serialize};

use crate::model::Timestamp;

/// A file that was written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Written {
    /// Its absolute path.
    pub path: String,
    /// Bytes.
    pub size: u64,
}

/// A file in a listing; of a link, the link itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Entry {
    /// Last part of its path.
    pub name: String,
    /// Absolute path.
    #[serde(default)]
    pub path: String,
    /// What it is.
    #[serde(rename = "type", default)]
    pub kind: EntryKind,
    /// Bytes.
    #[serde(default)]
    pub size: u64,
    /// Mode as octal digits; see [`Entry::mode`].
    #[serde(default)]
    mode: String,
    /// Last change.
    #[serde(default)]
    pub mod_time: Option<Timestamp>,
    /// Where a link leads, if the server tells.
    #[serde(default)]
    pub target: Option<String>,
    /// Why what this directory holds is missing from a listing of all.
    #[serde(default)]
    pub error: Option<String>,
}

impl Entry {
    /// Permission bits, 0 to 0o7777; 0o644 if the server said something else.
    #[must_use]
    pub fn mode(&self) -> u32 {
        u32::from_str_radix(&self.mode, 8).unwrap_or(0o644) & 0o7777
    }
}

/// What a file is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EntryKind {
    /// Bytes.
    #[default]
    File,
    /// Names.
    Directory,
    /// A symbolic link.
    Symlink,
    /// Something else: a pipe, a socket, a device.
    #[serde(other)]
    Other,
}

/// How much was changed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FsChanged {
    /// Files and directories.
    #[serde(default)]
    pub count: u64,
    /// Bytes that were copied.
    #[serde(default)]
    pub total_bytes: u64,
}

/// A user or a group of the sprite.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Owner {
    /// By number.
    Id(u32),
    /// By name.
    Name(String),
}
