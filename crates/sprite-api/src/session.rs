//! Sessions: the listing, and the progress of a kill. Source: behaviour reference §1.4.5.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Stamp;
use crate::exec::Kept;

/// `GET /v1/sprites/{name}/exec` without an upgrade.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SessionList {
    /// How many there are.
    pub count: usize,
    /// The sessions that run, in order of their start.
    pub sessions: Vec<Session>,
}

/// A session that runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Session {
    /// Its id, always a text.
    pub id: String,
    /// The command as it was resolved: absolute path and arguments.
    pub command: String,
    /// Working directory at the start.
    pub workdir: String,
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    pub created: Stamp,
    /// Output in the last second or so.
    pub bytes_per_second: f64,
    /// Whether a client is attached, or there was output in the last few seconds.
    pub is_active: bool,
    /// Last output or input.
    #[schema(value_type = String, format = DateTime)]
    pub last_activity: Stamp,
    /// Whether it has a terminal.
    pub tty: bool,
    /// What is kept of its output.
    #[serde(flatten)]
    pub kept: Kept,
}

/// `POST /v1/sprites/{name}/exec/{id}/kill`; the same two may be in the query instead.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Kill {
    /// `SIGTERM`, `TERM`, `15` or `"15"`; absent: SIGTERM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub signal: Option<serde_json::Value>,
    /// How long to wait for the end before SIGKILL: seconds, or a Go-style duration; absent: 10 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub timeout: Option<serde_json::Value>,
}

/// A line of a kill's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum KillLine {
    /// The signal was sent.
    Signal {
        /// For people.
        message: String,
        /// Its name.
        signal: String,
        /// The process group that got it.
        pid: u32,
    },
    /// It did not end in time.
    Timeout {
        /// For people.
        message: String,
    },
    /// SIGKILL was sent.
    Killed {
        /// For people.
        message: String,
    },
    /// It is gone.
    Exited {
        /// For people.
        message: String,
    },
    /// The kill could not be carried through; the last line.
    Error {
        /// For people.
        message: String,
    },
    /// The last line.
    Complete {
        /// Exit status, 128 + n for signal n; absent if nobody waited for the end.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exit_code: Option<u8>,
    },
}
