//! How drivers start what runs on the host: the walls that the agent's program builds before it becomes an agent
//! ([`LaunchSpec`]), or before it executes the monitor of a virtual machine ([`JailSpec`]).
//!
//! The driver starts the agent's program as root of the host with a Unix socket as its stdin, and sends the spec
//! with descriptors ([`crate::wire`]): for an agent the listening socket on which it will accept the host's
//! connections; for both the open file whose lock marks the sprite's range of user ids as taken. The launcher
//! answers with one [`LaunchReport`], and keeps its child from being reaped until the driver closes the
//! socket, so that the process id in the report cannot have been used again.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Ids in a sprite's range: the environment's 0 to 65,534, and the agent itself as the last one.
pub const RANGE: u32 = 65_536;
/// Ids of the environment.
pub const ENVIRONMENT_IDS: u32 = RANGE - 1;

/// What the walls are made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchSpec {
    /// The sprite's disk, an ext4 image.
    pub disk: PathBuf,
    /// First host user and group id of the sprite's range of [`RANGE`].
    pub id_base: u32,
    /// The network namespace to enter.
    pub netns: PathBuf,
    /// `cgroup.procs` of the agent's own groups, one for each hierarchy.
    pub agent_cgroups: Vec<PathBuf>,
    /// `cgroup.procs` of the environment's groups, one for each hierarchy.
    pub environment_cgroups: Vec<PathBuf>,
    /// An empty directory on which the machine's root is mounted, in its own mount namespace.
    pub root: PathBuf,
    /// The agent's program.
    pub agent: PathBuf,
    /// Memory of the environment in MiB; what lies in memory without a process that could be ended is bounded
    /// by it.
    pub memory_mib: u32,
}

/// What the jail of a virtual machine's monitor is made of.
///
/// The monitor finds the same names in every jail, so that what a snapshot says of them is true in the next one:
/// the `files` in `/`, sockets that it makes in `/run`, `/dev/kvm`, `/dev/net/tun`, `/dev/urandom` and its own
/// `/proc`. It writes its console to stdout and stderr.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JailSpec {
    /// The monitor's program; its name inside is [`MONITOR`].
    pub program: PathBuf,
    /// Its arguments, without the first, which is its name.
    pub arguments: Vec<String>,
    /// The machine's own user and group id.
    pub id: u32,
    /// The network namespace to enter.
    pub netns: PathBuf,
    /// `cgroup.procs` of the monitor's groups, one for each hierarchy.
    pub cgroups: Vec<PathBuf>,
    /// An empty directory on which the jail's root is mounted, in its own mount namespace.
    pub root: PathBuf,
    /// What else it sees of the host.
    pub files: Vec<JailFile>,
    /// The largest file that it may write, in bytes.
    pub largest_file: u64,
}

/// Name of the monitor's program in its jail.
pub const MONITOR: &str = "vmm";

/// A file or directory of the host in a jail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JailFile {
    /// Where it is on the host.
    pub path: PathBuf,
    /// Its name inside, below `/`: letters, digits, `-` and `_`.
    pub name: String,
    /// What the monitor may do with it.
    pub access: JailAccess,
}

/// What a monitor may do with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JailAccess {
    /// Read what everybody may read.
    Read,
    /// Read and write what belongs to root of the host, as if it were its own.
    Write,
    /// The same, and nobody else at the same time: the file stays locked for as long as the monitor lives, and
    /// the jail is not built if it is locked already.
    WriteAlone,
}

/// How it went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LaunchReport {
    /// The agent runs, as this process of the host.
    Started {
        /// Its process id.
        pid: u32,
    },
    /// Nothing runs.
    Failed {
        /// The step, as a lower-case verb phrase.
        step: String,
        /// The system's error number, if it was a system call.
        errno: Option<i32>,
    },
}
