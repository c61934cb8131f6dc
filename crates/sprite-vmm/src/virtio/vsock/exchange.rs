//! What the guest gets from all connections, and what it says to them.

use std::time::Instant;

use super::connection::{Connection, Turn};
use super::hub::Hub;
use super::packet::{Header, Incoming, Operation, Ports};
use crate::virtio::Buffers;

/// Most answers kept for the guest; while there are as many, nothing is taken from it.
const MAX_ANSWERS: usize = 256;

impl Hub {
    /// Whether answers wait that leave no room for more.
    pub(super) fn is_stuffed(&self) -> bool {
        self.answers.len() >= MAX_ANSWERS
    }

    /// Whether [`Hub::next_packet`] may have something.
    pub(super) fn has_packets(&self) -> bool {
        !self.answers.is_empty() || !self.line.is_empty()
    }

    /// The next packet for the guest, its data written to `room`.
    pub(super) fn next_packet(&mut self, room: &Buffers<'_>) -> Option<Header> {
        if let Some(answer) = self.answers.pop_front() {
            return Some(answer);
        }
        while let Some(id) = self.line.pop_front() {
            let Some(connection) = self.connections.get_mut(&id) else {
                continue;
            };
            connection.in_line = false;
            let turn = connection.turn(room);
            if connection.deadline.is_none()
                && (connection.awaits_answer() || connection.awaits_end())
            {
                let deadline = Instant::now() + self.patience;
                connection.deadline = Some(deadline);
                self.wake_at(deadline);
            }
            match turn {
                Turn::Packet(header) => {
                    self.line_up(id);
                    return Some(header);
                }
                Turn::Last(header) => {
                    self.remove(id);
                    return Some(header);
                }
                Turn::Nothing => {}
            }
        }
        None
    }

    /// Handles a packet from the guest.
    pub(super) fn guest_packet(&mut self, incoming: Incoming, data: Buffers<'_>) {
        let header = match incoming {
            Incoming::Packet(header) => header,
            Incoming::Unknown(ports) => return self.answer_stray(ports),
            Incoming::Stray => return self.metrics.stray.inc(),
        };
        let id = self.by_ports.get(&header.ports).copied();
        match (header.operation, id) {
            (Operation::Request, None) => self.guest_connects(&header),
            (Operation::Reset, None) => {}
            (Operation::Reset, Some(id)) => self.guest_resets(id),
            (Operation::Request, Some(id)) => self.violated(id),
            (_of_a_connection, None) => self.answer_stray(header.ports),
            (_of_a_connection, Some(id)) => self.connection_packet(id, &header, data),
        }
    }

    fn answer_stray(&mut self, ports: Ports) {
        self.metrics.stray.inc();
        self.answers.push_back(Header::reset(ports));
    }

    fn connection_packet(&mut self, id: u64, header: &Header, data: Buffers<'_>) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let data = match header.operation {
            Operation::Data => data.split(header.len as usize).map(|(data, _rest)| data),
            Operation::Request
            | Operation::Response
            | Operation::Reset
            | Operation::Shutdown
            | Operation::CreditUpdate
            | Operation::CreditRequest => Some(Buffers::default()),
        };
        let Some(data) = data else {
            return self.violated(id);
        };
        if connection.packet(header, &data).is_err() {
            return self.violated(id);
        }
        self.metrics.bytes_to_host.add(data.len() as u64);
        if header.operation == Operation::Response {
            self.metrics.opened.inc();
        }
        self.line_up(id);
    }

    /// The guest broke a rule of this connection: it ends at once on both sides.
    fn violated(&mut self, id: u64) {
        self.metrics.cut.inc();
        if let Some(connection) = self.connections.get(&id) {
            self.answers.push_back(Header::reset(connection.ports()));
        }
        self.remove(id);
    }

    fn guest_resets(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        if connection.awaits_answer() {
            self.metrics.refused.inc();
        }
        let ports = connection.ports();
        let fate = connection.guest_reset();
        // The guest may use the ports again at once.
        self.by_ports.remove(&ports);
        connection.deadline = None;
        self.settle(id, fate);
    }

    fn guest_connects(&mut self, request: &Header) {
        let connected = if self.is_full() {
            None
        } else {
            let stream = self.listener.connect(request.ports.host).ok();
            stream.and_then(|stream| Some((self.watch(&stream).ok()?, stream)))
        };
        let Some((id, stream)) = connected else {
            self.metrics.refused.inc();
            self.answers.push_back(Header::reset(request.ports));
            return;
        };
        self.metrics.opened.inc();
        self.insert(id, Connection::from_guest(request.ports, stream, request));
    }
}
