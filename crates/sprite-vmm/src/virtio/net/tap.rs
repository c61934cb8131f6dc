//! The host's end of the cable.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use thiserror::Error;

use crate::config::InterfaceName;

/// Bytes of the header before every frame, in both directions. Source: VIRTIO 1.2, section 5.1.6.
pub(super) const HEADER_SIZE: usize = 12;
/// What may wait in the kernel for others to take it before the guest has to wait.
const SEND_BUFFER: libc::c_int = 1 << 20;

/// A tap cannot be used.
#[derive(Debug, Error)]
pub enum OpenTapError {
    /// The kernel's driver is not there, or we may not use it.
    #[error("open /dev/net/tun")]
    Driver(#[source] io::Error),
    /// There is no such tap for us.
    #[error("attach to tap {name}")]
    Attach {
        /// Its name.
        name: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It does not work as we need it.
    #[error("set up tap {name}")]
    SetUp {
        /// Its name.
        name: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// There are no file descriptors left.
    #[error("make events of queues")]
    Events(#[source] io::Error),
}

/// What the guest leaves to the host, for frames that it receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Offloads {
    pub(super) checksum: bool,
    pub(super) tcp4: bool,
    pub(super) tcp6: bool,
}

/// An open tap.
pub(super) struct Tap {
    file: File,
}

impl Tap {
    /// Attaches to a tap of the namespace that the process is in. Without a tap of this name one is made, if we may.
    pub(super) fn open(name: &InterfaceName) -> Result<Self, OpenTapError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/net/tun")
            .map_err(OpenTapError::Driver)?;
        let tap = Self { file };
        tap.attach(name).map_err(|source| OpenTapError::Attach {
            name: name.as_str().to_owned(),
            source,
        })?;
        tap.set_up().map_err(|source| OpenTapError::SetUp {
            name: name.as_str().to_owned(),
            source,
        })?;
        Ok(tap)
    }

    /// Something that takes and gives frames as a tap does.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn of(file: File) -> Self {
        Self { file }
    }

    fn attach(&self, name: &InterfaceName) -> io::Result<()> {
        let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        // SAFETY: all zeroes are an `ifreq`: a name of zeroes and numbers.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(name.as_str().bytes()) {
            *to = libc::c_char::from_ne_bytes([from]);
        }
        request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags).expect("fifteen bits");
        // SAFETY: the kernel reads and writes one `ifreq`, which lives for the call.
        let done = unsafe { libc::ioctl(self.fd(), libc::TUNSETIFF, &raw mut request) };
        outcome(done)
    }

    fn set_up(&self) -> io::Result<()> {
        let size = libc::c_int::try_from(HEADER_SIZE).expect("twelve");
        for (request, value) in [
            (libc::TUNSETVNETHDRSZ, size),
            (libc::TUNSETSNDBUF, SEND_BUFFER),
        ] {
            // SAFETY: the kernel reads one `int`, which lives for the call.
            outcome(unsafe { libc::ioctl(self.fd(), request, &raw const value) })?;
        }
        Ok(())
    }

    /// Tells the kernel what need not be done for frames to the guest.
    pub(super) fn offload(&self, offloads: Offloads) -> io::Result<()> {
        let mut flags = 0;
        // Segments are cut by who computes their checksums.
        if offloads.checksum {
            flags |= libc::TUN_F_CSUM;
            flags |= if offloads.tcp4 { libc::TUN_F_TSO4 } else { 0 };
            flags |= if offloads.tcp6 { libc::TUN_F_TSO6 } else { 0 };
        }
        // SAFETY: the kernel takes a number; no memory is involved.
        let done =
            unsafe { libc::ioctl(self.fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(flags)) };
        outcome(done)
    }

    pub(super) fn fd(&self) -> i32 {
        self.file.as_raw_fd()
    }

    /// Reads a frame with its header; its length, also where the pieces are shorter.
    ///
    /// # Safety
    /// The pieces are memory that lives for the call and that nobody has a Rust reference to.
    pub(super) unsafe fn read(&self, pieces: &[libc::iovec]) -> io::Result<usize> {
        loop {
            // SAFETY: the caller's promise; the kernel checks the rest.
            let count = unsafe { libc::readv(self.fd(), pieces.as_ptr(), count(pieces)) };
            if let Some(done) = repeat(count) {
                return done;
            }
        }
    }

    /// Writes a frame with its header, whole or not at all.
    ///
    /// # Safety
    /// As for [`Tap::read`].
    pub(super) unsafe fn write(&self, pieces: &[libc::iovec]) -> io::Result<usize> {
        loop {
            // SAFETY: the caller's promise; the kernel only reads and checks the rest.
            let count = unsafe { libc::writev(self.fd(), pieces.as_ptr(), count(pieces)) };
            if let Some(done) = repeat(count) {
                return done;
            }
        }
    }
}

fn count(pieces: &[libc::iovec]) -> libc::c_int {
    libc::c_int::try_from(pieces.len()).unwrap_or(libc::c_int::MAX)
}

/// The outcome of a transfer; nothing if it was interrupted.
fn repeat(count: isize) -> Option<io::Result<usize>> {
    match usize::try_from(count) {
        Ok(count) => Some(Ok(count)),
        Err(_negative) => {
            let error = io::Error::last_os_error();
            (error.kind() != io::ErrorKind::Interrupted).then_some(Err(error))
        }
    }
}

fn outcome(done: libc::c_int) -> io::Result<()> {
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
