//! A guest's driver for tests: sets a device up by its registers and keeps rings in guest memory, well or badly.

use std::collections::HashMap;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Once};
use std::time::Duration;

use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

use super::{Devices, MmioTransport, ThreadSetup, TransportState, VirtioDevice, new_event};
use crate::memory::{GuestMemory, anonymous};
use crate::seccomp::{restrict, share_one_heap};

/// Guest memory: enough for all rings and the buffers of a test at once.
const MEMORY: u64 = 64 << 20;
/// Bytes of guest memory for the rings of one queue.
const RING_AREA: u64 = 0x1_0000;
const RINGS: u64 = 0x10_0000;
const BUFFERS: u64 = 0x100_0000;
/// Longest wait for something that must happen: only so that a test that fails ends.
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;

/// Threads as the program starts them: what the filters do not allow ends a test.
pub(crate) fn restricted() -> ThreadSetup {
    // The program does this before its first thread; a test is a thread already, with a heap of its own. That one
    // shrinks here once, for glibc reads its file the first time only.
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        share_one_heap();
        let many: Vec<Vec<u8>> = (0..100).map(|_| vec![1; 100_000]).collect();
        drop(many);
    });
    Arc::new(|kind| restrict(kind.into()))
}

/// A buffer to be offered.
#[derive(Clone, Debug)]
pub(crate) enum Buffer {
    Readable(Vec<u8>),
    Writable(usize),
}

/// A chain that the device returned.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Used {
    pub(crate) head: u16,
    pub(crate) written: u32,
    /// What is in the writable buffers now, all of them.
    pub(crate) bytes: Vec<u8>,
}

struct Offered {
    descriptors: Vec<u16>,
    writable: Vec<(u64, usize)>,
}

#[derive(Default)]
struct Ring {
    size: u16,
    free: Vec<u16>,
    next_available: u16,
    next_used: u16,
    offered: HashMap<u16, Offered>,
}

/// A guest between two devices.
pub(crate) struct Left {
    memory: Arc<GuestMemory>,
    rings: Vec<Ring>,
    next_buffer: u64,
}

impl Left {
    /// Goes on with a device that takes over from the saved one.
    pub(crate) fn enter(self, device: Box<dyn VirtioDevice>, state: &TransportState) -> Driver {
        let mut driver = Driver::attach_paused(device, self.memory);
        driver.rings = self.rings;
        driver.next_buffer = self.next_buffer;
        driver.transport.restore(state).expect("the state fits");
        driver.devices.resume();
        driver
    }
}

pub(crate) struct Driver {
    pub(crate) memory: Arc<GuestMemory>,
    pub(crate) transport: Arc<MmioTransport>,
    pub(crate) devices: Devices,
    irq: EventFd,
    rings: Vec<Ring>,
    next_buffer: u64,
}

impl Driver {
    /// Behind registers, running, but not set up.
    pub(crate) fn attach(device: Box<dyn VirtioDevice>) -> Self {
        let memory = Arc::new(anonymous(MEMORY).expect("64 MiB"));
        let driver = Self::attach_paused(device, memory);
        driver.devices.resume();
        driver
    }

    pub(crate) fn attach_paused(device: Box<dyn VirtioDevice>, memory: Arc<GuestMemory>) -> Self {
        let irq = new_event().expect("an eventfd");
        let line = irq.try_clone().expect("a second descriptor");
        let transport =
            Arc::new(MmioTransport::new(device, Arc::clone(&memory), line).expect("a transport"));
        let devices = Devices::start(vec![Arc::clone(&transport)], &restricted()).expect("threads");
        Self {
            memory,
            transport,
            devices,
            irq,
            rings: Vec::new(),
            next_buffer: BUFFERS,
        }
    }

    /// Set up with all features that are offered but `without`.
    pub(crate) fn start(device: Box<dyn VirtioDevice>, without: u64) -> Self {
        let mut driver = Self::attach(device);
        driver.initialize(without);
        driver
    }

    /// What a snapshot would keep; the device is paused from now on.
    pub(crate) fn save(&self) -> TransportState {
        self.devices.pause();
        self.transport.save()
    }

    /// The same guest with another device, which takes over from the saved one.
    pub(crate) fn load(self, device: Box<dyn VirtioDevice>, state: &TransportState) -> Self {
        self.leave().enter(device, state)
    }

    /// The guest without its device, which ends.
    pub(crate) fn leave(self) -> Left {
        Left {
            memory: self.memory,
            rings: self.rings,
            next_buffer: self.next_buffer,
        }
    }

    pub(crate) fn read(&self, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.transport.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    pub(crate) fn write(&self, offset: u64, value: u32) {
        self.transport.write(offset, &value.to_le_bytes());
    }

    pub(crate) fn config(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0xee; len];
        self.transport.read(0x100 + offset, &mut data);
        data
    }

    /// The initialization of VIRTIO 1.2, section 3.1.1.
    pub(crate) fn initialize(&mut self, without: u64) {
        self.write(0x70, 0);
        self.write(0x70, 1);
        self.write(0x70, 1 | 2);
        let mut features = 0;
        for half in 0..2 {
            self.write(0x14, half);
            features |= u64::from(self.read(0x10)) << (32 * half);
        }
        features &= !without;
        for half in 0..2 {
            self.write(0x24, half);
            self.write(
                0x20,
                u32::try_from(features >> (32 * half) & 0xffff_ffff).expect("32 bits"),
            );
        }
        self.write(0x70, 1 | 2 | 8);
        assert_eq!(self.read(0x70) & 8, 8, "the features are accepted");
        self.rings.clear();
        while self.set_up_queue() {}
        self.write(0x70, 1 | 2 | 8 | 4);
    }

    fn set_up_queue(&mut self) -> bool {
        let queue = self.rings.len();
        self.write(0x30, u32::try_from(queue).expect("few queues"));
        let Ok(size) = u16::try_from(self.read(0x34)) else {
            panic!("sizes have 16 bits");
        };
        if size == 0 {
            return false;
        }
        self.write(0x38, u32::from(size));
        for (offset, address) in [
            (0x80, self.descriptors(queue)),
            (0x90, self.available(queue)),
            (0xa0, self.used(queue)),
        ] {
            self.write(offset, u32::try_from(address).expect("below 4 GiB"));
            self.write(offset + 4, 0);
        }
        let zeroes = vec![0; usize::try_from(RING_AREA).expect("64 KiB")];
        self.memory
            .write_slice(&zeroes, GuestAddress(self.descriptors(queue)))
            .expect("the ring is in memory");
        self.write(0x44, 1);
        self.rings.push(Ring {
            size,
            free: (0..size).rev().collect(),
            ..Ring::default()
        });
        true
    }

    pub(crate) fn queues(&self) -> usize {
        self.rings.len()
    }

    pub(crate) fn descriptors(&self, queue: usize) -> u64 {
        RINGS + queue as u64 * RING_AREA
    }

    pub(crate) fn available(&self, queue: usize) -> u64 {
        self.descriptors(queue) + 0x8000
    }

    pub(crate) fn used(&self, queue: usize) -> u64 {
        self.descriptors(queue) + 0xc000
    }

    fn put<T: vm_memory::ByteValued>(&self, address: u64, value: T) {
        self.memory
            .write_obj(value, GuestAddress(address))
            .expect("the address is in memory");
    }

    fn get<T: vm_memory::ByteValued>(&self, address: u64) -> T {
        self.memory
            .read_obj(GuestAddress(address))
            .expect("the address is in memory")
    }

    /// Room for a buffer; old buffers are used again when all memory was.
    pub(crate) fn allocate(&mut self, len: usize) -> u64 {
        let len = len as u64;
        if self.next_buffer + len > MEMORY {
            self.next_buffer = BUFFERS;
        }
        let address = self.next_buffer;
        self.next_buffer += len;
        address
    }

    pub(crate) fn put_descriptor(
        &self,
        table: u64,
        index: u16,
        (address, len, flags, next): (u64, u32, u16, u16),
    ) {
        let at = table + u64::from(index) * 16;
        self.put(at, address);
        self.put(at + 8, len);
        self.put(at + 12, flags);
        self.put(at + 14, next);
    }

    /// Puts a chain's head into the ring, whatever it is.
    pub(crate) fn offer_head(&mut self, queue: usize, head: u16) {
        let available = self.available(queue);
        let ring = &mut self.rings[queue];
        let place = ring.next_available % ring.size;
        ring.next_available = ring.next_available.wrapping_add(1);
        let index = ring.next_available;
        self.put(available + 4 + u64::from(place) * 2, head);
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        self.put(available + 2, index);
    }

    /// Says how many chains there are, whether or not there are.
    pub(crate) fn claim_available(&mut self, queue: usize, index: u16) {
        self.rings[queue].next_available = index;
        self.put(self.available(queue) + 2, index);
    }

    /// Offers a chain; its head.
    pub(crate) fn offer(&mut self, queue: usize, buffers: &[Buffer]) -> u16 {
        let table = self.descriptors(queue);
        let mut offered = Offered {
            descriptors: Vec::new(),
            writable: Vec::new(),
        };
        for _ in buffers {
            let index = self.rings[queue].free.pop().expect("a free descriptor");
            offered.descriptors.push(index);
        }
        for (number, buffer) in buffers.iter().enumerate() {
            let (address, len, flags) = self.place(buffer);
            if flags & WRITE != 0 {
                offered.writable.push((address, len as usize));
            }
            let next = offered.descriptors.get(number + 1);
            let flags = flags | next.map_or(0, |_| NEXT);
            let descriptor = (address, len, flags, next.copied().unwrap_or(0));
            self.put_descriptor(table, offered.descriptors[number], descriptor);
        }
        let head = offered.descriptors[0];
        self.rings[queue].offered.insert(head, offered);
        self.offer_head(queue, head);
        head
    }

    /// Offers a chain in an indirect table; its head.
    pub(crate) fn offer_indirect(&mut self, queue: usize, buffers: &[Buffer]) -> u16 {
        let inner = self.allocate(buffers.len() * 16);
        let mut writable = Vec::new();
        for (number, buffer) in buffers.iter().enumerate() {
            let (address, len, flags) = self.place(buffer);
            if flags & WRITE != 0 {
                writable.push((address, len as usize));
            }
            let number = u16::try_from(number).expect("few buffers");
            let last = usize::from(number) + 1 == buffers.len();
            let flags = flags | if last { 0 } else { NEXT };
            self.put_descriptor(inner, number, (address, len, flags, number + 1));
        }
        let head = self.rings[queue].free.pop().expect("a free descriptor");
        let len = u32::try_from(buffers.len() * 16).expect("few buffers");
        self.put_descriptor(self.descriptors(queue), head, (inner, len, INDIRECT, 0));
        let offered = Offered {
            descriptors: vec![head],
            writable,
        };
        self.rings[queue].offered.insert(head, offered);
        self.offer_head(queue, head);
        head
    }

    fn place(&mut self, buffer: &Buffer) -> (u64, u32, u16) {
        match buffer {
            Buffer::Readable(bytes) => {
                let address = self.allocate(bytes.len());
                self.memory
                    .write_slice(bytes, GuestAddress(address))
                    .expect("the buffer is in memory");
                (address, u32::try_from(bytes.len()).expect("32 bits"), 0)
            }
            Buffer::Writable(len) => {
                let address = self.allocate(*len);
                (address, u32::try_from(*len).expect("32 bits"), WRITE)
            }
        }
    }

    pub(crate) fn notify(&self, queue: usize) {
        self.write(0x50, u32::try_from(queue).expect("few queues"));
    }

    /// Notifies of the chain that was offered last, if the device asked for that one; whether it did.
    pub(crate) fn notify_if_asked(&self, queue: usize) -> bool {
        let ring = &self.rings[queue];
        let asked: u16 = self.get(self.used(queue) + 4 + u64::from(ring.size) * 8);
        let is_asked = asked == ring.next_available.wrapping_sub(1);
        if is_asked {
            self.notify(queue);
        }
        is_asked
    }

    /// What the device has returned since the last look.
    pub(crate) fn take_used(&mut self, queue: usize) -> Vec<Used> {
        let base = self.used(queue);
        let index: u16 = self.get(base + 2);
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        let mut all = Vec::new();
        while self.rings[queue].next_used != index {
            let place = self.rings[queue].next_used % self.rings[queue].size;
            let head: u32 = self.get(base + 4 + u64::from(place) * 8);
            let written: u32 = self.get(base + 8 + u64::from(place) * 8);
            let head = u16::try_from(head).expect("a head");
            let ring = &mut self.rings[queue];
            ring.next_used = ring.next_used.wrapping_add(1);
            let mut bytes = Vec::new();
            if let Some(offered) = ring.offered.remove(&head) {
                ring.free.extend(offered.descriptors);
                for (address, len) in offered.writable {
                    let mut part = vec![0; len];
                    self.memory
                        .read_slice(&mut part, GuestAddress(address))
                        .expect("the buffer is in memory");
                    bytes.extend(part);
                }
            }
            all.push(Used {
                head,
                written,
                bytes,
            });
        }
        // Interrupt at the very next one.
        let wanted = self.rings[queue].next_used;
        let used_event = self.available(queue) + 4 + u64::from(self.rings[queue].size) * 2;
        self.put(used_event, wanted);
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        all
    }

    /// Waits for an interrupt and acknowledges it; its reasons.
    pub(crate) fn interrupt(&self) -> u32 {
        assert!(readable(&self.irq, LIMIT), "an interrupt comes");
        self.irq.read().expect("the event reads");
        let reasons = self.read(0x60);
        self.write(0x64, reasons);
        reasons
    }

    /// Whether an interrupt is waiting.
    pub(crate) fn is_interrupted(&self) -> bool {
        readable(&self.irq, Duration::ZERO)
    }

    /// Waits until the device has returned something on this queue.
    pub(crate) fn wait_used(&mut self, queue: usize) -> Vec<Used> {
        loop {
            let used = self.take_used(queue);
            if !used.is_empty() {
                return used;
            }
            if self.read(0x70) & 64 != 0 {
                panic!("the device needs a reset");
            }
            // Returned between the look and asking for interrupts: look once more, as a driver does.
            let index: u16 = self.get(self.used(queue) + 2);
            if index == self.rings[queue].next_used {
                self.interrupt();
            }
        }
    }

    /// Offers, notifies and waits for the one chain's return.
    pub(crate) fn request(&mut self, queue: usize, buffers: &[Buffer]) -> Used {
        let head = self.offer(queue, buffers);
        self.notify(queue);
        let mut used = self.wait_used(queue);
        assert_eq!(used.len(), 1, "one chain comes back");
        let used = used.remove(0);
        assert_eq!(used.head, head);
        used
    }

    /// Waits until the device asks for a reset.
    pub(crate) fn wait_broken(&self) {
        while self.read(0x70) & 64 == 0 {
            self.interrupt();
        }
    }
}

/// Whether an event can be read within `limit`.
fn readable(event: &EventFd, limit: Duration) -> bool {
    let mut poll = libc::pollfd {
        fd: event.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    let limit = i32::try_from(limit.as_millis()).expect("a short limit");
    // SAFETY: one pollfd, which lives for the call.
    unsafe { libc::poll(&raw mut poll, 1, limit) == 1 }
}
