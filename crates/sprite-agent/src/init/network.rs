//! The guest's one interface.
//!
//! Source: netdevice(7), rtentry in include/uapi/linux/route.h.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use sprite_agent_api::guest::GuestNetwork;

use super::devices::Devices;
use crate::step::{Step, StepError};

const LOOPBACK: &str = "lo";
/// The kernel's name for the first interface.
const INTERFACE: &str = "eth0";

/// Turns on the loopback, and the interface where the guest has a network.
pub(super) fn bring_up(network: Option<GuestNetwork>, devices: &Devices) -> Result<(), StepError> {
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)
        .step("make a socket")?;
    turn_on(&socket, LOOPBACK).step("turn on the loopback")?;
    let Some(network) = network else {
        return Ok(());
    };
    devices.wait_for(&format!("/sys/class/net/{INTERFACE}"))?;
    set_address(&socket, libc::SIOCSIFADDR, network.address).step("set the address")?;
    set_address(&socket, libc::SIOCSIFNETMASK, mask(network.prefix)).step("set the netmask")?;
    turn_on(&socket, INTERFACE).step("turn on the network")?;
    route_all(&socket, network.gateway).step("set the default route")
}

fn mask(prefix: u8) -> Ipv4Addr {
    let bits = u32::MAX.checked_shl(32 - u32::from(prefix.min(32)));
    Ipv4Addr::from_bits(bits.unwrap_or(0))
}

fn check(done: libc::c_int) -> io::Result<()> {
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// A request about the interface with this name.
fn request(name: &str) -> libc::ifreq {
    // SAFETY: the structure is of numbers and arrays of numbers, for which zeros are values.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request
}

fn turn_on(socket: &OwnedFd, name: &str) -> io::Result<()> {
    let mut request = request(name);
    let flags = libc::IFF_UP | libc::IFF_RUNNING;
    request.ifr_ifru.ifru_flags = i16::try_from(flags).expect("both are low bits");
    // SAFETY: the request lives over the call, which reads it.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) })
}

fn internet(ip: Ipv4Addr) -> libc::sockaddr {
    let address = libc::sockaddr_in {
        sin_family: libc::sa_family_t::try_from(libc::AF_INET).expect("families are small"),
        sin_port: 0,
        sin_addr: libc::in_addr {
            s_addr: ip.to_bits().to_be(),
        },
        sin_zero: [0; 8],
    };
    // SAFETY: both structures have the same size and alignment or less, and any bytes are a value of the other.
    unsafe {
        std::ptr::from_ref(&address)
            .cast::<libc::sockaddr>()
            .read_unaligned()
    }
}

fn set_address(socket: &OwnedFd, what: libc::Ioctl, ip: Ipv4Addr) -> io::Result<()> {
    let mut request = request(INTERFACE);
    request.ifr_ifru.ifru_addr = internet(ip);
    // SAFETY: the request lives over the call, which reads it.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), what, &raw const request) })
}

fn route_all(socket: &OwnedFd, gateway: Ipv4Addr) -> io::Result<()> {
    // SAFETY: the structure is of numbers and a pointer, for which zeros are values.
    let mut route: libc::rtentry = unsafe { std::mem::zeroed() };
    route.rt_dst = internet(Ipv4Addr::UNSPECIFIED);
    route.rt_genmask = internet(Ipv4Addr::UNSPECIFIED);
    route.rt_gateway = internet(gateway);
    route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
    // SAFETY: the route lives over the call, which reads it; its pointer to a name is null.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCADDRT, &raw const route) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_have_as_many_bits_as_their_prefix() {
        for (prefix, expected) in [
            (0, "0.0.0.0"),
            (1, "128.0.0.0"),
            (24, "255.255.255.0"),
            (32, "255.255.255.255"),
            (33, "255.255.255.255"),
        ] {
            assert_eq!(mask(prefix).to_string(), expected);
        }
    }
}
