//! A file that is to be written.

use std::io;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::Method;
use hyper::body::Frame;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::oneshot;

use super::{Fs, Written};
use crate::client::{Call, Upload};
use crate::error::Error;

/// Bytes read and sent at once.
const PIECE: usize = 128 << 10;

/// A file to be written; made by [`Fs::write_file`].
#[derive(Debug, Clone)]
#[must_use = "nothing is written before `bytes` or `from`"]
pub struct WriteFile {
    fs: Fs,
    path: String,
    mode: Option<u32>,
    parents: bool,
}

impl WriteFile {
    pub(super) fn new(fs: Fs, path: String) -> Self {
        Self {
            fs,
            path,
            mode: None,
            parents: true,
        }
    }

    /// Its mode, 0 to 0o7777. Otherwise that of the file that it replaces, or 0o644.
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = Some(mode);
        self
    }

    /// Directories on the way must be there.
    pub fn without_parents(mut self) -> Self {
        self.parents = false;
        self
    }

    fn call(&self) -> Result<Call, Error> {
        let target = self.fs.query("write", &self.path)?;
        let mode = self.mode.map(|mode| format!("{mode:04o}"));
        let target = target.param_opt("mode", mode.as_deref());
        let parents = if self.parents { "true" } else { "false" };
        Ok(Call::new(
            Method::PUT,
            target.param("mkdirParents", parents),
        ))
    }

    /// Writes these bytes.
    ///
    /// # Errors
    /// When it cannot be written; then nothing has changed.
    pub async fn bytes(self, bytes: impl Into<Bytes>) -> Result<Written, Error> {
        let mut call = self.call()?;
        call.body = bytes.into();
        self.fs.sprite.client().json(&call).await
    }

    /// Writes all that a reader gives, as it comes. If it fails, so does this, and nothing has changed.
    ///
    /// # Errors
    /// When it cannot be read here or written there.
    ///
    /// # Cancel safety
    /// Cancelled, nothing has changed.
    pub async fn from(
        self,
        reader: impl AsyncRead + Send + Unpin + 'static,
    ) -> Result<Written, Error> {
        let call = self.call()?;
        let (body, all_read) = body(reader);
        self.fs.sprite.client().upload(&call, body, all_read).await
    }
}

/// All that a reader gives, and what ends when it has been read.
pub(super) fn body(
    reader: impl AsyncRead + Send + Unpin + 'static,
) -> (Upload, oneshot::Receiver<()>) {
    let (read_all, all_read) = oneshot::channel::<()>();
    let begun = Some((reader, read_all));
    let pieces = stream::unfold(begun, |state| async move {
        let (mut reader, read_all) = state?;
        let mut piece = Vec::with_capacity(PIECE);
        let read = (&mut reader)
            .take(PIECE as u64)
            .read_to_end(&mut piece)
            .await;
        match read {
            // The end of the channel says that all was read.
            Ok(0) => None,
            Ok(_) => {
                let frame: io::Result<_> = Ok(Frame::data(Bytes::from(piece)));
                Some((frame, Some((reader, read_all))))
            }
            Err(error) => Some((Err(error), None)),
        }
    });
    (StreamBody::new(pieces).boxed_unsync(), all_read)
}
