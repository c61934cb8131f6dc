//! Files. Source: behaviour reference §1.10.
//!
//! Every operation is a spec ([`params`] reads it of a query, whichever way that came), begun as a [`Running`], and
//! translated as it answers.

pub(crate) mod archive;
pub(crate) mod change;
mod errno;
pub(crate) mod list;
pub(crate) mod params;
pub(crate) mod read;
pub(crate) mod watch;
pub(crate) mod write;

use std::time::Duration;

use bytes::Bytes;
use sprite_agent_api::fs::{FsChanged, FsReply, FsSpec};
use sprite_agent_api::message::Request;
use sprite_agent_api::{Frame, FrameKind, MAX_DATA, link};
use sprite_host::{Awake, Sprite};
use tokio::time::timeout;

use crate::problem::{Answer, Problem};
use crate::routes::App;

/// How long the machine may say nothing: somewhat longer than its agent waits for a disk.
const SILENT_FOR: Duration = Duration::from_secs(660);

/// An operation that the machine has begun, and the hold that keeps its sprite awake. Dropped, it is broken off, and
/// what was half done is undone.
#[derive(Debug)]
pub(crate) struct Running {
    stream: link::Stream,
    _awake: Awake,
}

/// What the machine says next.
#[derive(Debug)]
pub(crate) enum Said {
    Reply(FsReply),
    Bytes(Bytes),
}

impl Running {
    /// Wakes the sprite and asks its agent.
    ///
    /// # Errors
    /// The sprite does not wake.
    ///
    /// # Cancel safety
    /// Cancelled, the operation is broken off.
    pub(crate) async fn begin(app: &App, sprite: &Sprite, spec: FsSpec) -> Answer<Self> {
        let awake = app.host.awake(sprite.id).await;
        let awake = awake.map_err(|error| Problem::waking(error, sprite.id, &sprite.name))?;
        let stream = awake.open(&Request::Fs(spec));
        Ok(Self {
            stream,
            _awake: awake,
        })
    }

    /// The next thing that matters. A refusal is an error.
    ///
    /// # Errors
    /// The machine refuses, is gone, is silent or says nonsense.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn next(&mut self) -> Answer<Said> {
        next(&mut self.stream.receiver).await
    }

    /// The next thing, which is no bytes.
    ///
    /// # Errors
    /// As of [`Running::next`], and for bytes.
    pub(crate) async fn reply(&mut self) -> Answer<FsReply> {
        match self.next().await? {
            Said::Reply(reply) => Ok(reply),
            Said::Bytes(_) => Err(nonsense()),
        }
    }

    /// What was changed.
    ///
    /// # Errors
    /// As of [`Running::next`].
    pub(crate) async fn changed(&mut self) -> Answer<FsChanged> {
        match self.reply().await? {
            FsReply::Changed(changed) => Ok(changed),
            _other => Err(nonsense()),
        }
    }

    /// Hands bytes to the machine, at its pace.
    ///
    /// # Errors
    /// The machine refuses meanwhile, or the stream ended.
    ///
    /// # Cancel safety
    /// Cancelled, some of the bytes were handed over.
    pub(crate) async fn give(&mut self, mut bytes: Bytes) -> Answer<()> {
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(MAX_DATA));
            let frame = Frame::data(FrameKind::Stdin, piece);
            tokio::select! {
                biased;
                // It says nothing before the end, unless it refuses.
                said = next(&mut self.stream.receiver) => return Err(said.err().unwrap_or_else(nonsense)),
                sent = self.stream.sender.send(frame) => sent?,
            }
        }
        Ok(())
    }

    /// Says that no more bytes come: what did come is whole.
    pub(crate) fn finish(&self) {
        self.stream.sender.finish();
    }
}

async fn next(receiver: &mut link::Receiver) -> Answer<Said> {
    loop {
        let frame = timeout(SILENT_FOR, receiver.recv()).await;
        let frame = frame
            .map_err(|_| Problem::machine_lost("the machine did not answer in time"))??
            .ok_or_else(|| Problem::machine_lost("the machine ended before it answered"))?;
        match frame.kind {
            FrameKind::Stdout => return Ok(Said::Bytes(frame.payload)),
            FrameKind::Control => match frame.message::<FsReply>() {
                Ok(FsReply::Working { .. }) => {}
                Ok(FsReply::Refused(error)) => return Err(errno::problem(&error)),
                Ok(FsReply::Failed(failure)) => return Err(Problem::refused(failure, None)),
                Ok(reply) => return Ok(Said::Reply(reply)),
                Err(_) => return Err(nonsense()),
            },
            FrameKind::Stdin | FrameKind::Stderr => return Err(nonsense()),
        }
    }
}

/// The machine broke the contract.
pub(crate) fn nonsense() -> Problem {
    Problem::machine_lost("the machine answered something else")
}

/// Four octal digits.
pub(crate) fn octal(mode: u32) -> String {
    format!("{:04o}", mode & 0o7777)
}
