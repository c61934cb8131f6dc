//! The device.

use std::io;
use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use super::metrics::RngMetrics;
use super::queue::{Progress, serve};
use crate::virtio::{
    Activation, DeviceKind, DeviceState, QueuePosition, Ready, RestoreError, VirtioDevice, give_up,
    kick, new_events,
};

/// One queue of requests, which a driver keeps short.
const QUEUE_SIZES: &[u16] = &[64];

/// A source of randomness.
pub struct Rng {
    queue_events: Vec<EventFd>,
    active: Option<Activation>,
    metrics: Arc<RngMetrics>,
}

impl Rng {
    /// Makes it.
    ///
    /// # Errors
    /// There are no file descriptors left.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            queue_events: new_events(QUEUE_SIZES)?,
            active: None,
            metrics: Arc::default(),
        })
    }

    /// What it did.
    #[must_use]
    pub fn metrics(&self) -> Arc<RngMetrics> {
        Arc::clone(&self.metrics)
    }
}

impl VirtioDevice for Rng {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Entropy
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &'static [u16] {
        QUEUE_SIZES
    }

    fn queue_events(&self) -> &[EventFd] {
        &self.queue_events
    }

    fn read_config(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn activate(&mut self, activation: Activation) {
        self.active = Some(activation);
    }

    fn reset(&mut self) {
        self.active = None;
    }

    fn process(&mut self, _ready: Ready) {
        let Some(active) = &mut self.active else {
            return;
        };
        match serve(&mut active.queues[0], &active.interrupt, &self.metrics) {
            Ok(Progress::Done) => {}
            Ok(Progress::MoreToDo) => kick(&self.queue_events[0]),
            Err(broken) => {
                self.metrics.broken.inc();
                give_up(DeviceKind::Entropy, &active.interrupt, &broken);
                self.active = None;
            }
        }
    }

    fn queues(&self) -> Option<Vec<QueuePosition>> {
        let active = self.active.as_ref()?;
        Some(active.queues.iter().map(|queue| queue.position()).collect())
    }

    fn save(&self) -> DeviceState {
        DeviceState::Entropy
    }

    fn restore(&mut self, state: &DeviceState) -> Result<(), RestoreError> {
        match state {
            DeviceState::Entropy => Ok(()),
            other @ (DeviceState::Block(_) | DeviceState::Vsock(_) | DeviceState::Net(_)) => {
                Err(RestoreError::Kind {
                    expected: DeviceKind::Entropy,
                    found: other.kind(),
                })
            }
        }
    }
}
