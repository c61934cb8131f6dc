//! One HTTP/1.1 request on the environment's socket, and its answer.
//!
//! Whoever answers is the host, but a process must not hang or grow for ever on what comes: every length is checked,
//! every wait has a deadline.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use sprite_agent_api::calls::SOCKET;

use super::arguments::Usage;

/// Longest head of an answer.
const LONGEST_HEAD: usize = 64 << 10;
const MOST_HEADERS: usize = 64;
/// Longest line that tells the size of a chunk.
const LONGEST_LINE: usize = 256;
/// How long may pass between two parts of an answer. Streams of services are silent for a while.
const SILENT_FOR: Duration = Duration::from_secs(120);

/// An HTTP method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Method(String);

impl Method {
    pub(super) fn get() -> Self {
        Self("GET".to_owned())
    }

    pub(super) fn post() -> Self {
        Self("POST".to_owned())
    }

    pub(super) fn put() -> Self {
        Self("PUT".to_owned())
    }

    pub(super) fn delete() -> Self {
        Self("DELETE".to_owned())
    }

    pub(super) fn named(name: &str) -> Result<Self, Usage> {
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_uppercase()) {
            return Err(format!("{name:?} is not a method"));
        }
        Ok(Self(name.to_owned()))
    }
}

/// A text as it stands in a path or a query. Source: RFC 3986 §2.
pub(super) fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(byte.into());
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    method: Method,
    path: String,
    headers: Vec<String>,
    body: Option<String>,
    /// Only this field of the answer is wanted.
    field: Option<&'static str>,
}

impl Request {
    pub(super) fn new(method: Method, path: &str) -> Self {
        Self {
            method,
            path: path.to_owned(),
            headers: Vec::new(),
            body: None,
            field: None,
        }
    }

    pub(super) fn with_json(mut self, body: String) -> Self {
        self.body = Some(body);
        self
    }

    pub(super) fn with_field(mut self, field: &'static str) -> Self {
        self.field = Some(field);
        self
    }

    pub(super) fn with_query(mut self, name: &str, value: &str) -> Self {
        let separator = if self.path.contains('?') { '&' } else { '?' };
        let value = encoded(value);
        self.path.push_str(&format!("{separator}{name}={value}"));
        self
    }

    pub(super) fn with_header(mut self, header: &str) -> Result<Self, Usage> {
        let legal = header
            .split_once(':')
            .is_some_and(|(name, _)| !name.is_empty())
            && !header.contains(['\r', '\n']);
        if !legal {
            return Err(format!("{header:?} is not a header"));
        }
        self.headers.push(header.to_owned());
        Ok(self)
    }

    fn head(&self) -> io::Result<String> {
        if !self.path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(io::Error::other(
                "the path may not hold blanks or control characters",
            ));
        }
        let mut head = format!(
            "{} {} HTTP/1.1\r\nHost: sprite\r\nConnection: close\r\nAccept: */*\r\n",
            self.method.0, self.path
        );
        for header in &self.headers {
            head.push_str(header);
            head.push_str("\r\n");
        }
        if let Some(body) = &self.body {
            let own = |header: &String| {
                header.len() > 12
                    && header[..13.min(header.len())].eq_ignore_ascii_case("content-type:")
            };
            if !self.headers.iter().any(own) {
                head.push_str("Content-Type: application/json\r\n");
            }
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        Ok(head)
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method.0, self.path)?;
        match &self.body {
            Some(body) => write!(f, " {body}"),
            None => Ok(()),
        }
    }
}

/// The status of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Status(u16);

impl Status {
    pub(super) fn success(self) -> bool {
        (200..300).contains(&self.0)
    }
}

/// Sends the request; the answer's body goes to `out` as it comes.
pub(super) fn call(request: &Request, out: &mut impl Write) -> io::Result<Status> {
    call_with(request, |_, bytes| {
        out.write_all(bytes)?;
        out.flush()
    })
}

/// Sends the request; `take` gets the parts of the answer's body.
pub(super) fn call_with(
    request: &Request,
    mut take: impl FnMut(Status, &[u8]) -> io::Result<()>,
) -> io::Result<Status> {
    let connect = |error: io::Error| {
        io::Error::other(format!("connect to {SOCKET}: {error}; is this a sprite?"))
    };
    let mut socket = UnixStream::connect(SOCKET).map_err(connect)?;
    socket.set_read_timeout(Some(SILENT_FOR))?;
    socket.set_write_timeout(Some(SILENT_FOR))?;
    socket.write_all(request.head()?.as_bytes())?;
    if let Some(body) = &request.body {
        socket.write_all(body.as_bytes())?;
    }
    let Some(field) = request.field else {
        return receive(&mut socket, take);
    };
    let mut whole = Vec::new();
    let status = receive(&mut socket, |_, bytes| {
        whole.extend_from_slice(bytes);
        match whole.len() > LONGEST_HEAD {
            true => Err(io::Error::other("answer is too long")),
            false => Ok(()),
        }
    })?;
    if !status.success() {
        take(status, &whole)?;
        return Ok(status);
    }
    let value: serde_json::Value = serde_json::from_slice(&whole)?;
    let text = value[field].as_str().unwrap_or_default();
    take(status, format!("{text}\n").as_bytes())?;
    Ok(status)
}

/// How the end of a body is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunks,
    UntilEnd,
}

fn broken(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("read the answer: {what}"),
    )
}

/// Reads an answer. Source: RFC 9112, sections 6 and 7.
fn receive(
    from: &mut impl Read,
    mut take: impl FnMut(Status, &[u8]) -> io::Result<()>,
) -> io::Result<Status> {
    let mut input = Input::new(from);
    let (status, framing) = input.head()?;
    match framing {
        Framing::Length(length) => input.body(length, |bytes| take(status, bytes))?,
        Framing::UntilEnd => input.rest(|bytes| take(status, bytes))?,
        Framing::Chunks => loop {
            let line = input.line()?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(size, 16).map_err(|_| broken("a chunk without size"))?;
            if size == 0 {
                break;
            }
            input.body(size, |bytes| take(status, bytes))?;
            if !input.line()?.is_empty() {
                return Err(broken("a chunk that is too long"));
            }
        },
    }
    Ok(status)
}

/// What came and was not taken yet.
struct Input<'a, R> {
    from: &'a mut R,
    buffer: Vec<u8>,
}

impl<'a, R: Read> Input<'a, R> {
    fn new(from: &'a mut R) -> Self {
        Self {
            from,
            buffer: Vec::new(),
        }
    }

    /// Reads more; says whether there was.
    fn more(&mut self) -> io::Result<bool> {
        let mut chunk = [0; 8 << 10];
        let read = loop {
            match self.from.read(&mut chunk) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        self.buffer.extend_from_slice(&chunk[..read]);
        Ok(read > 0)
    }

    fn head(&mut self) -> io::Result<(Status, Framing)> {
        loop {
            let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
            let mut response = httparse::Response::new(&mut headers);
            let parsed = response.parse(&self.buffer);
            match parsed.map_err(|error| broken(&error.to_string()))? {
                httparse::Status::Complete(length) => {
                    let status = Status(response.code.unwrap_or_default());
                    let framing = framing(status, response.headers)?;
                    self.buffer.drain(..length);
                    // What says that the true answer is still to come.
                    if (100..200).contains(&status.0) {
                        continue;
                    }
                    return Ok((status, framing));
                }
                httparse::Status::Partial if self.buffer.len() > LONGEST_HEAD => {
                    return Err(broken("its head is too long"));
                }
                httparse::Status::Partial => {
                    if !self.more()? {
                        return Err(broken("it ended early"));
                    }
                }
            }
        }
    }

    /// A line without its end.
    fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line);
                return Ok(line.trim_end_matches(['\r', '\n']).to_owned());
            }
            if self.buffer.len() > LONGEST_LINE {
                return Err(broken("a line that is too long"));
            }
            if !self.more()? {
                return Err(broken("it ended early"));
            }
        }
    }

    fn body(
        &mut self,
        mut left: u64,
        mut take: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        while left > 0 {
            if self.buffer.is_empty() && !self.more()? {
                return Err(broken("it ended early"));
            }
            let here =
                usize::try_from(left).map_or(self.buffer.len(), |n| n.min(self.buffer.len()));
            take(&self.buffer[..here])?;
            self.buffer.drain(..here);
            left -= here as u64;
        }
        Ok(())
    }

    fn rest(&mut self, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        loop {
            take(&self.buffer)?;
            self.buffer.clear();
            if !self.more()? {
                return Ok(());
            }
        }
    }
}

fn framing(status: Status, headers: &[httparse::Header<'_>]) -> io::Result<Framing> {
    let find = |name: &str| {
        let found = headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name));
        found.map(|header| {
            String::from_utf8_lossy(header.value)
                .trim()
                .to_ascii_lowercase()
        })
    };
    if matches!(status.0, 100..200 | 204 | 304) {
        return Ok(Framing::Length(0));
    }
    if find("transfer-encoding").is_some_and(|coding| coding.ends_with("chunked")) {
        return Ok(Framing::Chunks);
    }
    match find("content-length") {
        Some(length) => length
            .parse()
            .map(Framing::Length)
            .map_err(|_| broken("its length is no number")),
        None => Ok(Framing::UntilEnd),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(text: &str) -> io::Result<(u16, String)> {
        let mut body = Vec::new();
        let status = receive(&mut text.as_bytes(), |_, bytes| {
            body.extend_from_slice(bytes);
            Ok(())
        })?;
        Ok((status.0, String::from_utf8_lossy(&body).into_owned()))
    }

    #[test]
    fn answers_end_where_they_say() {
        for (text, status, body) in [
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokmore",
                200,
                "ok",
            ),
            ("HTTP/1.1 204 No Content\r\n\r\n", 204, ""),
            ("HTTP/1.1 404 Not Found\r\n\r\ngone", 404, "gone"),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\ncontent-length: 1\r\n\r\nx",
                201,
                "x",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n",
                200,
                "abc0123456789",
            ),
        ] {
            let (got, said) = received(text).expect(text);
            assert_eq!((got, said.as_str()), (status, body), "{text}");
        }
    }

    #[test]
    fn broken_answers_are_errors() {
        for text in [
            "",
            "HTTP/1.1 200 OK\r\n",
            "SSH-2.0-x\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab",
            "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\nab",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n",
        ] {
            assert!(received(text).is_err(), "{text:?}");
        }
        let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "a".repeat(LONGEST_HEAD));
        assert!(received(&endless).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_break_the_reader(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
            for mut text in [&bytes[..], &[&head[..], &bytes].concat()] {
                let _ = receive(&mut text, |_, _| Ok(()));
            }
        }
    }
}
