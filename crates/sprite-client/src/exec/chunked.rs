//! HTTP/1.1's chunked transfer coding with its chunk boundaries kept.
//!
//! HTTP libraries hide where one chunk ends and the next begins, rightly so: RFC 9112 gives the boundaries no
//! meaning. The exec-over-HTTP answer does: each chunk is one frame. So it is decoded here.
//! Source: RFC 9112 §7.1; behaviour reference §1.4.6.

use bytes::{Buf, Bytes, BytesMut};

/// Largest chunk that is accepted; servers send 16 KiB.
const CHUNK_LIMIT: u64 = 10 << 20;
/// Longest line that gives a chunk's size, its extensions included.
const SIZE_LINE_LIMIT: usize = 1024;

/// Why a body is not chunked as it says.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ChunkError {
    #[error("a chunk's size is not a number")]
    Size,
    #[error("a chunk has {0} bytes, at most {CHUNK_LIMIT} are accepted")]
    TooLarge(u64),
    #[error("a chunk does not end where its size says")]
    End,
}

/// What the bytes so far give.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// One whole chunk.
    Chunk(Bytes),
    /// The last chunk has come.
    Last,
    /// More bytes are needed.
    More,
}

/// Takes the next whole chunk off the front of `bytes`.
pub(super) fn step(bytes: &mut BytesMut) -> Result<Step, ChunkError> {
    let (line, size) = match httparse::parse_chunk_size(bytes) {
        Ok(httparse::Status::Complete(parsed)) => parsed,
        Ok(httparse::Status::Partial) if bytes.len() <= SIZE_LINE_LIMIT => return Ok(Step::More),
        Ok(httparse::Status::Partial) | Err(_) => return Err(ChunkError::Size),
    };
    if size > CHUNK_LIMIT {
        return Err(ChunkError::TooLarge(size));
    }
    if size == 0 {
        return Ok(Step::Last);
    }
    let size = usize::try_from(size).map_err(|_| ChunkError::TooLarge(size))?;
    let whole = line + size + 2;
    if bytes.len() < whole {
        bytes.reserve(whole - bytes.len());
        return Ok(Step::More);
    }
    if &bytes[line + size..whole] != b"\r\n" {
        return Err(ChunkError::End);
    }
    bytes.advance(line);
    let chunk = bytes.split_to(size).freeze();
    bytes.advance(2);
    Ok(Step::Chunk(chunk))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(text: &[u8]) -> Vec<Result<Step, ChunkError>> {
        let mut bytes = BytesMut::from(text);
        let mut all = Vec::new();
        loop {
            let step = step(&mut bytes);
            let over = !matches!(step, Ok(Step::Chunk(_)));
            all.push(step);
            if over {
                return all;
            }
        }
    }

    #[test]
    fn chunks_come_out_as_they_went_in() {
        let all = steps(b"3\r\n\x01ab\r\n2;x=y\r\n\x02c\r\n0\r\n\r\n");
        let chunk = |text: &'static [u8]| Ok(Step::Chunk(Bytes::from_static(text)));
        assert_eq!(all, [chunk(b"\x01ab"), chunk(b"\x02c"), Ok(Step::Last)]);
    }

    #[test]
    fn a_part_of_a_chunk_is_no_chunk() {
        let whole = b"5\r\nhello\r\n";
        for end in 0..whole.len() {
            assert_eq!(steps(&whole[..end]), [Ok(Step::More)], "{end}");
        }
    }

    #[test]
    fn what_is_not_chunked_is_refused_before_memory_is_taken() {
        assert_eq!(steps(b"zz\r\n"), [Err(ChunkError::Size)]);
        assert_eq!(steps(b"2\r\nabX"), [Ok(Step::More)]);
        assert_eq!(steps(b"2\r\nabXY"), [Err(ChunkError::End)]);
        assert_eq!(
            steps(b"a00001\r\n"),
            [Err(ChunkError::TooLarge((10 << 20) + 1))]
        );
        assert_eq!(steps(&[b'0'; 2000]), [Err(ChunkError::Size)]);
    }
}
