//! The device.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::EventFd;

use super::hub::{Hub, PATIENCE};
use super::metrics::VsockMetrics;
use super::queue::{News, Progress, give, take, tell};
use super::state::VsockState;
use crate::config;
use crate::virtio::{
    Activation, BrokenQueue, DeviceKind, DeviceState, QueuePosition, Ready, RestoreError, Source,
    VirtioDevice, give_up, kick, new_events, read_bytes,
};

const TO_GUEST: usize = 0;
const TO_HOST: usize = 1;
const EVENTS: usize = 2;
const QUEUE_SIZES: &[u16] = &[256, 256, 16];

/// The socket cannot be offered.
#[derive(Debug, Error)]
pub enum StartVsockError {
    /// The Unix socket cannot be made, or its events cannot be watched.
    #[error("listen on {path}")]
    Listen {
        /// Its path.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// There are no file descriptors left.
    #[error("make events of queues")]
    Events(#[source] io::Error),
}

/// A socket between host and guest.
pub struct Vsock {
    hub: Hub,
    queue_events: Vec<EventFd>,
    active: Option<Activation>,
    news: News,
    metrics: Arc<VsockMetrics>,
}

impl Vsock {
    /// Listens on the Unix socket, which must not exist.
    ///
    /// # Errors
    /// It exists, cannot be made, or there are no file descriptors left.
    pub fn start(vsock: &config::Vsock) -> Result<Self, StartVsockError> {
        Self::with_patience(vsock, PATIENCE)
    }

    /// The same, with as much patience with those who do not say what they want.
    pub(super) fn with_patience(
        vsock: &config::Vsock,
        patience: Duration,
    ) -> Result<Self, StartVsockError> {
        let metrics = Arc::new(VsockMetrics::default());
        let cid = vsock.guest_cid.get();
        let hub = Hub::new(&vsock.uds_path, cid, Arc::clone(&metrics), patience);
        Ok(Self {
            hub: hub.map_err(|source| StartVsockError::Listen {
                path: vsock.uds_path.clone(),
                source,
            })?,
            queue_events: new_events(QUEUE_SIZES).map_err(StartVsockError::Events)?,
            active: None,
            news: News::Taken,
            metrics,
        })
    }

    /// What it did.
    #[must_use]
    pub fn metrics(&self) -> Arc<VsockMetrics> {
        Arc::clone(&self.metrics)
    }

    fn work(&mut self, ready: Ready) -> Result<(), BrokenQueue> {
        match ready {
            Ready::Source(_, _) => self.hub.host_events(),
            Ready::Queue(_) => {}
        }
        let Some(active) = &mut self.active else {
            return Ok(());
        };
        let interrupt = &active.interrupt;
        if self.news != News::Taken {
            self.news = tell(&mut active.queues[EVENTS], interrupt, self.news)?;
        }
        if ready == Ready::Queue(TO_HOST) {
            let queue = &mut active.queues[TO_HOST];
            if take(queue, interrupt, &mut self.hub, &self.metrics)? == Progress::MoreToDo {
                kick(&self.queue_events[TO_HOST]);
            }
        }
        // Connections of before the load are still the guest's; what is new would be taken for theirs.
        if self.news != News::Taken {
            self.hub.forget_answers();
            return Ok(());
        }
        let was_stuffed = self.hub.is_stuffed();
        let queue = &mut active.queues[TO_GUEST];
        if give(queue, interrupt, &mut self.hub, &self.metrics)? == Progress::MoreToDo {
            kick(&self.queue_events[TO_GUEST]);
        }
        if was_stuffed && !self.hub.is_stuffed() {
            kick(&self.queue_events[TO_HOST]);
        }
        Ok(())
    }
}

impl VirtioDevice for Vsock {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Vsock
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

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let cid = u64::from(self.hub.guest_cid());
        read_bytes(&cid.to_le_bytes(), offset, data);
    }

    fn activate(&mut self, activation: Activation) {
        self.active = Some(activation);
    }

    fn reset(&mut self) {
        self.active = None;
        self.news = News::Taken;
        self.hub.reset();
    }

    fn sources(&self) -> Vec<Source> {
        vec![Source {
            fd: self.hub.fd(),
            events: EventSet::IN,
        }]
    }

    fn process(&mut self, ready: Ready) {
        if let Err(broken) = self.work(ready) {
            self.metrics.broken.inc();
            if let Some(active) = self.active.take() {
                give_up(DeviceKind::Vsock, &active.interrupt, &broken);
            }
            self.hub.reset();
        }
    }

    fn queues(&self) -> Option<Vec<QueuePosition>> {
        let active = self.active.as_ref()?;
        Some(active.queues.iter().map(|queue| queue.position()).collect())
    }

    fn save(&self) -> DeviceState {
        DeviceState::Vsock(VsockState {
            guest_cid: self.hub.guest_cid(),
            next_port: self.hub.next_port(),
        })
    }

    fn restore(&mut self, state: &DeviceState) -> Result<(), RestoreError> {
        let DeviceState::Vsock(state) = state else {
            return Err(RestoreError::Kind {
                expected: DeviceKind::Vsock,
                found: state.kind(),
            });
        };
        if state.guest_cid != self.hub.guest_cid() {
            return Err(RestoreError::Cid {
                expected: self.hub.guest_cid(),
                found: state.guest_cid,
            });
        }
        self.hub.go_on_with_port(state.next_port);
        self.news = News::Untold;
        Ok(())
    }
}
