//! Counters of a network card.

use serde::Serialize;

use crate::metrics::Counter;

/// What a network card did.
#[derive(Debug, Default, Serialize)]
pub struct NetMetrics {
    /// Frames given to the guest.
    pub frames_to_guest: Counter,
    /// Bytes of them.
    pub bytes_to_guest: Counter,
    /// Frames for the guest that its buffers cannot hold.
    pub lost_to_guest: Counter,
    /// Frames taken from the guest.
    pub frames_to_host: Counter,
    /// Bytes of them.
    pub bytes_to_host: Counter,
    /// Frames of the guest that the tap refused or that are none.
    pub lost_to_host: Counter,
    /// Times the tap took no more and the guest had to wait.
    pub host_full: Counter,
    /// Times the tap could not be read.
    pub failures: Counter,
    /// Times the guest broke the rules of a queue.
    pub broken: Counter,
}
