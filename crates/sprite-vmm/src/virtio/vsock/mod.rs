//! Streams between host and guest, without a network.
//!
//! On the host's side is a Unix socket. Whoever connects writes `CONNECT <port>\n`; when a process of the guest
//! listens on that port it reads `OK <port of ours>\n`, and from then on both speak with each other; when none
//! does, the connection is closed. A process of the guest that connects to a port of the host reaches the Unix
//! socket with the same path, an underscore and the port behind it.
//!
//! Every stream has a buffer of [`packet::BUFFER_SIZE`] for what its reader on the host has not taken, and no
//! more is accepted; in the other direction nothing is read from the host that the guest has no room for.
//! Connections take turns, a packet each, so that none waits for another's reader.
//!
//! Connections end with the process. After a load the guest is told so by a *transport reset* event, and what is
//! new waits until it has taken that: else it would take new connections for old ones. Its listeners stay.
//!
//! Source: VIRTIO 1.2, section 5.10; the host's side as Firecracker documents it in `docs/vsock.md`.

mod connection;
mod credit;
mod device;
mod exchange;
mod host;
mod hub;
mod metrics;
mod packet;
mod queue;
mod state;

#[cfg(test)]
mod tests;

pub use device::{StartVsockError, Vsock};
pub use metrics::VsockMetrics;
pub use state::VsockState;
