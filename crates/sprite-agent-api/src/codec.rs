//! Frames: what a stream is made of.
//!
//! On the wire a frame is `[length: u32 little endian][kind: u8][payload]`, where the length counts kind and
//! payload. Lengths are checked before anything is allocated.

use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Longest frame in bytes, kind and payload: an exec with ten thousand variables fits, nothing endless does.
pub const MAX_FRAME: usize = 4 << 20;

/// Longest payload of bulk bytes that a well-behaved sender puts in one frame.
pub const MAX_DATA: usize = 128 << 10;

/// Bytes before the payload: length and kind.
pub(crate) const HEADER: usize = 5;

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// JSON of [`crate::message`].
    Control,
    /// Bytes for the process's stdin, or typed at its terminal.
    Stdin,
    /// Bytes from its stdout, or from its terminal.
    Stdout,
    /// Bytes from its stderr.
    Stderr,
}

/// One frame of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What the payload is.
    pub kind: FrameKind,
    /// At most [`MAX_FRAME`] − 1 bytes.
    pub payload: Bytes,
}

/// Bytes that are not a frame, or a frame that is not a message.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The frame announces a length outside 1..=[`MAX_FRAME`].
    #[error("frame of {length} bytes announced, 1 to {MAX_FRAME} are allowed")]
    Length {
        /// The announced length.
        length: usize,
    },
    /// The frame is of a kind that this side does not know.
    #[error("frame of unknown kind {kind:#04x}")]
    Kind {
        /// The kind byte.
        kind: u8,
    },
    /// A control frame was expected.
    #[error("expected a control frame, got {kind:?}")]
    NotControl {
        /// What came.
        kind: FrameKind,
    },
    /// A control frame whose JSON is not the expected message.
    #[error("decode control message")]
    Json(#[from] serde_json::Error),
}

impl Frame {
    /// A control frame of a message.
    ///
    /// # Panics
    /// Never for the types of [`crate::message`]: their maps have string keys.
    #[must_use]
    pub fn control<T: Serialize>(message: &T) -> Self {
        let json =
            serde_json::to_vec(message).expect("messages have string keys and no failing impls");
        Self {
            kind: FrameKind::Control,
            payload: json.into(),
        }
    }

    /// A frame of bulk bytes.
    #[must_use]
    pub fn data(kind: FrameKind, payload: Bytes) -> Self {
        Self { kind, payload }
    }

    /// The message of a control frame.
    ///
    /// # Errors
    /// The frame is not a control frame, or its JSON is another message.
    pub fn message<T: DeserializeOwned>(&self) -> Result<T, CodecError> {
        match self.kind {
            FrameKind::Control => Ok(serde_json::from_slice(&self.payload)?),
            kind @ (FrameKind::Stdin | FrameKind::Stdout | FrameKind::Stderr) => {
                Err(CodecError::NotControl { kind })
            }
        }
    }
}

/// A record on the transport: a frame of the stream, or word between the two ends of the link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record {
    /// A frame; counted in offsets.
    Frame(Frame),
    /// The sender will send no more frames; counted in offsets.
    Fin,
    /// The receiver has consumed everything below this offset. Not counted.
    Ack(u64),
    /// The sender gives the stream up, both directions. Not counted.
    Abort,
}

const KIND_CONTROL: u8 = 0;
const KIND_STDIN: u8 = 1;
const KIND_STDOUT: u8 = 2;
const KIND_STDERR: u8 = 3;
const KIND_FIN: u8 = 15;
const KIND_ACK: u8 = 0xf0;
const KIND_ABORT: u8 = 0xf1;

fn kind_byte(kind: FrameKind) -> u8 {
    match kind {
        FrameKind::Control => KIND_CONTROL,
        FrameKind::Stdin => KIND_STDIN,
        FrameKind::Stdout => KIND_STDOUT,
        FrameKind::Stderr => KIND_STDERR,
    }
}

/// Header and payload of a record; written one after the other.
pub(crate) fn encode(record: &Record) -> (Bytes, Bytes) {
    let (kind, payload) = match record {
        Record::Frame(frame) => (kind_byte(frame.kind), frame.payload.clone()),
        Record::Fin => (KIND_FIN, Bytes::new()),
        Record::Ack(offset) => (KIND_ACK, Bytes::copy_from_slice(&offset.to_le_bytes())),
        Record::Abort => (KIND_ABORT, Bytes::new()),
    };
    let length = u32::try_from(payload.len() + 1).expect("payloads are bounded by MAX_FRAME");
    let mut header = BytesMut::with_capacity(HEADER);
    header.put_u32_le(length);
    header.put_u8(kind);
    (header.freeze(), payload)
}

impl Frame {
    /// The frame as bytes, for a connection between processes of one machine: what comes before the payload.
    #[must_use]
    pub fn head(&self) -> [u8; HEADER] {
        let length = u32::try_from(self.payload.len() + 1).expect("frames are at most MAX_FRAME");
        let [a, b, c, d] = length.to_le_bytes();
        [a, b, c, d, kind_byte(self.kind)]
    }

    /// Takes the next whole frame off `buffer`, as [`Frame::head`] and the payload made it; `None` if more bytes are
    /// needed.
    ///
    /// # Errors
    /// The bytes are no frame: what follows them cannot be read either.
    pub fn take(buffer: &mut BytesMut) -> Result<Option<Self>, CodecError> {
        match decode(buffer)? {
            Some(Record::Frame(frame)) => Ok(Some(frame)),
            Some(Record::Fin) => Err(CodecError::Kind { kind: KIND_FIN }),
            Some(Record::Ack(_)) => Err(CodecError::Kind { kind: KIND_ACK }),
            Some(Record::Abort) => Err(CodecError::Kind { kind: KIND_ABORT }),
            None => Ok(None),
        }
    }
}

/// Takes the next whole record off `buffer`; `None` if more bytes are needed.
pub(crate) fn decode(buffer: &mut BytesMut) -> Result<Option<Record>, CodecError> {
    let Some(header) = buffer.first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let [a, b, c, d, kind] = *header;
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    if length == 0 || length > MAX_FRAME {
        return Err(CodecError::Length { length });
    }
    let total = length + HEADER - 1;
    if buffer.len() < total {
        // Room for the rest at once, instead of doubling up to it; bounded by MAX_FRAME.
        buffer.reserve(total - buffer.len());
        return Ok(None);
    }
    let mut whole = buffer.split_to(total);
    let payload = whole.split_off(HEADER).freeze();
    let frame = |kind| {
        Ok(Some(Record::Frame(Frame {
            kind,
            payload: payload.clone(),
        })))
    };
    match kind {
        KIND_CONTROL => frame(FrameKind::Control),
        KIND_STDIN => frame(FrameKind::Stdin),
        KIND_STDOUT => frame(FrameKind::Stdout),
        KIND_STDERR => frame(FrameKind::Stderr),
        KIND_FIN => Ok(Some(Record::Fin)),
        KIND_ACK => match payload.first_chunk::<8>() {
            Some(offset) if payload.len() == 8 => {
                Ok(Some(Record::Ack(u64::from_le_bytes(*offset))))
            }
            _ => Err(CodecError::Length { length }),
        },
        KIND_ABORT => Ok(Some(Record::Abort)),
        kind => Err(CodecError::Kind { kind }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_read_what_they_write() {
        let records = [
            Record::Frame(Frame::data(FrameKind::Stdout, Bytes::from_static(b"hello"))),
            Record::Frame(Frame::data(FrameKind::Stdin, Bytes::new())),
            Record::Fin,
            Record::Ack(u64::MAX),
            Record::Abort,
        ];
        let mut wire = BytesMut::new();
        for record in &records {
            let (header, payload) = encode(record);
            wire.extend_from_slice(&header);
            wire.extend_from_slice(&payload);
        }
        let mut slowly = BytesMut::new();
        let mut seen = Vec::new();
        for byte in wire {
            slowly.put_u8(byte);
            while let Some(record) = decode(&mut slowly).expect("well formed") {
                seen.push(record);
            }
        }
        assert_eq!(seen, records);
    }

    #[test]
    fn lengths_are_checked_before_allocation() {
        for length in [0u32, u32::try_from(MAX_FRAME + 1).expect("fits"), u32::MAX] {
            let mut wire = BytesMut::new();
            wire.put_u32_le(length);
            wire.put_u8(KIND_STDOUT);
            assert!(
                matches!(decode(&mut wire), Err(CodecError::Length { .. })),
                "{length}"
            );
            assert!(wire.capacity() < 4096);
        }
        let mut wire = BytesMut::new();
        wire.put_u32_le(1);
        wire.put_u8(0x77);
        assert!(matches!(
            decode(&mut wire),
            Err(CodecError::Kind { kind: 0x77 })
        ));
    }
}
