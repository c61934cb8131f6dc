//! Connections to what listens in a machine of processes, on its loopback interface.
//!
//! A socket belongs to the namespace in which it was made, whoever holds it: it is made there by a thread that goes from
//! slot to slot for that alone, and connected from here.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream as StdStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::build::{self, Site};
use crate::error::NetError;
use crate::name::Role;
use crate::netns;
use crate::slot::SlotId;

/// A listener whose queue is full lets connections wait.
const CONNECT_WITHIN: Duration = Duration::from_secs(8);

/// Sockets made in one visit, of which all but the first wait for their use: a visit is two switches between threads.
const AT_ONCE: usize = 4;

/// Sockets in one slot that wait for their use. It goes with the machine that has the slot: they keep its namespace.
#[derive(Debug, Default)]
pub struct SpareSockets(Mutex<Vec<StdStream>>);

impl SpareSockets {
    /// Closes those there are.
    pub fn clear(&self) {
        self.sockets().clear();
    }

    fn sockets(&self) -> MutexGuard<'_, Vec<StdStream>> {
        // Nothing panics while holding it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread that makes sockets, from the first one on; it ends with this.
#[derive(Debug, Default)]
pub(crate) struct Sockets(Mutex<Option<mpsc::Sender<Job>>>);

/// A socket that is wanted.
#[derive(Debug)]
struct Job {
    site: Arc<Site>,
    slot: SlotId,
    family: AddressFamily,
    count: usize,
    made: oneshot::Sender<Result<Vec<StdStream>, NetError>>,
}

impl Sockets {
    /// Connects to a port, over IPv4 and then over IPv6. The error is that of the first.
    pub(crate) async fn connect(
        &self,
        site: &Arc<Site>,
        slot: SlotId,
        spare: &SpareSockets,
        port: u16,
    ) -> io::Result<TcpStream> {
        let waiting = spare.sockets().pop();
        let socket = match waiting {
            Some(socket) => Some(socket),
            None => {
                let mut made = self.make(site, slot, AddressFamily::INET, AT_ONCE).await?;
                let socket = made.pop();
                spare.sockets().append(&mut made);
                socket
            }
        };
        let first = match connect(socket, (Ipv4Addr::LOCALHOST, port).into()).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => error,
            other => return other,
        };
        let socket = self.make(site, slot, AddressFamily::INET6, 1).await?.pop();
        let second = connect(socket, (Ipv6Addr::LOCALHOST, port).into()).await;
        second.map_err(|_| first)
    }

    async fn make(
        &self,
        site: &Arc<Site>,
        slot: SlotId,
        family: AddressFamily,
        count: usize,
    ) -> io::Result<Vec<StdStream>> {
        let (made, sockets) = oneshot::channel();
        self.order(Job {
            site: site.clone(),
            slot,
            family,
            count,
            made,
        })
        .map_err(io::Error::other)?;
        let made = sockets.await.unwrap_or(Err(NetError::Closed));
        made.map_err(io::Error::other)
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
        count,
        made,
    } in orders
    {
        let sockets = sockets(&site, slot, family, count);
        let back = netns::enter(&site.host);
        // Who does not wait any more needs none.
        let _ = made.send(sockets);
        if let Err(error) = back {
            tracing::error!(%error, "leave a slot's namespace: a thread ends");
            return;
        }
    }
}

/// Sockets in a slot's guest namespace. Leaves the thread there.
fn sockets(
    site: &Site,
    slot: SlotId,
    family: AddressFamily,
    count: usize,
) -> Result<Vec<StdStream>, NetError> {
    build::enter(site, slot, Role::Guest)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = |_| {
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None);
        let socket = socket.map_err(NetError::step(format!("make a socket in slot {slot}")))?;
        Ok(socket.into())
    };
    (0..count).map(socket).collect()
}

async fn connect(socket: Option<StdStream>, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = socket.ok_or(io::ErrorKind::NotConnected)?;
    let connected = timeout(CONNECT_WITHIN, connected(socket, address)).await;
    connected
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(|error| io::Error::new(error.kind(), format!("connect to {address}: {error}")))
}

async fn connected(socket: StdStream, address: SocketAddr) -> io::Result<TcpStream> {
    match rustix::net::connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    let stream = TcpStream::from_std(socket)?;
    // On a loopback interface the other end has taken it by now, unless it is busy.
    if stream.peer_addr().is_err() {
        stream.writable().await?;
        stream.take_error()?.map_or(Ok(()), Err)?;
    }
    Ok(stream)
}
