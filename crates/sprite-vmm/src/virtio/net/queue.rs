//! Frames between the tap and the rings.

use std::collections::VecDeque;
use std::io;

use super::metrics::NetMetrics;
use super::tap::{HEADER_SIZE, Tap};
use crate::memory::GuestMemory;
use crate::virtio::{BrokenQueue, Buffers, Chain, Interrupt, VirtQueue};

/// The longest frame with its header: Ethernet, a VLAN's tag and the largest packet that is to be cut.
pub(super) const MAX_FRAME: usize = HEADER_SIZE + 18 + 65_535;
/// Frames moved in one go, so that other devices get their turn.
const BUDGET: usize = 64;
/// Pieces of memory that the kernel takes in one call. Source: `UIO_MAXIOV` in `linux/uio.h`.
const MAX_PIECES: usize = 1024;
/// Where in the header the number of filled buffers is. Source: VIRTIO 1.2, section 5.1.6.
const BUFFERS_OFFSET: usize = 10;

/// Whether all there was to do has been done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Done,
    MoreToDo,
    /// The tap takes no more; it tells when it does.
    HostFull,
}

/// How a frame lies in the guest's buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// Each in one.
    Single,
    /// Each in as many as it needs.
    Mergeable,
}

/// A frame that was read and had no room.
pub(super) struct Waiting {
    frame: Box<[u8]>,
    len: usize,
}

impl Default for Waiting {
    fn default() -> Self {
        Self {
            frame: vec![0; MAX_FRAME].into_boxed_slice(),
            len: 0,
        }
    }
}

impl Waiting {
    /// Throws the frame away.
    pub(super) fn clear(&mut self) {
        self.len = 0;
    }
}

/// Buffers of the guest that were taken and hold nothing yet.
#[derive(Default)]
struct Gathered<'m> {
    chains: VecDeque<Chain<'m>>,
    len: usize,
    pieces: usize,
}

impl<'m> Gathered<'m> {
    /// Takes buffers until there is room for `wanted` bytes, or the guest has no more.
    fn gather(
        &mut self,
        queue: &mut VirtQueue,
        memory: &'m GuestMemory,
        wanted: usize,
        layout: Layout,
    ) -> Result<(), BrokenQueue> {
        while self.len < wanted && self.pieces < MAX_PIECES / 2 {
            if layout == Layout::Single && !self.chains.is_empty() {
                return Ok(());
            }
            let Some(chain) = queue.pop(memory)? else {
                return Ok(());
            };
            self.len += chain.writable.len();
            self.pieces += chain.writable.pieces().len();
            self.chains.push_back(chain);
        }
        Ok(())
    }

    fn iovecs(&self) -> Vec<libc::iovec> {
        self.chains
            .iter()
            .flat_map(|chain| chain.writable.iovecs())
            .collect()
    }

    /// Copies a frame in from the front.
    fn copy_from(&self, mut frame: &[u8]) {
        for chain in &self.chains {
            let copied = chain.writable.copy_from(frame);
            frame = &frame[copied..];
        }
    }

    /// Returns as many buffers as `len` bytes fill.
    fn fill(&mut self, queue: &mut VirtQueue, len: usize) -> Result<(), BrokenQueue> {
        let mut used = Vec::new();
        let mut rest = len;
        let mut first: Option<Buffers<'m>> = None;
        while rest > 0 || used.is_empty() {
            let Some(chain) = self.chains.pop_front() else {
                break;
            };
            let filled = rest.min(chain.writable.len());
            rest -= filled;
            self.len -= chain.writable.len();
            self.pieces -= chain.writable.pieces().len();
            let filled = u32::try_from(filled).expect("a frame is shorter than 4 GiB");
            used.push((chain.head, filled));
            first.get_or_insert(chain.writable);
        }
        let count = u16::try_from(used.len()).expect("a queue has no more");
        let header = first.and_then(|first| first.split(BUFFERS_OFFSET));
        if let Some((_before, at)) = header {
            at.copy_from(&count.to_le_bytes());
        }
        queue.add_all_used(&used)
    }
}

/// Gives frames of the tap to the guest.
pub(super) fn receive(
    queue: &mut VirtQueue,
    interrupt: &Interrupt,
    (tap, waiting): (&Tap, &mut Waiting),
    layout: Layout,
    metrics: &NetMetrics,
) -> Result<Progress, BrokenQueue> {
    let memory = queue.memory();
    let mut gathered = Gathered::default();
    let mut progress = Progress::MoreToDo;
    let before = queue.position().next_used;
    for _ in 0..BUDGET {
        let wanted = if waiting.len > 0 {
            waiting.len
        } else {
            MAX_FRAME
        };
        gathered.gather(queue, &memory, wanted, layout)?;
        let room = gathered.len >= wanted;
        // The guest is asked to tell of more before anything depends on its doing so.
        if !room
            && layout == Layout::Mergeable
            && queue.ask_for_notification()?
            && gathered.pieces < MAX_PIECES / 2
        {
            continue;
        }
        if gathered.chains.is_empty() {
            if layout == Layout::Single && queue.ask_for_notification()? {
                continue;
            }
            progress = Progress::Done;
            break;
        }
        if waiting.len > 0 {
            if room {
                deliver_waiting(queue, &mut gathered, waiting, metrics)?;
            } else if is_hopeless(queue, &gathered, layout) {
                metrics.lost_to_guest.inc();
                waiting.clear();
            } else {
                progress = Progress::Done;
                break;
            }
            continue;
        }
        let read = if room {
            // SAFETY: the pieces are of guest memory, which `memory` keeps; nobody has a reference to it.
            unsafe { tap.read(&gathered.iovecs()) }
        } else {
            read_aside(tap, waiting)
        };
        match read {
            Ok(len) if room => {
                metrics.frames_to_guest.inc();
                metrics
                    .bytes_to_guest
                    .add(len.saturating_sub(HEADER_SIZE) as u64);
                gathered.fill(queue, len)?;
            }
            Ok(_waits) => {}
            Err(error) => {
                if error.kind() != io::ErrorKind::WouldBlock {
                    metrics.failures.inc();
                }
                progress = Progress::Done;
                break;
            }
        }
    }
    let unused = u16::try_from(gathered.chains.len()).expect("a queue has no more");
    queue.push_back(unused);
    if queue.position().next_used != before && queue.wants_interrupt()? {
        interrupt.used_buffers();
    }
    Ok(progress)
}

fn read_aside(tap: &Tap, waiting: &mut Waiting) -> io::Result<usize> {
    let piece = libc::iovec {
        iov_base: waiting.frame.as_mut_ptr().cast(),
        iov_len: waiting.frame.len(),
    };
    // SAFETY: the piece is the frame's buffer, borrowed by us alone.
    let len = unsafe { tap.read(&[piece]) }?;
    waiting.len = len.min(waiting.frame.len());
    Ok(len)
}

fn deliver_waiting(
    queue: &mut VirtQueue,
    gathered: &mut Gathered<'_>,
    waiting: &mut Waiting,
    metrics: &NetMetrics,
) -> Result<(), BrokenQueue> {
    gathered.copy_from(&waiting.frame[..waiting.len]);
    metrics.frames_to_guest.inc();
    metrics
        .bytes_to_guest
        .add((waiting.len - HEADER_SIZE.min(waiting.len)) as u64);
    gathered.fill(queue, waiting.len)?;
    waiting.clear();
    Ok(())
}

/// Whether no more buffers can make room for the frame that waits.
fn is_hopeless(queue: &VirtQueue, gathered: &Gathered<'_>, layout: Layout) -> bool {
    match layout {
        Layout::Single => true,
        Layout::Mergeable => {
            gathered.chains.len() == usize::from(queue.size()) || gathered.pieces >= MAX_PIECES / 2
        }
    }
}

/// Gives frames of the guest to the tap.
pub(super) fn transmit(
    queue: &mut VirtQueue,
    interrupt: &Interrupt,
    tap: &Tap,
    metrics: &NetMetrics,
) -> Result<Progress, BrokenQueue> {
    let memory = queue.memory();
    let mut progress = Progress::MoreToDo;
    let mut returned = false;
    for _ in 0..BUDGET {
        let Some(chain) = queue.pop(&memory)? else {
            if queue.ask_for_notification()? {
                continue;
            }
            progress = Progress::Done;
            break;
        };
        let len = chain.readable.len();
        let sent = if (HEADER_SIZE..=MAX_FRAME).contains(&len) {
            // SAFETY: the pieces are of guest memory, which `memory` keeps; nobody has a reference to it.
            unsafe { tap.write(&chain.readable.iovecs()) }
        } else {
            Err(io::ErrorKind::InvalidInput.into())
        };
        match sent {
            Ok(_whole) => {
                metrics.frames_to_host.inc();
                metrics.bytes_to_host.add((len - HEADER_SIZE) as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                queue.push_back(1);
                metrics.host_full.inc();
                progress = Progress::HostFull;
                break;
            }
            Err(_refused) => metrics.lost_to_host.inc(),
        }
        queue.add_used(chain.head, 0)?;
        returned = true;
    }
    if returned && queue.wants_interrupt()? {
        interrupt.used_buffers();
    }
    Ok(progress)
}
