//! Running commands in a sprite.
//!
//! Three ways, one truth about the end: a command's exit status is what the server told, and a stream that ends
//! without one is an error, never success.
//!
//! * [`Command::spawn`]: over a WebSocket, with streams, signals, a terminal; [`Command::output`] and
//!   [`Command::status`] above it.
//! * [`Attach::spawn`]: joins a session that is there already.
//! * [`Command::post`]: over one HTTP request, for networks that let no WebSocket through.

mod attach;
mod browser;
mod child;
mod chunked;
mod command;
mod frame;
mod link;
mod post;
mod request;
mod stream;
pub(crate) mod upgrade;

use std::fmt;
use std::io;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sprite_types::SessionId;

pub use attach::Attach;
pub use browser::UrlRequests;
pub use child::{Child, Controls, Output};
pub use command::{Command, Stdio};
pub(crate) use link::Socket;
pub use post::{PostBody, PostExec, PostFrame};
pub use stream::{ChildOutput, ChildStdin};

use crate::error::Error;

/// Why a command's end is not known, or why it never began.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ExecError {
    /// The command was not started, or whether it was is not known.
    #[error(transparent)]
    Start(#[from] Error),
    /// The connection ended before the command did. The session may run on; attach to it by its id.
    #[error("the connection was lost before the command ended: {reason}")]
    Lost {
        /// The session, if the server had told it.
        session: Option<SessionId>,
        /// What happened.
        reason: String,
    },
    /// What was to be the command's standard input cannot be read.
    #[error("read the input of the command")]
    Input {
        /// Why.
        source: Arc<io::Error>,
    },
    /// The command has ended: there is nothing to resize or signal any more.
    #[error("the command has ended")]
    Ended,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ExitStatus(i32);

impl ExitStatus {
    /// The status that `code` stands for.
    #[must_use]
    pub fn from_code(code: i32) -> Self {
        Self(code)
    }

    /// The exit code; 128 + n for a command that signal n ended.
    #[must_use]
    pub fn code(self) -> i32 {
        self.0
    }

    /// Whether the code is 0.
    #[must_use]
    pub fn success(self) -> bool {
        self.0 == 0
    }

    /// The signal that ended the command, as far as the code tells.
    #[must_use]
    pub fn signal(self) -> Option<i32> {
        (129..=192).contains(&self.0).then(|| self.0 - 128)
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.signal() {
            Some(signal) => write!(f, "exit status {} (signal {signal})", self.0),
            None => write!(f, "exit status {}", self.0),
        }
    }
}

/// The size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TtySize {
    /// Lines.
    pub rows: u16,
    /// Columns.
    pub cols: u16,
}

/// What the server tells about a session when one joins it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SessionInfo {
    /// Its id.
    #[serde(
        rename = "session_id",
        deserialize_with = "crate::sessions::session_id"
    )]
    pub id: SessionId,
    /// The command.
    #[serde(default)]
    pub command: String,
    /// Whether it has a terminal.
    #[serde(default)]
    pub tty: bool,
    /// Bytes that draw the terminal's screen; they come first, and no offset counts them.
    #[serde(default)]
    pub screen_bytes: u64,
    /// Offset of the first byte of standard output that follows.
    #[serde(default)]
    pub stdout_offset: u64,
    /// Offset of the first byte of standard error that follows.
    #[serde(default)]
    pub stderr_offset: u64,
    /// What the server keeps of its output.
    #[serde(flatten)]
    pub kept: Kept,
}

/// What a server keeps of a session's output, in bytes of each stream. Zeros if it does not tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Kept {
    /// Offset of the first byte of standard output that can still be read.
    pub stdout_kept_from: u64,
    /// Bytes of standard output so far.
    pub stdout_total: u64,
    /// Offset of the first byte of standard error that can still be read.
    pub stderr_kept_from: u64,
    /// Bytes of standard error so far.
    pub stderr_total: u64,
}
