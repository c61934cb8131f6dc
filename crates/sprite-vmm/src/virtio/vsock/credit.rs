//! Who may send how much. Source: VIRTIO 1.2, section 5.10.6.3.

use super::packet::BUFFER_SIZE;

/// What we may send to the guest.
#[derive(Debug, Default)]
pub(super) struct Allowance {
    buffer: u32,
    forwarded: u32,
    sent: u32,
}

impl Allowance {
    /// The guest tells its side.
    pub(super) fn told(&mut self, buffer: u32, forwarded: u32) {
        self.buffer = buffer;
        self.forwarded = forwarded;
    }

    /// Bytes that fit into the guest's buffer. What it claims to have taken and was never sent counts as
    /// nothing taken at all.
    pub(super) fn left(&self) -> u32 {
        let waiting = self.sent.wrapping_sub(self.forwarded);
        self.buffer.saturating_sub(waiting)
    }

    pub(super) fn sent(&mut self, count: u32) {
        self.sent = self.sent.wrapping_add(count);
    }
}

/// What the guest may send to us.
#[derive(Debug, Default)]
pub(super) struct Grant {
    forwarded: u32,
    told: u32,
}

impl Grant {
    /// The host's reader took so many bytes.
    pub(super) fn forward(&mut self, count: usize) {
        let count = u32::try_from(count).expect("a stream's buffer is far smaller");
        self.forwarded = self.forwarded.wrapping_add(count);
    }

    /// Whether the guest should hear of it: half of the buffer is free without its knowing.
    pub(super) fn is_due(&self) -> bool {
        self.forwarded.wrapping_sub(self.told) >= BUFFER_SIZE / 2
    }

    /// What a packet to the guest tells.
    pub(super) fn tell(&mut self) -> u32 {
        self.told = self.forwarded;
        self.forwarded
    }
}
