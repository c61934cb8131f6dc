//! The guest's way to its host: sockets that need no network.
//!
//! Source: vsock(7), include/uapi/linux/vm_sockets.h.

use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

use crate::sys;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// Accepts the host's connections.
pub(crate) struct Listener(AsyncFd<OwnedFd>);

/// A connection.
pub(crate) struct Stream(AsyncFd<OwnedFd>);

fn address(cid: u32, port: u32) -> libc::sockaddr_vm {
    libc::sockaddr_vm {
        svm_family: libc::sa_family_t::try_from(libc::AF_VSOCK).expect("families are small"),
        svm_reserved1: 0,
        svm_port: port,
        svm_cid: cid,
        svm_zero: [0; 4],
    }
}

const ADDRESS_LENGTH: libc::socklen_t = {
    let length = size_of::<libc::sockaddr_vm>();
    assert!(length == 16, "the kernel's structure has 16 bytes");
    16
};

fn socket() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: takes numbers; returns a new descriptor.
    owned(unsafe { libc::socket(libc::AF_VSOCK, kind, 0) })
}

/// Takes a descriptor that a call just returned.
fn owned(fd: libc::c_int) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just returned by the kernel, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn check(done: libc::c_int) -> io::Result<()> {
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

impl Listener {
    /// Listens on a port. Must be called within a runtime.
    pub(crate) fn bind(port: u32) -> io::Result<Self> {
        let socket = socket()?;
        let any = address(libc::VMADDR_CID_ANY, port);
        // SAFETY: the address lives over the call, and its length is that of the structure.
        check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const any).cast(), ADDRESS_LENGTH) })?;
        // SAFETY: takes numbers.
        check(unsafe { libc::listen(socket.as_raw_fd(), BACKLOG) })?;
        Ok(Self(sys::watch(socket, Interest::READABLE)?))
    }

    /// Waits for a connection of the host; those of anybody else are closed.
    pub(crate) async fn accept(&self) -> io::Result<Stream> {
        loop {
            let mut ready = self.0.readable().await?;
            let Ok(accepted) = ready.try_io(|listener| accept(listener.as_raw_fd())) else {
                continue;
            };
            let (socket, cid) = accepted?;
            // Processes of the environment reach this port too, where the kernel can loop it back to them.
            if cid == libc::VMADDR_CID_HOST {
                let both = Interest::READABLE | Interest::WRITABLE;
                return Ok(Stream(sys::watch(socket, both)?));
            }
        }
    }
}

fn accept(listener: libc::c_int) -> io::Result<(OwnedFd, u32)> {
    let mut peer = address(0, 0);
    let mut length = ADDRESS_LENGTH;
    // SAFETY: the address and its length live over the call, which writes no more than that length.
    let fd = unsafe {
        libc::accept4(
            listener,
            (&raw mut peer).cast(),
            &raw mut length,
            libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
        )
    };
    Ok((owned(fd)?, peer.svm_cid))
}

/// Connects to a port of the host and closes the connection at once. Whether anybody listened does not matter.
pub(crate) async fn ring(port: u32) {
    let connect = async {
        let socket = socket()?;
        let host = address(libc::VMADDR_CID_HOST, port);
        // SAFETY: the address lives over the call, and its length is that of the structure.
        let done =
            unsafe { libc::connect(socket.as_raw_fd(), (&raw const host).cast(), ADDRESS_LENGTH) };
        match check(done) {
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {
                // The connection stays open until the other side said what it thinks of it.
                let socket = sys::watch(socket, Interest::WRITABLE)?;
                socket.writable().await.map(drop)
            }
            done => done,
        }
    };
    // The kernel gives up by itself where there is no host at all.
    let _ = connect.await;
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(context))?;
            let room = buffer.initialize_unfilled();
            match ready.try_io(|socket| Ok(rustix::io::read(socket, room)?)) {
                Ok(Ok(count)) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) if error.kind() == ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                // It was not ready after all.
                Err(_) => {}
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.0.poll_write_ready(context))?;
            match ready.try_io(|socket| Ok(rustix::io::writev(socket, slices)?)) {
                Ok(Err(error)) if error.kind() == ErrorKind::Interrupted => {}
                Ok(done) => return Poll::Ready(done),
                Err(_) => {}
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = rustix::net::shutdown(&self.0, rustix::net::Shutdown::Write);
        match done {
            // The other side was faster.
            Ok(()) | Err(rustix::io::Errno::NOTCONN) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(error.into())),
        }
    }
}
