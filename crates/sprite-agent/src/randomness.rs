//! Fresh randomness for a guest whose memory was loaded: another guest may have begun with the same memory.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsRawFd;

/// The source of randomness that the monitor gives the machine; all that comes from it is the host's.
const SOURCE: &str = "/dev/hwrng";

/// Twice what the kernel's generator holds.
const BYTES: u8 = 64;

// Source: include/uapi/linux/random.h.
const RNDADDENTROPY: libc::Ioctl = 0x4008_5203;
const RNDRESEEDCRNG: libc::Ioctl = 0x5207;

/// `struct rand_pool_info`.
#[repr(C)]
struct Added {
    bits: libc::c_int,
    bytes: libc::c_int,
    buffer: [u8; BYTES as usize],
}

/// Stirs fresh bytes into the kernel's generator, and has it begin anew from them: whatever it gives from now on, to
/// anybody, no other guest is given. Blocks.
pub(crate) fn renew() -> io::Result<()> {
    let mut added = Added {
        bits: libc::c_int::from(BYTES) * 8,
        bytes: libc::c_int::from(BYTES),
        buffer: [0; BYTES as usize],
    };
    File::open(SOURCE)?.read_exact(&mut added.buffer)?;
    let generator = OpenOptions::new().write(true).open("/dev/random")?;
    // SAFETY: the kernel reads the structure, which is as long as it says.
    check(unsafe { libc::ioctl(generator.as_raw_fd(), RNDADDENTROPY, &raw const added) })?;
    // SAFETY: the request takes no argument.
    check(unsafe { libc::ioctl(generator.as_raw_fd(), RNDRESEEDCRNG, 0) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
