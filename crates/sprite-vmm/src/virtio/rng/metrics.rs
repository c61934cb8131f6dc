//! Counters of the source of randomness.

use serde::Serialize;

use crate::metrics::Counter;

/// What it did.
#[derive(Debug, Default, Serialize)]
pub struct RngMetrics {
    /// Requests answered.
    pub requests: Counter,
    /// Bytes given.
    pub bytes: Counter,
    /// Requests that the host's kernel answered with an error.
    pub failures: Counter,
    /// Times the guest broke the rules of the queue.
    pub broken: Counter,
}
