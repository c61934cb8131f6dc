//! What of the socket goes into a snapshot. Connections do not.

use serde::{Deserialize, Serialize};

/// The socket between two packets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VsockState {
    /// The guest's address.
    pub guest_cid: u32,
}
