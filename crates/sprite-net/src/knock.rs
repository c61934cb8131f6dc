//! Packets that come for machines that sleep, on connections that those opened.
//!
//! Nobody opens connections to a machine through its network, but what it connected to may go on talking while the
//! machine sleeps. The host's table tells such packets to a log group of netfilter, and one socket for all machines
//! listens to it: a machine that sleeps costs an address in a set.
//!
//! Source: `linux/netfilter/nfnetlink_log.h`.

use std::io;
use std::net::Ipv4Addr;

use sprite_types::InstanceId;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::address::{Subnet, instance_number};
use crate::error::NetError;
use crate::netlink::{Family, Message, Refused, Reply, Socket, address, attribute};
use crate::nft::SNAPLEN;
use crate::slot::SlotId;

/// `NFNL_SUBSYS_ULOG << 8`, with `NFULNL_MSG_PACKET` and `NFULNL_MSG_CONFIG`.
const PACKET: u16 = 4 << 8;
const CONFIG: u16 = 4 << 8 | 1;
const CONFIG_COMMAND: u16 = 1;
const CONFIG_MODE: u16 = 2;
const COMMAND_BIND: u8 = 1;
const COPY_PACKET: u8 = 2;
const PAYLOAD: u16 = 9;
/// `struct nfgenmsg`.
const HEADER: usize = 4;
/// Of an IPv4 header.
const DESTINATION: usize = 16;

/// Groups that are tried: each has one listener on the host.
const ATTEMPTS: u16 = 64;

/// The listener.
#[derive(Debug)]
pub(crate) struct Knocks {
    socket: AsyncFd<Socket>,
    /// Which group it has.
    pub(crate) group: u16,
}

impl Knocks {
    /// Begins to listen, to the first group that is free. Within a runtime, on a thread in the host's namespace.
    pub(crate) fn begin(instance: &InstanceId) -> Result<Self, NetError> {
        let step =
            |error: io::Error| NetError::step("listen for packets to machines that sleep")(error);
        let [low, high, ..] = instance_number(instance).to_le_bytes();
        let first = u16::from_le_bytes([low, high]);
        let mut attempts = 0;
        loop {
            let group = first.wrapping_add(attempts);
            match bind(group) {
                Ok(socket) => {
                    // SAFETY: a `Socket` owns its file descriptor, which no method closes or replaces.
                    let socket =
                        unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
                    let socket = socket.map_err(|error| step(error.into()))?;
                    return Ok(Self { socket, group });
                }
                // Somebody else's.
                Err(error)
                    if attempts < ATTEMPTS
                        && matches!(
                            error.raw_os_error(),
                            Some(libc::EPERM | libc::EBUSY | libc::EEXIST)
                        ) =>
                {
                    attempts += 1;
                }
                Err(error) => return Err(step(error)),
            }
        }
    }

    /// For whom packets came since the last call; waits until there are some. May name slots that do not sleep, and
    /// names none that none came for. Under a flood some are not told; they come again.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn next(&self, subnet: Subnet) -> io::Result<Vec<SlotId>> {
        let read = |socket: &Socket| {
            let mut slots = Vec::new();
            socket.told(|reply| {
                if let Some(slot) = slot_of(reply, subnet)
                    && !slots.contains(&slot)
                {
                    slots.push(slot);
                }
            })?;
            Ok(slots)
        };
        self.socket.async_io(Interest::READABLE, read).await
    }
}

fn bind(group: u16) -> io::Result<Socket> {
    let mut socket = Socket::subscribe(Family::Netfilter, 0)?;
    let [high, low] = group.to_be_bytes();
    let config = || Message::new(CONFIG, 0, &[0, 0, high, low]);
    let mode = [SNAPLEN.to_be_bytes(), [COPY_PACKET, 0, 0, 0]].concat();
    // The kernel has answered when the request is sent, so that a socket which does not block is as good.
    for message in [
        config().attr(CONFIG_COMMAND, &[COMMAND_BIND]),
        config().attr(CONFIG_MODE, &mode[..6]),
    ] {
        socket
            .transact(vec![message])
            .map_err(|Refused { source, .. }| source)?;
    }
    Ok(socket)
}

/// Whose packet was told.
fn slot_of(reply: Reply<'_>, subnet: Subnet) -> Option<SlotId> {
    if reply.kind != PACKET {
        return None;
    }
    let packet = attribute(reply.payload.get(HEADER..)?, PAYLOAD)?;
    let destination: Ipv4Addr = address(packet.get(DESTINATION..)?)?;
    subnet.slot_of(destination)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::replies;

    #[test]
    fn a_packet_is_of_the_slot_that_it_is_for() {
        let subnet = Subnet::new(Ipv4Addr::new(100, 64, 16, 0), 20);
        let told = |kind: u16, to: Ipv4Addr, bytes: usize| {
            let mut header = [0x45; 20];
            header[DESTINATION..].copy_from_slice(&to.octets());
            let message = Message::new(kind, 0, &[2, 0, 0, 7]).attr(PAYLOAD, &header[..bytes]);
            let message = message.finish(0, 0);
            let reply = replies(&message).next().expect("a message");
            slot_of(reply, subnet).map(SlotId::number)
        };
        let inside = Ipv4Addr::new(100, 64, 16, 9);
        assert_eq!(told(PACKET, inside, 20), Some(9));
        assert_eq!(told(PACKET, Ipv4Addr::new(100, 64, 32, 9), 20), None);
        assert_eq!(told(PACKET, Ipv4Addr::new(100, 64, 16, 1), 20), None);
        assert_eq!(told(PACKET, inside, 19), None);
        assert_eq!(told(CONFIG, inside, 20), None);
    }
}
