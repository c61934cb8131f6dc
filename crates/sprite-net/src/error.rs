//! What can go wrong.

use std::io;

use crate::address::Subnet;
use crate::slot::SlotId;

/// A failure of a machine's network. What was begun is undone.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// A step failed at the host.
    #[error("{step}")]
    Step {
        /// Lower-case verb phrase with names and paths.
        step: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// All addresses of the instance are in use.
    #[error("no free slot: all addresses of {subnet} are in use")]
    Exhausted {
        /// The instance's addresses.
        subnet: Subnet,
    },
    /// The host routes all private address space somewhere.
    #[error(
        "no free range of 4,096 private addresses on this host: free one in 100.64.0.0/10, 172.16.0.0/12 or 10.0.0.0/8"
    )]
    NoSubnet,
    /// A slot to adopt lacks something: a crash left it half made, or someone removed a part.
    #[error("slot {slot} is not whole: {missing} is missing")]
    NotWhole {
        /// The slot.
        slot: SlotId,
        /// What is not there.
        missing: String,
    },
    /// A slot to adopt or release is being made, or in use by this very process.
    #[error("slot {slot} is already in use")]
    InUse {
        /// The slot.
        slot: SlotId,
    },
    /// The network was closed.
    #[error("network is closed")]
    Closed,
}

impl NetError {
    /// For `map_err`: names the step.
    pub(crate) fn step<E: Into<io::Error>>(step: impl Into<String>) -> impl FnOnce(E) -> Self {
        let step = step.into();
        move |source| Self::Step {
            step,
            source: source.into(),
        }
    }
}
