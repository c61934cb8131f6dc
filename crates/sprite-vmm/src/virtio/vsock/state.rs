//! What of the socket goes into a snapshot. Connections do not.

use serde::{Deserialize, Serialize};

/// The socket between two packets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VsockState {
    /// The guest's address.
    pub guest_cid: u32,
    /// The port that the host's next connection gets. It goes on after a load: the guest may not have closed
    /// its ends of old connections yet, and would take a new one with the same ports for one of them.
    pub next_port: u32,
}
