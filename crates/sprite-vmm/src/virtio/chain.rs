//! Descriptor chains: the buffers of one request, checked.
//!
//! Descriptors are read once, each into a copy. What comes out are pieces of guest memory that exist, readable
//! ones first, as many as the queue has descriptors at most; what is in them may still change at any time.

use thiserror::Error;
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Address, Bytes, GuestAddress, GuestMemory as _, Permissions, VolatileSlice};

use crate::memory::GuestMemory;

/// Bytes of a descriptor. Source: VIRTIO 1.2, section 2.7.5.
const DESCRIPTOR_SIZE: u32 = 16;

/// How a chain breaks the rules.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ChainError {
    /// An index points behind the table's end.
    #[error("read descriptor {index} of a table of {size}")]
    Index {
        /// The index.
        index: u16,
        /// Descriptors in the table.
        size: u32,
    },
    /// A table lies outside the memory.
    #[error("read a descriptor at {address:#x}")]
    Table {
        /// Where it should be.
        address: u64,
    },
    /// More descriptors than the queue has: a loop, or a driver that may not do this.
    #[error("end within {limit} descriptors")]
    TooLong {
        /// The queue's size.
        limit: u16,
    },
    /// An indirect table within another, beside a next descriptor, or of a size that is none.
    #[error("use an indirect table")]
    Indirect,
    /// A readable buffer after a writable one.
    #[error("order readable buffers before writable ones")]
    Order,
    /// A buffer lies outside the memory.
    #[error("use the buffer of {len} bytes at {address:#x}")]
    Buffer {
        /// Where it begins.
        address: u64,
        /// Its length.
        len: u32,
    },
    /// All buffers together are longer than a chain may be.
    #[error("hold less than 4 GiB")]
    TooLarge,
}

/// The buffers of one request.
pub struct Chain<'m> {
    /// Its first descriptor, by which it is returned.
    pub head: u16,
    /// What the guest wrote for us.
    pub readable: Buffers<'m>,
    /// Where we may write.
    pub writable: Buffers<'m>,
}

/// Pieces of guest memory, one after the other.
#[derive(Default)]
pub struct Buffers<'m> {
    pieces: Vec<VolatileSlice<'m>>,
    len: usize,
}

impl<'m> Buffers<'m> {
    /// All bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The pieces in order, none of them empty.
    #[must_use]
    pub fn pieces(&self) -> &[VolatileSlice<'m>] {
        &self.pieces
    }

    fn push(&mut self, piece: VolatileSlice<'m>) {
        self.len += piece.len();
        self.pieces.push(piece);
    }

    /// Cuts in two after `count` bytes; nothing if there are fewer.
    #[must_use]
    pub fn split(self, count: usize) -> Option<(Self, Self)> {
        if count > self.len {
            return None;
        }
        let (mut front, mut back) = (Self::default(), Self::default());
        for piece in self.pieces {
            let missing = count - front.len;
            if piece.len() <= missing {
                front.push(piece);
            } else if missing == 0 {
                back.push(piece);
            } else {
                let (left, right) = piece
                    .split_at(missing)
                    .expect("what is missing is less than the piece");
                front.push(left);
                back.push(right);
            }
        }
        Some((front, back))
    }

    /// Copies bytes out from the front; how many there were.
    pub fn copy_to(&self, bytes: &mut [u8]) -> usize {
        let mut done = 0;
        for piece in &self.pieces {
            if done == bytes.len() {
                break;
            }
            done += piece.copy_to(&mut bytes[done..]);
        }
        done
    }

    /// Copies bytes in from the front; how many fitted.
    pub fn copy_from(&self, bytes: &[u8]) -> usize {
        let mut done = 0;
        for piece in &self.pieces {
            let count = piece.len().min(bytes.len() - done);
            if count == 0 {
                break;
            }
            piece.copy_from(&bytes[done..done + count]);
            done += count;
        }
        done
    }

    /// The pieces for a vectored system call. They are valid as long as the memory is, which `'m` says.
    #[must_use]
    pub fn iovecs(&self) -> Vec<libc::iovec> {
        self.pieces
            .iter()
            .map(|piece| libc::iovec {
                iov_base: piece.ptr_guard_mut().as_ptr().cast(),
                iov_len: piece.len(),
            })
            .collect()
    }
}

/// Follows the chain that begins at `head` of the table of `size` descriptors at `table`.
pub(super) fn walk(
    memory: &GuestMemory,
    table: u64,
    size: u16,
    head: u16,
) -> Result<Chain<'_>, ChainError> {
    let mut chain = Chain {
        head,
        readable: Buffers::default(),
        writable: Buffers::default(),
    };
    let mut table = Table {
        address: GuestAddress(table),
        size: u32::from(size),
        indirect: false,
    };
    let mut index = head;
    let mut part = Part::Readable;
    for _ in 0..size {
        let mut descriptor = table.read(memory, index)?;
        if descriptor.refers_to_indirect_table() {
            table = table.follow(&descriptor)?;
            descriptor = table.read(memory, 0)?;
            if descriptor.refers_to_indirect_table() {
                return Err(ChainError::Indirect);
            }
        }
        chain.add(memory, &descriptor, &mut part)?;
        if !descriptor.has_next() {
            return Ok(chain);
        }
        index = descriptor.next();
    }
    Err(ChainError::TooLong { limit: size })
}

/// Where in a chain a walk is.
#[derive(Clone, Copy)]
enum Part {
    Readable,
    Writable,
}

impl<'m> Chain<'m> {
    fn add(
        &mut self,
        memory: &'m GuestMemory,
        descriptor: &Descriptor,
        part: &mut Part,
    ) -> Result<(), ChainError> {
        let total = self.readable.len + self.writable.len;
        // Source: VIRTIO 1.2, section 2.7.5.2: a chain is not longer than 2^32 bytes.
        if total + descriptor.len() as usize > u32::MAX as usize {
            return Err(ChainError::TooLarge);
        }
        let buffers = match (descriptor.is_write_only(), *part) {
            (true, _) => {
                *part = Part::Writable;
                &mut self.writable
            }
            (false, Part::Readable) => &mut self.readable,
            (false, Part::Writable) => return Err(ChainError::Order),
        };
        let outside = || ChainError::Buffer {
            address: descriptor.addr().raw_value(),
            len: descriptor.len(),
        };
        let pieces = memory
            .get_slices(
                descriptor.addr(),
                descriptor.len() as usize,
                Permissions::ReadWrite,
            )
            .map_err(|_| outside())?;
        for piece in pieces {
            buffers.push(piece.map_err(|_| outside())?);
        }
        Ok(())
    }
}

/// A table of descriptors.
struct Table {
    address: GuestAddress,
    size: u32,
    indirect: bool,
}

impl Table {
    fn read(&self, memory: &GuestMemory, index: u16) -> Result<Descriptor, ChainError> {
        if u32::from(index) >= self.size {
            return Err(ChainError::Index {
                index,
                size: self.size,
            });
        }
        let offset = u64::from(index) * u64::from(DESCRIPTOR_SIZE);
        let outside = || ChainError::Table {
            address: self.address.raw_value().saturating_add(offset),
        };
        let address = self.address.checked_add(offset).ok_or_else(outside)?;
        memory.read_obj(address).map_err(|_| outside())
    }

    /// The table that an indirect descriptor stands for. Source: VIRTIO 1.2, section 2.7.5.3.
    fn follow(&self, descriptor: &Descriptor) -> Result<Self, ChainError> {
        let whole = descriptor.len() != 0 && descriptor.len().is_multiple_of(DESCRIPTOR_SIZE);
        if self.indirect || descriptor.has_next() || !whole {
            return Err(ChainError::Indirect);
        }
        Ok(Self {
            address: descriptor.addr(),
            size: descriptor.len() / DESCRIPTOR_SIZE,
            indirect: true,
        })
    }
}
