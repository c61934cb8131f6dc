//! The name server of every machine: a relay to the host's own resolvers.
//!
//! Its sockets are bound in the slot's router namespace, where only the machine can send to them; the sockets
//! towards the resolvers are in the host's namespace, so that a resolver on the host's loopback works. Nothing
//! is cached and nothing is changed: a question goes out as it came, and the answer comes back as it was given.
//! The questions of a machine that is closed go nowhere: each is answered REFUSED.
//!
//! Everything that a machine can make grow has a limit: questions in flight ([`udp::MOST_IN_FLIGHT`]) and
//! connections ([`tcp::MOST_CONNECTIONS`]) per machine, sockets to the resolvers over all machines
//! ([`upstream::MOST_SOCKETS`]), bytes and time per question.

mod message;
mod resolvers;
mod tcp;
mod udp;
mod upstream;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sprite_types::Egress;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::build::DnsSockets;
use message::{Failure, Query, Received, failure, receive};

pub(crate) use resolvers::Resolvers;
pub(crate) use upstream::Upstream;

/// The tasks of one machine's name server. They end, and its sockets close, with [`Forwarder::stop`] or when
/// the value is dropped.
#[derive(Debug)]
pub(crate) struct Forwarder {
    stop: CancellationToken,
    tasks: TaskTracker,
    door: Arc<Door>,
}

/// Whether a machine's questions are relayed.
#[derive(Debug)]
struct Door {
    closed: AtomicBool,
}

impl Door {
    fn new(egress: Egress) -> Arc<Self> {
        let door = Self {
            closed: AtomicBool::new(false),
        };
        door.set(egress);
        Arc::new(door)
    }

    fn set(&self, egress: Egress) {
        let closed = match egress {
            Egress::Open => false,
            Egress::Closed => true,
        };
        self.closed.store(closed, Ordering::SeqCst);
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// The answer to a message of the machine; `None` if it gets none. `relay` asks the resolvers. Where the door
    /// was closed meanwhile, their answer is not given.
    async fn answer<'a, F>(
        &self,
        message: &'a [u8],
        relay: impl FnOnce(Query<'a>) -> F,
    ) -> Option<Vec<u8>>
    where
        F: Future<Output = Vec<u8>>,
    {
        let query = match receive(message) {
            Received::Query(query) => query,
            Received::Refused(reason) => return Some(failure(message, reason)),
            Received::Ignored => return None,
        };
        if self.is_closed() {
            return Some(query.fail(Failure::Refused));
        }
        let answer = relay(query).await;
        Some(if self.is_closed() {
            query.fail(Failure::Refused)
        } else {
            answer
        })
    }
}

/// Where questions go.
#[derive(Debug, Clone)]
struct Relay {
    upstream: Arc<Upstream>,
    door: Arc<Door>,
}

impl Forwarder {
    /// Serves these sockets. Within a runtime.
    pub(crate) fn start(sockets: DnsSockets, upstream: Arc<Upstream>) -> io::Result<Self> {
        let door = Door::new(sockets.egress);
        let udp = tokio::net::UdpSocket::from_std(sockets.udp)?;
        let tcp = tokio::net::TcpListener::from_std(sockets.tcp)?;
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let relay = Relay {
            upstream,
            door: Arc::clone(&door),
        };
        tasks.spawn(udp::serve(udp, relay.clone(), stop.clone()));
        tasks.spawn(tcp::serve(tcp, relay, stop.clone()));
        tasks.close();
        Ok(Self { stop, tasks, door })
    }

    /// From now on questions are relayed, or refused: also those that wait for an answer.
    pub(crate) fn set_egress(&self, egress: Egress) {
        self.door.set(egress);
    }

    /// Returns when the sockets are closed.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
