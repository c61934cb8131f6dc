//! Loop devices: an image as a block device.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;

// Source: include/uapi/linux/loop.h.
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;
const LOOP_CONFIGURE: libc::Ioctl = 0x4C0A;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_DIRECT_IO: u32 = 16;

#[repr(C)]
struct LoopInfo64 {
    numbers: [u64; 5],
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    names: [u8; 64 + 64 + 32],
    init: [u64; 2],
}

#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo64,
    reserved: [u64; 8],
}

/// A free loop device over `image`, with direct I/O where the file system below can.
pub(crate) fn attach(image: &File) -> io::Result<(File, String)> {
    let control = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/loop-control")?;
    let mut flags = LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO;
    loop {
        // SAFETY: the request takes no argument.
        let index = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
        if index < 0 {
            return Err(io::Error::last_os_error());
        }
        let path = format!("/dev/loop{index}");
        let device = OpenOptions::new().read(true).write(true).open(&path)?;
        let config = LoopConfig {
            fd: image.as_raw_fd().cast_unsigned(),
            block_size: 4096,
            info: LoopInfo64 {
                numbers: [0; 5],
                number: 0,
                encrypt_type: 0,
                encrypt_key_size: 0,
                flags,
                names: [0; 160],
                init: [0; 2],
            },
            reserved: [0; 8],
        };
        // SAFETY: `config` is the structure that the request reads, and lives over the call.
        let done = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) };
        if done == 0 {
            return Ok((device, path));
        }
        match io::Error::last_os_error() {
            // Another process took the device in between.
            error if error.raw_os_error() == Some(libc::EBUSY) => {}
            error
                if error.raw_os_error() == Some(libc::EINVAL)
                    && flags & LO_FLAGS_DIRECT_IO != 0 =>
            {
                flags &= !LO_FLAGS_DIRECT_IO;
            }
            error => return Err(error),
        }
    }
}
