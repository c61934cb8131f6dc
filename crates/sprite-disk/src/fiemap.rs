//! How much of a file no other file shares.
//!
//! Source: Documentation/filesystems/fiemap.rst, `linux/fiemap.h`.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// `FS_IOC_FIEMAP` of `linux/fs.h`: `_IOWR('f', 11, struct fiemap)`, whose head is 32 bytes long.
const FS_IOC_FIEMAP: libc::c_ulong = 0xC020_660B;

/// Extents asked for at once: 28 KiB. Between two questions whoever writes to the file has his turn.
const AT_ONCE: usize = 512;

/// `FIEMAP_EXTENT_LAST`: there is none behind it.
const LAST: u32 = 0x0001;
/// `FIEMAP_EXTENT_SHARED`: another file has the same blocks.
const SHARED: u32 = 0x2000;

/// `struct fiemap_extent`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Extent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved: [u64; 2],
    flags: u32,
    reserved_too: [u32; 3],
}

/// `struct fiemap` with room for the answer behind it.
#[repr(C)]
struct Question {
    start: u64,
    length: u64,
    flags: u32,
    mapped: u32,
    room: u32,
    reserved: u32,
    extents: [Extent; AT_ONCE],
}

const _: () = assert!(size_of::<Extent>() == 56);
const _: () = assert!(std::mem::offset_of!(Question, extents) == 32);

/// The bytes of a file's blocks that belong to it alone. A file that is written meanwhile is measured as it is somewhere
/// in between.
///
/// # Errors
/// The file system cannot tell.
pub(crate) fn unshared_bytes(file: &File) -> io::Result<u64> {
    let mut question = Box::new(Question {
        start: 0,
        length: 0,
        flags: 0,
        mapped: 0,
        room: 0,
        reserved: 0,
        extents: [Extent::default(); AT_ONCE],
    });
    let mut bytes = 0u64;
    loop {
        question.length = u64::MAX - question.start;
        question.room = u32::try_from(AT_ONCE).expect("a small number");
        question.mapped = 0;
        // SAFETY: the ioctl reads the head and writes at most `room` extents behind it, all within `question`, which
        // outlives the call; `file` is open.
        let asked = unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FIEMAP, &raw mut *question) };
        if asked < 0 {
            return Err(io::Error::last_os_error());
        }
        let mapped = usize::try_from(question.mapped).unwrap_or(AT_ONCE);
        let extents = &question.extents[..mapped.min(AT_ONCE)];
        let alone = extents.iter().filter(|extent| extent.flags & SHARED == 0);
        bytes = alone.fold(bytes, |bytes, extent| bytes.saturating_add(extent.length));
        match extents.last() {
            Some(last) if last.flags & LAST == 0 => {
                let next = last.logical.saturating_add(last.length);
                // A kernel that does not go on would keep us for ever.
                if next <= question.start {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                question.start = next;
            }
            Some(_) | None => return Ok(bytes),
        }
    }
}
