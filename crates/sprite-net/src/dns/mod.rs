//! The name server of every machine: a relay to the host's own resolvers.
//!
//! Its sockets are bound in the slot's router namespace, where only the machine can send to them; the sockets
//! towards the resolvers are in the host's namespace, so that a resolver on the host's loopback works. Nothing
//! is cached and nothing is changed: a question goes out as it came, and the answer comes back as it was given.
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

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::build::DnsSockets;

pub(crate) use resolvers::Resolvers;
pub(crate) use upstream::Upstream;

/// The tasks of one machine's name server. They end, and its sockets close, with [`Forwarder::stop`] or when
/// the value is dropped.
#[derive(Debug)]
pub(crate) struct Forwarder {
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Forwarder {
    /// Serves these sockets. Within a runtime.
    pub(crate) fn start(sockets: DnsSockets, upstream: Arc<Upstream>) -> io::Result<Self> {
        let udp = tokio::net::UdpSocket::from_std(sockets.udp)?;
        let tcp = tokio::net::TcpListener::from_std(sockets.tcp)?;
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        tasks.spawn(udp::serve(udp, Arc::clone(&upstream), stop.clone()));
        tasks.spawn(tcp::serve(tcp, upstream, stop.clone()));
        tasks.close();
        Ok(Self { stop, tasks })
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
