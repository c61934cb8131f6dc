//! All devices of a machine, as one thing to pause and to resume.

use std::io;
use std::sync::Arc;

use super::event_loop::EventLoop;
use super::thread::ThreadSetup;
use super::transport::MmioTransport;

/// The transports of a machine and the event loop behind them. Begins paused.
pub struct Devices {
    transports: Vec<Arc<MmioTransport>>,
    event_loop: EventLoop,
}

impl Devices {
    /// Starts the event loop for these transports.
    ///
    /// # Errors
    /// There is no thread, or a file cannot be watched.
    pub fn start(transports: Vec<Arc<MmioTransport>>, setup: &ThreadSetup) -> io::Result<Self> {
        let devices: Vec<_> = transports
            .iter()
            .map(|transport| transport.device())
            .collect();
        let event_loop = EventLoop::start(&devices, setup)?;
        Ok(Self {
            transports,
            event_loop,
        })
    }

    /// The transports, in the order they were given in.
    #[must_use]
    pub fn transports(&self) -> &[Arc<MmioTransport>] {
        &self.transports
    }

    /// Returns when no device touches the guest's memory any more. The vCPUs stand still already.
    pub fn pause(&self) {
        self.event_loop.pause();
        for transport in &self.transports {
            transport.pause();
        }
    }

    /// Brings all that the guest has written to its disks onto their media. While paused.
    ///
    /// # Errors
    /// A disk could not be flushed.
    pub fn sync(&self) -> io::Result<()> {
        self.transports
            .iter()
            .try_for_each(|transport| transport.sync())
    }

    /// Goes on, before the vCPUs do.
    pub fn resume(&self) {
        for transport in &self.transports {
            transport.resume();
        }
        self.event_loop.resume();
    }
}
