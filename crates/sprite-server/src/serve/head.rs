//! The first request line of a connection, which may be longer than the HTTP parser takes.
//!
//! Its URI type ends at 64 KiB, and an exec with ten thousand variables has a query of several times that. So
//! the line is read here first. If it is long, its query is cut out and handed to the request beside the URI;
//! the parser sees a short one. Only the first request of a connection may be long: an upgrade always is the
//! first. Later ones get the parser's own 414.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use sprite_api::{ErrorBody, ErrorKind};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::replay::Replay;
use crate::connection::LongQuery;

/// Longest line that is left to the parser. Its own limit is 65,534 bytes for the URI.
const SHORT: usize = 60 << 10;
/// Longest line at all.
const LONGEST: usize = 4 << 20;
/// Bytes asked for at once.
const READ: usize = 2 << 10;
const READ_LONG: usize = 256 << 10;

/// How long a client that was refused may take to end its side.
const DRAIN_WITHIN: Duration = Duration::from_secs(2);

/// A connection whose first line is known to be short enough, and the query that was taken out of it.
pub(crate) type Opened<S> = (Replay<S>, Option<LongQuery>);

/// Reads the first line. `None`: the client ended before it, or was refused.
///
/// # Errors
/// The connection broke.
pub(crate) async fn open<S: AsyncRead + AsyncWrite + Unpin>(
    mut io: S,
    long_heads: &Arc<Semaphore>,
) -> io::Result<Option<Opened<S>>> {
    let mut buffer = BytesMut::new();
    while line_end(&buffer, 0).is_none() && buffer.len() < SHORT {
        buffer.reserve(READ);
        if io.read_buf(&mut buffer).await? == 0 {
            return Ok(None);
        }
    }
    if line_end(&buffer, 0).is_some_and(|end| end < SHORT) {
        return Ok(Some((Replay::new(buffer, io), None)));
    }
    let permit = long_heads
        .clone()
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let mut searched = 0;
    let end = loop {
        match line_end(&buffer, searched) {
            Some(end) if end <= LONGEST => break end,
            None if buffer.len() <= LONGEST => {}
            Some(_) | None => return refuse(io).await.map(|()| None),
        }
        searched = buffer.len();
        buffer.reserve(READ_LONG);
        if io.read_buf(&mut buffer).await? == 0 {
            return Ok(None);
        }
    };
    let rest = buffer.split_off(end);
    let Some((short, query)) = cut(&buffer) else {
        return refuse(io).await.map(|()| None);
    };
    let mut first = short;
    first.unsplit(rest);
    Ok(Some((
        Replay::new(first, io),
        Some(LongQuery::new(query, permit)),
    )))
}

/// Where the line's `\n` is, behind `from`.
fn line_end(buffer: &[u8], from: usize) -> Option<usize> {
    buffer[from..]
        .iter()
        .position(|byte| *byte == b'\n')
        .map(|at| from + at)
}

/// A line (without its `\n`) without its query, and the query. `None` if it has none, is not text, or is too
/// long without it.
fn cut(line: &[u8]) -> Option<(BytesMut, String)> {
    let line = std::str::from_utf8(line)
        .ok()
        .filter(|line| line.is_ascii())?;
    let (before, behind) = line.split_once('?')?;
    let (query, version) = behind.rsplit_once(' ')?;
    // A blank in the query, or none before it, is no request line; the parser shall say so.
    if query.contains(|c: char| c.is_ascii_control() || c == ' ')
        || before.len() + version.len() > SHORT
    {
        return None;
    }
    Some((
        BytesMut::from(format!("{before} {version}").as_bytes()),
        query.to_owned(),
    ))
}

/// Answers 414, and lets the client read that before the connection ends.
async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(mut io: S) -> io::Result<()> {
    let kind = ErrorKind::UriTooLong;
    let message = format!("request line is longer than {LONGEST} bytes, or is none");
    let body = serde_json::to_string(&ErrorBody::new(kind, message)).map_err(io::Error::other)?;
    let answer = format!(
        "HTTP/1.1 {} URI Too Long\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        kind.status(),
        body.len(),
    );
    io.write_all(answer.as_bytes()).await?;
    io.shutdown().await?;
    let mut sink = vec![0; READ_LONG];
    let drain = async { while matches!(io.read(&mut sink).await, Ok(n) if n > 0) {} };
    // However much it still sends: it has had its answer.
    let _ = timeout(DRAIN_WITHIN, drain).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn opened(text: &str) -> (String, Option<LongQuery>) {
        let long_heads = Arc::new(Semaphore::new(1));
        let io = tokio::io::join(io::Cursor::new(text.as_bytes().to_vec()), tokio::io::sink());
        match open(io, &long_heads)
            .await
            .expect("a cursor does not break")
        {
            Some((mut replay, query)) => {
                let mut seen = String::new();
                replay.read_to_string(&mut seen).await.expect("text");
                (seen, query)
            }
            None => (String::new(), None),
        }
    }

    #[tokio::test]
    async fn short_lines_pass_as_they_are() {
        let text = "GET /v1/sprites?prefix=a HTTP/1.1\r\nHost: x\r\n\r\nbody";
        let (seen, query) = opened(text).await;
        assert_eq!(seen, text);
        assert!(query.is_none());
    }

    #[tokio::test]
    async fn long_queries_are_taken_out() {
        let long = "env=A%3Db&".repeat(100_000);
        let (seen, query) = opened(&format!("GET /x?{long} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        assert_eq!(seen, "GET /x HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(query.is_some());
    }

    #[tokio::test]
    async fn what_is_too_long_or_no_request_is_refused() {
        let endless = format!("GET /x?{} HTTP/1.1\r\n\r\n", "a".repeat(LONGEST));
        let long_path = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(SHORT));
        let blanks = format!("GET /x?{} HTTP/1.1\r\n\r\n", "a b".repeat(SHORT));
        for text in [
            endless,
            long_path,
            blanks,
            "GET / HT".to_owned(),
            String::new(),
        ] {
            let (seen, query) = opened(&text).await;
            assert!(seen.is_empty() && query.is_none(), "{}", text.len());
        }
    }
}
