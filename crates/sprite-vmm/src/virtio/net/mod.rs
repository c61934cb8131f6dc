//! A network card: a tap of the host.
//!
//! Frames go between the tap and the guest's memory without a copy, each behind a header by which both sides leave
//! checksums and segmentation to the other. A frame from the tap may fill several buffers of the guest. When the
//! guest offers too few for a frame of any size, the frame is read into a buffer of ours and waits there; when it
//! offers none, nothing is read, and the tap's own queue fills. When the tap takes no more, nothing is taken from
//! the guest.
//!
//! Source: VIRTIO 1.2, section 5.1; the tap: Linux, `Documentation/networking/tuntap.rst`, `linux/if_tun.h`.

mod device;
mod metrics;
mod queue;
mod state;
mod tap;

#[cfg(test)]
mod tests;

pub use device::Net;
pub use metrics::NetMetrics;
pub use state::NetState;
pub use tap::OpenTapError;
