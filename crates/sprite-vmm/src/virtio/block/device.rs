//! The device.

use std::sync::Arc;
use std::thread::JoinHandle;

use vmm_sys_util::eventfd::EventFd;

use super::disk::{Disk, Durability, OpenDiskError};
use super::metrics::BlockMetrics;
use super::queue::{Active, Phase, Shared, WORKERS};
use super::request::{MAX_SEGMENT_SECTORS, MAX_SEGMENTS};
use super::state::BlockState;
use crate::config::{CacheType, Drive};
use crate::virtio::{
    Activation, DeviceKind, DeviceState, QueuePosition, Ready, RestoreError, Runner, ThreadKind,
    ThreadSetup, VirtioDevice, new_events, read_bytes, spawn,
};

/// One queue. Drivers put a request's header and answer beside at most [`SEGMENTS`] buffers.
const QUEUE_SIZES: &[u16] = &[256];
const SEGMENTS: u32 = 254;
const _: () = assert!(SEGMENTS + 2 == QUEUE_SIZES[0] as u32);

// Feature bits. Source: VIRTIO 1.2, section 5.2.3.
const F_SEG_MAX: u64 = 1 << 2;
const F_RO: u64 = 1 << 5;
const F_FLUSH: u64 = 1 << 9;
const F_TOPOLOGY: u64 = 1 << 10;
const F_DISCARD: u64 = 1 << 13;
const F_WRITE_ZEROES: u64 = 1 << 14;

/// Sectors of a block of the file systems on both sides: 4 KiB.
const SECTORS_IN_BLOCK: u32 = 8;
const CONFIG_SIZE: usize = 60;

/// A disk.
pub struct Block {
    shared: Arc<Shared>,
    queue_events: Vec<EventFd>,
    features: u64,
    config: [u8; CONFIG_SIZE],
    workers: Vec<JoinHandle<()>>,
}

impl Block {
    /// Opens a drive's file and starts its workers.
    ///
    /// # Errors
    /// The file cannot be used, or there are no threads.
    pub fn open(drive: &Drive, setup: &ThreadSetup) -> Result<Self, OpenDiskError> {
        let mut block = Self::without_workers(drive)?;
        let fault = |source| OpenDiskError::Start {
            path: drive.path_on_host.clone(),
            source,
        };
        for number in 0..WORKERS {
            let shared = Arc::clone(&block.shared);
            // A thread's name has fifteen bytes; the end of the id is cut off.
            let name = format!("{number}-{}", drive.drive_id.as_str());
            let worker = spawn(name, ThreadKind::BlockWorker, setup, move || shared.work());
            block.workers.push(worker.map_err(fault)?);
        }
        Ok(block)
    }

    /// The same with nobody who works, but for [`VirtioDevice::process`].
    pub(in crate::virtio) fn without_workers(drive: &Drive) -> Result<Self, OpenDiskError> {
        let disk = Disk::open(drive)?;
        let fault = |source| OpenDiskError::Start {
            path: drive.path_on_host.clone(),
            source,
        };
        let features = features(&disk);
        let config = config(&disk);
        let queue_events = new_events(QUEUE_SIZES).map_err(fault)?;
        let event = queue_events[0].try_clone().map_err(fault)?;
        Ok(Self {
            shared: Arc::new(Shared::new(disk, event)),
            queue_events,
            features,
            config,
            workers: Vec::new(),
        })
    }

    /// What it did.
    #[must_use]
    pub fn metrics(&self) -> Arc<BlockMetrics> {
        Arc::clone(&self.shared.metrics)
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.shared.stop();
        for worker in self.workers.drain(..) {
            // A panic of the thread has been told by itself.
            let _ = worker.join();
        }
    }
}

fn features(disk: &Disk) -> u64 {
    let flush = match disk.cache {
        CacheType::Writeback => F_FLUSH,
        CacheType::Unsafe => 0,
    };
    let access = if disk.read_only {
        F_RO
    } else {
        F_DISCARD | F_WRITE_ZEROES
    };
    F_SEG_MAX | F_TOPOLOGY | flush | access
}

/// The configuration space. Source: VIRTIO 1.2, section 5.2.4.
fn config(disk: &Disk) -> [u8; CONFIG_SIZE] {
    let mut config = [0; CONFIG_SIZE];
    let mut put = |offset: usize, bytes: &[u8]| {
        config[offset..offset + bytes.len()].copy_from_slice(bytes);
    };
    put(0, &disk.sectors.to_le_bytes());
    put(12, &SEGMENTS.to_le_bytes());
    // Topology: physical blocks of 2^3 sectors, and a block as the least sensible transfer.
    put(24, &[3]);
    put(26, &[8, 0]);
    put(34, &[1, 0]);
    for offset in [36, 48] {
        put(offset, &MAX_SEGMENT_SECTORS.to_le_bytes());
        put(offset + 4, &MAX_SEGMENTS.to_le_bytes());
    }
    put(44, &SECTORS_IN_BLOCK.to_le_bytes());
    // Write-zeroes may unmap.
    put(56, &[1]);
    config
}

impl VirtioDevice for Block {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Block
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn queue_sizes(&self) -> &'static [u16] {
        QUEUE_SIZES
    }

    fn queue_events(&self) -> &[EventFd] {
        &self.queue_events
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_bytes(&self.config, offset, data);
    }

    fn activate(&mut self, mut activation: Activation) {
        let durability = match self.shared.disk.cache {
            CacheType::Unsafe => Durability::Never,
            CacheType::Writeback if activation.features & F_FLUSH != 0 => Durability::Flush,
            CacheType::Writeback => Durability::EachWrite,
        };
        self.shared.state().active = Some(Active {
            queue: activation.queues.remove(0),
            interrupt: activation.interrupt,
            durability,
        });
    }

    fn reset(&mut self) {
        let mut state = self.shared.drain(Phase::Resetting);
        state.active = None;
        state.unfinished.clear();
        state.phase = Phase::Running;
    }

    fn runner(&self) -> Runner {
        Runner::OwnThreads
    }

    fn process(&mut self, _ready: Ready) {
        // The workers read the queue's event themselves; the event loop has none for this device. Whoever has no
        // workers calls this.
        self.shared.work_off();
    }

    fn pause(&mut self) {
        drop(self.shared.drain(Phase::Paused));
    }

    fn resume(&mut self) {
        self.shared.state().phase = Phase::Running;
    }

    fn sync(&self) -> std::io::Result<()> {
        if self.shared.disk.read_only {
            return Ok(());
        }
        self.shared.disk.sync()
    }

    fn queues(&self) -> Option<Vec<QueuePosition>> {
        let state = self.shared.state();
        let active = state.active.as_ref()?;
        Some(vec![active.queue.position()])
    }

    fn save(&self) -> DeviceState {
        DeviceState::Block(BlockState {
            sectors: self.shared.disk.sectors,
            unfinished: self.shared.state().unfinished.clone(),
            flush_failed: self.shared.disk.flush_failed(),
        })
    }

    fn restore(&mut self, state: &DeviceState) -> Result<(), RestoreError> {
        let DeviceState::Block(state) = state else {
            return Err(RestoreError::Kind {
                expected: DeviceKind::Block,
                found: state.kind(),
            });
        };
        if state.sectors != self.shared.disk.sectors {
            return Err(RestoreError::Disk {
                expected: self.shared.disk.sectors,
                found: state.sectors,
            });
        }
        self.shared.disk.restore_flush_failed(state.flush_failed);
        self.shared.state().unfinished.clone_from(&state.unfinished);
        Ok(())
    }
}
