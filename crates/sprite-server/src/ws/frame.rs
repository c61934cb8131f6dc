//! Frames of RFC 6455 as a server reads and writes them: client frames are masked, server frames are not, and
//! no extension is ever agreed on.

use bytes::{BufMut, Bytes, BytesMut};

/// What a frame is. Source: RFC 6455 §5.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0x0 => Some(Self::Continuation),
            0x1 => Some(Self::Text),
            0x2 => Some(Self::Binary),
            0x8 => Some(Self::Close),
            0x9 => Some(Self::Ping),
            0xa => Some(Self::Pong),
            _ => None,
        }
    }

    fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xa,
        }
    }

    fn is_control(self) -> bool {
        match self {
            Self::Continuation | Self::Text | Self::Binary => false,
            Self::Close | Self::Ping | Self::Pong => true,
        }
    }
}

/// A client broke the protocol, and the close code that tells it so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub(crate) struct Violation {
    pub(crate) code: u16,
    pub(crate) reason: &'static str,
}

impl Violation {
    pub(crate) const fn protocol(reason: &'static str) -> Self {
        Self {
            code: sprite_api::exec::CLOSE_PROTOCOL,
            reason,
        }
    }

    pub(crate) const TOO_BIG: Self = Self {
        code: sprite_api::exec::CLOSE_TOO_BIG,
        reason: "message is larger than 10 MB",
    };

    pub(crate) const NOT_TEXT: Self = Self {
        code: sprite_api::exec::CLOSE_NOT_TEXT,
        reason: "text message is not UTF-8",
    };
}

/// A frame from the client, unmasked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) fin: bool,
    pub(crate) opcode: Opcode,
    pub(crate) payload: BytesMut,
}

/// Longest payload of a control frame. Source: RFC 6455 §5.5.
pub(crate) const MAX_CONTROL: usize = 125;

/// What lies before a payload.
struct Head {
    fin: bool,
    opcode: Opcode,
    mask: [u8; 4],
    /// Bytes of the head itself.
    size: usize,
    payload: usize,
}

fn head(buffer: &[u8], limit: usize) -> Result<Option<Head>, Violation> {
    let &[first, second, ref rest @ ..] = buffer else {
        return Ok(None);
    };
    if first & 0x70 != 0 {
        return Err(Violation::protocol("reserved bits are set"));
    }
    let opcode = Opcode::from_bits(first & 0x0f).ok_or(Violation::protocol("unknown opcode"))?;
    let fin = first & 0x80 != 0;
    if second & 0x80 == 0 {
        return Err(Violation::protocol("client frame is not masked"));
    }
    let (length, wide) = match second & 0x7f {
        126 => match rest.first_chunk::<2>() {
            Some(bytes) => (u64::from(u16::from_be_bytes(*bytes)), 2),
            None => return Ok(None),
        },
        127 => match rest.first_chunk::<8>() {
            Some(bytes) => (u64::from_be_bytes(*bytes), 8),
            None => return Ok(None),
        },
        short => (u64::from(short), 0),
    };
    if opcode.is_control() && (!fin || length > MAX_CONTROL as u64) {
        return Err(Violation::protocol(
            "control frame is fragmented or too long",
        ));
    }
    // Before anything is allocated for it.
    let payload = usize::try_from(length)
        .ok()
        .filter(|n| *n <= limit)
        .ok_or(Violation::TOO_BIG)?;
    let Some(mask) = rest.get(wide..).and_then(<[u8]>::first_chunk::<4>) else {
        return Ok(None);
    };
    Ok(Some(Head {
        fin,
        opcode,
        mask: *mask,
        size: 2 + wide + 4,
        payload,
    }))
}

/// Takes the next whole frame off `buffer`. `Ok(Err(n))`: `n` more bytes are needed, as far as can be told.
pub(crate) fn decode(
    buffer: &mut BytesMut,
    limit: usize,
) -> Result<Result<Frame, usize>, Violation> {
    let Some(head) = head(buffer, limit)? else {
        return Ok(Err(1));
    };
    let total = head.size + head.payload;
    if buffer.len() < total {
        return Ok(Err(total - buffer.len()));
    }
    let mut payload = buffer.split_to(total).split_off(head.size);
    unmask(&mut payload, head.mask);
    Ok(Ok(Frame {
        fin: head.fin,
        opcode: head.opcode,
        payload,
    }))
}

fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, rest) = payload.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.into_iter().cycle()) {
        *byte ^= mask;
    }
}

/// The head of a server frame, and `prefix` behind it: the first bytes of the payload, whose other `more`
/// bytes follow. So bulk bytes need not be copied to get their stream id.
pub(crate) fn encode_head(opcode: Opcode, prefix: &[u8], more: usize) -> Bytes {
    let length = prefix.len() + more;
    let mut out = BytesMut::with_capacity(10 + prefix.len());
    out.put_u8(0x80 | opcode.bits());
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ 0..=125), _) => out.put_u8(short),
        (_, Ok(medium)) => {
            out.put_u8(126);
            out.put_u16(medium);
        }
        (_, Err(_)) => {
            out.put_u8(127);
            out.put_u64(length as u64);
        }
    }
    out.put_slice(prefix);
    out.freeze()
}

/// The payload of a Close frame. The reason is cut to what fits.
pub(crate) fn close_payload(code: u16, reason: &str) -> Bytes {
    let mut out = BytesMut::with_capacity(2 + reason.len().min(MAX_CONTROL));
    out.put_u16(code);
    let mut end = reason.len().min(MAX_CONTROL - 2);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    out.put_slice(&reason.as_bytes()[..end]);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn client_frame(first: u8, payload: &[u8], mask: [u8; 4]) -> BytesMut {
        let mut out = BytesMut::new();
        out.put_u8(first);
        match payload.len() {
            n @ 0..=125 => out.put_u8(0x80 | u8::try_from(n).expect("small")),
            n @ 126..=0xffff => {
                out.put_u8(0x80 | 126);
                out.put_u16(u16::try_from(n).expect("medium"));
            }
            n => {
                out.put_u8(0x80 | 127);
                out.put_u64(n as u64);
            }
        }
        out.put_slice(&mask);
        out.extend(
            payload
                .iter()
                .zip(mask.into_iter().cycle())
                .map(|(byte, mask)| byte ^ mask),
        );
        out
    }

    const LIMIT: usize = 1 << 20;

    proptest! {
        #[test]
        fn frames_are_read_however_they_arrive(payload: Vec<u8>, mask: [u8; 4], cut in 0usize..64) {
            let whole = client_frame(0x82, &payload, mask);
            let cut = cut.min(whole.len());
            let mut buffer = BytesMut::from(&whole[..cut]);
            if cut < whole.len() {
                prop_assert!(matches!(decode(&mut buffer, LIMIT), Ok(Err(n)) if n > 0));
                buffer.extend_from_slice(&whole[cut..]);
            }
            let frame = decode(&mut buffer, LIMIT).expect("well formed").expect("whole");
            prop_assert_eq!(&frame.payload[..], &payload[..]);
            prop_assert!(buffer.is_empty());
        }

        #[test]
        fn no_bytes_break_the_reader(bytes: Vec<u8>) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Ok(_)) = decode(&mut buffer, LIMIT) {}
        }
    }

    #[test]
    fn lengths_at_the_edges_of_their_forms() {
        for length in [0, 1, 7, 8, 125, 126, 127, 0xffff, 0x1_0000, LIMIT] {
            let payload = vec![0x5a; length];
            let mut buffer = client_frame(0x82, &payload, [1, 2, 3, 4]);
            let frame = decode(&mut buffer, LIMIT)
                .expect("well formed")
                .expect("whole");
            assert_eq!(frame.payload.len(), length);
        }
        let mut over = client_frame(0x82, &vec![0; LIMIT + 1], [0; 4]);
        assert_eq!(decode(&mut over, LIMIT), Err(Violation::TOO_BIG));
    }

    /// RFC 6455 §5.1, §5.2, §5.5: what a server must refuse.
    #[test]
    fn violations_are_refused() {
        let unmasked = [0x82, 0x01, 0x00];
        let reserved = [0xc2, 0x80, 0, 0, 0, 0];
        let unknown = [0x83, 0x80, 0, 0, 0, 0];
        let fragmented_ping = [0x09, 0x80, 0, 0, 0, 0];
        let long_ping = [0x89, 0xfe, 0, 126, 0, 0, 0, 0];
        for bytes in [
            &unmasked[..],
            &reserved,
            &unknown,
            &fragmented_ping,
            &long_ping,
        ] {
            let result = decode(&mut BytesMut::from(bytes), LIMIT);
            assert!(
                matches!(result, Err(Violation { code: 1002, .. })),
                "{bytes:x?}"
            );
        }
        let endless = [0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(
            decode(&mut BytesMut::from(&endless[..]), LIMIT),
            Err(Violation::TOO_BIG)
        );
    }

    #[test]
    fn reasons_are_cut_between_characters() {
        let payload = close_payload(1011, &"ä".repeat(100));
        assert!(payload.len() <= MAX_CONTROL);
        assert!(std::str::from_utf8(&payload[2..]).is_ok());
    }
}
