//! The thread that looks after all clients.

use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::connection::{Connection, Fate};
use super::request::Request;
use super::response::{Afterwards, Response};
use super::route::command;
use crate::control::{FaultKind, Sender};
use crate::log;

/// Most clients at once; the driver has one, a person with `curl` another.
const MAX_CLIENTS: usize = 10;

/// How long clients are not accepted after the system had no descriptor or memory left for one.
const NO_ROOM: Duration = Duration::from_secs(1);

/// The control socket.
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    clients: Vec<Connection>,
    /// Clients are not accepted before this, after the system had nothing left for one.
    accept_from: Option<Instant>,
}

impl Server {
    /// Makes the socket. Clients can connect from now on; they are answered by [`Server::run`].
    ///
    /// # Errors
    /// The system refuses, above all because there is a file of that name.
    pub fn bind(path: &Path) -> io::Result<Server> {
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        Ok(Server {
            listener,
            path: path.to_owned(),
            clients: Vec::new(),
            accept_from: None,
        })
    }

    /// The socket's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Serves clients for as long as there is someone who does what they ask.
    ///
    /// # Errors
    /// The system cannot wait. Failures of single clients end these clients only.
    pub fn run(&mut self, to: &Sender) -> io::Result<()> {
        loop {
            let ready = self.wait()?;
            let now = Instant::now();
            let mut index = 0;
            let mut gone = false;
            self.clients.retain_mut(|client| {
                let flags = ready.clients[index];
                index += 1;
                let mut answer =
                    |request: &Request, body: &[u8]| respond(to, &mut gone, request, body);
                let fate = if flags.is_empty() {
                    Fate::Alive
                } else if client.is_sending() {
                    client.write(now, &mut answer)
                } else {
                    client.read(now, &mut answer)
                };
                let late = client.deadline().is_some_and(|deadline| deadline <= now);
                fate == Fate::Alive && !late
            });
            if gone {
                return Ok(());
            }
            if self.accept_from.is_some_and(|from| from <= now) {
                self.accept_from = None;
            } else if ready.listener {
                self.accept(now)?;
            }
        }
    }

    fn wait(&self) -> io::Result<Ready> {
        let interest = match self.accept_from {
            None => PollFlags::IN,
            Some(_) => PollFlags::empty(),
        };
        let mut sources = vec![PollFd::from_borrowed_fd(self.listener.as_fd(), interest)];
        for client in &self.clients {
            let interest = match client.is_sending() {
                true => PollFlags::OUT,
                false => PollFlags::IN,
            };
            sources.push(PollFd::from_borrowed_fd(client.stream().as_fd(), interest));
        }
        let deadlines = self.clients.iter().filter_map(Connection::deadline);
        let timeout = deadlines
            .chain(self.accept_from)
            .min()
            .map(|deadline| deadline.saturating_duration_since(Instant::now()))
            .map(|left| Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(left.subsec_nanos()),
            });
        match poll(&mut sources, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut flags = sources.iter().map(PollFd::revents);
        let listener = flags.next().is_some_and(|flags| !flags.is_empty());
        Ok(Ready {
            listener,
            clients: flags.collect(),
        })
    }

    fn accept(&mut self, now: Instant) -> io::Result<()> {
        let stream = match self.listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) => {
                return match error.kind() {
                    // The client has gone again.
                    ErrorKind::WouldBlock
                    | ErrorKind::Interrupted
                    | ErrorKind::ConnectionAborted => Ok(()),
                    _ => {
                        // The client waits in the listener's queue; asking again at once would not help.
                        log::warn(format_args!(
                            "accept a client of the control socket: {error}"
                        ));
                        self.accept_from = Some(now + NO_ROOM);
                        Ok(())
                    }
                };
            }
        };
        let mut client = Connection::new(stream, now)?;
        if self.clients.len() == MAX_CLIENTS && !self.part_with_an_idle_one() {
            client.respond(
                &Response::unavailable("too many clients at once"),
                Afterwards::Close,
            );
            // If it does not take it at once it goes without.
            client.send(now);
            return Ok(());
        }
        self.clients.push(client);
        Ok(())
    }

    /// Makes room for a client that may have something to ask.
    fn part_with_an_idle_one(&mut self) -> bool {
        let longest_idle = self
            .clients
            .iter()
            .enumerate()
            .filter(|(_, client)| client.is_idle())
            .min_by_key(|(_, client)| client.active)
            .map(|(index, _)| index);
        match longest_idle {
            Some(index) => {
                self.clients.remove(index);
                true
            }
            None => false,
        }
    }
}

struct Ready {
    listener: bool,
    clients: Vec<PollFlags>,
}

/// Has a request done. `gone` is set when nobody is left to do it.
fn respond(to: &Sender, gone: &mut bool, request: &Request, body: &[u8]) -> Response {
    match command(request.method, &request.path, body) {
        Ok(command) => match to.ask(command) {
            Ok(outcome) => Response::of(&outcome),
            Err(closed) => {
                *gone = true;
                Response::unavailable(&closed.to_string())
            }
        },
        Err(error) => Response::fault(
            &crate::failure::chain(&error),
            match error.is_refusal() {
                true => FaultKind::NotSupported,
                false => FaultKind::Invalid,
            },
        ),
    }
}
