//! What of a disk goes into a snapshot. What is on it stays in its file.

use serde::{Deserialize, Serialize};

/// A disk between two requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockState {
    /// Its size in sectors of 512 bytes.
    pub sectors: u64,
    /// Chains that were taken and are not done, by their first descriptors.
    pub unfinished: Vec<u16>,
    /// Whether a flush has failed: then nothing is written any more.
    pub flush_failed: bool,
}
