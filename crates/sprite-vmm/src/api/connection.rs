//! One client: what it sent and what it has not yet taken.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::request::{self, BadRequest, MAX_KEPT, Progress, Request};
use super::response::{Afterwards, Response};
use crate::control::FaultKind;

/// How long a client may take for the whole of a request, and for taking a response.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// How much is read at once.
const READ: usize = 16 << 10;

/// A connection, which never blocks.
pub(super) struct Connection {
    stream: UnixStream,
    received: Vec<u8>,
    to_send: Vec<u8>,
    /// How much of `to_send` was sent.
    sent: usize,
    told_to_continue: bool,
    closing: bool,
    /// When the client must have finished what it began; none while it may be idle.
    deadline: Option<Instant>,
    /// When something last happened: the one that is idle for longest gives way to a new client.
    pub(super) active: Instant,
}

/// Whether a connection goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Alive,
    Over,
}

impl Connection {
    pub(super) fn new(stream: UnixStream, now: Instant) -> io::Result<Connection> {
        stream.set_nonblocking(true)?;
        Ok(Connection {
            stream,
            received: Vec::new(),
            to_send: Vec::new(),
            sent: 0,
            told_to_continue: false,
            closing: false,
            deadline: None,
            active: now,
        })
    }

    pub(super) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Whether there are bytes that the client has not taken. Until it has, nothing more of it is read.
    pub(super) fn is_sending(&self) -> bool {
        self.sent < self.to_send.len()
    }

    /// Whether the client is neither sending a request nor taking a response.
    pub(super) fn is_idle(&self) -> bool {
        self.deadline.is_none()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Reads what is there and answers every whole request by `answer`.
    pub(super) fn read(
        &mut self,
        now: Instant,
        mut answer: impl FnMut(&Request, &[u8]) -> Response,
    ) -> Fate {
        self.active = now;
        let mut buffer = [0; READ];
        let room = MAX_KEPT.saturating_sub(self.received.len()).min(READ);
        match self.stream.read(&mut buffer[..room]) {
            // A client that has sent all it will may still wait for its answer: but it has had it, or never
            // sent a whole request.
            Ok(0) => return Fate::Over,
            Ok(count) => self.received.extend_from_slice(&buffer[..count]),
            Err(error) if is_transient(&error) => return Fate::Alive,
            Err(_) => return Fate::Over,
        }
        self.answer_all(now, &mut answer)
    }

    /// Sends what is left, then answers what came meanwhile.
    pub(super) fn write(
        &mut self,
        now: Instant,
        mut answer: impl FnMut(&Request, &[u8]) -> Response,
    ) -> Fate {
        match self.send(now) {
            Fate::Over => Fate::Over,
            Fate::Alive => self.answer_all(now, &mut answer),
        }
    }

    fn answer_all(
        &mut self,
        now: Instant,
        answer: &mut impl FnMut(&Request, &[u8]) -> Response,
    ) -> Fate {
        while !self.is_sending() && !self.closing {
            match request::parse(&self.received) {
                Ok(Progress::Whole(request)) => {
                    let response = answer(&request, &self.received[request.body.clone()]);
                    self.received.drain(..request.body.end);
                    self.told_to_continue = false;
                    self.deadline = None;
                    let afterwards = match request.keep_alive {
                        true => Afterwards::Keep,
                        false => Afterwards::Close,
                    };
                    self.respond(&response, afterwards);
                }
                Ok(Progress::Partial { expects_continue }) => {
                    if !self.received.is_empty() && self.deadline.is_none() {
                        self.deadline = Some(now + PATIENCE);
                    }
                    if !expects_continue || self.told_to_continue {
                        return Fate::Alive;
                    }
                    self.told_to_continue = true;
                    self.to_send = b"HTTP/1.1 100 Continue\r\n\r\n".to_vec();
                    self.sent = 0;
                }
                Err(error) => self.refuse(&error),
            }
            if self.send(now) == Fate::Over {
                return Fate::Over;
            }
        }
        Fate::Alive
    }

    fn refuse(&mut self, error: &BadRequest) {
        // Where the next request would begin is not known.
        self.received.clear();
        let fault = Response::fault(&error.to_string(), FaultKind::Invalid);
        self.respond(&fault, Afterwards::Close);
    }

    /// Puts a response on its way.
    pub(super) fn respond(&mut self, response: &Response, afterwards: Afterwards) {
        self.to_send = response.bytes(afterwards);
        self.sent = 0;
        self.closing = afterwards == Afterwards::Close;
    }

    pub(super) fn send(&mut self, now: Instant) -> Fate {
        while self.is_sending() {
            match self.stream.write(&self.to_send[self.sent..]) {
                Ok(0) => return Fate::Over,
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.deadline.get_or_insert(now + PATIENCE);
                    return Fate::Alive;
                }
                Err(_) => return Fate::Over,
            }
        }
        self.to_send = Vec::new();
        self.sent = 0;
        if self.closing {
            return Fate::Over;
        }
        if self.received.is_empty() {
            self.deadline = None;
        }
        Fate::Alive
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
