//! A command over one HTTP request. Source: behaviour reference §1.4.6.
//!
//! The request is written by hand on a connection of its own, because the answer's chunk boundaries matter (see
//! [`chunked`](super::chunked)). The body is sent by a task while the answer is read: a command may write before
//! it has read all.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use hyper::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, StatusCode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::chunked::{self, Step};
use super::{ExecError, ExitStatus};
use crate::client::{Call, Client};
use crate::connect::Transport;
use crate::error::{ApiError, Error};
use crate::url::Target;

/// How long the server may take to begin its answer: it may have to wake the sprite.
const HEAD_LIMIT: Duration = Duration::from_secs(120);
/// Largest head of an answer.
const HEAD_BYTES: usize = 64 << 10;
/// Most headers of an answer.
const HEADERS: usize = 100;
/// Largest body of an answer that says no.
const REFUSAL_BYTES: usize = 64 << 10;
/// Bytes of input read and sent at once.
const INPUT_CHUNK: usize = 64 << 10;
/// Room for each read of the answer.
const READ_ROOM: usize = 64 << 10;

/// What a command over HTTP reads.
pub enum PostBody {
    /// Nothing.
    Empty,
    /// These bytes.
    Bytes(Bytes),
    /// All that the reader gives, sent while the command runs.
    Reader(Box<dyn AsyncRead + Send + Unpin>),
}

impl fmt::Debug for PostBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "Empty",
            Self::Bytes(_) => "Bytes",
            Self::Reader(_) => "Reader",
        })
    }
}

/// A piece of what a command over HTTP wrote, or its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PostFrame {
    /// Bytes of standard output.
    Stdout(Bytes),
    /// Bytes of standard error.
    Stderr(Bytes),
    /// How it ended: nothing follows.
    Exit(ExitStatus),
}

/// A command that runs over one HTTP request. Dropping it closes the connection.
#[derive(Debug)]
pub struct PostExec {
    answer: ReadHalf<Transport>,
    buffer: BytesMut,
    ended: bool,
    /// Tells when the local input could not be read: then the command's input was cut off.
    input_error: oneshot::Receiver<io::Error>,
    _sender: AbortOnDropHandle<()>,
}

impl PostExec {
    pub(super) async fn start(
        client: &Client,
        target: Target,
        body: PostBody,
    ) -> Result<Self, ExecError> {
        let call = Call::new(Method::POST, target);
        let head = request_head(client, &call, &body)?;
        let transport = client.connector().connect().await?;
        let (answer, mut request) = tokio::io::split(transport);
        let lost = |source: io::Error| Error::Exchange {
            server: client.server().clone(),
            source: Arc::new(source),
        };
        request.write_all(&head).await.map_err(lost)?;
        let (input_failed, input_error) = oneshot::channel();
        let sender = tokio::spawn(send_body(request, body, input_failed));
        let mut exec = Self {
            answer,
            buffer: BytesMut::new(),
            ended: false,
            input_error,
            _sender: AbortOnDropHandle::new(sender),
        };
        let (status, headers) =
            timeout(HEAD_LIMIT, exec.read_head(&lost))
                .await
                .map_err(|_| Error::TimedOut {
                    what: "the server's answer",
                    after: HEAD_LIMIT,
                })??;
        if !status.is_success() {
            let body = timeout(Duration::from_secs(10), exec.read_refusal(&headers)).await;
            let body = body.unwrap_or_default();
            return Err(
                Error::from(ApiError::read(status, &headers, &body, call.summary())).into(),
            );
        }
        if !is_chunked(&headers) {
            let reason =
                "the answer is not in chunks: something between here and the server joined them";
            return Err(Error::malformed(reason).into());
        }
        Ok(exec)
    }

    /// The next piece of output, or the end. After the end it must not be called again.
    ///
    /// # Errors
    /// [`ExecError::Lost`] when the answer ended and no exit status had come; [`ExecError::Input`] when the
    /// command's input could not be read here.
    ///
    /// # Cancel safety
    /// Safe: no piece is lost.
    pub async fn next(&mut self) -> Result<PostFrame, ExecError> {
        if self.ended {
            return Err(ExecError::Ended);
        }
        loop {
            if let Ok(source) = self.input_error.try_recv() {
                return Err(ExecError::Input {
                    source: Arc::new(source),
                });
            }
            match chunked::step(&mut self.buffer) {
                Ok(Step::Chunk(chunk)) => {
                    if let Some(frame) = read_frame(chunk)? {
                        self.ended = matches!(frame, PostFrame::Exit(_));
                        return Ok(frame);
                    }
                }
                Ok(Step::Last) => return Err(lost("the answer ended without an exit status")),
                Ok(Step::More) => self.fill().await?,
                Err(error) => return Err(lost(error.to_string())),
            }
        }
    }

    async fn fill(&mut self) -> Result<(), ExecError> {
        self.buffer.reserve(READ_ROOM);
        match self.answer.read_buf(&mut self.buffer).await {
            Ok(0) => match self.input_error.try_recv() {
                Ok(source) => Err(ExecError::Input {
                    source: Arc::new(source),
                }),
                Err(_) => Err(lost("the connection ended")),
            },
            Ok(_) => Ok(()),
            Err(error) => Err(lost(error.to_string())),
        }
    }

    async fn read_head(
        &mut self,
        lost: &impl Fn(io::Error) -> Error,
    ) -> Result<(StatusCode, HeaderMap), Error> {
        loop {
            if let Some((len, status, headers)) = parse_head(&self.buffer)? {
                self.buffer.advance(len);
                // 1xx announces another head.
                if !status.is_informational() {
                    return Ok((status, headers));
                }
                continue;
            }
            if self.buffer.len() > HEAD_BYTES {
                return Err(Error::TooLarge { limit: HEAD_BYTES });
            }
            if self.answer.read_buf(&mut self.buffer).await.map_err(lost)? == 0 {
                return Err(lost(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// The body of an answer that says no, as far as it comes: it only explains.
    async fn read_refusal(&mut self, headers: &HeaderMap) -> Vec<u8> {
        let length = headers
            .get(CONTENT_LENGTH)
            .and_then(|text| text.to_str().ok()?.parse().ok());
        let wanted = length.unwrap_or(REFUSAL_BYTES).min(REFUSAL_BYTES);
        let mut body = Vec::new();
        while body.len() < wanted {
            if is_chunked(headers) {
                match chunked::step(&mut self.buffer) {
                    Ok(Step::Chunk(chunk)) => body.extend_from_slice(&chunk),
                    Ok(Step::More) => {
                        if !matches!(self.answer.read_buf(&mut self.buffer).await, Ok(1..)) {
                            break;
                        }
                    }
                    Ok(Step::Last) | Err(_) => break,
                }
            } else {
                body.extend_from_slice(&self.buffer.split());
                if body.len() < wanted
                    && !matches!(self.answer.read_buf(&mut self.buffer).await, Ok(1..))
                {
                    break;
                }
            }
        }
        body
    }
}

fn lost(reason: impl Into<String>) -> ExecError {
    ExecError::Lost {
        session: None,
        reason: reason.into(),
    }
}

fn is_chunked(headers: &HeaderMap) -> bool {
    let coding = headers
        .get(TRANSFER_ENCODING)
        .and_then(|value| value.to_str().ok());
    coding.is_some_and(|coding| coding.trim().eq_ignore_ascii_case("chunked"))
}

/// Reads a chunk as a frame; streams to come are passed over.
fn read_frame(mut chunk: Bytes) -> Result<Option<PostFrame>, ExecError> {
    // A chunk is never empty: the empty one is the last.
    let stream = chunk.split_to(1)[0];
    match stream {
        1 => Ok(Some(PostFrame::Stdout(chunk))),
        2 => Ok(Some(PostFrame::Stderr(chunk))),
        3 => match chunk.first() {
            Some(code) => Ok(Some(PostFrame::Exit(ExitStatus::from_code(i32::from(
                *code,
            ))))),
            None => Err(lost("the exit frame has no status")),
        },
        _ => Ok(None),
    }
}

fn request_head(client: &Client, call: &Call, body: &PostBody) -> Result<Vec<u8>, Error> {
    let mut headers = client.standing_headers()?;
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    match body {
        PostBody::Empty => headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0")),
        PostBody::Bytes(bytes) => headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len())),
        PostBody::Reader(_) => {
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"))
        }
    };
    // The target is escaped and the headers are checked: neither can hold a line break.
    let target = format!("{}{}", client.server().path(), call.target.as_str());
    let mut head = format!("{} {target} HTTP/1.1\r\n", call.method).into_bytes();
    for (name, value) in &headers {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    Ok(head)
}

fn parse_head(bytes: &[u8]) -> Result<Option<(usize, StatusCode, HeaderMap)>, Error> {
    let mut room = [httparse::EMPTY_HEADER; HEADERS];
    let mut response = httparse::Response::new(&mut room);
    let malformed = |what: &dyn fmt::Display| Error::malformed(format!("it is not HTTP: {what}"));
    let len = match response.parse(bytes).map_err(|error| malformed(&error))? {
        httparse::Status::Complete(len) => len,
        httparse::Status::Partial => return Ok(None),
    };
    let status = StatusCode::from_u16(response.code.unwrap_or_default())
        .map_err(|error| malformed(&error))?;
    let mut headers = HeaderMap::new();
    for header in response.headers.iter() {
        let name =
            HeaderName::from_bytes(header.name.as_bytes()).map_err(|error| malformed(&error))?;
        let value = HeaderValue::from_bytes(header.value).map_err(|error| malformed(&error))?;
        headers.append(name, value);
    }
    Ok(Some((len, status, headers)))
}

/// Sends the body. A write that fails is not told: the reader sees the same connection end.
async fn send_body(
    mut request: WriteHalf<Transport>,
    body: PostBody,
    input_failed: oneshot::Sender<io::Error>,
) {
    match body {
        PostBody::Empty => {
            let _ = request.flush().await;
        }
        PostBody::Bytes(bytes) => {
            let _ = request.write_all(&bytes).await;
            let _ = request.flush().await;
        }
        PostBody::Reader(mut reader) => {
            let mut buffer = BytesMut::new();
            loop {
                buffer.reserve(INPUT_CHUNK);
                match reader.read_buf(&mut buffer).await {
                    Ok(0) => break,
                    Ok(_) => {
                        if send_chunk(&mut request, &buffer.split()).await.is_err() {
                            return;
                        }
                    }
                    Err(error) => {
                        // The receiver is gone when the command has ended: then nobody misses the input.
                        let _ = input_failed.send(error);
                        // Without its last chunk the body is broken off: the command sees no end of input.
                        let _ = request.shutdown().await;
                        return;
                    }
                }
            }
            let _ = request.write_all(b"0\r\n\r\n").await;
            let _ = request.flush().await;
        }
    }
}

async fn send_chunk(request: &mut WriteHalf<Transport>, data: &[u8]) -> io::Result<()> {
    request
        .write_all(format!("{:x}\r\n", data.len()).as_bytes())
        .await?;
    request.write_all(data).await?;
    request.write_all(b"\r\n").await?;
    request.flush().await
}
