//! Files: what is asked in bodies, and what is answered. Source: behaviour reference §1.10.
//!
//! Modes are texts of four octal digits, as `0644`. A refusal is an [`ErrorBody`](crate::ErrorBody) with `code` (the
//! name of the kernel's error, such as `ENOENT`) and `path`.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::Stamp;

/// Answer of a write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Written {
    /// The file, absolute, links at its end resolved.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Four octal digits.
    pub mode: String,
}

/// Answer of an unpacking.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Unpacked {
    /// The directory, absolute.
    pub path: String,
    /// Files, other names of files among them.
    pub files: u64,
    /// Directories that the archive named.
    pub directories: u64,
    /// Symbolic links.
    pub links: u64,
    /// Bytes of files.
    pub bytes: u64,
}

/// Answer of a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Listing {
    /// What was listed, absolute.
    pub path: String,
    /// What a directory holds; a file lists itself. Sorted by name, unless a directory holds very many.
    pub entries: Vec<Entry>,
    /// How many entries.
    pub count: u64,
}

/// A file in a listing. A link is told of, not followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Last part of the path. What is not UTF-8 in it is told as U+FFFD.
    pub name: String,
    /// Absolute.
    pub path: String,
    /// What it is.
    #[serde(rename = "type")]
    pub kind: EntryKind,
    /// Bytes.
    pub size: u64,
    /// Four octal digits.
    pub mode: String,
    /// Last change.
    #[schema(value_type = String, format = DateTime)]
    pub mod_time: Stamp,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Number of the owner.
    #[serde(default)]
    pub uid: u32,
    /// Number of the group.
    #[serde(default)]
    pub gid: u32,
    /// Where a link leads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Why what this directory holds is missing from a recursive listing, as `EACCES`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// Bytes.
    File,
    /// Names.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A Unix socket.
    Socket,
    /// A device of blocks.
    BlockDevice,
    /// A device of characters.
    CharDevice,
    /// Something else.
    #[serde(other)]
    Unknown,
}

/// Answer of a deletion. Names the first thousand; `count` counts all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Deleted {
    /// What is gone.
    pub deleted: Vec<String>,
    /// How many are.
    pub count: u64,
}

/// Answer of a renaming, and one of the copies of a copying.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Moved {
    /// From where.
    pub source: String,
    /// To where.
    pub dest: String,
}

/// Answer of a copying. Names the first thousand; `count` counts all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Copied {
    /// What was copied.
    pub copied: Vec<Moved>,
    /// How many were.
    pub count: u64,
    /// Bytes of files.
    pub total_bytes: u64,
}

/// Answer of a change of modes. Names the first thousand; `count` counts all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ModesChanged {
    /// What was changed.
    pub affected: Vec<ModeChanged>,
    /// How many were.
    pub count: u64,
}

/// A file with a new mode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ModeChanged {
    /// The file.
    pub path: String,
    /// Four octal digits.
    pub mode: String,
}

/// Answer of a change of owners. Names the first thousand; `count` counts all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OwnersChanged {
    /// What was changed.
    pub affected: Vec<OwnerChanged>,
    /// How many were.
    pub count: u64,
}

/// A file with a new owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OwnerChanged {
    /// The file.
    pub path: String,
    /// Number of the owner.
    pub uid: u32,
    /// Number of the group.
    pub gid: u32,
}

/// What every call may say in its body; in the query it may stand as well, and wins there.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Change {
    /// The file or directory, absolute or below `workingDir`: of a deletion, and of changes of mode and owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What is renamed or copied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Its new name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dest: Option<String>,
    /// Where relative paths begin; `/home/sprite` if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// With all that a directory holds; false if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recursive: Option<bool>,
    /// Of a copying: with owner and times; false if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preserve_attrs: Option<bool>,
    /// As root of the environment; false if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub as_root: Option<bool>,
    /// Of a change of mode: octal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub mode: Option<Value>,
    /// Of a change of owner: a number or a name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<Value>,
    /// Of a change of owner: a number or a name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid: Option<Value>,
}

impl Change {
    /// As the pairs of a query.
    #[must_use]
    pub fn into_pairs(self) -> Vec<(String, String)> {
        let text = |value: Value| match value {
            Value::Null => None,
            Value::String(text) => Some(text),
            other => Some(other.to_string()),
        };
        let flag = |flag: Option<bool>| flag.map(|flag| flag.to_string());
        [
            ("path", self.path),
            ("source", self.source),
            ("dest", self.dest),
            ("workingDir", self.working_dir),
            ("recursive", flag(self.recursive)),
            ("preserveAttrs", flag(self.preserve_attrs)),
            ("asRoot", flag(self.as_root)),
            ("mode", self.mode.and_then(text)),
            ("uid", self.uid.and_then(text)),
            ("gid", self.gid.and_then(text)),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?)))
        .collect()
    }
}

/// What a client says on a watch socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum WatchRequest {
    /// Watch these as well.
    #[serde(rename_all = "camelCase")]
    Subscribe {
        /// Files and directories.
        paths: Vec<String>,
        /// Directories below them too.
        #[serde(default)]
        recursive: bool,
        /// Where relative paths begin.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        working_dir: Option<String>,
    },
    /// Watch these no more.
    #[serde(rename_all = "camelCase")]
    Unsubscribe {
        /// As they were subscribed.
        paths: Vec<String>,
        /// Where relative paths begin.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        working_dir: Option<String>,
    },
}

/// What a watch socket says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum WatchMessage {
    /// These are watched from now on.
    Subscribed {
        /// Absolute.
        paths: Vec<String>,
        /// Directories below them too.
        recursive: bool,
    },
    /// These are watched no more.
    Unsubscribed {
        /// Absolute.
        paths: Vec<String>,
    },
    /// Something happened.
    #[serde(rename_all = "camelCase")]
    Event {
        /// What.
        event: WatchEventKind,
        /// To which file.
        path: String,
        /// Its new name, of a renaming whose both names are watched.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        dest: Option<String>,
        /// When.
        #[schema(value_type = String, format = DateTime)]
        timestamp: Stamp,
        /// Bytes; 0 if it is gone.
        size: u64,
        /// Whether it is a directory.
        is_dir: bool,
    },
    /// Something cannot be watched, or was missed (`overflow`). Watching goes on.
    Error {
        /// For people.
        message: String,
        /// What it is about; empty: everything.
        path: String,
    },
}

/// What can happen to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WatchEventKind {
    /// Its bytes changed.
    Write,
    /// It came to be.
    Create,
    /// It is gone.
    Remove,
    /// It got another name.
    Rename,
    /// Its mode, owner or times changed.
    Chmod,
}
