//! What of a device goes into a snapshot.

use serde::{Deserialize, Serialize};
use thiserror::Error;
use virtio_queue::QueueState;

use super::DeviceKind;
use super::block::BlockState;
use super::net::NetState;
use super::vsock::VsockState;

/// Registers, negotiation and queues of one transport, and the device behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransportState {
    /// Which device it is.
    pub kind: DeviceKind,
    /// Which half of the offered features the guest looks at.
    pub device_features_select: u32,
    /// Which half of the accepted features the guest writes.
    pub driver_features_select: u32,
    /// Which queue the guest looks at.
    pub queue_select: u32,
    /// What the guest accepted.
    pub driver_features: u64,
    /// The guest's side of the device status.
    pub status: u32,
    /// Whether the device waits for a reset.
    pub broken: bool,
    /// Reasons of interrupts that the guest has not acknowledged.
    pub interrupt_status: u32,
    /// How often the configuration changed.
    pub config_generation: u32,
    /// Every queue, where it stands.
    pub queues: Vec<QueuePosition>,
    /// The device.
    pub device: DeviceState,
}

/// What a device keeps besides its queues.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceState {
    /// A source of randomness keeps nothing.
    Entropy,
    /// A disk.
    Block(BlockState),
    /// A socket between host and guest.
    Vsock(VsockState),
    /// A network card.
    Net(NetState),
}

impl DeviceState {
    /// Whose it is.
    #[must_use]
    pub fn kind(&self) -> DeviceKind {
        match self {
            Self::Entropy => DeviceKind::Entropy,
            Self::Block(_) => DeviceKind::Block,
            Self::Vsock(_) => DeviceKind::Vsock,
            Self::Net(_) => DeviceKind::Net,
        }
    }
}

/// Where a queue lies, and how far both sides have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuePosition {
    /// The largest size offered.
    pub max_size: u16,
    /// The size in use.
    pub size: u16,
    /// Whether the driver uses the queue.
    pub ready: bool,
    /// Whether wake-ups are told by index.
    pub event_idx: bool,
    /// Guest physical address of the descriptors.
    pub descriptors: u64,
    /// Guest physical address of the ring of offered chains.
    pub available: u64,
    /// Guest physical address of the ring of returned chains.
    pub used: u64,
    /// The next chain to take.
    pub next_available: u16,
    /// The next place to return one.
    pub next_used: u16,
}

impl From<QueueState> for QueuePosition {
    fn from(state: QueueState) -> Self {
        Self {
            max_size: state.max_size,
            size: state.size,
            ready: state.ready,
            event_idx: state.event_idx_enabled,
            descriptors: state.desc_table,
            available: state.avail_ring,
            used: state.used_ring,
            next_available: state.next_avail,
            next_used: state.next_used,
        }
    }
}

impl From<QueuePosition> for QueueState {
    fn from(position: QueuePosition) -> Self {
        Self {
            max_size: position.max_size,
            next_avail: position.next_available,
            next_used: position.next_used,
            event_idx_enabled: position.event_idx,
            size: position.size,
            ready: position.ready,
            desc_table: position.descriptors,
            avail_ring: position.available,
            used_ring: position.used,
        }
    }
}

/// A saved device does not fit.
#[derive(Debug, Error)]
pub enum RestoreError {
    /// The state is of another device.
    #[error("restore a {expected:?} device from the state of a {found:?} device")]
    Kind {
        /// The device that is there.
        expected: DeviceKind,
        /// The device that was saved.
        found: DeviceKind,
    },
    /// The guest uses features that are not offered.
    #[error("offer the features {missing:#x} that the guest uses")]
    Features {
        /// Those.
        missing: u64,
    },
    /// The queues are others.
    #[error("restore {found} queues of a device that has {expected}")]
    Queues {
        /// Queues of the device that is there.
        expected: usize,
        /// Queues saved.
        found: usize,
    },
    /// The disk has another size.
    #[error("restore a disk of {found} sectors where one of {expected} is")]
    Disk {
        /// Sectors of the disk that is there.
        expected: u64,
        /// Sectors of the disk that was saved.
        found: u64,
    },
    /// The guest has another address.
    #[error("restore a guest with address {found} where {expected} is configured")]
    Cid {
        /// The address configured.
        expected: u32,
        /// The address saved.
        found: u32,
    },
    /// The network card has another address.
    #[error("restore a network card with the address that the guest knows")]
    Mac,
    /// A queue does not lie in the memory.
    #[error("restore queue {index}")]
    Queue {
        /// Which.
        index: usize,
        /// What is wrong with it.
        #[source]
        source: virtio_queue::Error,
    },
}
