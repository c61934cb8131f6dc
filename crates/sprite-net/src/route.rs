//! Links, addresses, routes and neighbours: the rtnetlink messages that a slot needs, and what is read back.
//!
//! Source: rtnetlink(7), `linux/rtnetlink.h`, `linux/if_link.h`.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::address::Subnet;
use crate::name::is_ours;
use crate::netlink::{Message, Reply, Socket, address, attribute, attributes, text, u32_at};

/// Marks our routes, so that a person sees whose they are (`ip route show proto 83`). No other program of
/// `/etc/iproute2/rt_protos` has this number.
const PROTOCOL: u8 = 83;
/// `VETH_INFO_PEER` of `linux/veth.h`.
const VETH_INFO_PEER: u16 = 1;
/// `IPV4_DEVCONF_FORWARDING` of `linux/ip.h`, within `IFLA_INET_CONF`.
const INET_CONF: u16 = 1;
const DEVCONF_FORWARDING: u16 = 1;
/// `IFLA_INET6_ADDR_GEN_MODE` and its value `none`.
const INET6_ADDR_GEN_MODE: u16 = 8;
const ADDR_GEN_NONE: u8 = 1;

/// `NLM_F_CREATE | NLM_F_EXCL`: what is there already is an error.
const CREATE: u16 = 0x400 | 0x200;
/// `AF_INET` and `AF_INET6`, in the widths of their fields.
const INET: u8 = 2;
const INET6: u16 = 10;

/// A hardware address.
pub(crate) type Mac = [u8; 6];

/// The index of an interface in its namespace.
pub(crate) type Index = u32;

/// One end of a veth before it exists.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End<'a> {
    pub(crate) name: &'a str,
    pub(crate) mac: Mac,
    /// 0: the kernel chooses.
    pub(crate) index: Index,
    /// Where it appears; none: where the socket is.
    pub(crate) namespace: Option<BorrowedFd<'a>>,
}

/// `IFF_UP` of `linux/if.h`.
const UP: u32 = 1;

fn link_header(index: Index, flags: u32, change: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    header
}

fn end_attributes(message: Message, end: End<'_>, mtu: u32) -> Message {
    let message = message
        .text(libc::IFLA_IFNAME, end.name)
        .attr(libc::IFLA_ADDRESS, &end.mac)
        .native(libc::IFLA_MTU, mtu);
    match end.namespace {
        Some(fd) => message.native(libc::IFLA_NET_NS_FD, fd.as_raw_fd().cast_unsigned()),
        None => message,
    }
}

/// A new veth; each end appears where it belongs, already with its name and address. (Moving an end later costs
/// two grace periods of the kernel.) The end is switched on, its peer is not: the kernel cannot open a peer
/// before both are there. Source: `veth_open` in `drivers/net/veth.c`.
pub(crate) fn new_veth(end: End<'_>, peer: End<'_>, mtu: u32) -> Message {
    let message = Message::new(libc::RTM_NEWLINK, CREATE, &link_header(end.index, UP, UP));
    end_attributes(message, end, mtu).nest(libc::IFLA_LINKINFO, |info| {
        info.text(libc::IFLA_INFO_KIND, "veth")
            .nest(libc::IFLA_INFO_DATA, |data| {
                data.nest(VETH_INFO_PEER, |nested| {
                    end_attributes(nested.raw(&link_header(peer.index, 0, 0)), peer, mtu)
                })
            })
    })
}

/// Switches an interface on.
pub(crate) fn link_up(index: Index) -> Message {
    Message::new(libc::RTM_NEWLINK, 0, &link_header(index, UP, UP))
}

/// Lets the host forward what comes in by this interface, and gives it no IPv6 address of its own. Before it
/// is switched on.
pub(crate) fn link_forwards(index: Index, ipv6: Ipv6) -> Message {
    Message::new(libc::RTM_NEWLINK, 0, &link_header(index, 0, 0)).nest(
        libc::IFLA_AF_SPEC,
        |families| {
            let families = families.nest(u16::from(INET), |inet| {
                inet.nest(INET_CONF, |conf| conf.native(DEVCONF_FORWARDING, 1))
            });
            match ipv6 {
                Ipv6::Present => families.nest(INET6, |inet6| {
                    inet6.attr(INET6_ADDR_GEN_MODE, &[ADDR_GEN_NONE])
                }),
                Ipv6::Absent => families,
            }
        },
    )
}

/// Whether the kernel has IPv6 at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ipv6 {
    Present,
    Absent,
}

impl Ipv6 {
    /// Looks at `/proc`: the directory is missing with `ipv6.disable=1` and in kernels without it.
    pub(crate) fn detect() -> Self {
        if std::path::Path::new("/proc/sys/net/ipv6").is_dir() {
            Self::Present
        } else {
            Self::Absent
        }
    }
}

/// `IFLA_BR_STP_STATE`, `IFLA_BR_MCAST_SNOOPING`, `IFLA_BRPORT_LEARNING`,
/// `IFLA_INFO_SLAVE_KIND` and `IFLA_INFO_SLAVE_DATA` of `linux/if_link.h`.
const BR_STP_STATE: u16 = 5;
const BR_MCAST_SNOOPING: u16 = 23;
const BRPORT_LEARNING: u16 = 8;
const INFO_SLAVE_KIND: u16 = 4;
const INFO_SLAVE_DATA: u16 = 5;

/// A new bridge that takes part in nothing by itself: no spanning tree, no snooping.
pub(crate) fn new_bridge(name: &str, index: Index, mtu: u32) -> Message {
    Message::new(libc::RTM_NEWLINK, CREATE, &link_header(index, 0, 0))
        .text(libc::IFLA_IFNAME, name)
        .native(libc::IFLA_MTU, mtu)
        .nest(libc::IFLA_LINKINFO, |info| {
            info.text(libc::IFLA_INFO_KIND, "bridge")
                .nest(libc::IFLA_INFO_DATA, |data| {
                    data.native(BR_STP_STATE, 0).attr(BR_MCAST_SNOOPING, &[0])
                })
        })
}

/// Gives an interface another hardware address.
pub(crate) fn set_mac(index: Index, mac: Mac) -> Message {
    Message::new(libc::RTM_NEWLINK, 0, &link_header(index, 0, 0)).attr(libc::IFLA_ADDRESS, &mac)
}

/// Makes an interface a port of a bridge.
pub(crate) fn join_bridge(index: Index, bridge: Index) -> Message {
    Message::new(libc::RTM_NEWLINK, 0, &link_header(index, 0, 0)).native(libc::IFLA_MASTER, bridge)
}

/// The bridge remembers nobody who is behind this port, and sends everything to all other ports.
pub(crate) fn port_without_learning(index: Index) -> Message {
    Message::new(libc::RTM_NEWLINK, 0, &link_header(index, 0, 0)).nest(
        libc::IFLA_LINKINFO,
        |info| {
            info.text(INFO_SLAVE_KIND, "bridge")
                .nest(INFO_SLAVE_DATA, |port| port.attr(BRPORT_LEARNING, &[0]))
        },
    )
}

/// Removes an interface, and with it the other end of a veth.
pub(crate) fn delete_link(name: &str) -> Message {
    Message::new(libc::RTM_DELLINK, 0, &link_header(0, 0, 0)).text(libc::IFLA_IFNAME, name)
}

/// Gives an interface an address.
pub(crate) fn new_address(index: Index, ip: Ipv4Addr, prefix: u8) -> Message {
    let mut header = [INET, prefix, 0, 0, 0, 0, 0, 0];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    Message::new(libc::RTM_NEWADDR, CREATE, &header)
        .address(libc::IFA_LOCAL, ip)
        .address(libc::IFA_ADDRESS, ip)
}

/// `RTNH_F_ONLINK` of `linux/rtnetlink.h`: the gateway is taken to be on the link, whatever its address.
const ONLINK: u32 = 4;

/// `struct rtmsg` of a route of ours in the main table.
fn route_header(to: Subnet, scope: u8, action: u8, flags: u32) -> [u8; 12] {
    let [a, b, c, d] = flags.to_ne_bytes();
    let table = libc::RT_TABLE_MAIN;
    [
        INET,
        to.prefix(),
        0,
        0,
        table,
        PROTOCOL,
        scope,
        action,
        a,
        b,
        c,
        d,
    ]
}

/// Everything goes to `gateway`, which is in a subnet of the interface.
pub(crate) fn default_route(index: Index, gateway: Ipv4Addr) -> Message {
    default_route_with(index, gateway, 0)
}

/// Like [`default_route`], for a gateway that is in no subnet of the interface.
pub(crate) fn default_route_onlink(index: Index, gateway: Ipv4Addr) -> Message {
    default_route_with(index, gateway, ONLINK)
}

fn default_route_with(index: Index, gateway: Ipv4Addr, flags: u32) -> Message {
    let header = route_header(
        Subnet::EVERYTHING,
        libc::RT_SCOPE_UNIVERSE,
        libc::RTN_UNICAST,
        flags,
    );
    Message::new(libc::RTM_NEWROUTE, CREATE, &header)
        .address(libc::RTA_GATEWAY, gateway)
        .native(libc::RTA_OIF, index)
}

/// One address is behind this interface.
pub(crate) fn host_route(index: Index, ip: Ipv4Addr) -> Message {
    let header = route_header(Subnet::host(ip), libc::RT_SCOPE_LINK, libc::RTN_UNICAST, 0);
    Message::new(libc::RTM_NEWROUTE, CREATE, &header)
        .address(libc::RTA_DST, ip)
        .native(libc::RTA_OIF, index)
}

/// Claims a subnet: packets to addresses of it that no slot has go nowhere, least of all to the uplink. The
/// metric says whose claim it is.
pub(crate) fn claim(subnet: Subnet, metric: u32) -> Message {
    unreachable(libc::RTM_NEWROUTE, CREATE, subnet, metric)
}

/// Gives a claimed subnet back.
pub(crate) fn unclaim(subnet: Subnet, metric: u32) -> Message {
    unreachable(libc::RTM_DELROUTE, 0, subnet, metric)
}

fn unreachable(kind: u16, flags: u16, subnet: Subnet, metric: u32) -> Message {
    let header = route_header(subnet, libc::RT_SCOPE_UNIVERSE, libc::RTN_UNREACHABLE, 0);
    Message::new(kind, flags, &header)
        .address(libc::RTA_DST, subnet.first())
        .native(libc::RTA_PRIORITY, metric)
}

/// The hardware address behind an IP address, known for ever: nothing is asked on the link.
pub(crate) fn neighbour(index: Index, ip: Ipv4Addr, mac: Mac) -> Message {
    let mut header = [0; 12];
    header[0] = INET;
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..10].copy_from_slice(&libc::NUD_PERMANENT.to_ne_bytes());
    Message::new(libc::RTM_NEWNEIGH, CREATE, &header)
        .address(libc::NDA_DST, ip)
        .attr(libc::NDA_LLADDR, &mac)
}

/// `RTMGRP_LINK` of `linux/rtnetlink.h`.
pub(crate) const LINK_GROUP: u32 = 1;
/// With the bits of `RTNLGRP_IPV4_ROUTE` (7) and `RTNLGRP_IPV4_NETCONF` (24) of `linux/rtnetlink.h`.
pub(crate) const CHANGE_GROUPS: u32 = LINK_GROUP | 1 << (7 - 1) | 1 << (24 - 1);
/// `IFLA_OPERSTATE` and its value `IF_OPER_UP` of `linux/if.h`.
const OPERSTATE: u16 = 16;
const OPERSTATE_UP: &[u8] = &[6];

/// Waits until interfaces do send what is sent by them; `socket` is in [`LINK_GROUP`].
///
/// The end of a veth that was switched on first learns of its carrier from a work queue of the kernel, and
/// until then throws away what is sent: a machine's first packet would be lost, and asked for again a second
/// later. Kernels since 6.8 catch up when they are asked for the interface; older ones tell when they did.
/// Source: `dev_activate` in `net/sched/sch_generic.c`, `linkwatch_sync_dev` in `net/core/link_watch.c`.
pub(crate) fn await_running(socket: &mut Socket, interfaces: &[Index]) -> io::Result<()> {
    for index in interfaces {
        let request = || Message::new(libc::RTM_GETLINK, 0, &link_header(*index, 0, 0));
        let running = |reply: Reply<'_>| {
            Some(attribute(reply.payload.get(16..)?, OPERSTATE)? == OPERSTATE_UP)
        };
        while !socket.ask(request(), running)? {
            socket.await_change()?;
        }
    }
    Ok(())
}

/// An interface as the kernel tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: Index,
    pub(crate) name: String,
    pub(crate) mtu: u32,
}

/// All interfaces of the socket's namespace.
pub(crate) fn links(socket: &mut Socket) -> io::Result<Vec<Link>> {
    let request = Message::new(libc::RTM_GETLINK, 0, &link_header(0, 0, 0));
    socket.dump(&request, |reply| {
        let index = u32_at(reply.payload, 4)?;
        let rest = reply.payload.get(16..)?;
        let name = text(attribute(rest, libc::IFLA_IFNAME)?);
        let mtu = attribute(rest, libc::IFLA_MTU)
            .and_then(|value| u32_at(value, 0))
            .unwrap_or(0);
        Some(Link { index, name, mtu })
    })
}

/// `struct rtnl_link_stats64` of `linux/if_link.h`: where in it are the bytes that came, and those that went.
const RX_BYTES: usize = 16;
const TX_BYTES: usize = 24;

/// The bytes that came by an interface and those that went by it, since it was made.
pub(crate) fn bytes_of_link(socket: &mut Socket, name: &str) -> io::Result<(u64, u64)> {
    let request = Message::new(libc::RTM_GETLINK, 0, &link_header(0, 0, 0));
    socket.ask(request.text(libc::IFLA_IFNAME, name), |reply| {
        let counters = attribute(reply.payload.get(16..)?, libc::IFLA_STATS64)?;
        Some((u64_at(counters, RX_BYTES)?, u64_at(counters, TX_BYTES)?))
    })
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    let bytes = bytes.get(offset..)?.first_chunk()?;
    Some(u64::from_ne_bytes(*bytes))
}

/// An IPv4 route as the kernel tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) to: Subnet,
    /// Set for a claim of ours, to its metric.
    pub(crate) claim: Option<u32>,
    /// The interface of a unicast route (the first of several).
    pub(crate) by: Option<Index>,
    pub(crate) gateway: Option<Ipv4Addr>,
    /// Routes of the table `local` are the host's own addresses and broadcast addresses.
    pub(crate) local: bool,
}

/// All IPv4 routes of all tables.
pub(crate) fn routes(socket: &mut Socket) -> io::Result<Vec<Route>> {
    let mut header = [0; 12];
    header[0] = INET;
    let request = Message::new(libc::RTM_GETROUTE, 0, &header);
    socket.dump(&request, |reply| parse_route(reply.payload))
}

fn parse_route(payload: &[u8]) -> Option<Route> {
    let header = payload.get(..12)?;
    let [family, prefix, _, _, table, protocol, _, kind, ..] = header else {
        return None;
    };
    if *family != INET || prefix > &32 {
        return None;
    }
    let mut route = Route {
        to: Subnet::EVERYTHING,
        claim: None,
        by: None,
        gateway: None,
        local: *table == libc::RT_TABLE_LOCAL,
    };
    let mut metric = 0;
    for (kind, value) in attributes(&payload[12..]) {
        match kind {
            libc::RTA_DST => route.to = Subnet::new(address(value)?, *prefix),
            libc::RTA_OIF => route.by = u32_at(value, 0),
            libc::RTA_GATEWAY => route.gateway = address(value),
            libc::RTA_PRIORITY => metric = u32_at(value, 0)?,
            // `struct rtnexthop`: length u16, flags u8, hops u8, interface u32.
            libc::RTA_MULTIPATH => route.by = u32_at(value, 4),
            _other => {}
        }
    }
    let claimed = *protocol == PROTOCOL && *kind == libc::RTN_UNREACHABLE;
    route.claim = claimed.then_some(metric);
    if *kind != libc::RTN_UNICAST {
        route.by = None;
    }
    Some(route)
}

/// What a change that the kernel tells is to us. In order of weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Change {
    /// Nothing: among others, all that comes with every slot.
    Nothing,
    /// Machines may have another way out.
    Uplinks,
    /// Someone switched forwarding off for the whole host, which includes our interfaces.
    ForwardingOff,
}

/// `NETCONFA_IFINDEX`, `NETCONFA_FORWARDING` and `NETCONFA_IFINDEX_ALL` of `linux/netconf.h`.
const NETCONF_INDEX: u16 = 1;
const NETCONF_FORWARDING: u16 = 2;
const NETCONF_ALL: u32 = u32::MAX;

/// Reads a notification of [`CHANGE_GROUPS`].
pub(crate) fn change(reply: Reply<'_>) -> Change {
    let uplinks = match reply.kind {
        libc::RTM_NEWROUTE | libc::RTM_DELROUTE => {
            let ours = reply.payload.get(5) == Some(&PROTOCOL);
            !ours && parse_route(reply.payload).is_some_and(|route| !route.local)
        }
        libc::RTM_NEWLINK => {
            let name = reply
                .payload
                .get(16..)
                .and_then(|rest| attribute(rest, libc::IFLA_IFNAME));
            name.is_some_and(|name| !is_ours(&text(name)))
        }
        libc::RTM_NEWNETCONF => {
            // `struct netconfmsg` is one byte, padded to four.
            let number = |kind| u32_at(attribute(reply.payload.get(4..)?, kind)?, 0);
            let off = number(NETCONF_FORWARDING) == Some(0);
            return if off && number(NETCONF_INDEX) == Some(NETCONF_ALL) {
                Change::ForwardingOff
            } else {
                Change::Nothing
            };
        }
        _other => false,
    };
    if uplinks {
        Change::Uplinks
    } else {
        Change::Nothing
    }
}

/// All IPv4 addresses of all interfaces.
pub(crate) fn addresses(socket: &mut Socket) -> io::Result<Vec<Subnet>> {
    let request = Message::new(libc::RTM_GETADDR, 0, &[INET, 0, 0, 0, 0, 0, 0, 0]);
    socket.dump(&request, |reply| {
        let prefix = *reply.payload.get(1)?;
        let rest = reply.payload.get(8..)?;
        let ip = address(attribute(rest, libc::IFA_LOCAL).or(attribute(rest, libc::IFA_ADDRESS))?)?;
        (prefix <= 32).then(|| Subnet::new(ip, prefix))
    })
}
