//! The host's side: who connects to our Unix socket, and the sockets of those the guest connects to.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect,
    listen, recv, socket_with,
};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;
/// Longest first line: `CONNECT`, a space, ten digits and the end of the line, and one to spare for it.
const MAX_LINE: usize = 20;
const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// Our Unix socket.
pub(super) struct Listener {
    socket: UnixListener,
    path: PathBuf,
}

/// What came of accepting.
pub(super) enum Accepted {
    Stream(UnixStream),
    /// Nobody waits.
    Nobody,
    /// There are no file descriptors: to be tried again later, for no event tells.
    Later,
}

impl Listener {
    pub(super) fn bind(path: &Path) -> io::Result<Self> {
        let socket = stream_socket()?;
        bind(&socket, &SocketAddrUnix::new(path)?)?;
        listen(&socket, BACKLOG)?;
        Ok(Self {
            socket: socket.into(),
            path: path.to_owned(),
        })
    }

    pub(super) fn fd(&self) -> i32 {
        self.socket.as_raw_fd()
    }

    pub(super) fn accept(&self) -> Accepted {
        loop {
            match accept_with(&self.socket, FLAGS) {
                Ok(stream) => return Accepted::Stream(stream.into()),
                // Gone before it was accepted.
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(Errno::AGAIN) => return Accepted::Nobody,
                Err(_no_descriptors) => return Accepted::Later,
            }
        }
    }

    /// Connects to the process of the host that listens for the guest's `port`.
    pub(super) fn connect(&self, port: u32) -> io::Result<UnixStream> {
        let mut path = self.path.clone().into_os_string();
        path.push(format!("_{port}"));
        let socket = stream_socket()?;
        // Done or refused at once, as long as nothing blocks.
        connect(&socket, &SocketAddrUnix::new(Path::new(&path))?)?;
        Ok(socket.into())
    }
}

fn stream_socket() -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, FLAGS, None)?;
    Ok(socket)
}

/// How far the first line of a connection is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// It asks for this port; what follows is the stream's.
    Port(u32),
    Unfinished,
    /// It is none, or its sender has gone.
    Wrong,
}

/// Reads the first line, and nothing behind it.
pub(super) fn read_line(stream: &UnixStream) -> Line {
    let mut bytes = [0; MAX_LINE];
    let seen = match receive(stream, &mut bytes, RecvFlags::PEEK) {
        Ok(0) => return Line::Wrong,
        Ok(seen) => seen,
        Err(Errno::AGAIN) => return Line::Unfinished,
        Err(_gone) => return Line::Wrong,
    };
    let Some(end) = bytes[..seen].iter().position(|&byte| byte == b'\n') else {
        return if seen < MAX_LINE {
            Line::Unfinished
        } else {
            Line::Wrong
        };
    };
    let Some(port) = port(&bytes[..end]) else {
        return Line::Wrong;
    };
    match receive(stream, &mut bytes[..=end], RecvFlags::empty()) {
        Ok(taken) if taken == end + 1 => Line::Port(port),
        Ok(_) | Err(_) => Line::Wrong,
    }
}

fn receive(stream: &UnixStream, bytes: &mut [u8], flags: RecvFlags) -> Result<usize, Errno> {
    loop {
        match recv(stream.as_fd(), &mut *bytes, flags) {
            Err(Errno::INTR) => {}
            done => return done.map(|(count, _length)| count),
        }
    }
}

/// The port in `CONNECT <port>`.
fn port(line: &[u8]) -> Option<u32> {
    let digits = std::str::from_utf8(line).ok()?.strip_prefix("CONNECT ")?;
    // Digits only: `parse` would take a sign.
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_numbers_of_32_bits_are_ports() {
        assert_eq!(port(b"CONNECT 0"), Some(0));
        assert_eq!(port(b"CONNECT 4294967295"), Some(u32::MAX));
        for line in [
            "CONNECT 4294967296",
            "CONNECT +1",
            "CONNECT -1",
            "CONNECT ",
            "CONNECT",
            "",
        ] {
            assert_eq!(port(line.as_bytes()), None, "{line}");
        }
        for line in [
            "connect 1",
            "CONNECT  1",
            "CONNECT 1 ",
            "CONNECT 1\r",
            " CONNECT 1",
        ] {
            assert_eq!(port(line.as_bytes()), None, "{line}");
        }
        assert_eq!(port(b"CONNECT \xff"), None);
    }
}
