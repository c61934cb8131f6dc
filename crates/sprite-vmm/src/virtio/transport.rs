//! The register block of one device in the guest's physical address space.
//!
//! Source: VIRTIO 1.2, section 4.2.2 (registers), 3.1 (the order of an initialization).

use std::sync::{Arc, Mutex, MutexGuard};

use virtio_queue::{Queue, QueueT};
use vmm_sys_util::eventfd::EventFd;

use super::event_loop::SharedDevice;
use super::interrupt::Interrupt;
use super::queue::VirtQueue;
use super::registers::{
    Registers, STATUS_DRIVER, STATUS_DRIVER_OK, STATUS_FEATURES_OK, STATUS_NEEDS_RESET,
    STATUS_OF_DRIVER, half, register,
};
use super::state::{QueuePosition, RestoreError, TransportState};
use super::{Activation, DeviceKind, F_VERSION_1, RING_FEATURES, VirtioDevice, kick};
use crate::memory::GuestMemory;

/// Bytes of the register block: a page, of which the configuration space begins at 0x100.
pub const MMIO_SIZE: u64 = 0x1000;
/// The register that the guest notifies a queue by: the address of the queues' ioeventfds.
pub const NOTIFY_OFFSET: u64 = 0x50;

/// "virt", little endian.
const MAGIC: u32 = 0x7472_6976;
/// Not legacy.
const VERSION: u32 = 2;
/// "SPRT", little endian; drivers do not look at it.
const VENDOR: u32 = 0x5452_5053;
const CONFIG_OFFSET: u64 = 0x100;

/// A device behind its registers. Shared by the vCPUs; no call waits for the device's I/O but a reset, which
/// waits for what is in flight.
pub struct MmioTransport {
    kind: DeviceKind,
    features: u64,
    memory: Arc<GuestMemory>,
    registers: Mutex<Registers>,
    interrupt: Arc<Interrupt>,
    queue_events: Vec<EventFd>,
    device: SharedDevice,
}

impl MmioTransport {
    /// Puts a device behind registers. `irq` is the event of its interrupt line (edge-triggered).
    ///
    /// # Errors
    /// There are no file descriptors left.
    pub fn new(
        device: Box<dyn VirtioDevice>,
        memory: Arc<GuestMemory>,
        irq: EventFd,
    ) -> std::io::Result<Self> {
        let queue_events = device
            .queue_events()
            .iter()
            .map(EventFd::try_clone)
            .collect::<Result<_, _>>()?;
        Ok(Self {
            kind: device.kind(),
            features: device.features() | RING_FEATURES,
            memory,
            registers: Mutex::new(Registers::new(device.queue_sizes())),
            interrupt: Arc::new(Interrupt::new(irq)),
            queue_events,
            device: Arc::new(Mutex::new(device)),
        })
    }

    /// What the device is.
    #[must_use]
    pub fn kind(&self) -> DeviceKind {
        self.kind
    }

    /// The event of each queue, to be wired to writes of its index at [`NOTIFY_OFFSET`].
    #[must_use]
    pub fn queue_events(&self) -> &[EventFd] {
        &self.queue_events
    }

    /// The event of the interrupt line.
    #[must_use]
    pub fn irq_event(&self) -> &EventFd {
        self.interrupt.event()
    }

    /// The device itself, for the event loop.
    #[must_use]
    pub fn device(&self) -> SharedDevice {
        Arc::clone(&self.device)
    }

    fn registers(&self) -> MutexGuard<'_, Registers> {
        self.registers.lock().expect("no holder panics")
    }

    fn lock_device(&self) -> MutexGuard<'_, Box<dyn VirtioDevice>> {
        self.device.lock().expect("no device panics")
    }

    /// The guest reads at `offset` of the block. What is not a register reads as zeroes.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        if let Some(offset) = offset.checked_sub(CONFIG_OFFSET) {
            self.lock_device().read_config(offset, data);
            return;
        }
        data.fill(0);
        if let Ok(data) = <&mut [u8; 4]>::try_from(data) {
            *data = self.read_register(offset).to_le_bytes();
        }
    }

    fn read_register(&self, offset: u64) -> u32 {
        match offset {
            register::MAGIC => MAGIC,
            register::VERSION => VERSION,
            register::DEVICE_ID => self.kind.id(),
            register::VENDOR_ID => VENDOR,
            register::DEVICE_FEATURES => {
                half(self.features, self.registers().device_features_select)
            }
            register::QUEUE_SIZE_MAX => self
                .registers()
                .queue()
                .map_or(0, |queue| u32::from(queue.max_size())),
            register::QUEUE_READY => self
                .registers()
                .queue()
                .map_or(0, |queue| u32::from(queue.ready())),
            register::INTERRUPT_STATUS => self.interrupt.status(),
            register::STATUS => {
                let broken = if self.interrupt.is_broken() {
                    STATUS_NEEDS_RESET
                } else {
                    0
                };
                self.registers().status | broken
            }
            // No shared memory: a length of all ones.
            register::SHARED_MEMORY_LENGTH_LOW | register::SHARED_MEMORY_LENGTH_HIGH => u32::MAX,
            register::CONFIG_GENERATION => self.interrupt.generation(),
            _write_only_or_none => 0,
        }
    }

    /// The guest writes at `offset` of the block. What it may not write (now) is ignored; the configuration of
    /// our devices is read-only.
    pub fn write(&self, offset: u64, data: &[u8]) {
        if let Ok(data) = <[u8; 4]>::try_from(data) {
            self.write_register(offset, u32::from_le_bytes(data));
        }
    }

    fn write_register(&self, offset: u64, value: u32) {
        match offset {
            NOTIFY_OFFSET => {
                let queue = usize::try_from(value).expect("32 bits fit");
                if let Some(event) = self.queue_events.get(queue) {
                    kick(event);
                }
            }
            register::INTERRUPT_ACKNOWLEDGE => self.interrupt.acknowledge(value),
            register::STATUS => self.write_status(value),
            register::DEVICE_FEATURES_SELECT => self.registers().device_features_select = value,
            register::DRIVER_FEATURES_SELECT => self.registers().driver_features_select = value,
            register::QUEUE_SELECT => self.registers().queue_select = value,
            register::DRIVER_FEATURES => self.registers().write_features(value),
            _a_queue_s_or_none => self.registers().write_queue(offset, value),
        }
    }

    fn write_status(&self, value: u32) {
        let mut registers = self.registers();
        if value == 0 {
            let mut device = self.lock_device();
            device.reset();
            self.interrupt.reset();
            *registers = Registers::new(device.queue_sizes());
            return;
        }
        let new = value & STATUS_OF_DRIVER & !registers.status;
        registers.status |= new & !(STATUS_FEATURES_OK | STATUS_DRIVER_OK);
        if new & STATUS_FEATURES_OK != 0 && registers.has(STATUS_DRIVER) {
            let accepted = registers.driver_features;
            // Refused by leaving the bit clear, which the driver reads back.
            if accepted & !self.features == 0 && accepted & F_VERSION_1 != 0 {
                registers.status |= STATUS_FEATURES_OK;
            }
        }
        if new & STATUS_DRIVER_OK != 0 && registers.has(STATUS_FEATURES_OK) {
            registers.status |= STATUS_DRIVER_OK;
            let positions = registers.queues.iter().map(|queue| queue.state().into());
            match self.take_queues(positions) {
                Ok(queues) => {
                    self.activate(&mut **self.lock_device(), queues, registers.driver_features)
                }
                Err(_broken) => self.interrupt.needs_reset(),
            }
        }
    }

    fn take_queues(
        &self,
        positions: impl Iterator<Item = QueuePosition>,
    ) -> Result<Vec<VirtQueue>, (usize, virtio_queue::Error)> {
        positions
            .enumerate()
            .map(|(index, position)| {
                VirtQueue::new(position, Arc::clone(&self.memory)).map_err(|error| (index, error))
            })
            .collect()
    }

    fn activate(&self, device: &mut dyn VirtioDevice, queues: Vec<VirtQueue>, features: u64) {
        device.activate(Activation {
            queues,
            features,
            interrupt: Arc::clone(&self.interrupt),
        });
        self.kick_queues();
    }

    /// Has the device look at every queue: the guest may have put something there before anyone listened.
    fn kick_queues(&self) {
        self.queue_events.iter().for_each(kick);
    }

    /// Returns when the device has nothing in flight. The vCPUs and the event loop stand still.
    pub(super) fn pause(&self) {
        self.lock_device().pause();
    }

    pub(super) fn sync(&self) -> std::io::Result<()> {
        self.lock_device().sync()
    }

    /// The device goes on; an interrupt that the guest has not seen is raised again.
    pub(super) fn resume(&self) {
        self.lock_device().resume();
        self.interrupt.repeat();
        self.kick_queues();
    }

    /// All that there is of it. While paused.
    #[must_use]
    pub fn save(&self) -> TransportState {
        let registers = self.registers();
        let device = self.lock_device();
        let configured = || registers.queues.iter().map(|queue| queue.state().into());
        TransportState {
            kind: self.kind,
            device_features_select: registers.device_features_select,
            driver_features_select: registers.driver_features_select,
            queue_select: registers.queue_select,
            driver_features: registers.driver_features,
            status: registers.status,
            broken: self.interrupt.is_broken(),
            interrupt_status: self.interrupt.status(),
            config_generation: self.interrupt.generation(),
            queues: device.queues().unwrap_or_else(|| configured().collect()),
            device: device.save(),
        }
    }

    /// Takes over what [`MmioTransport::save`] returned. On a new transport, while paused.
    ///
    /// # Errors
    /// The state does not fit; the transport is of no use then.
    pub fn restore(&self, state: &TransportState) -> Result<(), RestoreError> {
        let mut registers = self.registers();
        let mut device = self.lock_device();
        if state.kind != self.kind {
            return Err(RestoreError::Kind {
                expected: self.kind,
                found: state.kind,
            });
        }
        let missing = state.driver_features & !self.features;
        if missing != 0 {
            return Err(RestoreError::Features { missing });
        }
        let expected = device.queue_sizes();
        if state.queues.len() != expected.len() {
            return Err(RestoreError::Queues {
                expected: expected.len(),
                found: state.queues.len(),
            });
        }
        device.restore(&state.device)?;
        let queues = restored_queues(&state.queues, expected)?;
        *registers = Registers {
            device_features_select: state.device_features_select,
            driver_features_select: state.driver_features_select,
            queue_select: state.queue_select,
            driver_features: state.driver_features,
            status: state.status & STATUS_OF_DRIVER,
            queues,
        };
        self.interrupt.restore(
            state.interrupt_status,
            state.config_generation,
            state.broken,
        );
        // A broken device had let its queues go; only a reset makes it whole.
        if registers.has(STATUS_DRIVER_OK) && !state.broken {
            let queues = self
                .take_queues(state.queues.iter().copied())
                .map_err(|(index, source)| RestoreError::Queue { index, source })?;
            self.activate(&mut **device, queues, registers.driver_features);
        }
        Ok(())
    }
}

fn restored_queues(positions: &[QueuePosition], sizes: &[u16]) -> Result<Vec<Queue>, RestoreError> {
    positions
        .iter()
        .zip(sizes)
        .enumerate()
        .map(|(index, (&position, &size))| {
            let fault = |source| RestoreError::Queue { index, source };
            if position.max_size != size {
                return Err(fault(virtio_queue::Error::InvalidMaxSize));
            }
            Queue::try_from(virtio_queue::QueueState::from(position)).map_err(fault)
        })
        .collect()
}
