//! How the container driver starts an agent: the walls that its first phase builds before it becomes the agent.
//!
//! The driver starts the agent's program as root of the host with a Unix socket as its stdin, and sends a
//! [`LaunchSpec`] with two descriptors ([`crate::wire`]): the listening socket on which the agent will accept the
//! host's connections, and the open file whose lock marks the sprite's range of user ids as taken. The launcher
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
