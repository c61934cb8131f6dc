//! The sockets that are listened to: our own, or those that a service manager holds for us.
//!
//! A service manager that holds them keeps whoever connects while no server runs waiting, instead of refusing.
//! Source: sd_listen_fds(3).

use std::io;
use std::net::SocketAddr;

use listenfd::ListenFd;
use rustix::io::FdFlags;
use tokio::net::{TcpListener, TcpSocket};

use crate::config::Listen;
use crate::failure::Failure;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// Sockets that this process was given, and that nobody listens to yet.
pub(crate) struct Given(Vec<(SocketAddr, TcpListener)>);

impl Given {
    /// Takes them: no process that is started from here on has them. Once; within a runtime.
    pub(crate) fn take() -> Result<Self, Failure> {
        let take = || {
            let mut given = ListenFd::from_env();
            let mut sockets = Vec::new();
            for index in 0..given.len() {
                if let Some(socket) = given.take_tcp_listener(index)? {
                    socket.set_nonblocking(true)?;
                    rustix::io::fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
                    sockets.push((socket.local_addr()?, TcpListener::from_std(socket)?));
                }
            }
            io::Result::Ok(sockets)
        };
        let sockets = take().map_err(|error| {
            Failure::new("use the sockets of the service manager", &error)
                .hint("only TCP sockets are known: ListenStream=ADDR:PORT in its socket unit")
        })?;
        Ok(Self(sockets))
    }

    /// Listens to addresses: by the socket that was given for it, else by one of our own.
    pub(crate) fn listen(&mut self, addresses: &[Listen]) -> Result<Vec<TcpListener>, Failure> {
        let mut listeners = Vec::new();
        for listen in addresses {
            let given = self.0.iter().position(|(at, _)| *at == listen.address);
            let listener = match given {
                Some(index) => Ok(self.0.swap_remove(index).1),
                None => bind(listen.address),
            };
            match listener {
                Ok(listener) => listeners.push(listener),
                Err(error) if !listen.required => {
                    tracing::info!(%error, "not listening on {}", listen.address);
                }
                Err(error) => {
                    return Err(
                        Failure::new(format!("listen on {}", listen.address), &error).hint(
                            "choose another address with --listen ADDR:PORT; port 0 picks a free one",
                        ),
                    );
                }
            }
        }
        Ok(listeners)
    }

    /// Refuses to start with a socket to which nobody would listen: who connects there would wait for ever.
    pub(crate) fn all_used(self) -> Result<(), Failure> {
        match self.0.first() {
            None => Ok(()),
            Some((address, _)) => Err(Failure::plain(format!(
                "the service manager holds {address}, which is no address to listen on"
            ))
            .hint(format!(
                "add --listen {address} or --url-listen {address}, or take it out of the socket unit"
            ))),
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
