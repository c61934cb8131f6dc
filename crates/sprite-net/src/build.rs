//! Making a slot, and taking it away.
//!
//! ```text
//!  guest namespace        router namespace                    host
//!  eth0 10.0.0.1/24 ───── gw 10.0.0.2/24    up OUTSIDE ────── sp<instance><slot>
//!                         DNS sockets, NAT, first wall        second wall, route to OUTSIDE, masquerade
//! ```
//!
//! Where the machine is virtual, the end in the guest namespace is `wire` instead, without an address, and
//! `tap` connects it.
//!
//! One thread does it in a dozen system calls: it makes the guest namespace, then the router namespace, and
//! stays there for the DNS sockets; sockets of netlink that it opened earlier still speak with the earlier
//! namespaces. Everything of a slot has a name made of its number, so the undoing of a half-made slot is the
//! removal of a slot.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use sprite_types::{Egress, InstanceId};

use crate::address::{
    GATEWAY, GATEWAY_MAC, GUEST_IP, GUEST_MAC, GUEST_PREFIX, HOST_MAC, Subnet, UP_MAC, WIRE_MAC,
};
use crate::error::NetError;
use crate::name::{Role, link_name, netns_path};
use crate::netlink::{Family, Refused, Socket};
use crate::nft::Changes;
use crate::route::{self, End, Index, Ipv6};
use crate::slot::{Attachment, Slot, SlotId, Traffic};
use crate::tap::{self, TAP_LINK, TapOwner, WIRE_LINK};
use crate::{conntrack, netns, nft};

/// The machine's interface. Source: behaviour reference §4.4 has another name; programs expect this one.
pub(crate) const GUEST_LINK: &str = "eth0";
/// The router's interface towards the machine.
pub(crate) const GATEWAY_LINK: &str = "gw";
/// The router's interface towards the host.
pub(crate) const UP_LINK: &str = "up";
/// Indices that we choose, so that nothing must be asked back; far above those that a fresh namespace may
/// have (`lo`, and fallback tunnels where their modules are loaded).
const GUEST_INDEX: Index = 100;
const GATEWAY_INDEX: Index = 100;
const UP_INDEX: Index = 101;
/// `lo` of every namespace.
const LOOPBACK_INDEX: Index = 1;

/// What all slots of an instance share.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) instance: InstanceId,
    pub(crate) subnet: Subnet,
    pub(crate) attachment: Attachment,
    /// The host's namespace: that of the threads of this process.
    pub(crate) host: OwnedFd,
    /// For new links: what fits through the uplink in one piece.
    pub(crate) mtu: AtomicU32,
    pub(crate) ipv6: Ipv6,
    /// The log group of packets for machines that sleep.
    pub(crate) group: u16,
    /// Held while the host's table is changed.
    pub(crate) sleepers: Mutex<Sleepers>,
}

/// Which machines sleep, as the host's table has it.
#[derive(Debug, Default)]
pub(crate) struct Sleepers {
    pub(crate) slots: BTreeSet<SlotId>,
    /// For the next change, if the one before went well.
    pub(crate) changes: Changes,
}

/// The sockets of a slot's name server, bound in its router namespace. Non-blocking.
#[derive(Debug)]
pub(crate) struct DnsSockets {
    pub(crate) udp: UdpSocket,
    pub(crate) tcp: TcpListener,
    /// Whether questions are answered: as the slot's rules are.
    pub(crate) egress: Egress,
}

impl Site {
    /// The slot as drivers see it.
    pub(crate) fn slot(&self, id: SlotId) -> Slot {
        Slot {
            id,
            guest_netns: netns_path(&self.instance, id, Role::Guest),
            attachment: self.attachment,
            guest_mac: GUEST_MAC,
            guest_ip: GUEST_IP,
            guest_prefix: GUEST_PREFIX,
            gateway: GATEWAY,
            nameserver: GATEWAY,
            outside_ip: self.subnet.slot(id),
        }
    }
}

/// Makes a slot. Blocks, and leaves the thread in the router namespace: for [`netns::in_thread`].
///
/// # Errors
/// Nothing of the slot is left.
///
/// # Crash safety
/// What a crash leaves has the slot's names and goes with [`remove`].
pub(crate) fn build(site: &Site, id: SlotId) -> Result<DnsSockets, NetError> {
    let mut host = Socket::open(Family::Route).map_err(NetError::step("open a netlink socket"))?;
    assemble(site, id, &mut host).inspect_err(|_| {
        if let Err(error) = remove_by(&mut host, &site.instance, id) {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(slot = %id, error, "what is left of a slot that could not be made stays");
        }
    })
}

fn assemble(site: &Site, id: SlotId, host: &mut Socket) -> Result<DnsSockets, NetError> {
    let step = |what: &str| NetError::step(format!("{what} of slot {id}"));
    let (guest, mut guest_links) = new_namespace(site, id, Role::Guest)?;
    prepare_guest(site.ipv6).map_err(step("prepare the guest namespace"))?;
    match site.attachment {
        Attachment::Interface => {}
        Attachment::Tap => tap::create().map_err(step("make the tap"))?,
    }
    let (_router, mut router_links) = new_namespace(site, id, Role::Router)?;
    prepare_router(site.ipv6).map_err(step("prepare the router namespace"))?;

    let outside = site.subnet.slot(id);
    let link = link_name(&site.instance, id);
    link_router(site, &link, outside, &guest, &mut router_links)
        .map_err(|refused| step("set up the router")(refused.source))?;
    nft::install_router_table(outside).map_err(step("install the router rules"))?;
    let sockets = bind_dns(Egress::Open).map_err(step("bind the name server"))?;
    link_guest(site.attachment, &mut guest_links)
        .map_err(|refused| step("set up the guest")(refused.source))?;
    link_host(host, &link, outside, site.ipv6).map_err(step("connect the host"))?;
    route::await_running(&mut router_links, &[GATEWAY_INDEX, UP_INDEX])
        .and_then(|()| route::await_running(&mut guest_links, &[GUEST_INDEX]))
        .map_err(step("wait for the links"))?;
    Ok(sockets)
}

/// The thread goes to the new namespace.
fn new_namespace(site: &Site, id: SlotId, role: Role) -> Result<(OwnedFd, Socket), NetError> {
    let path = netns_path(&site.instance, id, role);
    netns::create().map_err(NetError::step("make a network namespace"))?;
    let namespace = netns::pin(&path).map_err(NetError::step(format!("pin {}", path.display())))?;
    let links = Socket::open_in_groups(Family::Route, route::LINK_GROUP)
        .map_err(NetError::step("open a netlink socket"))?;
    Ok((namespace, links))
}

/// Writes settings of the calling thread's namespace.
fn set(settings: &[(&str, &str)]) -> io::Result<()> {
    for (name, value) in settings {
        let path = format!("/proc/sys/net/{name}");
        fs::write(&path, value)
            .map_err(|error| io::Error::new(error.kind(), format!("write {path}: {error}")))?;
    }
    Ok(())
}

/// Seconds: 24 days, the most that a kernel takes whose clock ticks a thousand times a second.
const LONGEST_CONNECTION: &str = "2147483";

/// New interfaces get no IPv6; `lo` of the guest keeps its `::1`, on which many programs listen.
const NO_IPV6_ON_LINKS: (&str, &str) = ("ipv6/conf/default/disable_ipv6", "1");

fn prepare_guest(ipv6: Ipv6) -> io::Result<()> {
    set(&[
        // Every port and `ping` without privileges: the machine has none over this namespace.
        ("ipv4/ip_unprivileged_port_start", "0"),
        ("ipv4/ping_group_range", "0 2147483647"),
    ])?;
    match ipv6 {
        Ipv6::Present => set(&[NO_IPV6_ON_LINKS]),
        Ipv6::Absent => Ok(()),
    }
}

fn prepare_router(ipv6: Ipv6) -> io::Result<()> {
    set(&[
        ("ipv4/ip_forward", "1"),
        // A source that would not be answered by the same interface is forged: dropped before any rule.
        ("ipv4/conf/all/rp_filter", "1"),
        ("ipv4/conf/all/accept_redirects", "0"),
        ("ipv4/conf/all/send_redirects", "0"),
    ])?;
    // A connection is known for as long as its machine may sleep over it. Not there on kernels that count for a
    // namespace only what its rules ask for; then it is five days.
    match set(&[(
        "netfilter/nf_conntrack_tcp_timeout_established",
        LONGEST_CONNECTION,
    )]) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        done => done?,
    }
    match ipv6 {
        Ipv6::Present => set(&[NO_IPV6_ON_LINKS, ("ipv6/conf/all/disable_ipv6", "1")]),
        Ipv6::Absent => Ok(()),
    }
}

/// Both veths, and everything on the router's side of them.
fn link_router(
    site: &Site,
    host_link: &str,
    outside: Ipv4Addr,
    guest: &OwnedFd,
    router: &mut Socket,
) -> Result<(), Refused> {
    let mtu = site.mtu.load(Ordering::Relaxed);
    let here = |name, mac, index| End {
        name,
        mac,
        index,
        namespace: None,
    };
    let up = here(UP_LINK, UP_MAC, UP_INDEX);
    // Off until the host has said that it is to have no IPv6.
    let host = End {
        name: host_link,
        mac: HOST_MAC,
        index: 0,
        namespace: Some(site.host.as_fd()),
    };
    let gateway = here(GATEWAY_LINK, GATEWAY_MAC, GATEWAY_INDEX);
    let (name, mac, inner_mtu) = match site.attachment {
        Attachment::Interface => (GUEST_LINK, GUEST_MAC, mtu),
        // A bridge drops what is too long and tells nobody; the router tells the sender.
        Attachment::Tap => (WIRE_LINK, WIRE_MAC, tap::MTU),
    };
    let machine = End {
        namespace: Some(guest.as_fd()),
        ..here(name, mac, GUEST_INDEX)
    };
    let next_hop = site.subnet.next_hop();
    router.transact(vec![
        route::new_veth(up, host, mtu),
        route::new_veth(gateway, machine, inner_mtu),
        route::new_address(GATEWAY_INDEX, GATEWAY, GUEST_PREFIX),
        route::new_address(UP_INDEX, outside, 32),
        route::default_route_onlink(UP_INDEX, next_hop),
        route::neighbour(UP_INDEX, next_hop, HOST_MAC),
        // The machine's hardware address is known: nothing that it says by ARP changes where its packets go.
        route::neighbour(GATEWAY_INDEX, GUEST_IP, GUEST_MAC),
    ])
}

fn link_guest(attachment: Attachment, guest: &mut Socket) -> Result<(), Refused> {
    match attachment {
        Attachment::Interface => guest.transact(vec![
            route::link_up(LOOPBACK_INDEX),
            route::link_up(GUEST_INDEX),
            route::new_address(GUEST_INDEX, GUEST_IP, GUEST_PREFIX),
            route::default_route(GUEST_INDEX, GATEWAY),
        ]),
        Attachment::Tap => tap::connect(guest, GUEST_INDEX),
    }
}

/// Gives the tap of a slot to a user. Blocks, and leaves the thread in the guest namespace.
pub(crate) fn assign_tap(site: &Site, id: SlotId, owner: TapOwner) -> Result<(), NetError> {
    enter(site, id, Role::Guest)?;
    find(site.attachment, id)?;
    tap::give(owner).map_err(NetError::step(format!("give away the tap of slot {id}")))
}

/// Moves the calling thread to one of a slot's namespaces.
pub(crate) fn enter(site: &Site, id: SlotId, role: Role) -> Result<(), NetError> {
    netns::enter(open_namespace(site, id, role)?).map_err(NetError::step(format!(
        "enter the {} namespace of slot {id}",
        role.name()
    )))
}

fn open_namespace(site: &Site, id: SlotId, role: Role) -> Result<OwnedFd, NetError> {
    let path = netns_path(&site.instance, id, role);
    netns::open(&path)
        .map_err(NetError::step(format!("open {}", path.display())))?
        .ok_or_else(|| NetError::NotWhole {
            slot: id,
            missing: path.display().to_string(),
        })
}

/// Looks for the machine's interface in the calling thread's namespace, the guest's.
fn find(attachment: Attachment, id: SlotId) -> Result<(), NetError> {
    let name = match attachment {
        Attachment::Interface => GUEST_LINK,
        Attachment::Tap => TAP_LINK,
    };
    let guest = Socket::open(Family::Route).map_err(NetError::step("open a netlink socket"))?;
    match rustix::net::netdevice::name_to_index(&guest, name) {
        Ok(_) => Ok(()),
        Err(_) => Err(NetError::NotWhole {
            slot: id,
            missing: format!("interface {name}"),
        }),
    }
}

fn link_host(host: &mut Socket, link: &str, outside: Ipv4Addr, ipv6: Ipv6) -> io::Result<()> {
    let index = rustix::net::netdevice::name_to_index(&*host, link)?;
    host.transact(vec![
        route::link_forwards(index, ipv6),
        route::link_up(index),
        route::host_route(index, outside),
        route::neighbour(index, outside, UP_MAC),
    ])
    .map_err(|refused| refused.source)
}

/// Binds port 53 of the gateway's address in the calling thread's namespace.
fn bind_dns(egress: Egress) -> io::Result<DnsSockets> {
    let udp = UdpSocket::bind((GATEWAY, 53))?;
    let tcp = TcpListener::bind((GATEWAY, 53))?;
    udp.set_nonblocking(true)?;
    tcp.set_nonblocking(true)?;
    Ok(DnsSockets { udp, tcp, egress })
}

/// Looks whether a slot that another process made is whole, and binds its name server again. Blocks, and
/// leaves the thread in the router namespace.
pub(crate) fn rejoin(site: &Site, id: SlotId) -> Result<DnsSockets, NetError> {
    let host = Socket::open(Family::Route).map_err(NetError::step("open a netlink socket"))?;
    let link = link_name(&site.instance, id);
    rustix::net::netdevice::name_to_index(&host, &link).map_err(|_| NetError::NotWhole {
        slot: id,
        missing: link,
    })?;
    enter(site, id, Role::Guest)?;
    find(site.attachment, id)?;
    enter(site, id, Role::Router)?;
    let egress = nft::egress_of_namespace()
        .map_err(NetError::step(format!("see whether slot {id} is closed")))?;
    bind_dns(egress).map_err(NetError::step(format!("bind the name server of slot {id}")))
}

/// Closes or opens a slot. Blocks, and leaves the thread in the router namespace.
pub(crate) fn set_egress(site: &Site, id: SlotId, egress: Egress) -> Result<(), NetError> {
    enter(site, id, Role::Router)?;
    nft::set_egress(egress).map_err(NetError::step(match egress {
        Egress::Open => format!("open slot {id}"),
        Egress::Closed => format!("close slot {id}"),
    }))
}

/// Whether a slot's machine has connections to the outside. Blocks, and leaves the thread in the router namespace.
pub(crate) fn is_connected(site: &Site, id: SlotId) -> Result<bool, NetError> {
    enter(site, id, Role::Router)?;
    conntrack::any().map_err(NetError::step(format!("list the connections of slot {id}")))
}

/// What went through a slot since it was made, as the host's end of its link counts it. Within the host's namespace;
/// takes some microseconds.
pub(crate) fn traffic(instance: &InstanceId, id: SlotId) -> Result<Traffic, NetError> {
    let link = link_name(instance, id);
    let counted = Socket::open(Family::Route)
        .and_then(|mut host| route::bytes_of_link(&mut host, &link))
        .map_err(NetError::step(format!("count what went through {link}")))?;
    // What comes to the host is what the machine sent.
    let (bytes_out, bytes_in) = counted;
    Ok(Traffic {
        bytes_in,
        bytes_out,
    })
}

/// Takes away everything of a slot. Idempotent; goes on after a failure and returns the first. Blocks.
pub(crate) fn remove(instance: &InstanceId, id: SlotId) -> Result<(), NetError> {
    let mut host = Socket::open(Family::Route).map_err(NetError::step("open a netlink socket"))?;
    remove_by(&mut host, instance, id)
}

fn remove_by(host: &mut Socket, instance: &InstanceId, id: SlotId) -> Result<(), NetError> {
    let link = link_name(instance, id);
    let unlinked =
        match host.transact(vec![route::delete_link(&link)]) {
            Err(refused) if refused.source.raw_os_error() != Some(libc::ENODEV) => Err(
                NetError::step(format!("delete interface {link}"))(refused.source),
            ),
            _deleted_or_absent => Ok(()),
        };
    let unpinned = Role::ALL.map(|role| {
        let path = netns_path(instance, id, role);
        netns::unpin(&path).map_err(NetError::step(format!("unpin {}", path.display())))
    });
    unpinned.into_iter().fold(unlinked, Result::and)
}
