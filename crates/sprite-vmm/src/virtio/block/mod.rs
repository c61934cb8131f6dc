//! A disk: a file of the host.
//!
//! Requests are taken from the queue by a few workers, each of which performs one at a time with ordinary system
//! calls, straight between the file and the guest's memory. Requests may overtake each other, as on any disk.
//!
//! A flush reaches the medium before it is acknowledged. When one has failed, what the file holds is not known
//! any more: from then on every write and every flush fails, so that no later flush seems to have saved what an
//! earlier one lost.
//!
//! When the host's file system is full, a request waits: the guest sees a slow disk, not an error. No event
//! tells when there is room again, so the request is tried once a second. A pause does not wait for it: it is
//! kept as unfinished, and done first when the machine goes on.

mod device;
mod disk;
mod metrics;
mod queue;
mod request;
mod state;

#[cfg(test)]
mod tests;

pub use device::Block;
pub use disk::OpenDiskError;
pub use metrics::BlockMetrics;
pub use state::BlockState;
