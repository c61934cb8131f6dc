//! A packet on the way that a machine's packets take, to a namespace that plays the outside.
//!
//! ```text
//!  guest ── router ── sp<instance><slot> ── host ── so<instance> ── "outside"
//! ```
//!
//! Nothing leaves the host. Whatever on the host stops machines' packets stops this one, by whichever means:
//! rules of nftables or of the older iptables, or a program in the kernel.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sprite_types::InstanceId;

use crate::address::{HOST_MAC, UP_MAC};
use crate::build::Site;
use crate::error::NetError;
use crate::name::probe_link;
use crate::netlink::{Family, Socket};
use crate::netns;
use crate::route::{self, End};
use crate::site;
use crate::slot::{Attachment, Slot};
use crate::tap::BRIDGE_INDEX;

/// Within a host a packet takes microseconds; a loaded host has the rest.
const PATIENCE: Duration = Duration::from_millis(500);
/// The outside's interface, in its namespace.
const OUTSIDE_LINK: &str = "outside";
const OUTSIDE_INDEX: route::Index = 100;

/// How far the packet came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// There and back.
    Passed,
    /// It never reached the outside.
    StoppedOutward,
    /// The answer never reached the machine.
    StoppedBack,
}

/// Sends it. Blocks, and leaves the thread in a namespace that ends with it.
pub(crate) fn run(site: &Site, slot: &Slot) -> Result<Outcome, NetError> {
    site::with_probe_address(|outside| {
        let mut host =
            Socket::open(Family::Route).map_err(NetError::step("open a netlink socket"))?;
        remove_by(&mut host, &site.instance)?;
        let outcome = attempt(site, slot, outside, &mut host)
            .map_err(NetError::step("send a packet through the host"));
        let removed = remove_by(&mut host, &site.instance);
        outcome.and_then(|outcome| removed.map(|()| outcome))
    })
}

/// Removes what a probe that was killed left. Idempotent.
pub(crate) fn remove(instance: &InstanceId) -> Result<(), NetError> {
    let mut host = Socket::open(Family::Route).map_err(NetError::step("open a netlink socket"))?;
    remove_by(&mut host, instance)
}

fn remove_by(host: &mut Socket, instance: &InstanceId) -> Result<(), NetError> {
    let link = probe_link(instance);
    match host.transact(vec![route::delete_link(&link)]) {
        Err(refused) if refused.source.raw_os_error() != Some(libc::ENODEV) => {
            Err(NetError::step(format!("delete interface {link}"))(
                refused.source,
            ))
        }
        _deleted_or_absent => Ok(()),
    }
}

fn attempt(site: &Site, slot: &Slot, outside: Ipv4Addr, host: &mut Socket) -> io::Result<Outcome> {
    netns::create()?;
    connect_outside(site, outside, host)?;
    let there = UdpSocket::bind((outside, 0))?;
    there.set_read_timeout(Some(PATIENCE))?;
    let target = there.local_addr()?;
    std::thread::scope(|scope| {
        let machine = std::thread::Builder::new()
            .name("sprite-net-probe".to_owned())
            .spawn_scoped(scope, || ask_from(slot, target))?;
        let arrived = match there.recv_from(&mut [0; 1]) {
            Ok((_, from)) => {
                there.send_to(&[0], from)?;
                true
            }
            Err(error) if is_timeout(&error) => false,
            Err(error) => return Err(error),
        };
        let answered = machine
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("probe ended")))?;
        Ok(match (arrived, answered) {
            (false, _) => Outcome::StoppedOutward,
            (true, false) => Outcome::StoppedBack,
            (true, true) => Outcome::Passed,
        })
    })
}

/// Connects the calling thread's fresh namespace with the host, which has a route to it.
fn connect_outside(site: &Site, outside: Ipv4Addr, host: &mut Socket) -> io::Result<()> {
    let link = probe_link(&site.instance);
    let here = End {
        name: OUTSIDE_LINK,
        mac: UP_MAC,
        index: OUTSIDE_INDEX,
        namespace: None,
    };
    let there = End {
        name: &link,
        mac: HOST_MAC,
        index: 0,
        namespace: Some(site.host.as_fd()),
    };
    let next_hop = site.subnet.next_hop();
    let mut socket = Socket::open_in_groups(Family::Route, route::LINK_GROUP)?;
    socket
        .transact(vec![
            route::new_veth(here, there, site.mtu.load(Ordering::Relaxed)),
            route::new_address(OUTSIDE_INDEX, outside, 32),
            route::default_route_onlink(OUTSIDE_INDEX, next_hop),
            route::neighbour(OUTSIDE_INDEX, next_hop, HOST_MAC),
        ])
        .map_err(|refused| refused.source)?;
    let index = rustix::net::netdevice::name_to_index(&*host, &link)?;
    host.transact(vec![
        route::link_forwards(index, site.ipv6),
        route::link_up(index),
        route::host_route(index, outside),
        route::neighbour(index, outside, UP_MAC),
    ])
    .map_err(|refused| refused.source)?;
    route::await_running(&mut socket, &[OUTSIDE_INDEX])
}

/// Asks from a machine's place; whether an answer came.
fn ask_from(slot: &Slot, target: SocketAddr) -> io::Result<bool> {
    let namespace = netns::open(&slot.guest_netns)?
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "guest namespace"))?;
    netns::enter(namespace)?;
    match slot.attachment {
        Attachment::Interface => {}
        Attachment::Tap => play_machine(slot)?,
    }
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(target)?;
    match socket.send(&[0]).and_then(|_| socket.recv(&mut [0; 1])) {
        Ok(_) => Ok(true),
        Err(error) if is_timeout(&error) => Ok(false),
        // The host refused it with an ICMP message: that is an outcome too.
        Err(error) if is_refusal(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The bridge of a slot that no machine has takes the machine's place, with its addresses.
fn play_machine(slot: &Slot) -> io::Result<()> {
    Socket::open(Family::Route)?
        .transact(vec![
            route::set_mac(BRIDGE_INDEX, slot.guest_mac),
            route::new_address(BRIDGE_INDEX, slot.guest_ip, slot.guest_prefix),
            route::default_route(BRIDGE_INDEX, slot.gateway),
        ])
        .map_err(|refused| refused.source)
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::PermissionDenied
    ) || error.raw_os_error() == Some(libc::EHOSTUNREACH)
}
