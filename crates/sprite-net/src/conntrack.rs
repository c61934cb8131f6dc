//! Connections that a machine has to the outside, as its router knows them.
//!
//! Source: `linux/netfilter/nfnetlink_conntrack.h`.

use std::io;

use crate::netlink::{Family, Message, Reply, Socket, attribute, big_endian};

/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET`.
const GET: u16 = 1 << 8 | 1;
/// `struct nfgenmsg`: IPv4, version 0, no resource.
const HEADER: [u8; 4] = [2, 0, 0, 0];
const TUPLE: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const PROTOCOL_NUMBER: u16 = 1;
const STATUS: u16 = 3;
const PROTOCOL_INFO: u16 = 4;
const TCP_INFO: u16 = 1;
const TCP_STATE: u16 = 1;

const TCP: u8 = 6;
/// `TCP_CONNTRACK_ESTABLISHED`.
const ESTABLISHED: u8 = 3;
/// `IPS_ASSURED`: both sides spoke, and more than once.
const ASSURED: u32 = 1 << 2;

/// Whether anything in the router of the calling thread's namespace is a connection that may go on.
pub(crate) fn any() -> io::Result<bool> {
    let request = Message::new(GET, 0, &HEADER);
    let lasting =
        Socket::open(Family::Netfilter)?.dump(&request, |reply| lasts(reply).then_some(()))?;
    Ok(!lasting.is_empty())
}

fn lasts(reply: Reply<'_>) -> bool {
    let Some(entry) = reply.payload.get(HEADER.len()..) else {
        return false;
    };
    let nested = |path: &[u16]| {
        path.iter()
            .try_fold(entry, |bytes, kind| attribute(bytes, *kind))
    };
    let first = |path: &[u16]| nested(path).and_then(|bytes| bytes.first().copied());
    if first(&[TUPLE, TUPLE_PROTOCOL, PROTOCOL_NUMBER]) == Some(TCP) {
        return first(&[PROTOCOL_INFO, TCP_INFO, TCP_STATE]) == Some(ESTABLISHED);
    }
    nested(&[STATUS])
        .and_then(big_endian)
        .is_some_and(|status| status & ASSURED != 0)
}
