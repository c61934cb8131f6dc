//! Connections to what listens in a machine of processes, on its loopback interface.
//!
//! A socket belongs to the namespace in which it was made, whoever holds it: it is made there by a thread that ends
//! then, and connected from here.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream as StdStream};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::build::{self, Site};
use crate::error::NetError;
use crate::netns::in_thread;
use crate::slot::SlotId;

/// A listener whose queue is full lets connections wait.
const CONNECT_WITHIN: Duration = Duration::from_secs(8);

/// Connects to a port, over IPv4 and then over IPv6. The error is that of the first.
pub(crate) async fn connect(
    site: &std::sync::Arc<Site>,
    slot: SlotId,
    port: u16,
) -> io::Result<TcpStream> {
    let first = match connect_to(site, slot, (Ipv4Addr::LOCALHOST, port).into()).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => error,
        other => return other,
    };
    let second = connect_to(site, slot, (Ipv6Addr::LOCALHOST, port).into()).await;
    second.map_err(|_| first)
}

async fn connect_to(
    site: &std::sync::Arc<Site>,
    slot: SlotId,
    address: SocketAddr,
) -> io::Result<TcpStream> {
    let inside = site.clone();
    let socket = in_thread(move || socket(&inside, slot, address.ip())).await;
    let socket = TcpSocket::from_std_stream(socket.map_err(io::Error::other)?);
    let connected = timeout(CONNECT_WITHIN, socket.connect(address)).await;
    connected
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(|error| io::Error::new(error.kind(), format!("connect to {address}: {error}")))
}

/// A socket in a slot's guest namespace. Blocks, and leaves the thread there.
fn socket(site: &Site, slot: SlotId, kind: IpAddr) -> Result<StdStream, NetError> {
    build::enter_guest(site, slot)?;
    let family = match kind {
        IpAddr::V4(_) => AddressFamily::INET,
        IpAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None);
    let socket = socket.map_err(NetError::step(format!("make a socket in slot {slot}")))?;
    Ok(socket.into())
}
