//! Connections to what listens in a machine of processes, on its loopback interface.
//!
//! A socket belongs to the namespace in which it was made, whoever holds it: it is made there by a thread that goes from
//! slot to slot for that alone, and connected from here.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream as StdStream};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::build::{self, Site};
use crate::error::NetError;
use crate::name::Role;
use crate::netns;
use crate::slot::SlotId;

/// A listener whose queue is full lets connections wait.
const CONNECT_WITHIN: Duration = Duration::from_secs(8);

/// The thread that makes sockets, from the first one on; it ends with this.
#[derive(Debug, Default)]
pub(crate) struct Sockets(Mutex<Option<mpsc::Sender<Job>>>);

/// A socket that is wanted.
#[derive(Debug)]
struct Job {
    site: Arc<Site>,
    slot: SlotId,
    family: AddressFamily,
    made: oneshot::Sender<Result<StdStream, NetError>>,
}

impl Sockets {
    /// Connects to a port, over IPv4 and then over IPv6. The error is that of the first.
    pub(crate) async fn connect(
        &self,
        site: &Arc<Site>,
        slot: SlotId,
        port: u16,
    ) -> io::Result<TcpStream> {
        let to = |address: IpAddr| self.connect_to(site, slot, (address, port).into());
        let first = match to(Ipv4Addr::LOCALHOST.into()).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => error,
            other => return other,
        };
        to(Ipv6Addr::LOCALHOST.into()).await.map_err(|_| first)
    }

    async fn connect_to(
        &self,
        site: &Arc<Site>,
        slot: SlotId,
        address: SocketAddr,
    ) -> io::Result<TcpStream> {
        let family = match address {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let socket = self.make(site, slot, family).await;
        let socket = TcpSocket::from_std_stream(socket.map_err(io::Error::other)?);
        let connected = timeout(CONNECT_WITHIN, socket.connect(address)).await;
        connected
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|error| io::Error::new(error.kind(), format!("connect to {address}: {error}")))
    }

    async fn make(
        &self,
        site: &Arc<Site>,
        slot: SlotId,
        family: AddressFamily,
    ) -> Result<StdStream, NetError> {
        let (made, socket) = oneshot::channel();
        self.order(Job {
            site: site.clone(),
            slot,
            family,
            made,
        })?;
        socket.await.map_err(|_| NetError::Closed)?
    }

    fn order(&self, job: Job) -> Result<(), NetError> {
        // Nothing panics while holding it.
        let mut jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let job = match &*jobs {
            Some(there) => match there.send(job) {
                Ok(()) => return Ok(()),
                // It could not come back from where it was.
                Err(mpsc::SendError(job)) => job,
            },
            None => job,
        };
        let (sender, orders) = mpsc::channel();
        std::thread::Builder::new()
            .name("sprite-net".to_owned())
            .spawn(move || work(&orders))
            .map_err(NetError::step("start a thread"))?;
        // If it has ended already, whoever waits is told.
        let _ = sender.send(job);
        *jobs = Some(sender);
        Ok(())
    }
}

/// Goes to the slot of each job and back: a namespace lasts for as long as a thread stands in it.
fn work(orders: &mpsc::Receiver<Job>) {
    for Job {
        site,
        slot,
        family,
        made,
    } in orders
    {
        let socket = socket(&site, slot, family);
        let back = netns::enter(&site.host);
        // Who does not wait any more needs none.
        let _ = made.send(socket);
        if let Err(error) = back {
            tracing::error!(%error, "leave a slot's namespace: a thread ends");
            return;
        }
    }
}

/// A socket in a slot's guest namespace. Leaves the thread there.
fn socket(site: &Site, slot: SlotId, family: AddressFamily) -> Result<StdStream, NetError> {
    build::enter(site, slot, Role::Guest)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None);
    let socket = socket.map_err(NetError::step(format!("make a socket in slot {slot}")))?;
    Ok(socket.into())
}
