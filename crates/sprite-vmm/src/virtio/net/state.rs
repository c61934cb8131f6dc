//! What of a network card goes into a snapshot. Frames on their way do not: networks lose some.

use serde::{Deserialize, Serialize};

/// A network card between two frames.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetState {
    /// Its address; without one the guest has chosen.
    pub mac: Option<[u8; 6]>,
}
