//! One virtqueue in guest memory.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use thiserror::Error;
use virtio_queue::{Queue, QueueOwnedT, QueueState, QueueT};

use super::chain::{Chain, ChainError, walk};
use super::state::QueuePosition;
use vm_memory::{Address, Bytes, GuestAddress, GuestMemoryError};

use crate::memory::GuestMemory;

/// The guest broke the rules of a queue; the device cannot go on with it.
#[derive(Debug, Error)]
pub enum BrokenQueue {
    /// The rings lie outside the memory, or their indices say more than fits.
    #[error("follow the ring")]
    Ring(#[source] virtio_queue::Error),
    /// A chain of descriptors breaks the rules.
    #[error("follow descriptor chain {head}")]
    Chain {
        /// The first descriptor of the chain.
        head: u16,
        /// How it does.
        #[source]
        source: ChainError,
    },
}

impl BrokenQueue {
    fn memory(error: GuestMemoryError) -> Self {
        Self::Ring(virtio_queue::Error::GuestMemory(error))
    }
}

/// How often a guest is asked again that adds a chain with each question.
const QUESTIONS: u32 = 8;

/// Bytes of an element of the used ring. Source: VIRTIO 1.2, section 2.7.8.
const USED_SIZE: u64 = 8;
/// In the flags of the ring of offered chains: no interrupts. Source: VIRTIO 1.2, section 2.7.7.
const NO_INTERRUPT: u16 = 1;

/// A queue as a device uses it: takes chains, returns them, and knows when the guest wants to be woken.
pub struct VirtQueue {
    queue: Queue,
    memory: Arc<GuestMemory>,
    /// Up to where the guest has had its chance of an interrupt.
    told: u16,
}

impl VirtQueue {
    /// Takes a queue over where it stands.
    ///
    /// # Errors
    /// The position is impossible, or the rings of a ready queue are not in the memory.
    pub fn new(
        position: QueuePosition,
        memory: Arc<GuestMemory>,
    ) -> Result<Self, virtio_queue::Error> {
        let queue = Queue::try_from(QueueState::from(position))?;
        if queue.ready() && !queue.is_valid(memory.as_ref()) {
            return Err(virtio_queue::Error::QueueNotReady);
        }
        let told = queue.next_used();
        Ok(Self {
            queue,
            memory,
            told,
        })
    }

    /// The guest's memory, with a life of its own: chains borrow from it while the queue moves on.
    #[must_use]
    pub fn memory(&self) -> Arc<GuestMemory> {
        Arc::clone(&self.memory)
    }

    /// Whether the driver uses this queue.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.queue.ready()
    }

    /// How many descriptors it has.
    #[must_use]
    pub fn size(&self) -> u16 {
        self.queue.size()
    }

    /// Where it stands.
    #[must_use]
    pub fn position(&self) -> QueuePosition {
        self.queue.state().into()
    }

    /// Takes the next chain that the guest offers.
    ///
    /// # Errors
    /// The ring is broken.
    pub fn take(&mut self) -> Result<Option<Taken>, BrokenQueue> {
        if !self.queue.ready() {
            return Ok(None);
        }
        let mut heads = self
            .queue
            .iter(self.memory.as_ref())
            .map_err(BrokenQueue::Ring)?;
        let head = heads.next().map(|chain| chain.head_index());
        Ok(head.map(|head| self.taken(head)))
    }

    /// A chain that was taken and not returned, by its first descriptor.
    #[must_use]
    pub fn taken(&self, head: u16) -> Taken {
        Taken {
            memory: Arc::clone(&self.memory),
            table: self.queue.desc_table(),
            size: self.queue.size(),
            head,
        }
    }

    /// Takes the next chain that the guest offers, with its buffers in `memory`: the queue's own, see
    /// [`VirtQueue::memory`].
    ///
    /// # Errors
    /// The ring or the chain is broken.
    pub fn pop<'m>(&mut self, memory: &'m GuestMemory) -> Result<Option<Chain<'m>>, BrokenQueue> {
        match self.take()? {
            Some(taken) => taken.chain_in(memory).map(Some),
            None => Ok(None),
        }
    }

    /// How many chains the guest offers that were not taken.
    ///
    /// # Errors
    /// The ring is not in the memory.
    pub fn offered(&self) -> Result<u16, BrokenQueue> {
        let index = self
            .queue
            .avail_idx(self.memory.as_ref(), Ordering::Acquire)
            .map_err(BrokenQueue::Ring)?;
        Ok(index.0.wrapping_sub(self.queue.next_avail()))
    }

    /// Gives back the last `count` chains that were taken, as if they never had been.
    pub fn push_back(&mut self, count: u16) {
        self.queue
            .set_next_avail(self.queue.next_avail().wrapping_sub(count));
    }

    /// Returns a chain to the guest with `written` bytes in its writable part.
    ///
    /// # Errors
    /// The chain's head is none, or the ring is not in the memory.
    pub fn add_used(&mut self, head: u16, written: u32) -> Result<(), BrokenQueue> {
        self.add_all_used(&[(head, written)])
    }

    /// Returns chains to the guest, each with the bytes in its writable part; the guest sees all of them or none.
    ///
    /// # Errors
    /// A chain's head is none, or the ring is not in the memory.
    pub fn add_all_used(&mut self, chains: &[(u16, u32)]) -> Result<(), BrokenQueue> {
        let mut next = self.queue.next_used();
        for &(head, written) in chains {
            if head >= self.queue.size() {
                return Err(BrokenQueue::Ring(
                    virtio_queue::Error::InvalidDescriptorIndex,
                ));
            }
            let element = u64::from(head) | u64::from(written) << 32;
            let place = u64::from(next % self.queue.size());
            let at = self.ring(self.queue.used_ring(), 4 + place * USED_SIZE)?;
            self.memory
                .write_obj(element.to_le(), at)
                .map_err(BrokenQueue::memory)?;
            next = next.wrapping_add(1);
        }
        let index = self.ring(self.queue.used_ring(), 2)?;
        // What it stands for is there before it is.
        self.memory
            .store(next.to_le(), index, Ordering::Release)
            .map_err(BrokenQueue::memory)?;
        self.queue.set_next_used(next);
        Ok(())
    }

    fn ring(&self, base: u64, offset: u64) -> Result<GuestAddress, BrokenQueue> {
        GuestAddress(base)
            .checked_add(offset)
            .ok_or(BrokenQueue::Ring(virtio_queue::Error::AddressOverflow))
    }

    /// Whether the guest wants an interrupt for what was returned since the last call.
    ///
    /// # Errors
    /// The ring is not in the memory.
    pub fn wants_interrupt(&mut self) -> Result<bool, BrokenQueue> {
        // The guest looks at the used ring after it has said what it wants: one of us sees the other.
        fence(Ordering::SeqCst);
        let now = self.queue.next_used();
        let before = std::mem::replace(&mut self.told, now);
        let available = self.queue.avail_ring();
        // Source: VIRTIO 1.2, sections 2.7.7 and 2.7.10.
        let offset = if self.queue.event_idx_enabled() {
            4 + u64::from(self.queue.size()) * 2
        } else {
            0
        };
        let said: u16 = self
            .memory
            .load(self.ring(available, offset)?, Ordering::Relaxed)
            .map(u16::from_le)
            .map_err(BrokenQueue::memory)?;
        if !self.queue.event_idx_enabled() {
            return Ok(said & NO_INTERRUPT == 0);
        }
        // Whether `said` is among those returned since the last call, all numbers modulo 2^16.
        let behind = now.wrapping_sub(said).wrapping_sub(1);
        Ok(behind < now.wrapping_sub(before))
    }

    /// Asks the guest to notify about the next chain that it adds to those that it offers already; how many
    /// those are.
    ///
    /// # Errors
    /// The ring is not in the memory.
    pub fn ask_for_notification_of_more(&mut self) -> Result<u16, BrokenQueue> {
        if !self.queue.ready() {
            return Ok(0);
        }
        let taken = self.queue.next_avail();
        let mut offered = self.offered()?;
        for _ in 0..QUESTIONS {
            // The index that is asked for is that of the next chain to take, so it is moved for the question.
            self.queue.set_next_avail(taken.wrapping_add(offered));
            let came_more = self.ask_for_notification();
            self.queue.set_next_avail(taken);
            if !came_more? {
                break;
            }
            offered = self.offered()?;
        }
        Ok(offered)
    }

    /// Asks the guest to notify about the next chain; whether there are chains already.
    ///
    /// # Errors
    /// The ring is not in the memory.
    pub fn ask_for_notification(&mut self) -> Result<bool, BrokenQueue> {
        if !self.queue.ready() {
            return Ok(false);
        }
        self.queue
            .enable_notification(self.memory.as_ref())
            .map_err(BrokenQueue::Ring)
    }
}

/// A chain that was taken from a queue; its buffers can be used without the queue.
pub struct Taken {
    memory: Arc<GuestMemory>,
    table: u64,
    size: u16,
    head: u16,
}

impl Taken {
    /// The first descriptor, by which the chain is returned.
    #[must_use]
    pub fn head(&self) -> u16 {
        self.head
    }

    /// The buffers.
    ///
    /// # Errors
    /// The chain breaks the rules.
    pub fn chain(&self) -> Result<Chain<'_>, BrokenQueue> {
        self.chain_in(&self.memory)
    }

    fn chain_in<'m>(&self, memory: &'m GuestMemory) -> Result<Chain<'m>, BrokenQueue> {
        walk(memory, self.table, self.size, self.head).map_err(|source| BrokenQueue::Chain {
            head: self.head,
            source,
        })
    }
}
