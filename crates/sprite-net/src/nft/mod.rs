//! nf_tables: what may pass, and under which address.
//!
//! A rule set is one [`Batch`], done whole or not at all, in the namespace of the calling thread.

mod expression;
mod host;
mod look;
mod router;

use std::io;
use std::net::Ipv4Addr;

use crate::address::Subnet;
use crate::netlink::{Family, Message, Refused, Socket};
use expression::Rule;

pub(crate) use host::{
    SNAPLEN, add_sleeper, host_table_name, install_host_table, instance_of_table,
    remove_host_table, remove_sleeper,
};
pub(crate) use look::{BaseChain, Hook, Policy, TableEvent, chains, table_event, tables};
pub(crate) use router::{egress_of_namespace, install_router_table, set_egress};

/// Family of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TableFamily {
    /// IPv4 and IPv6.
    Inet,
    /// IPv4.
    Ip,
}

impl TableFamily {
    fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Ip => 2,
        }
    }
}

/// Where a base chain stands. The numbers are `NF_INET_*` of `linux/netfilter.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Input,
    Forward,
    /// After routing: where source addresses are translated.
    PostroutingNat,
}

/// What happens to a packet that no rule of the chain decided about.
#[derive(Debug, Clone, Copy)]
enum Otherwise {
    Accept,
    Drop,
}

/// Type of a message of nf_tables.
fn kind(message: libc::c_int) -> u16 {
    // `NFNL_SUBSYS_NFTABLES << 8 | message`, both below 256.
    u16::from_be_bytes([
        10,
        u8::try_from(message).expect("nf_tables has fewer than 256 messages"),
    ])
}

/// `struct nfgenmsg`: family, version 0, resource id (big endian).
fn generic_header(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
/// `NFNL_MSG_BATCH_BEGIN`, `NFNL_MSG_BATCH_END`; their resource id is the subsystem.
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const SUBSYSTEM: u16 = 10;

/// Messages for one table that take effect together.
#[derive(Debug)]
struct Batch {
    family: TableFamily,
    table: String,
    messages: Vec<Message>,
}

impl Batch {
    fn new(family: TableFamily, table: &str) -> Self {
        let begin = Message::new(BATCH_BEGIN, 0, &generic_header(0, SUBSYSTEM));
        Self {
            family,
            table: table.to_owned(),
            messages: vec![begin],
        }
    }

    fn push(
        &mut self,
        message: libc::c_int,
        flags: u16,
        fill: impl FnOnce(Message, &str) -> Message,
    ) {
        let header = generic_header(self.family.number(), 0);
        let message = Message::new(kind(message), flags, &header);
        self.messages.push(fill(message, &self.table));
    }

    /// Creates the table if it is not there.
    fn table(&mut self) {
        self.push(libc::NFT_MSG_NEWTABLE, CREATE, |m, table| m.text(1, table));
    }

    /// Deletes the table with all that is in it.
    fn delete_table(&mut self) {
        self.push(libc::NFT_MSG_DELTABLE, 0, |m, table| m.text(1, table));
    }

    fn chain(&mut self, name: &str, at: At, otherwise: Otherwise) {
        let (hook, priority, kind) = match at {
            // Before the customary 0, so that an `accept` of someone else's table is not needed first.
            At::Input => (1, -10_i32, "filter"),
            At::Forward => (2, -10, "filter"),
            At::PostroutingNat => (4, 100, "nat"),
        };
        let policy = match otherwise {
            Otherwise::Accept => libc::NF_ACCEPT,
            Otherwise::Drop => libc::NF_DROP,
        };
        self.push(libc::NFT_MSG_NEWCHAIN, CREATE, |m, table| {
            m.text(1, table)
                .text(3, name)
                .nest(4, |m| {
                    m.big_endian(1, hook)
                        .big_endian(2, priority.cast_unsigned())
                })
                .big_endian(5, policy.cast_unsigned())
                .text(7, kind)
        });
    }

    fn rule(&mut self, chain: &str, fill: impl FnOnce(Rule) -> Rule) {
        let expressions = 4;
        self.push(libc::NFT_MSG_NEWRULE, CREATE | APPEND, |m, table| {
            Rule::write(m.text(1, table).text(2, chain), expressions, fill)
        });
    }

    /// A fixed set of address ranges, in ascending order and without overlaps.
    fn set(&mut self, name: &str, ranges: &[Subnet]) {
        // `NFT_SET_CONSTANT | NFT_SET_INTERVAL`; type 7 is nft's number of `ipv4_addr`; the user data tells
        // nft(8) that keys are big endian, for its listing.
        let (flags, key_type, id) = (0x2 | 0x4, 7, 1);
        self.push(libc::NFT_MSG_NEWSET, CREATE, |m, table| {
            m.text(1, table)
                .text(2, name)
                .big_endian(3, flags)
                .big_endian(4, key_type)
                .big_endian(5, 4)
                .big_endian(10, id)
                .attr(13, &[0, 4, 2, 0, 0, 0])
        });
        self.push(libc::NFT_MSG_NEWSETELEM, CREATE, |m, table| {
            m.text(1, table)
                .text(2, name)
                .big_endian(4, id)
                .nest(3, |list| {
                    ranges.iter().fold(list, |list, range| {
                        let list = element(list, range.first(), 0);
                        // `NFT_SET_ELEM_INTERVAL_END` is the first address behind; the last range has none.
                        match range.last().to_bits().checked_add(1) {
                            Some(end) => element(list, end.into(), 1),
                            None => list,
                        }
                    })
                })
        });
    }

    /// An empty set of addresses, which come and go.
    fn addresses(&mut self, name: &str) {
        let (key_type, id) = (7, 2);
        self.push(libc::NFT_MSG_NEWSET, CREATE, |m, table| {
            m.text(1, table)
                .text(2, name)
                .big_endian(3, 0)
                .big_endian(4, key_type)
                .big_endian(5, 4)
                .big_endian(10, id)
                .attr(13, &[0, 4, 2, 0, 0, 0])
        });
    }

    /// Adds addresses to a set; those that are in it stay.
    fn add_addresses(&mut self, name: &str, addresses: &[Ipv4Addr]) {
        self.push(libc::NFT_MSG_NEWSETELEM, CREATE, |m, table| {
            listed(m.text(1, table).text(2, name), addresses)
        });
    }

    /// Takes an address out of a set; it must be in it.
    fn remove_address(&mut self, name: &str, address: Ipv4Addr) {
        self.push(libc::NFT_MSG_DELSETELEM, 0, |m, table| {
            listed(m.text(1, table).text(2, name), &[address])
        });
    }

    /// Sends the batch; the kernel takes all of it or nothing.
    fn commit(self) -> io::Result<()> {
        self.commit_over(&mut Socket::open(Family::Netfilter)?)
    }

    fn commit_over(mut self, socket: &mut Socket) -> io::Result<()> {
        self.messages
            .push(Message::new(BATCH_END, 0, &generic_header(0, SUBSYSTEM)));
        let table = self.table;
        socket
            .transact_batch(self.messages)
            .map_err(|Refused { index, source }| {
                tracing::debug!(table, index, error = %source, "nf_tables refused a message");
                source
            })
    }
}

/// Changes for which somebody waits, one after the other in one namespace: they share a socket. The kernel closes one
/// only when all that was removed before is nobody's any more, ten milliseconds later.
/// Source: `nft_rcv_nl_event` in net/netfilter/nf_tables_api.c.
#[derive(Debug, Default)]
pub(crate) struct Changes(Option<Socket>);

impl Changes {
    fn commit(&mut self, batch: Batch) -> io::Result<()> {
        let mut socket = match self.0.take() {
            Some(socket) => socket,
            None => Socket::open(Family::Netfilter)?,
        };
        batch.commit_over(&mut socket)?;
        // After a refusal more answers may come.
        self.0 = Some(socket);
        Ok(())
    }
}

fn listed(message: Message, addresses: &[Ipv4Addr]) -> Message {
    message.nest(3, |list| {
        addresses
            .iter()
            .fold(list, |list, address| element(list, *address, 0))
    })
}

fn element(list: Message, key: Ipv4Addr, flags: u32) -> Message {
    let interval_end = |m: Message| {
        if flags == 0 {
            m
        } else {
            m.big_endian(3, flags)
        }
    };
    list.nest(1, |m| {
        interval_end(m.nest(1, |key_data| key_data.address(1, key)))
    })
}
