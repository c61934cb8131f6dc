//! Netlink messages: building them, and reading their attributes.
//!
//! Source: `linux/netlink.h`; the layout is the same for rtnetlink and for nf_tables.

use std::net::Ipv4Addr;

/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;
/// The bits of an attribute's type that are flags (`NLA_F_NESTED`, `NLA_F_NET_BYTEORDER`).
const TYPE_FLAGS: u16 = 0xc000;
const NESTED: u16 = 0x8000;

/// One request: header, the family's own fixed part, attributes.
///
/// The length and the sequence number are filled in by the socket that sends it.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// A request of type `kind`. `fixed` is the family's own part (`struct ifinfomsg`, `struct rtmsg`, …).
    pub(crate) fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(fixed);
        let mut message = Self { bytes };
        message.pad();
        message
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// Adds an attribute.
    pub(crate) fn attr(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(value.len() + 4).expect("our attributes are far below 64 KiB");
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
        self
    }

    /// Adds a number in the host's byte order: what rtnetlink wants.
    pub(crate) fn native(self, kind: u16, value: u32) -> Self {
        self.attr(kind, &value.to_ne_bytes())
    }

    /// Adds a number in network byte order: what nf_tables wants.
    pub(crate) fn big_endian(self, kind: u16, value: u32) -> Self {
        self.attr(kind, &value.to_be_bytes())
    }

    /// Adds a long number in network byte order.
    pub(crate) fn big_endian_64(self, kind: u16, value: u64) -> Self {
        self.attr(kind, &value.to_be_bytes())
    }

    /// Adds a text with its final NUL.
    pub(crate) fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attr(kind, &bytes)
    }

    /// Adds an IPv4 address.
    pub(crate) fn address(self, kind: u16, value: Ipv4Addr) -> Self {
        self.attr(kind, &value.octets())
    }

    /// Adds an attribute that holds attributes.
    pub(crate) fn nest(mut self, kind: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        let mut filled = fill(self);
        let length = u16::try_from(filled.bytes.len() - start)
            .expect("our nested attributes are far below 64 KiB");
        filled.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        filled
    }

    /// Adds bytes without a header, as the nested message of a veth's peer has before its attributes.
    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self.pad();
        self
    }

    /// The bytes to send, with length, sequence number and further flags.
    pub(crate) fn finish(mut self, sequence: u32, flags: u16) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).expect("our messages are far below 4 GiB");
        self.bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        let flags = flags | u16::from_ne_bytes([self.bytes[6], self.bytes[7]]);
        self.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes
    }
}

/// One message that the kernel sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reply<'a> {
    /// `nlmsg_type`.
    pub(crate) kind: u16,
    /// `nlmsg_flags`.
    pub(crate) flags: u16,
    /// `nlmsg_seq`: the request that it answers.
    pub(crate) sequence: u32,
    /// What follows the header.
    pub(crate) payload: &'a [u8],
}

/// The messages in one datagram; ends at the first that is not whole.
pub(crate) fn replies(mut bytes: &[u8]) -> impl Iterator<Item = Reply<'_>> {
    std::iter::from_fn(move || {
        let header = bytes.get(..HEADER)?;
        let length = usize::try_from(u32_at(header, 0)?).ok()?;
        let payload = bytes.get(HEADER..length)?;
        let reply = Reply {
            kind: u16_at(header, 4)?,
            flags: u16_at(header, 6)?,
            sequence: u32_at(header, 8)?,
            payload,
        };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(reply)
    })
}

/// The attributes in `bytes` as pairs of type and value; ends at the first that is not whole.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & !TYPE_FLAGS;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The value of the first attribute of type `kind`.
pub(crate) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes)
        .find(|(found, _)| *found == kind)
        .map(|(_, value)| value)
}

/// A number in the host's byte order at `offset`.
pub(crate) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes
        .get(offset..)?
        .first_chunk()
        .map(|chunk| u16::from_ne_bytes(*chunk))
}

/// A number in the host's byte order at `offset`.
pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes
        .get(offset..)?
        .first_chunk()
        .map(|chunk| u32::from_ne_bytes(*chunk))
}

/// A number in network byte order at the start.
pub(crate) fn big_endian(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|chunk| u32::from_be_bytes(*chunk))
}

/// An IPv4 address at the start.
pub(crate) fn address(bytes: &[u8]) -> Option<Ipv4Addr> {
    big_endian(bytes).map(Ipv4Addr::from)
}

/// A text up to its NUL.
pub(crate) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_as_they_were_written() {
        let bytes = Message::new(16, 1, &[7; 16])
            .text(3, "eth0")
            .nest(18, |m| m.text(1, "veth").nest(2, |m| m.native(5, 9)))
            .big_endian(4, 1500)
            .finish(42, 4);
        let reply = replies(&bytes).next().expect("one whole message");
        assert_eq!((reply.kind, reply.flags, reply.sequence), (16, 5, 42));
        let rest = &reply.payload[16..];
        assert_eq!(text(attribute(rest, 3).expect("name")), "eth0");
        let nested = attribute(attribute(rest, 18).expect("nest"), 2).expect("inner nest");
        assert_eq!(u32_at(attribute(nested, 5).expect("number"), 0), Some(9));
        assert_eq!(attribute(rest, 4).and_then(big_endian), Some(1500));
    }

    #[test]
    fn bytes_that_are_cut_end_the_reading() {
        let bytes = Message::new(16, 1, &[0; 16]).text(3, "eth0").finish(1, 0);
        for end in 0..bytes.len() {
            assert_eq!(replies(&bytes[..end]).count(), 0, "{end}");
        }
        // A length of zero would read the same place for ever.
        assert_eq!(attributes(&[0, 0, 1, 0, 9, 9, 9, 9]).count(), 0);
        assert_eq!(attributes(&[3, 0, 1, 0]).count(), 0);
        assert_eq!(replies(&[0; 64]).count(), 0);
    }
}
