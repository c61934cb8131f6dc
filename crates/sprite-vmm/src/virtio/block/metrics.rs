//! Counters of a disk.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::metrics::Counter;

/// What a disk did.
#[derive(Debug, Default, Serialize)]
pub struct BlockMetrics {
    /// Reads that succeeded.
    pub reads: Counter,
    /// Bytes read.
    pub read_bytes: Counter,
    /// Writes that succeeded.
    pub writes: Counter,
    /// Bytes written.
    pub written_bytes: Counter,
    /// Flushes that reached the medium.
    pub flushes: Counter,
    /// Discards and write-zeroes that succeeded.
    pub discards: Counter,
    /// Requests answered with an error.
    pub failures: Counter,
    /// Requests without room for an answer.
    pub unanswerable: Counter,
    /// Times a request found no space on the host, tries included.
    pub waits_for_space: Counter,
    /// Requests that wait for space on the host now.
    #[serde(serialize_with = "gauge")]
    pub waiting_for_space: AtomicU64,
    /// Times the guest broke the rules of the queue.
    pub broken: Counter,
}

fn gauge<S: serde::Serializer>(value: &AtomicU64, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u64(value.load(Ordering::Relaxed))
}
