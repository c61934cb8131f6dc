//! Rules as the kernel sees them: a list of expressions over registers.
//!
//! Each function adds the expressions of one condition or verdict; the names follow nft(8). Only one register
//! is used, because every condition is a load followed by a comparison.
//!
//! Source: `linux/netfilter/nf_tables.h`. No permissively licensed crate encodes nf_tables without a C library.

use std::net::Ipv4Addr;

use crate::netlink::Message;

const LIST_ELEM: u16 = 1;
const EXPR_NAME: u16 = 1;
const EXPR_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
/// `NFT_REG_VERDICT` and `NFT_REG_1` (16 bytes).
const VERDICT_REGISTER: u32 = 0;
const REGISTER: u32 = 1;

/// A rule's expressions, in order.
#[derive(Debug)]
pub(crate) struct Rule(Message);

/// By which interface a packet came or goes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Side {
    In,
    Out,
}

/// Which address of a packet.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    Source,
    Destination,
}

/// Equal or not.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Is {
    Equal,
    Unequal,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Transport {
    Icmp,
    Tcp,
    Udp,
}

/// Bits of a connection's state, as `ct state` has them. Source: `NF_CT_STATE_BIT` in
/// `linux/netfilter/nf_conntrack_common.h`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConnectionState(u32);

impl ConnectionState {
    pub(crate) const ESTABLISHED: Self = Self(0b10);
    pub(crate) const ESTABLISHED_OR_RELATED: Self = Self(0b110);
    pub(crate) const NEW: Self = Self(0b1000);
}

/// How a packet is refused so that its sender learns it at once.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Refusal {
    TcpReset,
    /// ICMP "communication administratively prohibited".
    Prohibited,
}

impl Rule {
    /// `fill` adds the conditions and the verdict to the message that creates the rule.
    pub(super) fn write(
        message: Message,
        attribute: u16,
        fill: impl FnOnce(Self) -> Self,
    ) -> Message {
        message.nest(attribute, |list| fill(Self(list)).0)
    }

    fn expression(self, name: &str, fill: impl FnOnce(Message) -> Message) -> Self {
        Self(self.0.nest(LIST_ELEM, |element| {
            element.text(EXPR_NAME, name).nest(EXPR_DATA, fill)
        }))
    }

    fn compare(self, is: Is, value: &[u8]) -> Self {
        let operator = match is {
            Is::Equal => 0,
            Is::Unequal => 1,
        };
        self.expression("cmp", |data| {
            data.big_endian(1, REGISTER)
                .big_endian(2, operator)
                .nest(3, |operand| operand.attr(DATA_VALUE, value))
        })
    }

    fn meta(self, key: libc::c_int) -> Self {
        self.expression("meta", |data| {
            data.big_endian(1, REGISTER)
                .big_endian(2, key.cast_unsigned())
        })
    }

    fn payload(self, base: libc::c_int, offset: u32, length: u32) -> Self {
        self.expression("payload", |data| {
            data.big_endian(1, REGISTER)
                .big_endian(2, base.cast_unsigned())
                .big_endian(3, offset)
                .big_endian(4, length)
        })
    }

    fn interface_bytes(self, side: Side, is: Is, bytes: &[u8]) -> Self {
        let key = match side {
            Side::In => libc::NFT_META_IIFNAME,
            Side::Out => libc::NFT_META_OIFNAME,
        };
        self.meta(key).compare(is, bytes)
    }

    /// `iifname "NAME"` or `oifname "NAME"`.
    pub(crate) fn interface(self, side: Side, is: Is, name: &str) -> Self {
        let mut padded = [0; libc::IFNAMSIZ];
        padded[..name.len()].copy_from_slice(name.as_bytes());
        self.interface_bytes(side, is, &padded)
    }

    /// `iifname "PREFIX*"` or `oifname "PREFIX*"`: only the first bytes are compared.
    pub(crate) fn interface_prefix(self, side: Side, is: Is, prefix: &str) -> Self {
        self.interface_bytes(side, is, prefix.as_bytes())
    }

    /// `meta nfproto ipv4`, or everything but that.
    pub(crate) fn ipv4(self, is: Is) -> Self {
        // The key's value is one byte.
        self.meta(libc::NFT_META_NFPROTO).compare(is, &[2])
    }

    /// `meta l4proto …`.
    pub(crate) fn transport(self, transport: Transport) -> Self {
        let number = match transport {
            Transport::Icmp => 1,
            Transport::Tcp => 6,
            Transport::Udp => 17,
        };
        self.meta(libc::NFT_META_L4PROTO)
            .compare(Is::Equal, &[number])
    }

    /// `tcp dport` or `udp dport`, after [`Rule::transport`].
    pub(crate) fn destination_port(self, port: u16) -> Self {
        self.payload(libc::NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2)
            .compare(Is::Equal, &port.to_be_bytes())
    }

    /// `icmp type echo-request`, after [`Rule::transport`].
    pub(crate) fn echo_request(self) -> Self {
        self.payload(libc::NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1)
            .compare(Is::Equal, &[8])
    }

    fn load_address(self, end: End) -> Self {
        let offset = match end {
            End::Source => 12,
            End::Destination => 16,
        };
        self.payload(libc::NFT_PAYLOAD_NETWORK_HEADER, offset, 4)
    }

    /// `ip saddr IP` or `ip daddr IP`.
    pub(crate) fn address(self, end: End, is: Is, ip: Ipv4Addr) -> Self {
        self.load_address(end).compare(is, &ip.octets())
    }

    /// `ip saddr SUBNET` or `ip daddr SUBNET`.
    pub(crate) fn subnet(self, end: End, is: Is, subnet: crate::address::Subnet) -> Self {
        let mask = subnet.first().to_bits() ^ subnet.last().to_bits() ^ u32::MAX;
        self.load_address(end)
            .mask(&mask.to_be_bytes())
            .compare(is, &subnet.first().octets())
    }

    fn mask(self, mask: &[u8; 4]) -> Self {
        self.expression("bitwise", |data| {
            data.big_endian(1, REGISTER)
                .big_endian(2, REGISTER)
                .big_endian(3, 4)
                .nest(4, |operand| operand.attr(DATA_VALUE, mask))
                .nest(5, |operand| operand.attr(DATA_VALUE, &[0; 4]))
        })
    }

    /// `ip saddr @SET` or `ip daddr @SET`.
    pub(crate) fn address_in(self, end: End, set: &str) -> Self {
        self.load_address(end)
            .expression("lookup", |data| data.text(1, set).big_endian(2, REGISTER))
    }

    /// `ct state …`: any of the bits.
    pub(crate) fn connection(self, state: ConnectionState) -> Self {
        self.expression("ct", |data| data.big_endian(1, REGISTER).big_endian(2, 0))
            .mask(&state.0.to_ne_bytes())
            .compare(Is::Unequal, &[0; 4])
    }

    /// `ct count over MOST`: in a rule of new connections, true for those above the limit.
    pub(crate) fn more_connections_than(self, most: u32) -> Self {
        let inverted = 1;
        self.expression("connlimit", |data| {
            data.big_endian(1, most).big_endian(2, inverted)
        })
    }

    /// `limit rate MOST/second`: true for so many packets of all that come to this rule.
    pub(crate) fn at_most_each_second(self, most: u32) -> Self {
        self.expression("limit", |data| {
            data.big_endian_64(1, most.into())
                .big_endian_64(2, 1)
                .big_endian(3, most)
        })
    }

    /// `log group GROUP snaplen BYTES`: the first bytes of the packet are sent to whoever is bound to the group, at
    /// once. The packet goes on to the next rule.
    pub(crate) fn tell(self, group: u16, bytes: u32) -> Self {
        self.expression("log", |data| {
            data.attr(1, &group.to_be_bytes())
                .big_endian(3, bytes)
                .attr(4, &1_u16.to_be_bytes())
        })
    }

    fn verdict(self, code: i32) -> Self {
        self.expression("immediate", |data| {
            data.big_endian(1, VERDICT_REGISTER).nest(2, |value| {
                value.nest(DATA_VERDICT, |verdict| {
                    verdict.big_endian(VERDICT_CODE, code.cast_unsigned())
                })
            })
        })
    }

    /// `drop`.
    pub(crate) fn drop(self) -> Self {
        self.verdict(libc::NF_DROP)
    }

    /// `accept`.
    pub(crate) fn accept(self) -> Self {
        self.verdict(libc::NF_ACCEPT)
    }

    /// `reject with …`. In a table of family `ip`.
    pub(crate) fn reject(self, refusal: Refusal) -> Self {
        let (kind, code) = match refusal {
            Refusal::TcpReset => (1, 0),
            Refusal::Prohibited => (0, 13),
        };
        self.expression("reject", |data| data.big_endian(1, kind).attr(2, &[code]))
    }

    /// `snat to IP`. In a table of family `ip`.
    pub(crate) fn source_nat(self, ip: Ipv4Addr) -> Self {
        self.expression("immediate", |data| {
            data.big_endian(1, REGISTER)
                .nest(2, |value| value.attr(DATA_VALUE, &ip.octets()))
        })
        .expression("nat", |data| {
            let source = 0;
            data.big_endian(1, source)
                .big_endian(2, libc::NFPROTO_IPV4.cast_unsigned())
                .big_endian(3, REGISTER)
        })
    }

    /// `masquerade fully-random`: under whichever address the host has towards there, and a random port.
    ///
    /// Machines have the same address, so the kernel gives them the same source ports in the same order. Two
    /// that connect to one server at the same moment would then be given one outside port, and the kernel drops
    /// the packet of the one that comes second.
    pub(crate) fn masquerade(self) -> Self {
        // `NF_NAT_RANGE_PROTO_RANDOM_FULLY` of `linux/netfilter/nf_nat.h`.
        let fully_random = 1 << 4;
        self.expression("masq", |data| data.big_endian(1, fully_random))
    }
}
