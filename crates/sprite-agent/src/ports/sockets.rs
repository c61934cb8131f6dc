//! The kernel's listening sockets, by its socket diagnostics.
//!
//! Source: include/uapi/linux/sock_diag.h, inet_diag.h, netlink.h; net/ipv4/tcp_states.h.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const DUMP: u16 = 0x301;
const TCP: u8 = 6;
const TCP_LISTEN: u8 = 10;

/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Bytes of `struct inet_diag_req_v2`.
const REQUEST: usize = 56;
/// Bytes of `struct inet_diag_msg`.
const MESSAGE: usize = 72;

/// What the kernel lays into one answer at most.
const ANSWER: usize = 32 << 10;

/// A socket that listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Socket {
    pub(super) port: u16,
    pub(super) address: IpAddr,
    pub(super) inode: u64,
}

/// Tells every TCP socket of this network namespace that listens, until `each` has enough.
pub(super) fn listening(each: &mut dyn FnMut(Socket) -> bool) -> io::Result<()> {
    for family in [libc::AF_INET, libc::AF_INET6] {
        // A socket for each question: one that was not heard to its end is closed with its answer.
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let protocol = Some(netlink::SOCK_DIAG);
        let socket =
            rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
        let family = u8::try_from(family).expect("families are small");
        rustix::net::send(&socket, &request(family), SendFlags::empty())?;
        if hear(&socket, each)? == Heard::Enough {
            return Ok(());
        }
    }
    Ok(())
}

fn request(family: u8) -> [u8; HEADER + REQUEST] {
    let mut bytes = [0; HEADER + REQUEST];
    let length = u32::try_from(bytes.len()).expect("it is short");
    bytes[0..4].copy_from_slice(&length.to_ne_bytes());
    bytes[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes[6..8].copy_from_slice(&DUMP.to_ne_bytes());
    bytes[HEADER] = family;
    bytes[HEADER + 1] = TCP;
    let states: u32 = 1 << TCP_LISTEN;
    bytes[HEADER + 4..HEADER + 8].copy_from_slice(&states.to_ne_bytes());
    bytes
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    More,
    All,
    Enough,
}

/// The kernel makes each piece of its answer when the one before it is taken, so there is nothing to wait for.
fn hear(socket: &OwnedFd, each: &mut dyn FnMut(Socket) -> bool) -> io::Result<Heard> {
    let mut buffer = vec![0; ANSWER];
    loop {
        let (read, _) = rustix::net::recv(socket, &mut buffer[..], RecvFlags::empty())?;
        match take(buffer.get(..read).unwrap_or_default(), each)? {
            Heard::More => {}
            heard @ (Heard::All | Heard::Enough) => return Ok(heard),
        }
    }
}

fn cut() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "the kernel's answer is cut short",
    )
}

/// The sockets in one piece of the answer.
fn take(mut rest: &[u8], each: &mut dyn FnMut(Socket) -> bool) -> io::Result<Heard> {
    while let Some(header) = rest.first_chunk::<HEADER>() {
        let [a, b, c, d, e, f, ..] = *header;
        let length = u32::from_ne_bytes([a, b, c, d]) as usize;
        let body = rest.get(HEADER..length).ok_or_else(cut)?;
        match u16::from_ne_bytes([e, f]) {
            NLMSG_DONE => return Ok(Heard::All),
            NLMSG_ERROR => {
                let number = body.first_chunk::<4>().ok_or_else(cut)?;
                return Err(io::Error::from_raw_os_error(
                    i32::from_ne_bytes(*number).saturating_neg(),
                ));
            }
            SOCK_DIAG_BY_FAMILY => {
                let message = body.first_chunk::<MESSAGE>().ok_or_else(cut)?;
                if let Some(socket) = socket(message)
                    && !each(socket)
                {
                    return Ok(Heard::Enough);
                }
            }
            _ => {}
        }
        // Messages begin at multiples of four.
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(Heard::More)
}

fn socket(message: &[u8; MESSAGE]) -> Option<Socket> {
    let [family, state, ..] = *message;
    let port = u16::from_be_bytes([message[4], message[5]]);
    let address = *message[8..].first_chunk::<16>()?;
    let inode = u32::from_ne_bytes(*message[68..].first_chunk::<4>()?);
    let [a, b, c, d, ..] = address;
    let address: IpAddr = match i32::from(family) {
        libc::AF_INET => Ipv4Addr::new(a, b, c, d).into(),
        libc::AF_INET6 => IpAddr::from(Ipv6Addr::from(address)).to_canonical(),
        _ => return None,
    };
    (state == TCP_LISTEN && port != 0).then_some(Socket {
        port,
        address,
        inode: inode.into(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sockets_of_both_families_are_found() {
        let here = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let sixth = std::net::TcpListener::bind("[::1]:0").ok();
        let mut found = Vec::new();
        listening(&mut |socket| {
            found.push((socket.address, socket.port));
            true
        })
        .expect("the kernel answers");
        for listener in [Some(here), sixth].into_iter().flatten() {
            let address = listener.local_addr().expect("it is bound");
            assert!(found.contains(&(address.ip(), address.port())), "{address}");
        }
    }

    #[test]
    fn enough_is_enough() {
        let _listeners: Vec<_> = (0..3)
            .map(|_| std::net::TcpListener::bind("127.0.0.1:0").expect("a port"))
            .collect();
        let mut count = 0;
        let mut two = |_| {
            count += 1;
            count < 2
        };
        listening(&mut two).expect("the kernel answers");
        assert_eq!(count, 2);
    }

    proptest! {
        #[test]
        fn no_answer_is_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..300), length in 0_u8..100) {
            let mut bytes = bytes;
            if let Some(head) = bytes.first_chunk_mut::<6>() {
                *head = [length, 0, 0, 0, 20, 0];
            }
            let _ = take(&bytes, &mut |_| true);
        }
    }
}
