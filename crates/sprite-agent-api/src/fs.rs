//! Operations on files of the environment: what [`Request::Fs`](crate::message::Request::Fs) asks for, and what is
//! answered.
//!
//! ```text
//! read    →                          ← Reading, Stdout…, Done
//! write   → Stdin…, Fin              ← Writing, Written
//! unpack  → Stdin…, Fin              ← Unpacking, Unpacked
//! pack    →                          ← Packing, Stdout…, Done
//! list    →                          ← Listing, Entries…, Done
//! delete, rename, copy, chmod, chown ← Working…, Changed
//! watch   → WatchInput…              ← Watching, Subscribed, Event…
//! ```
//!
//! Instead of any of these, [`FsReply::Refused`] or [`FsReply::Failed`] ends the stream. Paths are text: a name that
//! is not UTF-8 is told with U+FFFD in it, and cannot be asked for.

use serde::{Deserialize, Serialize};

use crate::message::Failure;

/// Longest path in bytes. Source: `PATH_MAX` of include/uapi/linux/limits.h, which counts the zero byte.
pub const LONGEST_PATH: usize = 4095;

/// Most paths that [`FsReply::Changed`] names; more are only counted.
pub const MOST_NAMED: usize = 1000;

/// One operation, and as whom it is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FsSpec {
    /// What to do.
    pub call: FsCall,
    /// Where relative paths begin; relative itself, it begins at the user's home. Absent: the user's home.
    #[serde(default)]
    pub working_dir: Option<String>,
    /// As root of the environment instead of the user `sprite`.
    #[serde(default)]
    pub as_root: bool,
}

/// What to do. Paths are resolved inside the environment; links are followed unless it says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "snake_case")]
pub enum FsCall {
    /// Read a regular file.
    Read {
        /// The file.
        path: String,
        /// Which part of it; absent: all.
        #[serde(default)]
        range: Option<FsRange>,
    },
    /// Replace a regular file with what comes as `Stdin` until the sender has finished, all at once at the end. A
    /// link at the end of the path stays, and what it leads to is replaced.
    Write {
        /// The file.
        path: String,
        /// Its mode, 0 to 0o7777; absent: as it was, 0o644 if it was not.
        #[serde(default)]
        mode: Option<u32>,
        /// Which directories are made that are not there.
        parents: Parents,
    },
    /// List a directory, or a single file.
    List {
        /// The directory or file.
        path: String,
        /// Directories below it as well; links are not followed.
        #[serde(default)]
        recursive: bool,
        /// Only entries whose name matches, or whose path below `path` if the pattern holds `/`.
        #[serde(default)]
        pattern: Option<String>,
    },
    /// Remove a file or a directory. A link at the end of the path is itself removed.
    Delete {
        /// What is removed.
        path: String,
        /// With all that a directory holds.
        #[serde(default)]
        recursive: bool,
    },
    /// Give a file or directory another name, replacing a file that has it.
    Rename {
        /// What is renamed; a link is itself renamed.
        source: String,
        /// Its new name.
        dest: String,
    },
    /// Copy a file, or a tree.
    Copy {
        /// What is copied.
        source: String,
        /// The copy's own name, not the directory to put it in.
        dest: String,
        /// Directories with all they hold.
        #[serde(default)]
        recursive: bool,
        /// With times and owners, as far as the one who copies may set them.
        #[serde(default)]
        preserve: bool,
    },
    /// Change the mode.
    Chmod {
        /// The file or directory.
        path: String,
        /// 0 to 0o7777.
        mode: u32,
        /// Of everything below as well, except links.
        #[serde(default)]
        recursive: bool,
    },
    /// Change the owner.
    Chown {
        /// The file or directory.
        path: String,
        /// The new owner; absent: as it is.
        #[serde(default)]
        user: Option<Owner>,
        /// The new group; absent: as it is.
        #[serde(default)]
        group: Option<Owner>,
        /// Of everything below as well; links themselves.
        #[serde(default)]
        recursive: bool,
    },
    /// Tell what happens to files, as [`WatchInput`] asks for.
    Watch,
    /// Put what an archive (tar) holds below a directory, which is made if it is not there. The archive comes as
    /// `Stdin` until the sender has finished. No link is followed below the directory; what came before an error
    /// stays.
    Unpack {
        /// The directory.
        path: String,
    },
    /// Read a directory with all it holds as one archive (tar).
    Pack {
        /// The directory.
        path: String,
    },
}

/// Which directories on the way to a file are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Parents {
    /// All that are missing.
    All,
    /// The last one alone.
    One,
    /// None.
    None,
}

/// A part of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "of", rename_all = "snake_case")]
pub enum FsRange {
    /// From a byte on.
    From {
        /// The first byte.
        first: u64,
        /// The last byte, included; absent: the file's last.
        #[serde(default)]
        last: Option<u64>,
    },
    /// The last bytes.
    Last {
        /// How many.
        length: u64,
    },
}

/// A user or a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Owner {
    /// By number in the environment.
    Id(u32),
    /// By name in the environment's `/etc/passwd` or `/etc/group`.
    Name(String),
}

/// What the host says while it watches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "input", rename_all = "snake_case")]
pub enum WatchInput {
    /// Watch these as well. Answered by [`FsReply::Subscribed`], and [`FsReply::WatchError`] for each that cannot be.
    Subscribe {
        /// Files and directories.
        paths: Vec<String>,
        /// Directories below them too.
        #[serde(default)]
        recursive: bool,
        /// As in [`FsSpec`].
        #[serde(default)]
        working_dir: Option<String>,
    },
    /// Watch these no more. Answered by [`FsReply::Unsubscribed`].
    Unsubscribe {
        /// As they were subscribed.
        paths: Vec<String>,
        /// As in [`FsSpec`].
        #[serde(default)]
        working_dir: Option<String>,
    },
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum FsReply {
    /// The file is open and its bytes follow.
    Reading {
        /// Its path.
        path: String,
        /// Bytes in the whole file; absent: it tells no size (files of the kernel), and the end is [`FsReply::Done`].
        size: Option<u64>,
        /// First byte that follows.
        offset: u64,
        /// So many follow; absent with `size`.
        length: Option<u64>,
        /// Permission bits.
        mode: u32,
    },
    /// The part that was asked for does not exist.
    Unsatisfiable {
        /// Bytes in the file.
        size: u64,
    },
    /// What is to be written can come.
    Writing {
        /// Where it will be.
        path: String,
    },
    /// The file is on the disk, whole.
    Written {
        /// Its path, links resolved.
        path: String,
        /// Bytes.
        size: u64,
        /// Permission bits.
        mode: u32,
    },
    /// The archive can come.
    Unpacking {
        /// Where it will be.
        path: String,
    },
    /// All of the archive is on the disk.
    Unpacked(FsUnpacked),
    /// The archive of this follows.
    Packing {
        /// The directory.
        path: String,
    },
    /// The entries of this follow.
    Listing {
        /// The directory or file.
        path: String,
    },
    /// Some entries of a listing.
    Entries {
        /// At least one.
        entries: Vec<FsEntry>,
    },
    /// All has been said.
    Done,
    /// Still at it; told every second or so, so that a silent machine is noticed.
    Working {
        /// Files so far.
        count: u64,
    },
    /// It is done.
    Changed(FsChanged),
    /// Watching begins.
    Watching,
    /// These are watched now.
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
    Event(FsEvent),
    /// Something cannot be watched, or was missed. Watching goes on.
    WatchError {
        /// For people; holds `overflow` if events were missed.
        message: String,
        /// What it is about; empty: everything.
        path: String,
    },
    /// The kernel refused.
    Refused(FsError),
    /// The operation could not be done at all.
    Failed(Failure),
}

/// What an operation changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FsChanged {
    /// The first [`MOST_NAMED`] of what was changed.
    pub paths: Vec<FsPair>,
    /// How many were changed.
    pub count: u64,
    /// Bytes that were copied.
    #[serde(default)]
    pub bytes: u64,
    /// The new owner, of a chown.
    #[serde(default)]
    pub uid: Option<u32>,
    /// The new group, of a chown.
    #[serde(default)]
    pub gid: Option<u32>,
}

/// What an archive held.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FsUnpacked {
    /// Where it is now.
    pub path: String,
    /// Files.
    pub files: u64,
    /// Directories that it named.
    pub directories: u64,
    /// Symbolic links.
    pub links: u64,
    /// Bytes of files.
    pub bytes: u64,
}

/// A file that was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FsPair {
    /// Its path.
    pub path: String,
    /// Where it is now, if it was renamed or copied.
    #[serde(default)]
    pub dest: Option<String>,
}

/// A file in a listing; links are told of, not followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FsEntry {
    /// Last part of the path.
    pub name: String,
    /// Below the path that was listed, which it begins with.
    pub path: String,
    /// What it is.
    pub kind: FsKind,
    /// Bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Last change, seconds since 1970.
    pub mtime: i64,
    /// And nanoseconds, below 10⁹.
    pub mtime_nanos: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Where a link leads.
    #[serde(default)]
    pub target: Option<String>,
    /// Why what it holds is not listed, in a recursive listing: an error number of the kernel.
    #[serde(default)]
    pub errno: Option<i32>,
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FsKind {
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
    /// What this side does not know.
    #[serde(other)]
    Unknown,
}

/// Something that happened to a watched file, or to one in a watched directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FsEvent {
    /// What.
    pub what: FsEventKind,
    /// To which file.
    pub path: String,
    /// Where it is now, if both its names are watched; with `rename`.
    #[serde(default)]
    pub dest: Option<String>,
    /// When it was seen, Unix nanoseconds.
    pub unix_nanos: u64,
    /// Bytes, as far as it is still there.
    pub size: u64,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// Kinds of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FsEventKind {
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

/// What the kernel said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FsError {
    /// The error number. Source: include/uapi/asm-generic/errno.h.
    pub errno: i32,
    /// What was tried: lower-case verb phrase.
    pub step: String,
    /// On which file.
    pub path: String,
}
