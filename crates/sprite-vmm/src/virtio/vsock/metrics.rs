//! Counters of the socket.

use serde::Serialize;

use crate::metrics::Counter;

/// What the socket did.
#[derive(Debug, Default, Serialize)]
pub struct VsockMetrics {
    /// Packets given to the guest.
    pub packets_to_guest: Counter,
    /// Bytes of streams given to the guest.
    pub bytes_to_guest: Counter,
    /// Packets taken from the guest.
    pub packets_to_host: Counter,
    /// Bytes of streams taken from the guest.
    pub bytes_to_host: Counter,
    /// Connections that both sides agreed to.
    pub opened: Counter,
    /// Connections that were not made: nobody listens, too many, or no answer in time.
    pub refused: Counter,
    /// Connections that were cut because the guest broke a rule.
    pub cut: Counter,
    /// Packets that belong to nothing.
    pub stray: Counter,
    /// Times the guest broke the rules of a queue.
    pub broken: Counter,
}
