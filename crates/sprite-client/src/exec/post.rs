//! A command over one HTTP request. Source: behaviour reference §1.4.6.
//!
//! The body is sent by a task while the answer is read: a command may write before it has read all.

use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use hyper::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, TRANSFER_ENCODING};
use hyper::{HeaderMap, Method};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

use super::chunked::{self, Step};
use super::request::{is_chunked, read_head, read_refusal, send_head};
use super::{ExecError, ExitStatus};
use crate::client::{Call, Client};
use crate::connect::Transport;
use crate::error::Error;
use crate::url::Target;

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
        let mut call = Call::new(Method::POST, target);
        call.headers = body_headers(&body);
        let transport = client.connector().connect().await?;
        let (answer, mut request) = tokio::io::split(transport);
        send_head(client, &call, &mut request).await?;
        let (input_failed, input_error) = oneshot::channel();
        let sender = tokio::spawn(send_body(request, body, input_failed));
        let mut exec = Self {
            answer,
            buffer: BytesMut::new(),
            ended: false,
            input_error,
            _sender: AbortOnDropHandle::new(sender),
        };
        let (answer, buffer) = (&mut exec.answer, &mut exec.buffer);
        let (status, headers) = read_head(client, answer, buffer).await?;
        if !status.is_success() {
            let refusal = read_refusal(&call, status, &headers, answer, buffer).await;
            return Err(Error::from(refusal).into());
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
}

fn lost(reason: impl Into<String>) -> ExecError {
    ExecError::Lost {
        session: None,
        reason: reason.into(),
    }
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

fn body_headers(body: &PostBody) -> HeaderMap {
    let mut headers = HeaderMap::from_iter([
        (CONNECTION, HeaderValue::from_static("close")),
        (
            CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        ),
    ]);
    match body {
        PostBody::Empty => headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0")),
        PostBody::Bytes(bytes) => headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len())),
        PostBody::Reader(_) => {
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"))
        }
    };
    headers
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
