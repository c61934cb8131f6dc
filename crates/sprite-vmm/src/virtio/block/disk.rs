//! The file behind a disk.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use thiserror::Error;

use crate::config::{CacheType, Drive};
use crate::virtio::Buffers;

/// Bytes of a sector, the unit of all that a guest says. Source: VIRTIO 1.2, section 5.2.
pub(super) const SECTOR: u64 = 512;
/// Bytes of an id. Source: VIRTIO 1.2, section 5.2.6.
pub(super) const ID_SIZE: usize = 20;
/// Zeroes written at once where the file system cannot make zeroes by itself.
static ZEROES: [u8; 1 << 16] = [0; 1 << 16];

/// A disk's file cannot be used.
#[derive(Debug, Error)]
pub enum OpenDiskError {
    /// It does not open.
    #[error("open disk {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Its size is not known.
    #[error("measure disk {path}")]
    Measure {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// There is no thread or event for it.
    #[error("start the workers of disk {path}")]
    Start {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The host's file system is full: it may succeed later.
    NoSpace,
    /// It will not.
    Io,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => Self::NoSpace,
            Some(_) | None => Self::Io,
        }
    }
}

/// When what was written has to be on the medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Durability {
    /// When the guest flushes.
    Flush,
    /// When the write is acknowledged: for a guest that cannot flush.
    EachWrite,
    /// Whenever the host likes.
    Never,
}

/// A part of the disk, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) offset: u64,
    pub(super) len: u64,
}

/// An open disk.
pub(super) struct Disk {
    file: File,
    pub(super) sectors: u64,
    pub(super) read_only: bool,
    pub(super) cache: CacheType,
    pub(super) id: [u8; ID_SIZE],
    flush_failed: AtomicBool,
}

impl Disk {
    pub(super) fn open(drive: &Drive) -> Result<Self, OpenDiskError> {
        let path = &drive.path_on_host;
        let mut file = OpenOptions::new()
            .read(true)
            .write(!drive.is_read_only)
            .open(path)
            .map_err(|source| OpenDiskError::Open {
                path: path.clone(),
                source,
            })?;
        // A block device has no length; its end is found by going there.
        let bytes = file
            .seek(SeekFrom::End(0))
            .map_err(|source| OpenDiskError::Measure {
                path: path.clone(),
                source,
            })?;
        let mut id = [0; ID_SIZE];
        let name = drive.drive_id.as_str().as_bytes();
        let len = name.len().min(ID_SIZE);
        id[..len].copy_from_slice(&name[..len]);
        Ok(Self {
            file,
            sectors: bytes / SECTOR,
            read_only: drive.is_read_only,
            cache: drive.cache_type,
            id,
            flush_failed: AtomicBool::new(false),
        })
    }

    pub(super) fn flush_failed(&self) -> bool {
        self.flush_failed.load(Ordering::SeqCst)
    }

    pub(super) fn restore_flush_failed(&self, failed: bool) {
        self.flush_failed.store(failed, Ordering::SeqCst);
    }

    /// Fills the buffers from `offset`.
    pub(super) fn read(&self, offset: u64, into: &Buffers<'_>) -> Result<(), Failure> {
        transfer(into, offset, |pieces, offset| {
            // SAFETY: the pieces lie in guest memory, which lives as long as the buffers that `transfer` holds;
            // nobody has a Rust reference to it. The kernel checks the rest.
            unsafe {
                libc::preadv(
                    self.file.as_raw_fd(),
                    pieces.as_ptr(),
                    count(pieces),
                    offset,
                )
            }
        })
    }

    /// Writes the buffers at `offset`.
    pub(super) fn write(&self, offset: u64, from: &Buffers<'_>) -> Result<(), Failure> {
        self.writable()?;
        transfer(from, offset, |pieces, offset| {
            // SAFETY: as in `read`; the kernel only reads from the pieces.
            unsafe {
                libc::pwritev(
                    self.file.as_raw_fd(),
                    pieces.as_ptr(),
                    count(pieces),
                    offset,
                )
            }
        })
    }

    fn writable(&self) -> Result<(), Failure> {
        if self.read_only || self.flush_failed() {
            return Err(Failure::Io);
        }
        Ok(())
    }

    /// Returns when all that was written is on the medium. A failure is final, see the module.
    pub(super) fn flush(&self) -> Result<(), Failure> {
        self.sync().map_err(|_told_once| Failure::Io)
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        if self.flush_failed() {
            return Err(io::Error::other("an earlier flush of this disk has failed"));
        }
        self.file.sync_data().inspect_err(|error| {
            self.flush_failed.store(true, Ordering::SeqCst);
            crate::log::error(format_args!(
                "a flush of a disk failed, and nothing is written to it any more: {error}"
            ));
        })
    }

    /// Lets go of what is in a part of the disk; it reads as zeroes where the file system can do that.
    pub(super) fn discard(&self, extent: Extent) -> Result<(), Failure> {
        self.writable()?;
        match self.allocate(
            libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE,
            extent,
        ) {
            // Discarding is advice.
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(()),
            done => Ok(done?),
        }
    }

    /// Has a part of the disk read as zeroes, keeping its place on the host.
    pub(super) fn write_zeroes(&self, extent: Extent) -> Result<(), Failure> {
        self.writable()?;
        match self.allocate(
            libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE,
            extent,
        ) {
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                Ok(self.write_zero_bytes(extent)?)
            }
            done => Ok(done?),
        }
    }

    /// Has a part of the disk read as zeroes, giving up its place on the host where that can be done.
    pub(super) fn unmap_zeroes(&self, extent: Extent) -> Result<(), Failure> {
        self.writable()?;
        match self.allocate(
            libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE,
            extent,
        ) {
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                Ok(self.write_zero_bytes(extent)?)
            }
            done => Ok(done?),
        }
    }

    fn write_zero_bytes(&self, extent: Extent) -> io::Result<()> {
        let end = extent.offset + extent.len;
        let mut offset = extent.offset;
        while offset < end {
            let rest = usize::try_from(end - offset).unwrap_or(usize::MAX);
            let zeroes = &ZEROES[..rest.min(ZEROES.len())];
            self.file.write_all_at(zeroes, offset)?;
            offset += zeroes.len() as u64;
        }
        Ok(())
    }

    fn allocate(&self, mode: libc::c_int, extent: Extent) -> io::Result<()> {
        let (Ok(offset), Ok(len)) = (i64::try_from(extent.offset), i64::try_from(extent.len))
        else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        if len == 0 {
            return Ok(());
        }
        loop {
            // SAFETY: no memory is involved.
            if unsafe { libc::fallocate(self.file.as_raw_fd(), mode, offset, len) } == 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }
}

/// How many pieces, as the kernel counts them.
fn count(pieces: &[libc::iovec]) -> libc::c_int {
    libc::c_int::try_from(pieces.len())
        .expect("a chain has no more pieces than a queue descriptors")
}

/// Repeats a vectored call until all buffers are through it.
fn transfer(
    buffers: &Buffers<'_>,
    offset: u64,
    call: impl Fn(&[libc::iovec], libc::off_t) -> isize,
) -> Result<(), Failure> {
    let mut pieces = buffers.iovecs();
    let mut rest = pieces.as_mut_slice();
    let mut offset = i64::try_from(offset).map_err(|_| Failure::Io)?;
    while !rest.is_empty() {
        let mut done = match usize::try_from(call(rest, offset)) {
            // The file ends before the disk does.
            Ok(0) => return Err(Failure::Io),
            Ok(done) => done,
            Err(_negative) => {
                let error = io::Error::last_os_error();
                if error.kind() == io::ErrorKind::Interrupted {
                    continue;
                }
                return Err(error.into());
            }
        };
        offset = offset.saturating_add(i64::try_from(done).unwrap_or(i64::MAX));
        while let Some(first) = rest.first_mut() {
            if done < first.iov_len {
                first.iov_base = first.iov_base.wrapping_byte_add(done);
                first.iov_len -= done;
                break;
            }
            done -= first.iov_len;
            rest = &mut rest[1..];
        }
    }
    Ok(())
}
