//! The virtio devices of a machine: made from its configuration, each with an address and an interrupt line.

use std::io;
use std::sync::Arc;

use kvm_ioctls::{IoEventAddress, VmFd};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::arch::native::acpi::VirtioSlot;
use crate::arch::native::interrupts::{self, FIRST_VIRTIO_LINE, InterruptError, VIRTIO_LINES};
use crate::arch::native::layout::{VIRTIO_SIZE, VIRTIO_START};
use crate::bus::{Bus, BusDevice, BusError};
use crate::config::{MAX_DRIVES, MAX_NETWORK_INTERFACES, VmConfig};
use crate::memory::GuestMemory;
use crate::virtio::block::{Block, OpenDiskError};
use crate::virtio::net::{Net, OpenTapError};
use crate::virtio::rng::Rng;
use crate::virtio::vsock::{StartVsockError, Vsock};
use crate::virtio::{MMIO_SIZE, MmioTransport, NOTIFY_OFFSET, ThreadSetup, VirtioDevice};

use super::socket_file::SocketFile;

// Drives, network interfaces, the socket, randomness: each with a line of its own.
const _: () = assert!(MAX_DRIVES + MAX_NETWORK_INTERFACES + 2 <= VIRTIO_LINES as usize);
const _: () = assert!(MMIO_SIZE <= VIRTIO_SIZE);

/// A device could not be made.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// A drive.
    #[error("make drive {id}")]
    Drive {
        /// Its name on the control socket.
        id: String,
        /// What is wrong.
        #[source]
        source: OpenDiskError,
    },
    /// A network interface.
    #[error("make network interface {id}")]
    NetworkInterface {
        /// Its name on the control socket.
        id: String,
        /// What is wrong.
        #[source]
        source: OpenTapError,
    },
    /// The socket between host and guest.
    #[error("make the socket between host and guest")]
    Vsock(#[source] StartVsockError),
    /// The source of randomness.
    #[error("make the source of randomness")]
    Entropy(#[source] io::Error),
    /// Registers of a device.
    #[error("make the registers of device {number}")]
    Registers {
        /// Counted from 0.
        number: u32,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Its line.
    #[error(transparent)]
    Interrupts(#[from] InterruptError),
    /// Its place.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// KVM does not listen to its notifications.
    #[error("connect the notifications of device {number}")]
    Notify {
        /// Counted from 0.
        number: u32,
        /// What KVM said.
        #[source]
        source: kvm_ioctls::Error,
    },
    /// The loop that does their work.
    #[error("start the devices")]
    Start(#[source] io::Error),
}

/// What devices counted.
pub(super) struct Counts(Vec<(String, Box<dyn Fn() -> Value + Send>)>);

impl Counts {
    /// Counts since the last call, by device.
    pub(super) fn take(&self) -> Map<String, Value> {
        let Counts(devices) = self;
        devices
            .iter()
            .map(|(name, take)| (name.clone(), take()))
            .collect()
    }

    fn add(&mut self, name: String, metrics: Arc<impl Serialize + Send + Sync + 'static>) {
        let take = move || serde_json::to_value(&*metrics).unwrap_or(Value::Null);
        self.0.push((name, Box::new(take)));
    }
}

/// The devices of a machine before they start.
pub(super) struct Assembled {
    /// Their registers, in the order in which the guest finds them.
    pub(super) transports: Vec<Arc<MmioTransport>>,
    /// Where they are.
    pub(super) slots: Vec<VirtioSlot>,
    /// Where they answer.
    pub(super) bus: Bus,
    /// What they count.
    pub(super) counts: Counts,
    /// The name of the one that clients of the host connect to.
    pub(super) socket: Option<SocketFile>,
}

/// Makes all devices of a configuration: drives, network interfaces, the socket, randomness.
pub(super) fn assemble(
    config: &VmConfig,
    vm: &VmFd,
    memory: &Arc<GuestMemory>,
    setup: &ThreadSetup,
) -> Result<Assembled, DeviceError> {
    let mut assembled = Assembled {
        transports: Vec::new(),
        slots: Vec::new(),
        bus: Bus::new(),
        counts: Counts(Vec::new()),
        socket: None,
    };
    for drive in &config.drives {
        let id = drive.drive_id.as_str();
        let block = Block::open(drive, setup).map_err(|source| DeviceError::Drive {
            id: id.to_owned(),
            source,
        })?;
        assembled.counts.add(format!("block_{id}"), block.metrics());
        assembled.add(Box::new(block), vm, memory)?;
    }
    for interface in &config.network_interfaces {
        let id = interface.iface_id.as_str();
        let net = Net::open(interface).map_err(|source| DeviceError::NetworkInterface {
            id: id.to_owned(),
            source,
        })?;
        assembled.counts.add(format!("net_{id}"), net.metrics());
        assembled.add(Box::new(net), vm, memory)?;
    }
    if let Some(config) = &config.vsock {
        let vsock = Vsock::start(config).map_err(DeviceError::Vsock)?;
        assembled.socket = Some(SocketFile::of(&config.uds_path));
        assembled.counts.add("vsock".to_owned(), vsock.metrics());
        assembled.add(Box::new(vsock), vm, memory)?;
    }
    if config.entropy.is_some() {
        let rng = Rng::new().map_err(DeviceError::Entropy)?;
        assembled.counts.add("entropy".to_owned(), rng.metrics());
        assembled.add(Box::new(rng), vm, memory)?;
    }
    Ok(assembled)
}

impl Assembled {
    /// Gives a device the next address and line.
    fn add(
        &mut self,
        device: Box<dyn VirtioDevice>,
        vm: &VmFd,
        memory: &Arc<GuestMemory>,
    ) -> Result<(), DeviceError> {
        let number = u32::try_from(self.slots.len()).expect("a few devices");
        let address = VIRTIO_START + u64::from(number) * VIRTIO_SIZE;
        let line = FIRST_VIRTIO_LINE + number;
        let event = interrupts::line(vm, line)?;
        let transport = MmioTransport::new(device, Arc::clone(memory), event)
            .map_err(|source| DeviceError::Registers { number, source })?;
        for (queue, event) in (0_u32..).zip(transport.queue_events()) {
            let register = IoEventAddress::Mmio(address + NOTIFY_OFFSET);
            vm.register_ioevent(event, &register, queue)
                .map_err(|source| DeviceError::Notify { number, source })?;
        }
        let transport = Arc::new(transport);
        self.bus.insert(
            address,
            VIRTIO_SIZE,
            Arc::<MmioTransport>::clone(&transport),
        )?;
        self.transports.push(transport);
        self.slots.push(VirtioSlot {
            address: u32::try_from(address).expect("devices are below 4 GiB"),
            length: u32::try_from(VIRTIO_SIZE).expect("a page"),
            line,
        });
        Ok(())
    }
}

impl BusDevice for MmioTransport {
    fn read(&self, offset: u64, data: &mut [u8]) {
        MmioTransport::read(self, offset, data);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        MmioTransport::write(self, offset, data);
    }
}
