//! A netlink socket.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::sockopt::{Timeout, set_socket_recv_buffer_size, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with,
};

use super::message::{Message, Reply, replies, u32_at};

/// `NLMSG_ERROR`: an answer of success (0) or failure (a negated errno).
const ERROR: u16 = 2;
/// `NLMSG_DONE`: the end of a dump.
const DONE: u16 = 3;
const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const DUMP: u16 = 0x300;
/// `NLM_F_DUMP_INTR`: the tables changed during the dump, which may therefore lack entries.
const DUMP_INTERRUPTED: u16 = 0x10;
/// The kernel cuts dumps into datagrams of at most 32 KiB. Source: `netlink_dump` in `net/netlink/af_netlink.c`.
const DATAGRAM: usize = 32 << 10;
/// The kernel answers before `send` returns; this only turns an impossible wait into an error.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a dump that changes took apart is begun again.
const DUMP_ATTEMPTS: usize = 16;

/// Which part of the kernel a socket speaks with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// Links, addresses, routes, neighbours.
    Route,
    /// nf_tables.
    Netfilter,
}

/// The request that the kernel refused, as an index into what was sent, and why.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) index: usize,
    pub(crate) source: io::Error,
}

impl<E: Into<io::Error>> From<E> for Refused {
    /// Not a refusal of one request: the socket itself failed.
    fn from(source: E) -> Self {
        Self {
            index: 0,
            source: source.into(),
        }
    }
}

/// A socket in the namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl Socket {
    /// Opens a socket in the network namespace where the calling thread stands.
    pub(crate) fn open(family: Family) -> io::Result<Self> {
        Self::open_in_groups(family, 0)
    }

    /// Like [`Socket::open`]; also told of changes, for [`Socket::await_change`].
    pub(crate) fn open_in_groups(family: Family, groups: u32) -> io::Result<Self> {
        let socket = Self::listening(family, groups, SocketFlags::CLOEXEC)?;
        set_socket_timeout(&socket.fd, Timeout::Recv, Some(PATIENCE))?;
        Ok(socket)
    }

    /// Opens a socket that is told of changes: `groups` is a bit set of multicast groups. Non-blocking.
    pub(crate) fn subscribe(family: Family, groups: u32) -> io::Result<Self> {
        let socket = Self::listening(family, groups, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
        // Bursts (a rule set of thousands of rules) are told as lost; a larger buffer makes that rarer.
        set_socket_recv_buffer_size(&socket.fd, 1 << 20)?;
        Ok(socket)
    }

    fn listening(family: Family, groups: u32, flags: SocketFlags) -> io::Result<Self> {
        let protocol = match family {
            Family::Route => None,
            Family::Netfilter => Some(netlink::NETFILTER),
        };
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
        bind(&fd, &SocketAddrNetlink::new(0, groups))?;
        Ok(Self { fd, sequence: 0 })
    }

    fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// Sends all `messages` at once and waits for the answer to each. Where one is refused the kernel still
    /// does those behind it (nf_tables: none of the batch); the first refusal is returned.
    pub(crate) fn transact(&mut self, messages: Vec<Message>) -> Result<(), Refused> {
        let first = self.sequence.wrapping_add(1);
        let count = messages.len();
        let mut bytes = Vec::with_capacity(4096);
        for message in messages {
            let sequence = self.next_sequence();
            bytes.extend_from_slice(&message.finish(sequence, REQUEST | ACK));
        }
        send(&self.fd, &bytes, SendFlags::empty())?;
        let mut refused: Option<Refused> = None;
        let mut answered = 0;
        let mut buffer = vec![0; DATAGRAM];
        while answered < count {
            let (_, length) = recv(&self.fd, &mut buffer[..], RecvFlags::TRUNC)?;
            for reply in replies(&buffer[..length.min(DATAGRAM)]) {
                if reply.kind != ERROR {
                    continue;
                }
                answered += 1;
                let index = usize::try_from(reply.sequence.wrapping_sub(first))
                    .expect("a sequence number fits into usize on 64-bit hosts");
                let earlier = refused.as_ref().is_none_or(|seen| index < seen.index);
                if let (Some(source), true) = (failure(&reply), earlier) {
                    refused = Some(Refused {
                        index: index.min(count - 1),
                        source,
                    });
                }
            }
        }
        refused.map_or(Ok(()), Err)
    }

    /// Sends one nf_tables batch, which is done whole or not at all.
    pub(crate) fn transact_batch(&mut self, messages: Vec<Message>) -> Result<(), Refused> {
        let first = self.sequence.wrapping_add(1);
        let last = messages.len() - 1;
        let mut bytes = Vec::with_capacity(16 << 10);
        for (index, message) in messages.into_iter().enumerate() {
            let sequence = self.next_sequence();
            // The message before the end marker is acknowledged only after the commit.
            let ack = if index + 1 == last { ACK } else { 0 };
            bytes.extend_from_slice(&message.finish(sequence, REQUEST | ack));
        }
        send(&self.fd, &bytes, SendFlags::empty())?;
        // The first answer decides: a refusal of any message, or the acknowledgement of all.
        let mut buffer = vec![0; DATAGRAM];
        let (_, length) = recv(&self.fd, &mut buffer[..], RecvFlags::TRUNC)?;
        let reply = replies(&buffer[..length.min(DATAGRAM)])
            .find(|reply| reply.kind == ERROR)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no answer to a batch"))?;
        let index = usize::try_from(reply.sequence.wrapping_sub(first))
            .expect("a sequence number fits into usize on 64-bit hosts");
        failure(&reply).map_or(Ok(()), |source| Err(Refused { index, source }))
    }

    /// Asks for one entry.
    pub(crate) fn ask<T>(
        &mut self,
        request: Message,
        parse: impl Fn(Reply<'_>) -> Option<T>,
    ) -> io::Result<T> {
        let sequence = self.next_sequence();
        send(
            &self.fd,
            &request.finish(sequence, REQUEST),
            SendFlags::empty(),
        )?;
        let mut buffer = vec![0; DATAGRAM];
        loop {
            let (_, length) = recv(&self.fd, &mut buffer[..], RecvFlags::TRUNC)?;
            let mut found = replies(&buffer[..length.min(DATAGRAM)]);
            if let Some(reply) = found.find(|reply| reply.sequence == sequence) {
                let refused = if reply.kind == ERROR {
                    failure(&reply)
                } else {
                    None
                };
                let cut = || io::Error::new(io::ErrorKind::InvalidData, "netlink entry cut short");
                return refused.map_or_else(|| parse(reply).ok_or_else(cut), Err);
            }
        }
    }

    /// Waits until anything changes in the groups of [`Socket::open_in_groups`].
    pub(crate) fn await_change(&mut self) -> io::Result<()> {
        recv(&self.fd, &mut vec![0; DATAGRAM][..], RecvFlags::TRUNC)?;
        Ok(())
    }

    /// Asks for a whole table and hands each entry to `each`.
    pub(crate) fn dump<T>(
        &mut self,
        request: &Message,
        mut each: impl FnMut(Reply<'_>) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        for _ in 0..DUMP_ATTEMPTS {
            let sequence = self.next_sequence();
            let bytes = request.clone().finish(sequence, REQUEST | DUMP);
            send(&self.fd, &bytes, SendFlags::empty())?;
            if let Some(entries) = self.collect(sequence, &mut each)? {
                return Ok(entries);
            }
        }
        Err(io::Error::new(
            io::ErrorKind::Interrupted,
            "the kernel's tables change all the time",
        ))
    }

    fn collect<T>(
        &mut self,
        sequence: u32,
        each: &mut impl FnMut(Reply<'_>) -> Option<T>,
    ) -> io::Result<Option<Vec<T>>> {
        let mut entries = Vec::new();
        let mut interrupted = false;
        let mut buffer = vec![0; DATAGRAM];
        loop {
            let (_, length) = recv(&self.fd, &mut buffer[..], RecvFlags::TRUNC)?;
            for reply in replies(&buffer[..length.min(DATAGRAM)]) {
                if reply.sequence != sequence {
                    continue;
                }
                interrupted |= reply.flags & DUMP_INTERRUPTED != 0;
                match reply.kind {
                    DONE => return Ok((!interrupted).then_some(entries)),
                    ERROR => return failure(&reply).map_or(Ok(Some(entries)), Err),
                    _entry => entries.extend(each(reply)),
                }
            }
        }
    }

    /// Reads what a subscription has to tell; false when something was lost because we were slow.
    ///
    /// # Errors
    /// `WouldBlock` when there is nothing.
    pub(crate) fn told(&self, mut each: impl FnMut(Reply<'_>)) -> io::Result<bool> {
        let mut buffer = vec![0; DATAGRAM];
        match recv(&self.fd, &mut buffer[..], RecvFlags::TRUNC) {
            Ok((_, length)) => {
                replies(&buffer[..length.min(DATAGRAM)]).for_each(&mut each);
                Ok(length <= DATAGRAM)
            }
            Err(rustix::io::Errno::NOBUFS) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl std::os::fd::AsRawFd for Socket {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.fd.as_raw_fd()
    }
}

/// What an answer says: nothing for success.
fn failure(reply: &Reply<'_>) -> Option<io::Error> {
    let Some(code) = u32_at(reply.payload, 0) else {
        return Some(io::Error::new(
            io::ErrorKind::InvalidData,
            "netlink answer cut short",
        ));
    };
    let errno = code.cast_signed().wrapping_neg();
    (errno != 0).then(|| io::Error::from_raw_os_error(errno))
}
