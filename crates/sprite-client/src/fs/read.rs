//! A file that is being read.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_LENGTH, HeaderValue, RANGE};
use hyper::{Method, StatusCode};
use tokio::io::{AsyncRead, ReadBuf};

use super::Fs;
use crate::client::Call;
use crate::error::Error;

/// Reads a file of a sprite. A file that is cut off on its way is an error, never a short file.
#[derive(Debug)]
pub struct FileReader {
    body: Incoming,
    piece: Bytes,
    length: Option<u64>,
}

impl FileReader {
    /// How many bytes there are to read, if the server said so; files of the kernel tell none.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        self.length
    }
}

pub(super) async fn open(fs: &Fs, path: &str, offset: Option<u64>) -> Result<FileReader, Error> {
    let mut call = Call::new(Method::GET, fs.query("read", path)?);
    if let Some(offset) = offset.filter(|offset| *offset > 0) {
        let range = HeaderValue::try_from(format!("bytes={offset}-")).expect("it is printable");
        call.headers.insert(RANGE, range);
    }
    let part = call.headers.contains_key(RANGE);
    let (status, reader) = answer(fs, &call).await?;
    if part && status != StatusCode::PARTIAL_CONTENT {
        return Err(Error::malformed(
            "the server sent all where a part was asked for",
        ));
    }
    Ok(reader)
}

/// Reads whatever a call is answered.
pub(super) async fn accept(fs: &Fs, call: Call) -> Result<FileReader, Error> {
    answer(fs, &call).await.map(|(_, reader)| reader)
}

async fn answer(fs: &Fs, call: &Call) -> Result<(StatusCode, FileReader), Error> {
    let response = fs.sprite.client().accepted(call).await?;
    let status = response.status();
    let length = response.headers().get(CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse().ok());
    let reader = FileReader {
        body: response.into_body(),
        piece: Bytes::new(),
        length,
    };
    Ok((status, reader))
}

impl AsyncRead for FileReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.piece.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                None => return Poll::Ready(Ok(())),
                Some(Ok(frame)) => self.piece = frame.into_data().unwrap_or_default(),
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
            }
        }
        let length = self.piece.len().min(buffer.remaining());
        buffer.put_slice(&self.piece[..length]);
        self.piece.advance(length);
        Poll::Ready(Ok(()))
    }
}
