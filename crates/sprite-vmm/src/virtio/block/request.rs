//! One request: what the guest wants, checked, and what came of it.
//!
//! Source: VIRTIO 1.2, section 5.2.6.

use super::disk::{Disk, Durability, Extent, Failure, SECTOR};
use super::metrics::BlockMetrics;
use crate::virtio::{Buffers, Chain};

/// Most parts of the disk that one request may discard.
pub(super) const MAX_SEGMENTS: u32 = 64;
/// Most sectors of one such part: 1 GiB, so that the file system does not work for seconds.
pub(super) const MAX_SEGMENT_SECTORS: u32 = 1 << 21;

const READ: u32 = 0;
const WRITE: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;

const HEADER_SIZE: usize = 16;
const SEGMENT_SIZE: usize = 16;
/// A segment's flag: it need not keep its place.
const UNMAP: u32 = 1;

/// What the guest is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Ok,
    IoError,
    Unsupported,
}

impl Status {
    fn byte(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::IoError => 1,
            Self::Unsupported => 2,
        }
    }
}

/// What the guest wants done.
enum Operation<'m> {
    Read(u64, Buffers<'m>),
    Write(u64, Buffers<'m>),
    Flush,
    Id(Buffers<'m>),
    Discard(Vec<Extent>),
    WriteZeroes(Vec<(Extent, Zeroes)>),
}

/// Whether zeroes need their place on the host.
#[derive(Clone, Copy)]
enum Zeroes {
    Keep,
    Unmap,
}

/// A request with room for its answer.
pub(super) struct Request<'m> {
    operation: Result<Operation<'m>, Status>,
    status: Buffers<'m>,
}

impl<'m> Request<'m> {
    /// Reads a request; nothing if it has no header or no room for an answer.
    pub(super) fn parse(chain: Chain<'m>, disk: &Disk, durability: Durability) -> Option<Self> {
        let (header, from) = chain.readable.split(HEADER_SIZE)?;
        let (into, status) = split_last(chain.writable)?;
        let mut bytes = [0; HEADER_SIZE];
        header.copy_to(&mut bytes);
        let [kind, _reserved] = [number(&bytes[..4]), number(&bytes[4..8])];
        let sector = u64::from(number(&bytes[8..12])) | u64::from(number(&bytes[12..])) << 32;
        let operation = match kind {
            READ => on_disk(disk, sector, into.len()).map(|at| Operation::Read(at, into)),
            WRITE => on_disk(disk, sector, from.len()).map(|at| Operation::Write(at, from)),
            FLUSH if durability != Durability::Never => Ok(Operation::Flush),
            GET_ID => Ok(Operation::Id(into)),
            DISCARD => segments(disk, &from, DISCARD).map(|parts| {
                Operation::Discard(parts.into_iter().map(|(extent, _)| extent).collect())
            }),
            WRITE_ZEROES => segments(disk, &from, WRITE_ZEROES).map(Operation::WriteZeroes),
            _unknown => Err(Status::Unsupported),
        };
        Some(Self { operation, status })
    }

    /// Does it: the bytes written to the guest, or that the host has no room now.
    pub(super) fn perform(
        &self,
        disk: &Disk,
        durability: Durability,
        metrics: &BlockMetrics,
    ) -> Result<u32, NoSpace> {
        let outcome = match &self.operation {
            Ok(operation) => match operation.perform(disk, durability, metrics) {
                Ok(written) => Ok(written),
                Err(Failure::NoSpace) => return Err(NoSpace),
                Err(Failure::Io) => Err(Status::IoError),
            },
            Err(status) => Err(*status),
        };
        let (status, written) = match outcome {
            Ok(written) => (Status::Ok, written),
            Err(status) => {
                metrics.failures.inc();
                (status, 0)
            }
        };
        self.status.copy_from(&[status.byte()]);
        // The status is one byte more; a chain is shorter than 4 GiB.
        Ok(u32::try_from(written + 1).unwrap_or(u32::MAX))
    }
}

/// The host's file system is full.
#[derive(Debug)]
pub(super) struct NoSpace;

impl Operation<'_> {
    /// Bytes written to the guest.
    fn perform(
        &self,
        disk: &Disk,
        durability: Durability,
        metrics: &BlockMetrics,
    ) -> Result<usize, Failure> {
        match self {
            Self::Read(offset, into) => {
                disk.read(*offset, into)?;
                metrics.reads.inc();
                metrics.read_bytes.add(into.len() as u64);
                return Ok(into.len());
            }
            Self::Id(into) => return Ok(into.copy_from(&disk.id)),
            Self::Flush => {
                disk.flush()?;
                metrics.flushes.inc();
                return Ok(0);
            }
            Self::Write(offset, from) => {
                disk.write(*offset, from)?;
                metrics.writes.inc();
                metrics.written_bytes.add(from.len() as u64);
            }
            Self::Discard(extents) => {
                extents.iter().try_for_each(|&part| disk.discard(part))?;
                metrics.discards.inc();
            }
            Self::WriteZeroes(extents) => {
                extents
                    .iter()
                    .try_for_each(|&(part, zeroes)| match zeroes {
                        Zeroes::Keep => disk.write_zeroes(part),
                        Zeroes::Unmap => disk.unmap_zeroes(part),
                    })?;
                metrics.discards.inc();
            }
        }
        match durability {
            Durability::EachWrite => disk.flush()?,
            Durability::Flush | Durability::Never => {}
        }
        Ok(0)
    }
}

/// Cuts the last byte off.
fn split_last(buffers: Buffers<'_>) -> Option<(Buffers<'_>, Buffers<'_>)> {
    let len = buffers.len().checked_sub(1)?;
    buffers.split(len)
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes.try_into().expect("four bytes"))
}

/// Where `len` bytes from `sector` begin, if they are whole sectors of the disk.
fn on_disk(disk: &Disk, sector: u64, len: usize) -> Result<u64, Status> {
    let len = len as u64;
    let end = sector.checked_add(len / SECTOR);
    if !len.is_multiple_of(SECTOR) || end.is_none_or(|end| end > disk.sectors) {
        return Err(Status::IoError);
    }
    Ok(sector * SECTOR)
}

/// The parts of the disk that a discard or write-zeroes names.
fn segments(disk: &Disk, from: &Buffers<'_>, kind: u32) -> Result<Vec<(Extent, Zeroes)>, Status> {
    let count = from.len() / SEGMENT_SIZE;
    if count == 0 || count > MAX_SEGMENTS as usize || !from.len().is_multiple_of(SEGMENT_SIZE) {
        return Err(Status::IoError);
    }
    let mut bytes = vec![0; from.len()];
    from.copy_to(&mut bytes);
    bytes
        .chunks_exact(SEGMENT_SIZE)
        .map(|segment| {
            let sector = u64::from(number(&segment[..4])) | u64::from(number(&segment[4..8])) << 32;
            let sectors = number(&segment[8..12]);
            let zeroes = match number(&segment[12..]) {
                0 => Zeroes::Keep,
                UNMAP if kind == WRITE_ZEROES => Zeroes::Unmap,
                _unknown => return Err(Status::Unsupported),
            };
            if sectors > MAX_SEGMENT_SECTORS {
                return Err(Status::IoError);
            }
            let len = u64::from(sectors) * SECTOR;
            let offset = on_disk(disk, sector, usize::try_from(len).unwrap_or(usize::MAX))?;
            Ok((Extent { offset, len }, zeroes))
        })
        .collect()
}
