//! The device.

use std::sync::Arc;

use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::EventFd;

use super::metrics::NetMetrics;
use super::queue::{Layout, Progress, Waiting, receive, transmit};
use super::state::NetState;
use super::tap::{Offloads, OpenTapError, Tap};
use crate::config::NetworkInterface;
use crate::log;
use crate::virtio::{
    Activation, BrokenQueue, DeviceKind, DeviceState, QueuePosition, Ready, RestoreError, Source,
    VirtioDevice, give_up, kick, new_events, read_bytes,
};

const TO_GUEST: usize = 0;
const TO_HOST: usize = 1;
const QUEUE_SIZES: &[u16] = &[256, 256];

// Feature bits. Source: VIRTIO 1.2, section 5.1.3.
const F_CSUM: u64 = 1 << 0;
const F_GUEST_CSUM: u64 = 1 << 1;
const F_MAC: u64 = 1 << 5;
const F_GUEST_TSO4: u64 = 1 << 7;
const F_GUEST_TSO6: u64 = 1 << 8;
const F_HOST_TSO4: u64 = 1 << 11;
const F_HOST_TSO6: u64 = 1 << 12;
const F_MRG_RXBUF: u64 = 1 << 15;
const FEATURES: u64 =
    F_CSUM | F_GUEST_CSUM | F_GUEST_TSO4 | F_GUEST_TSO6 | F_HOST_TSO4 | F_HOST_TSO6 | F_MRG_RXBUF;

/// A network card.
pub struct Net {
    tap: Tap,
    mac: Option<[u8; 6]>,
    queue_events: Vec<EventFd>,
    active: Option<Activation>,
    /// Whether the tap knows what was negotiated.
    negotiated: bool,
    /// Whether the tap takes no more.
    host_full: bool,
    waiting: Waiting,
    metrics: Arc<NetMetrics>,
}

impl Net {
    /// Attaches to the interface's tap.
    ///
    /// # Errors
    /// There is no such tap for us, or no file descriptors are left.
    pub fn open(interface: &NetworkInterface) -> Result<Self, OpenTapError> {
        let tap = Tap::open(&interface.host_dev_name)?;
        Self::with(tap, interface.guest_mac.map(|mac| mac.bytes()))
    }

    /// Between the guest and another end of a cable than a tap.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(in crate::virtio) fn over(cable: std::fs::File) -> Result<Self, OpenTapError> {
        Self::with(Tap::of(cable), None)
    }

    fn with(tap: Tap, mac: Option<[u8; 6]>) -> Result<Self, OpenTapError> {
        Ok(Self {
            tap,
            mac,
            queue_events: new_events(QUEUE_SIZES).map_err(OpenTapError::Events)?,
            active: None,
            negotiated: false,
            host_full: false,
            waiting: Waiting::default(),
            metrics: Arc::default(),
        })
    }

    /// What it did.
    #[must_use]
    pub fn metrics(&self) -> Arc<NetMetrics> {
        Arc::clone(&self.metrics)
    }

    fn work(&mut self, ready: Ready) -> Result<(), BrokenQueue> {
        let Some(active) = &mut self.active else {
            return Ok(());
        };
        if !self.negotiated {
            self.negotiated = true;
            let has = |feature| active.features & feature != 0;
            let offloads = Offloads {
                checksum: has(F_GUEST_CSUM),
                tcp4: has(F_GUEST_TSO4),
                tcp6: has(F_GUEST_TSO6),
            };
            if let Err(error) = self.tap.offload(offloads) {
                log::warn(format_args!(
                    "the tap does not do what the guest wants: {error}"
                ));
            }
        }
        let layout = if active.features & F_MRG_RXBUF != 0 {
            Layout::Mergeable
        } else {
            Layout::Single
        };
        let (receives, transmits) = match ready {
            Ready::Queue(TO_GUEST) => (true, false),
            Ready::Queue(_) => (false, !self.host_full),
            Ready::Source(_, events) => {
                let writable = events.contains(EventSet::OUT);
                (true, writable && self.host_full)
            }
        };
        if receives {
            let queue = &mut active.queues[TO_GUEST];
            let host = (&self.tap, &mut self.waiting);
            let progress = receive(queue, &active.interrupt, host, layout, &self.metrics)?;
            if progress == Progress::MoreToDo {
                kick(&self.queue_events[TO_GUEST]);
            }
        }
        if transmits {
            let queue = &mut active.queues[TO_HOST];
            let progress = transmit(queue, &active.interrupt, &self.tap, &self.metrics)?;
            self.host_full = progress == Progress::HostFull;
            if progress == Progress::MoreToDo {
                kick(&self.queue_events[TO_HOST]);
            }
        }
        Ok(())
    }
}

impl VirtioDevice for Net {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Net
    }

    fn features(&self) -> u64 {
        match self.mac {
            Some(_) => FEATURES | F_MAC,
            None => FEATURES,
        }
    }

    fn queue_sizes(&self) -> &'static [u16] {
        QUEUE_SIZES
    }

    fn queue_events(&self) -> &[EventFd] {
        &self.queue_events
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_bytes(&self.mac.unwrap_or_default(), offset, data);
    }

    fn activate(&mut self, activation: Activation) {
        self.active = Some(activation);
        self.negotiated = false;
        self.host_full = false;
    }

    fn reset(&mut self) {
        self.active = None;
        self.waiting.clear();
    }

    fn sources(&self) -> Vec<Source> {
        // Only changes: a tap that nobody has room for stays readable.
        vec![Source {
            fd: self.tap.fd(),
            events: EventSet::IN | EventSet::OUT | EventSet::EDGE_TRIGGERED,
        }]
    }

    fn process(&mut self, ready: Ready) {
        if let Err(broken) = self.work(ready) {
            self.metrics.broken.inc();
            if let Some(active) = self.active.take() {
                give_up(DeviceKind::Net, &active.interrupt, &broken);
            }
            self.waiting.clear();
        }
    }

    fn queues(&self) -> Option<Vec<QueuePosition>> {
        let active = self.active.as_ref()?;
        Some(active.queues.iter().map(|queue| queue.position()).collect())
    }

    fn save(&self) -> DeviceState {
        DeviceState::Net(NetState { mac: self.mac })
    }

    fn restore(&mut self, state: &DeviceState) -> Result<(), RestoreError> {
        let DeviceState::Net(state) = state else {
            return Err(RestoreError::Kind {
                expected: DeviceKind::Net,
                found: state.kind(),
            });
        };
        if state.mac != self.mac {
            return Err(RestoreError::Mac);
        }
        Ok(())
    }
}
