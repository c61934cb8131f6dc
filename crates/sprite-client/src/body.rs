//! Reading the bodies of answers: whole and bounded, or line by line.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde::de::DeserializeOwned;

use crate::error::Error;

/// Largest body that is read as a whole. A page of sprites is some tens of KiB.
const WHOLE_LIMIT: usize = 16 << 20;
/// Longest line of a stream of lines.
const LINE_LIMIT: usize = 1 << 20;

/// Reads a body to its end.
pub(crate) async fn whole(body: Incoming, limit: Duration) -> Result<Bytes, Error> {
    let collected = tokio::time::timeout(limit, Limited::new(body, WHOLE_LIMIT).collect());
    match collected.await {
        Ok(Ok(all)) => Ok(all.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(Error::TooLarge { limit: WHOLE_LIMIT })
        }
        Ok(Err(error)) => Err(Error::Interrupted {
            source: Some(Arc::from(error)),
        }),
        Err(_) => Err(Error::TimedOut {
            what: "the rest of the answer",
            after: limit,
        }),
    }
}

/// A body of JSON objects, one a line (NDJSON).
#[derive(Debug)]
pub(crate) struct Lines {
    body: Incoming,
    pending: BytesMut,
    /// How long the stream may be silent.
    silence: Duration,
    ended: bool,
}

impl Lines {
    pub(crate) fn new(body: Incoming, silence: Duration) -> Self {
        Self {
            body,
            pending: BytesMut::new(),
            silence,
            ended: false,
        }
    }

    /// The next object, or `None` after the last one when the server ended the stream in order.
    ///
    /// # Cancel safety
    /// Safe: what was read of a line is kept for the next call.
    pub(crate) async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Error> {
        loop {
            if let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let line = self.pending.split_to(end + 1);
                if let Some(object) = parse(&line)? {
                    return Ok(Some(object));
                }
            } else if self.ended {
                let rest = self.pending.split();
                return parse(&rest);
            } else if self.pending.len() > LINE_LIMIT {
                return Err(Error::TooLarge { limit: LINE_LIMIT });
            } else {
                self.fill().await?;
            }
        }
    }

    async fn fill(&mut self) -> Result<(), Error> {
        match tokio::time::timeout(self.silence, self.body.frame()).await {
            Ok(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    self.pending.extend_from_slice(data);
                }
                Ok(())
            }
            Ok(Some(Err(source))) => Err(Error::Interrupted {
                source: Some(Arc::new(source)),
            }),
            Ok(None) => {
                self.ended = true;
                Ok(())
            }
            Err(_) => Err(Error::TimedOut {
                what: "the next line",
                after: self.silence,
            }),
        }
    }
}

/// An empty line keeps a stream alive and says nothing.
fn parse<T: DeserializeOwned>(line: &[u8]) -> Result<Option<T>, Error> {
    let line = line.trim_ascii();
    if line.is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(line)
        .map(Some)
        .map_err(|source| Error::malformed(source.to_string()))
}
