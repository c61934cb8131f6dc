//! A request out of the bytes of a connection.
//!
//! HTTP/1.1 as far as clients of this socket use it: a body has a `Content-Length` or does not exist.

use std::ops::Range;

/// Longest head of a request in bytes.
const MAX_HEAD: usize = 8 << 10;

/// Most header fields of a request.
const MAX_HEADERS: usize = 32;

/// Longest body in bytes, as in Firecracker.
pub(super) const MAX_BODY: usize = 51_200;

/// How many bytes of a client are kept at most: a request that is read, and the beginning of the next one.
pub(super) const MAX_KEPT: usize = MAX_HEAD + MAX_BODY;

/// What a client may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Put,
    Patch,
}

/// A request that is there as a whole.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: Method,
    /// Begins with a slash.
    pub(super) path: String,
    pub(super) body: Range<usize>,
    pub(super) keep_alive: bool,
}

/// How much of a request is there.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Not all of it; `expects_continue`: the client waits to be told to go on.
    Partial { expects_continue: bool },
    /// All of it; its length is the end of its body.
    Whole(Request),
}

/// Bytes that are no request. The connection cannot be used any further.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadRequest {
    #[error("the request is not HTTP: {0}")]
    Http(httparse::Error),
    #[error("the request's head is longer than {MAX_HEAD} bytes")]
    HeadTooLong,
    #[error("the request's body is longer than {MAX_BODY} bytes")]
    BodyTooLong,
    #[error("the request has no valid Content-Length")]
    ContentLength,
    #[error("a body is sent with its Content-Length, not by Transfer-Encoding")]
    TransferEncoding,
    #[error("only the expectation 100-continue is known")]
    Expectation,
    #[error("{0} is no method of this socket")]
    Method(String),
}

/// Looks for a request at the beginning of `bytes`.
///
/// # Errors
/// [`BadRequest`]
pub(super) fn parse(bytes: &[u8]) -> Result<Progress, BadRequest> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let head = match request.parse(&bytes[..bytes.len().min(MAX_HEAD)]) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) if bytes.len() >= MAX_HEAD => {
            return Err(BadRequest::HeadTooLong);
        }
        Ok(httparse::Status::Partial) => {
            return Ok(Progress::Partial {
                expects_continue: false,
            });
        }
        Err(error) => return Err(BadRequest::Http(error)),
    };
    let fields = fields(request.headers, request.version)?;
    let end = head + fields.content_length;
    if bytes.len() < end {
        return Ok(Progress::Partial {
            expects_continue: fields.expects_continue,
        });
    }
    Ok(Progress::Whole(Request {
        method: method(request.method.unwrap_or_default())?,
        path: request.path.unwrap_or_default().to_owned(),
        body: head..end,
        keep_alive: fields.keep_alive,
    }))
}

struct Fields {
    content_length: usize,
    expects_continue: bool,
    keep_alive: bool,
}

fn fields(headers: &[httparse::Header<'_>], version: Option<u8>) -> Result<Fields, BadRequest> {
    let mut content_length = None;
    let mut expects_continue = false;
    let mut keep_alive = version == Some(1);
    for header in headers {
        let value = header.value.trim_ascii();
        if header.name.eq_ignore_ascii_case("content-length") {
            // Two lengths are two opinions on where the next request begins.
            if content_length.replace(length(value)?).is_some() {
                return Err(BadRequest::ContentLength);
            }
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(BadRequest::TransferEncoding);
        } else if header.name.eq_ignore_ascii_case("expect") {
            if !value.eq_ignore_ascii_case(b"100-continue") {
                return Err(BadRequest::Expectation);
            }
            expects_continue = true;
        } else if header.name.eq_ignore_ascii_case("connection") {
            if value.eq_ignore_ascii_case(b"close") {
                keep_alive = false;
            } else if value.eq_ignore_ascii_case(b"keep-alive") {
                keep_alive = true;
            }
        }
    }
    Ok(Fields {
        content_length: content_length.unwrap_or(0),
        expects_continue,
        keep_alive,
    })
}

fn length(value: &[u8]) -> Result<usize, BadRequest> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(BadRequest::ContentLength);
    }
    let length = std::str::from_utf8(value)
        .ok()
        .and_then(|text| text.parse::<u64>().ok())
        .and_then(|length| usize::try_from(length).ok())
        // Digits that are no number of ours are a very large one.
        .ok_or(BadRequest::BodyTooLong)?;
    if length > MAX_BODY {
        return Err(BadRequest::BodyTooLong);
    }
    Ok(length)
}

fn method(name: &str) -> Result<Method, BadRequest> {
    match name {
        "GET" => Ok(Method::Get),
        "PUT" => Ok(Method::Put),
        "PATCH" => Ok(Method::Patch),
        other => Err(BadRequest::Method(other.chars().take(16).collect())),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_is_whole_only_with_its_last_byte() {
        let bytes = b"PUT /vsock HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}";
        for length in 0..bytes.len() {
            assert!(
                matches!(parse(&bytes[..length]), Ok(Progress::Partial { .. })),
                "{length} bytes"
            );
        }
        let Ok(Progress::Whole(request)) = parse(bytes) else {
            panic!("it is whole");
        };
        assert_eq!(request.method, Method::Put);
        assert_eq!(request.path, "/vsock");
        assert_eq!(&bytes[request.body], b"{}");
        assert!(request.keep_alive);
    }

    #[test]
    fn bodies_up_to_the_limit_are_waited_for_and_no_longer_ones() {
        let head = |length: usize| format!("PUT / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n");
        assert!(matches!(
            parse(head(MAX_BODY).as_bytes()),
            Ok(Progress::Partial { .. })
        ));
        assert_eq!(
            parse(head(MAX_BODY + 1).as_bytes()),
            Err(BadRequest::BodyTooLong)
        );
        assert_eq!(
            parse(b"PUT / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n"),
            Err(BadRequest::BodyTooLong)
        );
    }

    #[test]
    fn lengths_that_can_be_read_in_two_ways_are_refused() {
        for fields in [
            "Content-Length: 1\r\nContent-Length: 1",
            "Content-Length: +1",
            "Content-Length: -1",
            "Content-Length: 1, 1",
            "Content-Length:",
        ] {
            let text = format!("PUT / HTTP/1.1\r\n{fields}\r\n\r\n{{}}");
            assert_eq!(
                parse(text.as_bytes()),
                Err(BadRequest::ContentLength),
                "{fields}"
            );
        }
        assert_eq!(
            parse(b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            Err(BadRequest::TransferEncoding)
        );
    }

    #[test]
    fn a_head_without_end_is_refused() {
        let mut bytes = b"GET / HTTP/1.1\r\nA: ".to_vec();
        bytes.resize(MAX_HEAD, b'a');
        assert_eq!(parse(&bytes), Err(BadRequest::HeadTooLong));
    }

    #[test]
    fn a_client_that_waits_to_go_on_is_seen() {
        let bytes = b"PUT / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
        assert_eq!(
            parse(bytes),
            Ok(Progress::Partial {
                expects_continue: true
            })
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic_and_within_the_limits(
            bytes in proptest::collection::vec(any::<u8>(), 0..2000),
        ) {
            if let Ok(Progress::Whole(request)) = parse(&bytes) {
                prop_assert!(request.body.end <= bytes.len());
            }
        }
    }
}
