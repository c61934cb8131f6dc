//! Packets as they lie in guest memory. Source: VIRTIO 1.2, section 5.10.6.

/// Bytes before a packet's data.
pub(super) const HEADER_SIZE: usize = 44;
/// The host's address.
pub(super) const HOST_CID: u64 = 2;
/// What we keep of a stream for its reader on the host, and what the guest is told so.
pub(super) const BUFFER_SIZE: u32 = 64 * 1024;
/// The only kind of socket there is.
const STREAM: u16 = 1;

/// In the flags of a shutdown: the sender reads no more.
pub(super) const SHUTDOWN_READS: u32 = 1;
/// In the flags of a shutdown: the sender sends no more.
pub(super) const SHUTDOWN_SENDS: u32 = 2;

/// What a packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Request,
    Response,
    Reset,
    Shutdown,
    Data,
    CreditUpdate,
    CreditRequest,
}

impl Operation {
    fn number(self) -> u16 {
        match self {
            Self::Request => 1,
            Self::Response => 2,
            Self::Reset => 3,
            Self::Shutdown => 4,
            Self::Data => 5,
            Self::CreditUpdate => 6,
            Self::CreditRequest => 7,
        }
    }

    fn from_number(number: u16) -> Option<Self> {
        match number {
            1 => Some(Self::Request),
            2 => Some(Self::Response),
            3 => Some(Self::Reset),
            4 => Some(Self::Shutdown),
            5 => Some(Self::Data),
            6 => Some(Self::CreditUpdate),
            7 => Some(Self::CreditRequest),
            _unknown => None,
        }
    }
}

/// Both ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ports {
    pub(super) host: u32,
    pub(super) guest: u32,
}

/// A packet's header, without what is the same in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) ports: Ports,
    pub(super) operation: Operation,
    pub(super) flags: u32,
    /// Bytes of data behind it.
    pub(super) len: u32,
    /// The sender's buffer for this stream.
    pub(super) buffer: u32,
    /// Bytes that the sender's reader has taken since the stream began, modulo 2^32.
    pub(super) forwarded: u32,
}

impl Header {
    /// An answer to what has no connection.
    pub(super) fn reset(ports: Ports) -> Self {
        Self {
            ports,
            operation: Operation::Reset,
            flags: 0,
            len: 0,
            buffer: 0,
            forwarded: 0,
        }
    }

    /// As it goes to the guest.
    pub(super) fn to_guest(self, guest_cid: u32) -> [u8; HEADER_SIZE] {
        let mut bytes = [0; HEADER_SIZE];
        bytes[..8].copy_from_slice(&HOST_CID.to_le_bytes());
        bytes[8..16].copy_from_slice(&u64::from(guest_cid).to_le_bytes());
        bytes[16..20].copy_from_slice(&self.ports.host.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.ports.guest.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.len.to_le_bytes());
        bytes[28..30].copy_from_slice(&STREAM.to_le_bytes());
        bytes[30..32].copy_from_slice(&self.operation.number().to_le_bytes());
        bytes[32..36].copy_from_slice(&self.flags.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.buffer.to_le_bytes());
        bytes[40..].copy_from_slice(&self.forwarded.to_le_bytes());
        bytes
    }

    /// As it comes from the guest.
    pub(super) fn from_guest(bytes: &[u8; HEADER_SIZE], guest_cid: u32) -> Incoming {
        let long = |at: usize| u64::from(word(bytes, at)) | u64::from(word(bytes, at + 4)) << 32;
        let [kind, operation] = [28, 30].map(|at| u16::from_le_bytes([bytes[at], bytes[at + 1]]));
        if long(0) != u64::from(guest_cid) || long(8) != HOST_CID {
            return Incoming::Stray;
        }
        let ports = Ports {
            guest: word(bytes, 16),
            host: word(bytes, 20),
        };
        match Operation::from_number(operation) {
            Some(operation) if kind == STREAM => Incoming::Packet(Self {
                ports,
                operation,
                flags: word(bytes, 32),
                len: word(bytes, 24),
                buffer: word(bytes, 36),
                forwarded: word(bytes, 40),
            }),
            Some(_) | None => Incoming::Unknown(ports),
        }
    }
}

fn word(bytes: &[u8; HEADER_SIZE], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// What a header from the guest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    /// A packet of a stream between this guest and the host.
    Packet(Header),
    /// Something else between them, which is answered by a reset.
    Unknown(Ports),
    /// Something between others.
    Stray,
}
