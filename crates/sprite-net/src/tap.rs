//! The interface that a virtual machine's monitor holds the other end of.
//!
//! ```text
//!  guest namespace
//!  wire ──── br0 ──── tap0 ──── the machine's eth0, 10.0.0.1/24
//! ```
//!
//! The bridge has two ports and learns nothing: what comes in by one goes out by the other, whatever addresses
//! the machine claims to have. Nothing in the namespace has an address, not even `lo` is on, so the monitor,
//! which stands there too, can speak with nobody. The tap is persistent: it is there before the monitor, and
//! belongs to one user, so that no other process that gets into the namespace can hold it.
//!
//! Source: Documentation/networking/tuntap.rst, `drivers/net/tun.c`, `net/bridge/br_netlink.c`.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use crate::address::TAP_MAC;
use crate::netlink::{Refused, Socket};
use crate::route::{self, Index};

/// The tap's name in every guest namespace.
pub(crate) const TAP_LINK: &str = "tap0";
/// The veth's end towards the router.
pub(crate) const WIRE_LINK: &str = "wire";
/// What connects both.
pub(crate) const BRIDGE_LINK: &str = "br0";
/// Chosen like the index of `wire`.
pub(crate) const BRIDGE_INDEX: Index = 101;

/// Of everything between the machine and its router: Ethernet's own, which a virtual machine takes for granted
/// and keeps in its memory when it wakes behind another uplink.
pub(crate) const MTU: u32 = 1500;

const CLONE_DEVICE: &str = "/dev/net/tun";
/// One driver for both kinds of interface: `IFF_TAP`, without a header of its own, with that of virtio.
/// Source: `linux/if_tun.h`.
const FLAGS: libc::c_int = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;

/// Who may hold a machine's tap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TapOwner {
    /// User id of the host.
    pub uid: u32,
    /// Group id of the host.
    pub gid: u32,
}

/// Nobody but root, until a machine gets it. Without an owner anyone could hold it.
const ROOT: TapOwner = TapOwner { uid: 0, gid: 0 };

/// Makes the tap in the calling thread's namespace.
pub(crate) fn create() -> io::Result<()> {
    let tap = hold()?;
    set_owner(&tap, ROOT)?;
    // SAFETY: the request takes a number.
    check(unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETPERSIST, 1) })
}

/// Gives the tap of the calling thread's namespace to a user; nobody may hold it now.
pub(crate) fn give(owner: TapOwner) -> io::Result<()> {
    set_owner(&hold()?, owner)
}

/// Holds the tap, which is made if it is not there.
fn hold() -> io::Result<OwnedFd> {
    let device: File = OpenOptions::new()
        .read(true)
        .write(true)
        .open(CLONE_DEVICE)
        .map_err(|error| io::Error::new(error.kind(), format!("open {CLONE_DEVICE}: {error}")))?;
    // SAFETY: a structure of numbers, for which zeros are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(TAP_LINK.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags =
        libc::c_short::try_from(FLAGS).expect("flags of interfaces are 15 bits");
    // SAFETY: the request reads and writes a `struct ifreq`, which lives over the call.
    check(unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
    Ok(device.into())
}

fn set_owner(tap: &OwnedFd, owner: TapOwner) -> io::Result<()> {
    let TapOwner { uid, gid } = owner;
    // SAFETY: both requests take a number.
    check(unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETOWNER, libc::c_ulong::from(uid)) })?;
    // SAFETY: as above.
    check(unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETGROUP, libc::c_ulong::from(gid)) })
}

fn check(done: libc::c_int) -> io::Result<()> {
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Connects veth and tap by the bridge, and switches all three on. `guest` speaks with the guest namespace.
pub(crate) fn connect(guest: &mut Socket, wire: Index) -> Result<(), Refused> {
    let tap = rustix::net::netdevice::name_to_index(&*guest, TAP_LINK)?;
    let mut messages = vec![
        route::new_bridge(BRIDGE_LINK, BRIDGE_INDEX, MTU),
        route::set_mac(tap, TAP_MAC),
        route::join_bridge(wire, BRIDGE_INDEX),
        route::join_bridge(tap, BRIDGE_INDEX),
        route::port_without_learning(wire),
        route::port_without_learning(tap),
    ];
    messages.extend([BRIDGE_INDEX, tap, wire].map(route::link_up));
    guest.transact(messages)
}
