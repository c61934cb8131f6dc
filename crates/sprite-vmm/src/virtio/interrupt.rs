//! A device's way to wake the guest, and what the guest finds when it looks why.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use vmm_sys_util::eventfd::EventFd;

use super::kick;

/// A device has used buffers. Source: VIRTIO 1.2, section 4.2.2, `InterruptStatus`.
const USED_BUFFER: u32 = 1;
/// The configuration or the status has changed. Source: as above.
const CONFIGURATION: u32 = 2;

/// Interrupts of one device. The line is edge-triggered: every write of the event is one edge, and the status
/// tells what is behind it until the guest acknowledges.
pub struct Interrupt {
    event: EventFd,
    status: AtomicU32,
    generation: AtomicU32,
    broken: AtomicBool,
}

impl Interrupt {
    /// Over an event that is wired to the guest's interrupt controller.
    #[must_use]
    pub fn new(event: EventFd) -> Self {
        Self {
            event,
            status: AtomicU32::new(0),
            generation: AtomicU32::new(0),
            broken: AtomicBool::new(false),
        }
    }

    /// The event that is written for every interrupt.
    #[must_use]
    pub fn event(&self) -> &EventFd {
        &self.event
    }

    /// Tells the guest that buffers were used.
    pub fn used_buffers(&self) {
        self.raise(USED_BUFFER);
    }

    /// Tells the guest that the rules were broken: it has to reset the device. The device stops by itself.
    pub fn needs_reset(&self) {
        self.broken.store(true, Ordering::SeqCst);
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.raise(CONFIGURATION);
    }

    fn raise(&self, why: u32) {
        // The status first: who is woken finds it.
        self.status.fetch_or(why, Ordering::SeqCst);
        kick(&self.event);
    }

    /// Whether the device waits for a reset.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::SeqCst)
    }

    /// The reasons that the guest has not acknowledged.
    #[must_use]
    pub fn status(&self) -> u32 {
        self.status.load(Ordering::SeqCst)
    }

    /// How often the configuration changed.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.generation.load(Ordering::SeqCst)
    }

    pub(crate) fn acknowledge(&self, reasons: u32) {
        self.status.fetch_and(!reasons, Ordering::SeqCst);
    }

    pub(crate) fn reset(&self) {
        self.status.store(0, Ordering::SeqCst);
        self.broken.store(false, Ordering::SeqCst);
    }

    pub(crate) fn restore(&self, status: u32, generation: u32, broken: bool) {
        self.status.store(status, Ordering::SeqCst);
        self.generation.store(generation, Ordering::SeqCst);
        self.broken.store(broken, Ordering::SeqCst);
    }

    /// Raises once more what was not acknowledged: an edge that a save fell upon may be lost, and one too many
    /// is harmless.
    pub(crate) fn repeat(&self) {
        if self.status() != 0 {
            kick(&self.event);
        }
    }
}
