//! One stream: a Unix socket on one side, packets on the other.

use std::collections::VecDeque;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use rustix::net::SendFlags;

use super::credit::{Allowance, Grant};
use super::packet::{BUFFER_SIZE, Header, Operation, Ports, SHUTDOWN_READS, SHUTDOWN_SENDS};
use crate::virtio::Buffers;

const BOTH: u32 = SHUTDOWN_READS | SHUTDOWN_SENDS;

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The host wants it; the guest has not been asked.
    Wanted,
    /// The guest has been asked.
    Requested,
    /// The guest wants it and has it; it has not been told.
    Accepted,
    Established,
    /// To be told to the guest as over.
    Cut,
    /// Over for the guest; what it sent is still on its way to the host.
    Lingering,
}

/// What became of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Goes,
    Ends,
}

/// What a connection has for the guest.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Packet(Header),
    /// The last one: the connection ends with it.
    Last(Header),
    Nothing,
}

/// A rule was broken by the guest.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Violation;

pub(super) struct Connection {
    ports: Ports,
    stream: UnixStream,
    stage: Stage,
    /// Whether it stands in line for a turn.
    pub(super) in_line: bool,
    /// When to give up waiting for the guest.
    pub(super) deadline: Option<Instant>,

    allowance: Allowance,
    /// The guest was asked for credit and has not answered.
    credit_asked: bool,
    /// There may be something to read from the host.
    readable: bool,
    /// The host sends no more, or the guest reads no more.
    host_ended: bool,

    grant: Grant,
    /// What the host has not taken.
    buffer: VecDeque<u8>,
    /// The host reads no more: what comes for it is thrown away.
    host_deaf: bool,
    /// What the guest has shut down.
    guest_shut: u32,
    /// What the guest has been told to be shut down.
    told_shut: u32,
    /// The guest asked for our side of the credit.
    credit_owed: bool,
}

impl Connection {
    /// A process of the host wants to speak with a port of the guest.
    pub(super) fn from_host(ports: Ports, stream: UnixStream) -> Self {
        Self::new(ports, stream, Stage::Wanted)
    }

    /// A process of the guest speaks with one of the host.
    pub(super) fn from_guest(ports: Ports, stream: UnixStream, request: &Header) -> Self {
        let mut connection = Self::new(ports, stream, Stage::Accepted);
        connection.hear_credit(request);
        connection
    }

    fn new(ports: Ports, stream: UnixStream, stage: Stage) -> Self {
        Self {
            ports,
            stream,
            stage,
            in_line: false,
            deadline: None,
            allowance: Allowance::default(),
            credit_asked: false,
            // What the host wrote behind its first line is in the socket already, without a further event.
            readable: true,
            host_ended: false,
            grant: Grant::default(),
            buffer: VecDeque::new(),
            host_deaf: false,
            guest_shut: 0,
            told_shut: 0,
            credit_owed: false,
        }
    }

    pub(super) fn ports(&self) -> Ports {
        self.ports
    }

    /// Whether the guest knows nothing of it.
    pub(super) fn is_unheard(&self) -> bool {
        self.stage == Stage::Wanted
    }

    /// Whether the guest has been asked and has not answered.
    pub(super) fn awaits_answer(&self) -> bool {
        self.stage == Stage::Requested
    }

    /// Whether the guest has been told that all is over and has to agree.
    pub(super) fn awaits_end(&self) -> bool {
        self.stage == Stage::Established && self.told_shut == BOTH
    }

    /// Whether [`Connection::turn`] may have something.
    pub(super) fn wants_turn(&self) -> bool {
        match self.stage {
            Stage::Wanted | Stage::Accepted | Stage::Cut => true,
            Stage::Requested | Stage::Lingering => false,
            Stage::Established => {
                let may_read = self.allowance.left() > 0 || !self.credit_asked;
                self.readable && !self.host_ended && may_read
                    || self.wanted_shut() & !self.told_shut != 0
                    || self.credit_owed
                    || self.grant.is_due()
            }
        }
    }

    /// Ends it from our side; the guest is told.
    pub(super) fn cut(&mut self) {
        self.stage = Stage::Cut;
    }

    /// The next packet for the guest; data is read into `room` for it.
    pub(super) fn turn(&mut self, room: &Buffers<'_>) -> Turn {
        match self.stage {
            Stage::Wanted => {
                self.stage = Stage::Requested;
                Turn::Packet(self.header(Operation::Request))
            }
            Stage::Accepted => {
                self.stage = Stage::Established;
                Turn::Packet(self.header(Operation::Response))
            }
            Stage::Cut => Turn::Last(self.header(Operation::Reset)),
            Stage::Requested | Stage::Lingering => Turn::Nothing,
            Stage::Established => self.established_turn(room),
        }
    }

    fn established_turn(&mut self, room: &Buffers<'_>) -> Turn {
        if self.readable && !self.host_ended {
            let left = self.allowance.left() as usize;
            if left == 0 && !self.credit_asked {
                self.credit_asked = true;
                return Turn::Packet(self.header(Operation::CreditRequest));
            }
            let limit = left.min(room.len());
            if limit > 0
                && let Some(count) = self.read(room, limit)
            {
                let mut header = self.header(Operation::Data);
                header.len = count;
                self.allowance.sent(count);
                return Turn::Packet(header);
            }
        }
        let shut = self.wanted_shut();
        if shut & !self.told_shut != 0 {
            self.told_shut = shut;
            let mut header = self.header(Operation::Shutdown);
            header.flags = shut;
            return Turn::Packet(header);
        }
        if self.credit_owed || self.grant.is_due() {
            return Turn::Packet(self.header(Operation::CreditUpdate));
        }
        Turn::Nothing
    }

    fn header(&mut self, operation: Operation) -> Header {
        // Every packet tells our side of the credit.
        self.credit_owed = false;
        Header {
            ports: self.ports,
            operation,
            flags: 0,
            len: 0,
            buffer: BUFFER_SIZE,
            forwarded: self.grant.tell(),
        }
    }

    /// Reads from the host into guest memory; nothing if there is nothing (now or ever).
    fn read(&mut self, room: &Buffers<'_>, limit: usize) -> Option<u32> {
        let mut pieces = room.iovecs();
        let mut rest = limit;
        for piece in &mut pieces {
            piece.iov_len = piece.iov_len.min(rest);
            rest -= piece.iov_len;
        }
        let pieces_count = libc::c_int::try_from(pieces.len()).expect("no more than descriptors");
        loop {
            // SAFETY: the pieces lie in guest memory, which lives as long as `room`; nobody has a Rust reference
            // to it.
            let count =
                unsafe { libc::readv(self.stream.as_raw_fd(), pieces.as_ptr(), pieces_count) };
            match u32::try_from(count) {
                Ok(0) => {
                    self.host_ended = true;
                    return None;
                }
                Ok(count) => return Some(count),
                Err(_negative) => match io::Error::last_os_error().kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock => {
                        self.readable = false;
                        return None;
                    }
                    // The host's process has gone without reading all: for the guest an end as any other.
                    _gone => {
                        self.host_ended = true;
                        self.host_deaf = true;
                        return None;
                    }
                },
            }
        }
    }

    /// What the guest is to be told as shut down.
    fn wanted_shut(&self) -> u32 {
        let sends = if self.host_ended { SHUTDOWN_SENDS } else { 0 };
        let reads = if self.host_deaf { SHUTDOWN_READS } else { 0 };
        sends | reads
    }

    /// The host has written something or has ended.
    pub(super) fn host_readable(&mut self) {
        self.readable = true;
    }

    /// The host's process has closed its end.
    pub(super) fn host_gone(&mut self) -> Fate {
        self.readable = true;
        self.deafen();
        match self.stage {
            // The guest has never heard of it, or not any more.
            Stage::Wanted | Stage::Lingering => Fate::Ends,
            Stage::Requested => {
                self.stage = Stage::Cut;
                Fate::Goes
            }
            Stage::Accepted | Stage::Established | Stage::Cut => Fate::Goes,
        }
    }

    fn deafen(&mut self) {
        self.host_deaf = true;
        self.grant.forward(self.buffer.len());
        self.buffer = VecDeque::new();
    }

    /// Gives the host what it has not taken, as far as it takes it now.
    pub(super) fn flush(&mut self) -> Fate {
        while !self.buffer.is_empty() {
            let (front, _back) = self.buffer.as_slices();
            match send(&self.stream, front) {
                Ok(count) => {
                    self.buffer.drain(..count);
                    self.grant.forward(count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Fate::Goes,
                Err(_gone) => self.deafen(),
            }
        }
        self.buffer.shrink_to_fit();
        if self.stage == Stage::Lingering {
            return Fate::Ends;
        }
        self.pass_on_guest_end();
        Fate::Goes
    }

    /// Once all that the guest sent has reached the host, the guest's end does.
    fn pass_on_guest_end(&mut self) {
        if self.stage != Stage::Established || !self.buffer.is_empty() {
            return;
        }
        if self.guest_shut == BOTH {
            self.stage = Stage::Cut;
        } else if self.guest_shut & SHUTDOWN_SENDS != 0 {
            // It fails only when the host is gone, which is told by an event.
            let _ = self.stream.shutdown(Shutdown::Write);
        }
    }

    /// A packet from the guest, but for requests and resets.
    pub(super) fn packet(&mut self, header: &Header, data: &Buffers<'_>) -> Result<(), Violation> {
        if header.operation == Operation::Response {
            return self.accepted(header);
        }
        if self.stage != Stage::Established {
            return Err(Violation);
        }
        self.hear_credit(header);
        match header.operation {
            Operation::Data => self.data(data),
            Operation::Shutdown => {
                self.guest_shut |= header.flags & BOTH;
                if self.guest_shut & SHUTDOWN_READS != 0 {
                    self.host_ended = true;
                    let _ = self.stream.shutdown(Shutdown::Read);
                }
                self.pass_on_guest_end();
                Ok(())
            }
            Operation::CreditRequest => {
                self.credit_owed = true;
                Ok(())
            }
            Operation::CreditUpdate => Ok(()),
            Operation::Request | Operation::Response | Operation::Reset => Err(Violation),
        }
    }

    fn accepted(&mut self, header: &Header) -> Result<(), Violation> {
        if self.stage != Stage::Requested {
            return Err(Violation);
        }
        self.stage = Stage::Established;
        self.deadline = None;
        self.hear_credit(header);
        let line = format!("OK {}\n", self.ports.host);
        match send(&self.stream, line.as_bytes()) {
            Ok(count) if count == line.len() => {}
            // An empty socket takes a line unless its other end is gone.
            Ok(_) | Err(_) => self.deafen(),
        }
        Ok(())
    }

    fn hear_credit(&mut self, header: &Header) {
        self.allowance.told(header.buffer, header.forwarded);
        if self.allowance.left() > 0 {
            self.credit_asked = false;
        }
    }

    fn data(&mut self, data: &Buffers<'_>) -> Result<(), Violation> {
        if self.guest_shut & SHUTDOWN_SENDS != 0
            || self.buffer.len() + data.len() > BUFFER_SIZE as usize
        {
            return Err(Violation);
        }
        if self.host_deaf {
            self.grant.forward(data.len());
            return Ok(());
        }
        let mut bytes = vec![0; data.len()];
        let count = data.copy_to(&mut bytes);
        bytes.truncate(count);
        let mut sent = 0;
        if self.buffer.is_empty() {
            match send(&self.stream, &bytes) {
                Ok(count) => sent = count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_gone) => {
                    self.deafen();
                    sent = bytes.len();
                }
            }
        }
        self.grant.forward(sent);
        self.buffer.extend(&bytes[sent..]);
        Ok(())
    }

    /// The guest ends it, or breaks it: what it sent before still goes to the host.
    pub(super) fn guest_reset(&mut self) -> Fate {
        self.stage = Stage::Lingering;
        self.flush()
    }
}

/// Sends without waiting and without a signal.
fn send(stream: &UnixStream, bytes: &[u8]) -> io::Result<usize> {
    // A socket of ours outlives the call.
    let stream: BorrowedFd<'_> = std::os::fd::AsFd::as_fd(stream);
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    loop {
        match rustix::net::send(stream, bytes, flags) {
            Err(rustix::io::Errno::INTR) => {}
            done => return Ok(done?),
        }
    }
}
