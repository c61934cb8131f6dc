//! A guest whose driver does what a fuzzer's bytes say, well or badly, and whose devices run in the same thread:
//! the same bytes always do the same.

use std::collections::HashMap;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::epoll::EventSet;

use crate::fuzzing::Input;
use crate::memory::{GuestMemory, anonymous};
use crate::virtio::{MmioTransport, Ready, TransportState, VirtioDevice, new_event};

const MEMORY: u64 = 1 << 20;
const RINGS: u64 = 0x1_0000;
/// Bytes of guest memory for the rings of one queue.
const RING_AREA: u64 = 0x8000;
const BUFFERS: u64 = 0x4_0000;
/// How often devices are looked after for one step: a guest can have rings that feed themselves.
const ROUNDS: usize = 64;
/// Most steps of one run.
const STEPS: usize = 300;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// A buffer that is offered.
pub(super) enum Buffer {
    /// With these bytes and so many zeroes behind them.
    Readable(Vec<u8>, usize),
    Writable(usize),
}

/// The world around a device.
pub(super) trait Host {
    /// A device on this host; the old one is gone.
    fn device(&mut self) -> Box<dyn VirtioDevice>;

    /// A request that is nearly right: its queue and its buffers.
    fn request(&mut self, input: &mut Input<'_>) -> (usize, Vec<Buffer>);

    /// Something happens on the host.
    fn act(&mut self, input: &mut Input<'_>);

    /// A request that every working device answers, on its queue.
    fn probe(&mut self) -> (usize, Vec<Buffer>);
}

#[derive(Default)]
struct Ring {
    size: u16,
    free: Vec<u16>,
    next_available: u16,
    next_used: u16,
    /// By their heads: their descriptors, and how much may be written to them.
    offered: HashMap<u16, (Vec<u16>, usize)>,
}

struct Guest {
    memory: Arc<GuestMemory>,
    transport: MmioTransport,
    rings: Vec<Ring>,
    next_buffer: u64,
    /// Whether all that was offered is as it was when it was offered: then answers can be judged.
    honest: bool,
}

/// Does what the bytes say with a device of `host`.
///
/// # Panics
/// The device panicked, answered what was not asked, does not load what it saved, or works no more.
pub(super) fn run(host: &mut dyn Host, bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut guest = Guest::with(host.device());
    guest.initialize(u64::MAX);
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        guest.step(host, &mut input);
    }
    let guest = guest.again(host);
    guest.still_works(host);
}

/// Has a device of `host` take over from the saved one, if it does.
///
/// # Panics
/// As [`run`].
pub(super) fn take_over(host: &mut dyn Host, state: &TransportState) {
    let mut guest = Guest::with(host.device());
    guest.transport.pause();
    if guest.transport.restore(state).is_ok() {
        guest.honest = false;
        guest.transport.resume();
        guest.look_at_host();
        guest.settle();
        guest.still_works(host);
    }
}

impl Guest {
    fn with(device: Box<dyn VirtioDevice>) -> Self {
        let memory = Arc::new(anonymous(MEMORY).expect("1 MiB"));
        let transport = transport(device, &memory);
        transport.resume();
        Self {
            transport,
            memory,
            rings: Vec::new(),
            next_buffer: BUFFERS,
            honest: true,
        }
    }

    fn step(&mut self, host: &mut dyn Host, input: &mut Input<'_>) {
        match input.byte() % 16 {
            0..=3 => {
                let (queue, buffers) = host.request(input);
                self.offer(queue, &buffers, input.byte() & 1 == 1);
                self.notify(queue);
            }
            4 => {
                let (queue, buffers) = any_buffers(input, self.rings.len());
                self.offer(queue, &buffers, input.byte() & 1 == 1);
                self.notify(queue);
            }
            5 => self.put_any_descriptor(input),
            6 => {
                self.honest = false;
                let queue = self.any_queue(input);
                self.offer_head(queue, input.half());
                self.notify(queue);
            }
            7 => {
                self.honest = false;
                let queue = self.any_queue(input);
                self.put(self.available(queue) + 2, input.half());
                self.notify(queue);
            }
            8 => {
                let reasons = self.read(0x60);
                self.write(0x64, reasons);
            }
            9 => {
                self.honest = false;
                let offset = u64::from(input.byte()) * 4;
                self.write(offset, input.word());
                self.settle();
            }
            10 => {
                let mut data = vec![0; usize::from(input.byte() % 16)];
                self.transport.read(input.half().into(), &mut data);
            }
            11 => self.initialize(input.long()),
            12 => drop(self.save()),
            13 => {
                self.honest = false;
                let address = u64::from(input.word()) % MEMORY;
                // What lies behind the memory's end is not written.
                let _ = self
                    .memory
                    .write_slice(input.bytes(16), GuestAddress(address));
            }
            _ => {
                host.act(input);
                self.look_at_host();
                self.settle();
            }
        }
        self.judge();
    }

    fn put_any_descriptor(&mut self, input: &mut Input<'_>) {
        self.honest = false;
        let queue = self.any_queue(input);
        let index = input.half() % 256;
        let address = match input.byte() % 4 {
            0 => input.long(),
            1 => MEMORY - u64::from(input.byte()),
            2 => self.descriptors(queue),
            _ => u64::from(input.word()) % MEMORY,
        };
        let descriptor = (address, input.word(), input.half(), input.half());
        self.put_descriptor(self.descriptors(queue), index, descriptor);
    }

    fn any_queue(&self, input: &mut Input<'_>) -> usize {
        usize::from(input.byte()) % self.rings.len().max(1)
    }

    fn read(&self, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.transport.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    fn write(&self, offset: u64, value: u32) {
        self.transport.write(offset, &value.to_le_bytes());
    }

    /// The initialization of VIRTIO 1.2, section 3.1.1, with those of the offered features that are `wanted`.
    fn initialize(&mut self, wanted: u64) {
        for status in [0, 1, 1 | 2] {
            self.write(0x70, status);
        }
        for half in 0..2_u32 {
            self.write(0x14, half);
            let offered = self.read(0x10);
            self.write(0x24, half);
            let wanted = u32::try_from(wanted >> (32 * half) & 0xffff_ffff).expect("32 bits");
            // Without the one bit that says so, the device is none of this version.
            self.write(0x20, offered & (wanted | half));
        }
        self.write(0x70, 1 | 2 | 8);
        self.rings.clear();
        self.next_buffer = BUFFERS;
        while self.set_up_queue() {}
        self.honest = true;
        self.write(0x70, 1 | 2 | 8 | 4);
        self.settle();
    }

    fn set_up_queue(&mut self) -> bool {
        let queue = self.rings.len();
        self.write(0x30, u32::try_from(queue).expect("few queues"));
        let size = u16::try_from(self.read(0x34)).expect("sizes have 16 bits");
        if size == 0 {
            return false;
        }
        self.write(0x38, u32::from(size));
        let (descriptors, available) = (self.descriptors(queue), self.available(queue));
        for (offset, address) in [
            (0x80, descriptors),
            (0x90, available),
            (0xa0, self.used(queue)),
        ] {
            self.write(offset, u32::try_from(address).expect("below 4 GiB"));
            self.write(offset + 4, 0);
        }
        for address in [available, self.used(queue)] {
            self.put(address, 0_u32);
        }
        self.write(0x44, 1);
        self.rings.push(Ring {
            size,
            free: (0..size).rev().collect(),
            ..Ring::default()
        });
        true
    }

    fn descriptors(&self, queue: usize) -> u64 {
        RINGS + queue as u64 * RING_AREA
    }

    fn available(&self, queue: usize) -> u64 {
        self.descriptors(queue) + 0x2000
    }

    fn used(&self, queue: usize) -> u64 {
        self.descriptors(queue) + 0x4000
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

    fn put_descriptor(
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

    fn offer_head(&mut self, queue: usize, head: u16) {
        let available = self.available(queue);
        let Some(ring) = self.rings.get_mut(queue) else {
            return;
        };
        let place = ring.next_available % ring.size;
        ring.next_available = ring.next_available.wrapping_add(1);
        let index = ring.next_available;
        self.put(available + 4 + u64::from(place) * 2, head);
        self.put(available + 2, index);
    }

    /// Offers a chain, if there are descriptors and memory for it.
    fn offer(&mut self, queue: usize, buffers: &[Buffer], indirect: bool) {
        let needed = if indirect { 1 } else { buffers.len() };
        let Some(ring) = self.rings.get_mut(queue) else {
            return;
        };
        if needed == 0 || ring.free.len() < needed {
            return;
        }
        let own = ring.free.split_off(ring.free.len() - needed);
        let mut room = 0;
        let table = if indirect {
            self.allocate(buffers.len() * 16)
        } else {
            self.descriptors(queue)
        };
        for (number, buffer) in buffers.iter().enumerate() {
            let place = |number: usize| {
                let inner = u16::try_from(number).expect("few buffers");
                if indirect { inner } else { own[number] }
            };
            let (address, len, flags) = self.place(buffer);
            if flags & WRITE != 0 {
                room += len as usize;
            }
            let last = number + 1 == buffers.len();
            let (flags, next) = if last {
                (flags, 0)
            } else {
                (flags | NEXT, place(number + 1))
            };
            self.put_descriptor(table, place(number), (address, len, flags, next));
        }
        if indirect {
            let len = u32::try_from(buffers.len() * 16).expect("few buffers");
            self.put_descriptor(self.descriptors(queue), own[0], (table, len, INDIRECT, 0));
        }
        let head = own[0];
        self.rings[queue].offered.insert(head, (own, room));
        self.offer_head(queue, head);
    }

    /// Room for a buffer; old buffers are used again when all memory was.
    fn allocate(&mut self, len: usize) -> u64 {
        let len = len as u64;
        if self.next_buffer + len > MEMORY {
            self.next_buffer = BUFFERS;
            // What lies there may be in use: tables among it.
            self.honest = false;
        }
        let address = self.next_buffer;
        self.next_buffer += len;
        address
    }

    fn place(&mut self, buffer: &Buffer) -> (u64, u32, u16) {
        match buffer {
            Buffer::Readable(bytes, zeroes) => {
                let len = bytes.len() + zeroes;
                let address = self.allocate(len);
                self.memory
                    .write_slice(bytes, GuestAddress(address))
                    .expect("the buffer is in memory");
                (address, u32::try_from(len).expect("32 bits"), 0)
            }
            Buffer::Writable(len) => {
                let address = self.allocate(*len);
                (address, u32::try_from(*len).expect("32 bits"), WRITE)
            }
        }
    }

    fn notify(&mut self, queue: usize) {
        self.write(0x50, u32::try_from(queue).expect("few queues"));
        self.settle();
    }

    /// Has the device do what it has to do, as the event loop would.
    fn settle(&mut self) {
        for _ in 0..ROUNDS {
            let mut events: Vec<libc::pollfd> = self
                .transport
                .queue_events()
                .iter()
                .map(|event| libc::pollfd {
                    fd: event.as_raw_fd(),
                    events: libc::POLLIN,
                    revents: 0,
                })
                .collect();
            let count = libc::nfds_t::try_from(events.len()).expect("few queues");
            // SAFETY: so many pollfds, which live for the call.
            if unsafe { libc::poll(events.as_mut_ptr(), count, 0) } <= 0 {
                return;
            }
            for (queue, event) in events.iter().enumerate() {
                if event.revents != 0 {
                    let _count = self.transport.queue_events()[queue].read();
                    self.process(Ready::Queue(queue));
                }
            }
        }
    }

    fn process(&self, ready: Ready) {
        let device = self.transport.device();
        device.lock().expect("no device panics").process(ready);
    }

    /// Tells the device of its files' events, whether or not there are any.
    fn look_at_host(&self) {
        let device = self.transport.device();
        let mut device = device.lock().expect("no device panics");
        for source in 0..device.sources().len() {
            device.process(Ready::Source(source, EventSet::IN | EventSet::OUT));
        }
    }

    /// Takes what was returned, and judges it if all that was offered is still so.
    fn judge(&mut self) {
        for queue in 0..self.rings.len() {
            let base = self.used(queue);
            let index: u16 = self.get(base + 2);
            let waiting = index.wrapping_sub(self.rings[queue].next_used);
            assert!(
                !self.honest || waiting <= self.rings[queue].size,
                "as many chains come back as there are"
            );
            // As a driver does that wants to be woken for the next one.
            let used_event = self.available(queue) + 4 + u64::from(self.rings[queue].size) * 2;
            self.put(used_event, index);
            for _ in 0..waiting.min(self.rings[queue].size) {
                let place = self.rings[queue].next_used % self.rings[queue].size;
                let head: u32 = self.get(base + 4 + u64::from(place) * 8);
                let written: u32 = self.get(base + 8 + u64::from(place) * 8);
                let ring = &mut self.rings[queue];
                ring.next_used = ring.next_used.wrapping_add(1);
                let head = u16::try_from(head).unwrap_or(u16::MAX);
                match ring.offered.remove(&head) {
                    Some((descriptors, room)) => {
                        ring.free.extend(descriptors);
                        assert!(
                            !self.honest || written as usize <= room,
                            "{written} bytes in a chain of {room}"
                        );
                    }
                    None => assert!(!self.honest, "chain {head} was not offered"),
                }
            }
            self.rings[queue].next_used = index;
        }
    }

    /// What a snapshot would hold, which is the same when it was written and read.
    fn save(&self) -> TransportState {
        self.transport.pause();
        let state = self.transport.save();
        let text = serde_json::to_string(&state).expect("a state serializes");
        let read: TransportState = serde_json::from_str(&text).expect("a state reads");
        assert_eq!(read, state);
        self.transport.resume();
        state
    }

    /// The same guest with another device that takes over from the saved one.
    fn again(self, host: &mut dyn Host) -> Self {
        let state = self.save();
        let loaded = transport(host.device(), &self.memory);
        loaded.restore(&state).expect("what was saved is loaded");
        assert_eq!(
            loaded.save(),
            state,
            "loaded and saved again it is the same"
        );
        loaded.resume();
        let mut guest = Self {
            transport: loaded,
            ..self
        };
        guest.settle();
        guest.look_at_host();
        guest.settle();
        guest
    }

    /// After a reset the device is as new.
    fn still_works(mut self, host: &mut dyn Host) {
        self.initialize(u64::MAX);
        assert_eq!(self.read(0x70), 15, "the device is set up again");
        let (queue, buffers) = host.probe();
        self.offer(queue, &buffers, false);
        self.notify(queue);
        let index: u16 = self.get(self.used(queue) + 2);
        assert_eq!(index, 1, "the device answers");
    }
}

fn transport(device: Box<dyn VirtioDevice>, memory: &Arc<GuestMemory>) -> MmioTransport {
    let irq = new_event().expect("an eventfd");
    MmioTransport::new(device, Arc::clone(memory), irq).expect("a transport")
}

/// Buffers of any kind and order.
fn any_buffers(input: &mut Input<'_>, queues: usize) -> (usize, Vec<Buffer>) {
    let queue = usize::from(input.byte()) % queues.max(1);
    let count = usize::from(input.byte() % 6);
    let buffers = (0..count).map(|_| any_buffer(input)).collect();
    (queue, buffers)
}

pub(super) fn any_buffer(input: &mut Input<'_>) -> Buffer {
    let (kind, len) = (input.byte(), usize::from(input.half()) % 0x3000);
    match kind % 2 {
        0 => {
            let bytes = input.bytes(len.min(64)).to_vec();
            Buffer::Readable(bytes, len - len.min(64))
        }
        _ => Buffer::Writable(len),
    }
}
