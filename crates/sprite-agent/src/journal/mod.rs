//! A session's output, kept so that who comes later can read it: one journal for each stream.
//!
//! ```text
//!            start                                                  end
//!              |----------- ring: on the disk ----------|            |
//!                                               |--- window: in memory ---|
//! ```
//! The newest output is in memory, and short output never leaves it. When memory has enough, the writer thread
//! copies the oldest of it to a [`ring`] on the sprite's disk, and only then it leaves memory: the two always
//! overlap or touch. Without a disk (it is full, it broke, others have all the room) memory alone is kept, and
//! `start` says so.
//!
//! Who reads at the front reads from memory; who is far behind reads from the disk, at a pace of its own.

mod ring;
pub(crate) mod store;
mod window;
pub(crate) mod writer;

use std::io;

use bytes::Bytes;

pub(crate) use ring::Piece;
pub(crate) use ring::Ring;
use store::NoRing;
use window::Window;

/// Output that a stream keeps in memory.
///
/// Twice what a link has in flight: without a disk, a client that comes back after its host was replaced still finds
/// what it misses.
const KEPT: usize = 2 * sprite_agent_api::link::WINDOW;

/// Output that a stream keeps on the disk: hours of what programs tell, a large build's whole log.
pub(crate) const RING: u64 = 16 << 20;

/// How far a stream may be ahead of its fastest reader, and of the writer to the disk, before it has to wait.
pub(crate) const AHEAD: u64 = 1 << 20;

/// Read from the disk at once.
const READ: u64 = 512 << 10;

const _: () = assert!(
    KEPT as u64 + 2 * AHEAD < RING,
    "memory and what is on its way fit on the ring"
);

/// Where older output goes.
#[derive(Debug, Default)]
enum Disk {
    /// All is in memory so far.
    #[default]
    Unused,
    Ring(Ring),
    /// It is not to be had.
    None,
}

/// Output of one stream, from `start` to `end`.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    window: Window,
    disk: Disk,
    /// The writer has been asked, or is at it.
    writing: bool,
    /// Nothing is to stay in memory.
    evicted: bool,
}

/// Who reads a stream, as offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Readers {
    /// The fastest of those that read from memory.
    pub(crate) front: Option<u64>,
    /// The slowest of all.
    pub(crate) rear: Option<u64>,
}

/// What there is at an offset.
#[derive(Debug)]
pub(crate) enum Found {
    /// In memory, at most one frame.
    Memory(Bytes),
    /// On the disk. What was read counts only if [`Journal::has`] the offset still.
    Disk(Piece),
    /// Nothing yet.
    End,
    /// It is not kept any more.
    Gone,
}

/// What leaves memory next.
#[derive(Debug)]
enum Plan {
    Nothing,
    Open,
    /// So many bytes, at least one.
    Write(u64),
}

/// What the writer is to do next.
#[derive(Debug)]
pub(crate) enum Task {
    Nothing,
    /// Make a ring.
    Open {
        /// For output from this offset on.
        at: u64,
        /// In bytes.
        size: u64,
    },
    Write {
        pieces: Vec<Piece>,
        chunks: Vec<Bytes>,
        /// Of them all.
        length: u64,
    },
}

impl Journal {
    /// Offset of the first byte that is still kept.
    pub(crate) fn start(&self) -> u64 {
        match &self.disk {
            Disk::Ring(ring) if ring.end() >= self.window.start() => {
                ring.start().min(self.window.start())
            }
            Disk::Unused | Disk::Ring(_) | Disk::None => self.window.start(),
        }
    }

    /// Offset behind the last byte; so many bytes there were in all.
    pub(crate) fn end(&self) -> u64 {
        self.window.end()
    }

    /// Whether the byte at `offset` is kept, or would be the next.
    pub(crate) fn has(&self, offset: u64) -> bool {
        (self.start()..=self.end()).contains(&offset)
    }

    /// Whether who reads at `offset` reads from memory.
    pub(crate) fn is_in_memory(&self, offset: u64) -> bool {
        offset >= self.window.start()
    }

    /// Bytes in memory.
    pub(crate) fn memory(&self) -> usize {
        self.window.len()
    }

    /// Adds output. Returns whether the writer has to be asked.
    pub(crate) fn push(&mut self, chunk: Bytes, readers: Readers) -> bool {
        self.window.push(chunk);
        self.settle(readers)
    }

    /// Whether another chunk may be read, as far as readers and the disk go.
    pub(crate) fn has_room(&self, readers: Readers) -> bool {
        let ahead_of = |offset: Option<u64>| offset.map_or(0, |at| self.end().saturating_sub(at));
        let writer_behind = self.is_on_disk() && self.unwritten() >= KEPT as u64 + AHEAD;
        ahead_of(readers.front) < AHEAD && ahead_of(readers.rear) < self.reach() && !writer_behind
    }

    /// How far the slowest reader may be behind.
    fn reach(&self) -> u64 {
        if self.is_on_disk() {
            RING - AHEAD
        } else {
            AHEAD
        }
    }

    /// Whether the disk takes what leaves memory.
    fn is_on_disk(&self) -> bool {
        match &self.disk {
            Disk::Unused => true,
            Disk::Ring(ring) => !ring.is_broken(),
            Disk::None => false,
        }
    }

    /// Bytes that are in memory alone.
    fn unwritten(&self) -> u64 {
        match &self.disk {
            Disk::Ring(ring) => self.end() - ring.end().min(self.end()),
            Disk::Unused | Disk::None => self.window.len() as u64,
        }
    }

    /// How much is to stay in memory.
    fn keep(&self) -> usize {
        if self.evicted { 0 } else { KEPT }
    }

    /// Lets go of what need not be in memory: called when output came, was written, or was read. Returns whether the
    /// writer has to be asked.
    pub(crate) fn settle(&mut self, readers: Readers) -> bool {
        self.trim(readers);
        let wants = !self.writing && !matches!(self.plan(readers), Plan::Nothing);
        self.writing |= wants;
        wants
    }

    fn trim(&mut self, readers: Readers) {
        match &self.disk {
            Disk::Unused => {}
            Disk::Ring(ring) if !ring.is_broken() => {
                let limit = ring.end().min(readers.front.unwrap_or(u64::MAX));
                self.window.trim(self.keep(), limit);
            }
            Disk::Ring(_) | Disk::None => {
                // As much again is kept behind the slowest: what was handed out may be on its way when a
                // connection breaks.
                let rear = readers.rear.unwrap_or(u64::MAX);
                let limit = if self.evicted {
                    rear
                } else {
                    rear.saturating_sub(KEPT as u64)
                };
                self.window.trim(self.keep(), limit);
                if let Disk::Ring(ring) = &self.disk
                    && ring.end() < self.window.start()
                {
                    self.disk = Disk::None;
                }
            }
        }
    }

    /// Takes all out of memory that readers leave. Returns whether the writer has to be asked.
    pub(crate) fn evict(&mut self, readers: Readers) -> bool {
        self.evicted = true;
        self.settle(readers)
    }

    /// Lets go of the disk, and of what is only there. Returns whether there was anything.
    pub(crate) fn leave_disk(&mut self) -> bool {
        match &self.disk {
            Disk::Ring(_) => {
                self.disk = Disk::None;
                true
            }
            Disk::Unused | Disk::None => false,
        }
    }

    /// What there is from `offset` on.
    pub(crate) fn find(&self, offset: u64) -> Found {
        if self.is_in_memory(offset) {
            return self.window.next(offset).map_or(Found::End, Found::Memory);
        }
        match &self.disk {
            Disk::Ring(ring) if self.has(offset) => Found::Disk(ring.read(offset, READ)),
            Disk::Unused | Disk::Ring(_) | Disk::None => Found::Gone,
        }
    }

    fn plan(&self, readers: Readers) -> Plan {
        if self.unwritten() <= self.keep() as u64 {
            return Plan::Nothing;
        }
        // Half of it at once: few writes, and room for the next chunks.
        let until = self.end() - self.keep() as u64 / 2;
        match &self.disk {
            Disk::Unused => Plan::Open,
            Disk::Ring(ring) if !ring.is_broken() => {
                // What the slowest reader has not read is not overwritten.
                let most = readers.rear.map_or(u64::MAX, |rear| rear + ring.size());
                match until.min(most).saturating_sub(ring.end()).min(KEPT as u64) {
                    0 => Plan::Nothing,
                    length => Plan::Write(length),
                }
            }
            Disk::Ring(_) | Disk::None => Plan::Nothing,
        }
    }

    /// What the writer is to do next; after [`Task::Nothing`] it has to be asked again.
    pub(crate) fn task(&mut self, readers: Readers) -> Task {
        let plan = self.plan(readers);
        self.writing = !matches!(plan, Plan::Nothing);
        match (plan, &mut self.disk) {
            (Plan::Write(length), Disk::Ring(ring)) => Task::Write {
                chunks: self
                    .window
                    .batch(ring.end(), usize::try_from(length).unwrap_or(KEPT)),
                pieces: ring.begin(length),
                length,
            },
            (Plan::Open, _) => Task::Open {
                at: self.window.start(),
                size: if self.evicted {
                    self.window.len() as u64
                } else {
                    RING
                },
            },
            (Plan::Nothing | Plan::Write(_), _) => Task::Nothing,
        }
    }

    /// The ring that was asked for, or why there is none.
    pub(crate) fn opened(&mut self, ring: Result<Ring, NoRing>, readers: Readers) {
        // It may have been told to leave the disk meanwhile.
        if matches!(self.disk, Disk::Unused) {
            self.disk = ring.map_or(Disk::None, Disk::Ring);
        }
        self.trim(readers);
    }

    /// The bytes that were to be written are, or not.
    pub(crate) fn wrote(&mut self, length: u64, done: &io::Result<()>, readers: Readers) {
        if let Disk::Ring(ring) = &mut self.disk {
            match done {
                Ok(()) => ring.wrote(length),
                Err(_) => ring.broke(),
            }
        }
        self.trim(readers);
    }
}

#[cfg(test)]
mod tests;
