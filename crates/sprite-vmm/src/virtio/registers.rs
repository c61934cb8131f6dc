//! The registers of a transport, and what the driver has written to them.
//!
//! Source: VIRTIO 1.2, section 4.2.2 (registers), 2.1 (status).

use virtio_queue::{Queue, QueueT};

use super::F_EVENT_IDX;

pub(super) const STATUS_DRIVER: u32 = 2;
pub(super) const STATUS_DRIVER_OK: u32 = 4;
pub(super) const STATUS_FEATURES_OK: u32 = 8;
pub(super) const STATUS_NEEDS_RESET: u32 = 64;
/// What a driver may set: ACKNOWLEDGE, the three above it and FAILED.
pub(super) const STATUS_OF_DRIVER: u32 =
    1 | STATUS_DRIVER | STATUS_DRIVER_OK | STATUS_FEATURES_OK | 128;

/// Registers by offset.
pub(super) mod register {
    pub(crate) const MAGIC: u64 = 0x00;
    pub(crate) const VERSION: u64 = 0x04;
    pub(crate) const DEVICE_ID: u64 = 0x08;
    pub(crate) const VENDOR_ID: u64 = 0x0c;
    pub(crate) const DEVICE_FEATURES: u64 = 0x10;
    pub(crate) const DEVICE_FEATURES_SELECT: u64 = 0x14;
    pub(crate) const DRIVER_FEATURES: u64 = 0x20;
    pub(crate) const DRIVER_FEATURES_SELECT: u64 = 0x24;
    pub(crate) const QUEUE_SELECT: u64 = 0x30;
    pub(crate) const QUEUE_SIZE_MAX: u64 = 0x34;
    pub(crate) const QUEUE_SIZE: u64 = 0x38;
    pub(crate) const QUEUE_READY: u64 = 0x44;
    pub(crate) const INTERRUPT_STATUS: u64 = 0x60;
    pub(crate) const INTERRUPT_ACKNOWLEDGE: u64 = 0x64;
    pub(crate) const STATUS: u64 = 0x70;
    pub(crate) const DESCRIPTORS_LOW: u64 = 0x80;
    pub(crate) const DESCRIPTORS_HIGH: u64 = 0x84;
    pub(crate) const AVAILABLE_LOW: u64 = 0x90;
    pub(crate) const AVAILABLE_HIGH: u64 = 0x94;
    pub(crate) const USED_LOW: u64 = 0xa0;
    pub(crate) const USED_HIGH: u64 = 0xa4;
    pub(crate) const SHARED_MEMORY_LENGTH_LOW: u64 = 0xb0;
    pub(crate) const SHARED_MEMORY_LENGTH_HIGH: u64 = 0xb4;
    pub(crate) const CONFIG_GENERATION: u64 = 0xfc;
}

/// What the driver has set up so far.
pub(super) struct Registers {
    pub(super) device_features_select: u32,
    pub(super) driver_features_select: u32,
    pub(super) queue_select: u32,
    pub(super) driver_features: u64,
    pub(super) status: u32,
    /// As configured; where an active queue stands, its device knows.
    pub(super) queues: Vec<Queue>,
}

impl Registers {
    pub(super) fn new(queue_sizes: &[u16]) -> Self {
        let queue = |&size| Queue::new(size).expect("sizes of devices are powers of two");
        Self {
            device_features_select: 0,
            driver_features_select: 0,
            queue_select: 0,
            driver_features: 0,
            status: 0,
            queues: queue_sizes.iter().map(queue).collect(),
        }
    }

    pub(super) fn queue(&self) -> Option<&Queue> {
        self.queues.get(usize::try_from(self.queue_select).ok()?)
    }

    pub(super) fn has(&self, status: u32) -> bool {
        self.status & status == status
    }

    pub(super) fn write_features(&mut self, value: u32) {
        if !self.has(STATUS_DRIVER) || self.has(STATUS_FEATURES_OK) {
            return;
        }
        let shift = match self.driver_features_select {
            0 => 0,
            1 => 32,
            _no_such_half => return,
        };
        let others = self.driver_features & !(u64::from(u32::MAX) << shift);
        self.driver_features = others | u64::from(value) << shift;
    }

    pub(super) fn write_queue(&mut self, offset: u64, value: u32) {
        // Once the device has its queues, they change by a reset only.
        if !self.has(STATUS_FEATURES_OK) || self.has(STATUS_DRIVER_OK) {
            return;
        }
        let event_idx = self.driver_features & F_EVENT_IDX != 0;
        let selected = usize::try_from(self.queue_select).expect("32 bits fit");
        let Some(queue) = self.queues.get_mut(selected) else {
            return;
        };
        match offset {
            register::QUEUE_SIZE => {
                // A size that is none leaves the old one; the driver's rings will not be valid.
                if let Ok(size) = u16::try_from(value) {
                    queue.set_size(size);
                }
            }
            register::QUEUE_READY => {
                queue.set_event_idx(event_idx);
                queue.set_ready(value == 1);
            }
            register::DESCRIPTORS_LOW => queue.set_desc_table_address(Some(value), None),
            register::DESCRIPTORS_HIGH => queue.set_desc_table_address(None, Some(value)),
            register::AVAILABLE_LOW => queue.set_avail_ring_address(Some(value), None),
            register::AVAILABLE_HIGH => queue.set_avail_ring_address(None, Some(value)),
            register::USED_LOW => queue.set_used_ring_address(Some(value), None),
            register::USED_HIGH => queue.set_used_ring_address(None, Some(value)),
            _read_only_or_none => {}
        }
    }
}

/// Half of the features, as selected; there are two halves.
pub(super) fn half(features: u64, select: u32) -> u32 {
    let shifted = match select {
        0 => features,
        1 => features >> 32,
        _no_such_half => 0,
    };
    u32::try_from(shifted & u64::from(u32::MAX)).expect("masked to 32 bits")
}
