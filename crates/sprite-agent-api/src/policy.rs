//! Policies, as far as the agent keeps them: what it shows inside, how it confines sessions, and limits within a
//! virtual machine.

use serde::{Deserialize, Serialize};
use sprite_types::Confinement;

use crate::message::Failure;

/// Longest text of the network policy, in bytes: more than as many rules as there may be take.
pub const MAX_NETWORK: usize = 256 << 10;

/// All that the agent is told, in place of what it was told before. An agent that was told nothing has
/// [`PolicySpec::default`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PolicySpec {
    /// The network policy as the API shows it, in JSON, for programs inside; at most [`MAX_NETWORK`] bytes. Empty:
    /// there is none. The agent enforces nothing of it.
    #[serde(default)]
    pub network: String,
    /// How sessions are confined that start from now on.
    #[serde(default)]
    pub confinement: Confinement,
    /// What the environment of a virtual machine may use of it; absent: all. In a container the host limits it.
    #[serde(default)]
    pub limits: Option<EnvironmentLimits>,
}

/// What an environment may use of its machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvironmentLimits {
    /// Memory in MiB. Where the machine has less, that is the limit.
    pub memory_mib: u32,
    /// Processes and threads.
    pub pids: u32,
}

/// What the agent answers to [`Request::Policy`](crate::message::Request::Policy).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum PolicyReply {
    /// It holds.
    Applied,
    /// It does not, or not all of it.
    Failed(Failure),
}
