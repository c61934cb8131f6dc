//! Requests that start a command, written by hand on a connection of their own.
//!
//! By hand for two reasons: command lines and environments make targets that are longer than HTTP libraries
//! allow (64 KiB), and for a command over HTTP the answer's chunk boundaries matter. A connection of its own,
//! because a command keeps it anyway.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use hyper::header::{CONTENT_LENGTH, HeaderName, HeaderValue, TRANSFER_ENCODING};
use hyper::{HeaderMap, StatusCode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::chunked::{self, Step};
use crate::client::{Call, Client};
use crate::error::{ApiError, Error};

/// Longest target that is sent; servers may allow less. A Linux command line with its environment has 2 MiB, and
/// escaping makes it longer.
const TARGET_LIMIT: usize = 4 << 20;
/// Largest head of an answer.
const HEAD_BYTES: usize = 64 << 10;
/// Most headers of an answer.
const HEADERS: usize = 100;
/// Largest body of an answer that says no.
const REFUSAL_BYTES: usize = 64 << 10;
/// How long that body may take.
const REFUSAL_LIMIT: Duration = Duration::from_secs(10);

/// Sends the head of `call`.
pub(super) async fn send_head(
    client: &Client,
    call: &Call,
    to: &mut (impl AsyncWrite + Unpin),
) -> Result<(), Error> {
    let target = call.target.as_str();
    if target.len() > TARGET_LIMIT {
        return Err(Error::Unwritable {
            reason: format!(
                "the command with its environment has {} bytes, at most {TARGET_LIMIT} can be sent",
                target.len()
            ),
        });
    }
    let mut headers = client.standing_headers()?;
    headers.extend(call.headers.clone());
    let path = client.server().path();
    // The target is escaped and the headers are checked: neither can hold a line break.
    let mut head = format!("{} {path}{target} HTTP/1.1\r\n", call.method).into_bytes();
    for (name, value) in &headers {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    to.write_all(&head)
        .await
        .map_err(|source| broken(client, source))?;
    to.flush().await.map_err(|source| broken(client, source))
}

/// Reads the head of the answer within the client's time limit; what follows it stays in `buffer`.
pub(super) async fn read_head(
    client: &Client,
    from: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
) -> Result<(StatusCode, HeaderMap), Error> {
    let limit = client.answer_timeout();
    let reading = async {
        loop {
            if let Some((len, status, headers)) = parse_head(buffer)? {
                buffer.advance(len);
                // 100 to 199 announce another head, except the one that is an answer.
                if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
                    return Ok((status, headers));
                }
                continue;
            }
            if buffer.len() > HEAD_BYTES {
                return Err(Error::TooLarge { limit: HEAD_BYTES });
            }
            let read = from
                .read_buf(buffer)
                .await
                .map_err(|source| broken(client, source))?;
            if read == 0 {
                return Err(broken(client, io::ErrorKind::UnexpectedEof.into()));
            }
        }
    };
    let timed_out = Error::TimedOut {
        what: "the server's answer",
        after: limit,
    };
    timeout(limit, reading).await.map_err(|_| timed_out)?
}

/// Reads an answer that says no, as far as it comes: the status alone says no, the body only explains.
pub(super) async fn read_refusal(
    call: &Call,
    status: StatusCode,
    headers: &HeaderMap,
    from: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
) -> ApiError {
    let mut body = Vec::new();
    let reading = read_body(headers, from, buffer, &mut body);
    let _ = timeout(REFUSAL_LIMIT, reading).await;
    ApiError::read(status, headers, &body, call.summary())
}

async fn read_body(
    headers: &HeaderMap,
    from: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    body: &mut Vec<u8>,
) {
    let length = headers
        .get(CONTENT_LENGTH)
        .and_then(|text| text.to_str().ok()?.parse().ok());
    let wanted = length.unwrap_or(REFUSAL_BYTES).min(REFUSAL_BYTES);
    let chunked = is_chunked(headers);
    while body.len() < wanted {
        if chunked {
            match chunked::step(buffer) {
                Ok(Step::Chunk(chunk)) => {
                    body.extend_from_slice(&chunk);
                    continue;
                }
                Ok(Step::More) => {}
                Ok(Step::Last) | Err(_) => return,
            }
        } else {
            body.extend_from_slice(&buffer.split());
            if body.len() >= wanted {
                return;
            }
        }
        if !matches!(from.read_buf(buffer).await, Ok(1..)) {
            return;
        }
    }
}

/// Whether the body comes in chunks.
pub(super) fn is_chunked(headers: &HeaderMap) -> bool {
    let coding = headers
        .get(TRANSFER_ENCODING)
        .and_then(|value| value.to_str().ok());
    coding.is_some_and(|coding| coding.trim().eq_ignore_ascii_case("chunked"))
}

/// The connection broke before there was an answer.
pub(super) fn broken(client: &Client, source: io::Error) -> Error {
    Error::Exchange {
        server: client.server().clone(),
        source: Arc::new(source),
    }
}

fn parse_head(bytes: &[u8]) -> Result<Option<(usize, StatusCode, HeaderMap)>, Error> {
    let mut room = [httparse::EMPTY_HEADER; HEADERS];
    let mut response = httparse::Response::new(&mut room);
    let malformed = |what: &dyn fmt::Display| Error::malformed(format!("it is not HTTP: {what}"));
    let len = match response.parse(bytes).map_err(|error| malformed(&error))? {
        httparse::Status::Complete(len) => len,
        httparse::Status::Partial => return Ok(None),
    };
    let code = response.code.unwrap_or_default();
    let status = StatusCode::from_u16(code).map_err(|error| malformed(&error))?;
    let mut headers = HeaderMap::new();
    for header in response.headers.iter() {
        let name =
            HeaderName::from_bytes(header.name.as_bytes()).map_err(|error| malformed(&error))?;
        let value = HeaderValue::from_bytes(header.value).map_err(|error| malformed(&error))?;
        headers.append(name, value);
    }
    Ok(Some((len, status, headers)))
}
