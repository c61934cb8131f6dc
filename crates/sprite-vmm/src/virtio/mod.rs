//! Virtio devices over memory-mapped registers.
//!
//! A guest's driver talks to a [`MmioTransport`] (registers, negotiation, reset); behind it stands one
//! [`VirtioDevice`]. Buffers travel through [`VirtQueue`]s in the guest's memory; both sides wake each other by
//! eventfds: the guest's writes to a queue's notify register arrive there without leaving the kernel, and a
//! device's [`Interrupt`] goes the other way.
//!
//! Who runs what: a vCPU's thread only touches registers and hands queues over; one [`EventLoop`] thread
//! processes the queues of all devices whose work never blocks; a disk has workers of its own, for theirs does.
//!
//! Pause, in this order: vCPUs, then [`Devices::pause`]. From then on nothing of the guest's memory is touched
//! and nothing is in flight, so that what [`MmioTransport::save`] returns is all that there is. Devices begin
//! paused: [`Devices::resume`] is the first step of a boot and the last of a load.
//!
//! What must always hold:
//! * Every byte in guest memory is hostile and may change at any time: it is copied before it is judged.
//! * Work for one notification is bounded, and so is memory for any guest.
//! * A guest that breaks the rules of a queue gets `DEVICE_NEEDS_RESET`; it never gets a panic out of us.
//!
//! Source for all facts here: "Virtual I/O Device (VIRTIO) Version 1.2".

mod chain;
mod devices;
mod event_loop;
mod interrupt;
mod queue;
mod registers;
mod state;
mod thread;
mod transport;

pub mod block;
pub mod net;
pub mod rng;
pub mod vsock;

#[cfg(test)]
mod driver;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod transport_tests;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::EventFd;

use crate::log;

pub use chain::{Buffers, Chain, ChainError};
pub use devices::Devices;
pub use event_loop::{EventLoop, SharedDevice};
pub use interrupt::Interrupt;
pub use queue::{BrokenQueue, Taken, VirtQueue};
pub use state::{DeviceState, QueuePosition, RestoreError, TransportState};
pub(crate) use thread::spawn;
pub use thread::{ThreadKind, ThreadSetup, unrestricted};
pub use transport::{MMIO_SIZE, MmioTransport, NOTIFY_OFFSET};

/// The ring accepts indirect descriptor tables. Source: VIRTIO 1.2, section 6.
pub(crate) const F_INDIRECT_DESC: u64 = 1 << 28;
/// Both sides say at which index they want to be woken. Source: VIRTIO 1.2, section 6.
pub(crate) const F_EVENT_IDX: u64 = 1 << 29;
/// The device is not a legacy one. Source: VIRTIO 1.2, section 6.
pub(crate) const F_VERSION_1: u64 = 1 << 32;
/// What every device of ours offers.
pub(crate) const RING_FEATURES: u64 = F_INDIRECT_DESC | F_EVENT_IDX | F_VERSION_1;

/// What a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceKind {
    /// A network card.
    Net,
    /// A disk.
    Block,
    /// A source of randomness.
    Entropy,
    /// Streams between host and guest.
    Vsock,
}

impl DeviceKind {
    /// The device id that the guest reads. Source: VIRTIO 1.2, section 5.
    #[must_use]
    pub fn id(self) -> u32 {
        match self {
            Self::Net => 1,
            Self::Block => 2,
            Self::Entropy => 4,
            Self::Vsock => 19,
        }
    }
}

/// Whose threads process a device's queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runner {
    /// The event loop's.
    EventLoop,
    /// The device's own; it reads its queue events itself.
    OwnThreads,
}

/// A file besides the queue events that the event loop watches for a device, all its life.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// The file; the device keeps it open.
    pub fd: std::os::fd::RawFd,
    /// What is waited for.
    pub events: EventSet,
}

/// What the event loop tells a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// The guest notified this queue (or a resume asks to look at it); its event has been read.
    Queue(usize),
    /// The source with this index in [`VirtioDevice::sources`] has these events.
    Source(usize, EventSet),
}

/// All that a device gets when the guest's driver is ready.
pub struct Activation {
    /// One for each of [`VirtioDevice::queue_sizes`]; those that the driver left out are not ready.
    pub queues: Vec<VirtQueue>,
    /// What was negotiated, ring features included.
    pub features: u64,
    /// The way to the guest.
    pub interrupt: Arc<Interrupt>,
}

/// A device behind a transport.
///
/// A device is made paused and inactive. Calls come under one lock; none may block for longer than work that is
/// already in flight takes.
pub trait VirtioDevice: Send {
    /// What it is.
    fn kind(&self) -> DeviceKind;

    /// Features offered besides [`RING_FEATURES`].
    fn features(&self) -> u64;

    /// The largest size of each queue; powers of two.
    fn queue_sizes(&self) -> &'static [u16];

    /// The event of each queue, which the guest's notification writes.
    fn queue_events(&self) -> &[EventFd];

    /// Copies from the device's configuration space; what lies behind its end reads as zeroes.
    fn read_config(&self, offset: u64, data: &mut [u8]);

    /// The driver is ready. The transport writes every queue's event after this call.
    fn activate(&mut self, activation: Activation);

    /// Back to inactive: nothing of the guest's memory is touched after this call.
    fn reset(&mut self);

    /// Whose threads process the queues.
    fn runner(&self) -> Runner {
        Runner::EventLoop
    }

    /// What the event loop watches for this device besides the queue events.
    fn sources(&self) -> Vec<Source> {
        Vec::new()
    }

    /// Does a bounded piece of work. Called by the event loop alone, never while paused.
    fn process(&mut self, ready: Ready);

    /// Stops taking buffers and returns when nothing is in flight. The event loop stands still already.
    fn pause(&mut self) {}

    /// Goes on. The transport writes every queue's event after this call.
    fn resume(&mut self) {}

    /// Brings what the guest was told is written onto its medium. While paused.
    ///
    /// # Errors
    /// It could not be brought there.
    fn sync(&self) -> std::io::Result<()> {
        Ok(())
    }

    /// Where each queue stands; nothing when inactive. While paused.
    fn queues(&self) -> Option<Vec<QueuePosition>>;

    /// What else must survive. While paused.
    fn save(&self) -> DeviceState;

    /// Takes over what [`VirtioDevice::save`] returned. Before activation, while paused.
    ///
    /// # Errors
    /// The state is another device's, or does not fit this one.
    fn restore(&mut self, state: &DeviceState) -> Result<(), RestoreError>;
}

/// The guest broke the rules of a queue: says so, and asks the guest for a reset.
pub(crate) fn give_up(kind: DeviceKind, interrupt: &Interrupt, broken: &BrokenQueue) {
    let cause = std::error::Error::source(broken).map_or_else(String::new, ToString::to_string);
    log::warn(format_args!(
        "the guest broke the rules of its {kind:?} device: {broken}: {cause}"
    ));
    interrupt.needs_reset();
}

/// Writes a one to an event.
pub(crate) fn kick(event: &EventFd) {
    event
        .write(1)
        .expect("an eventfd takes 2^64 - 2 ones before it refuses one");
}

/// A new event.
pub(crate) fn new_event() -> std::io::Result<EventFd> {
    EventFd::new(libc::EFD_CLOEXEC)
}

/// As many new events as there are queues.
pub(crate) fn new_events(queues: &[u16]) -> std::io::Result<Vec<EventFd>> {
    queues.iter().map(|_| new_event()).collect()
}

/// Copies out of a configuration space of fixed bytes; zeroes behind its end.
pub(crate) fn read_bytes(config: &[u8], offset: u64, data: &mut [u8]) {
    data.fill(0);
    let Some(rest) = usize::try_from(offset)
        .ok()
        .and_then(|offset| config.get(offset..))
    else {
        return;
    };
    let len = rest.len().min(data.len());
    data[..len].copy_from_slice(&rest[..len]);
}
