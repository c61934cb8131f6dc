//! Reading what is in nf_tables, ours and others'.

use std::io;

use super::{TableFamily, generic_header, kind};
use crate::netlink::{Family, Message, Reply, Socket, attribute, big_endian, text};

/// Where a chain of anyone's stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hook {
    Forward,
    Other,
}

/// What a base chain does with what none of its rules decided about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    Accept,
    Drop,
}

/// A chain as far as we look at it; `base` is missing for those that are only jumped to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BaseChain {
    pub(crate) family: u8,
    pub(crate) table: String,
    pub(crate) name: String,
    pub(crate) base: Option<(Hook, Policy)>,
}

impl BaseChain {
    /// The family as nft(8) writes it.
    pub(crate) fn family_name(&self) -> &'static str {
        match self.family {
            1 => "inet",
            2 => "ip",
            3 => "arp",
            5 => "netdev",
            7 => "bridge",
            10 => "ip6",
            _unknown => "?",
        }
    }
}

/// Names of all tables of a family.
pub(crate) fn tables(family: TableFamily) -> io::Result<Vec<String>> {
    let request = Message::new(
        kind(libc::NFT_MSG_GETTABLE),
        0,
        &generic_header(family.number(), 0),
    );
    Socket::open(Family::Netfilter)?.dump(&request, |reply| {
        Some(text(attribute(reply.payload.get(4..)?, 1)?))
    })
}

/// All chains of all tables.
pub(crate) fn chains() -> io::Result<Vec<BaseChain>> {
    let request = Message::new(kind(libc::NFT_MSG_GETCHAIN), 0, &generic_header(0, 0));
    Socket::open(Family::Netfilter)?.dump(&request, |reply| parse_chain(reply.payload))
}

fn parse_chain(payload: &[u8]) -> Option<BaseChain> {
    let family = *payload.first()?;
    let rest = payload.get(4..)?;
    let base = attribute(rest, 4).map(|hook| {
        // `NF_INET_FORWARD` is 2 in all families that have it.
        let forward = attribute(hook, 1).and_then(big_endian) == Some(2);
        let drops = attribute(rest, 5).and_then(big_endian) == Some(0);
        (
            if forward { Hook::Forward } else { Hook::Other },
            if drops { Policy::Drop } else { Policy::Accept },
        )
    });
    Some(BaseChain {
        family,
        table: text(attribute(rest, 1)?),
        name: text(attribute(rest, 3)?),
        base,
    })
}

/// What a change of someone's is to us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TableEvent {
    /// This table was deleted.
    Deleted(String),
    /// Nothing that concerns us.
    Other,
}

/// Reads a notification.
pub(crate) fn table_event(reply: Reply<'_>) -> TableEvent {
    let name = || Some(text(attribute(reply.payload.get(4..)?, 1)?));
    if reply.kind == kind(libc::NFT_MSG_DELTABLE) {
        name().map_or(TableEvent::Other, TableEvent::Deleted)
    } else {
        TableEvent::Other
    }
}
