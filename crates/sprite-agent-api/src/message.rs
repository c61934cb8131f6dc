//! What operations say on their streams.
//!
//! Control messages are JSON, so that a reader of another version skips fields that it does not know and
//! fills in those that it misses; bulk bytes travel beside them as raw [`FrameKind`](crate::FrameKind)s.

use serde::{Deserialize, Serialize};
use sprite_types::SessionId;

use crate::fs::FsSpec;
use crate::policy::PolicySpec;
use crate::ports::PortEvent;
use crate::services::ServicesSpec;
use crate::tcp::ConnectSpec;

/// The first message of every stream, host → agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// Build the environment. Idempotent: a second call with any spec answers [`Reply::Ready`] at once.
    Start(EnvironmentSpec),
    /// Start a session and stay attached to it. Answers [`Reply::Started`], then output, then [`Reply::Exited`].
    Exec(ExecSpec),
    /// Attach to a session that exists. Answers [`Reply::Started`], output from the asked offsets on, [`Reply::Exited`].
    Attach(AttachSpec),
    /// The sessions that run now. Answers [`Reply::Sessions`].
    Sessions,
    /// Signal a session's process group. Answers [`Reply::Kill`] until [`KillEvent::Complete`].
    Kill(KillSpec),
    /// Is something in use though nothing goes to and fro? Answers an [`IdleReply`](crate::idle::IdleReply).
    Idle,
    /// Write everything that the environment wrote to its disk. Answers [`Reply::Synced`].
    Sync,
    /// End every process of the environment, write its disk, and exit. Answers [`Reply::Synced`] before exiting.
    Shutdown,
    /// Are you there? Answers [`Reply::Ready`].
    Ping,
    /// Set the guest's clock, and renew its randomness: what the host says first to a machine whose memory may have
    /// been loaded, since for the guest no time has passed, and since others may have begun with the same memory.
    /// Answers [`Reply::Ready`]; a machine that shares the host's clock refuses.
    Clock {
        /// Nanoseconds since 1970, UTC.
        unix_nanos: u64,
    },
    /// Connect to a port of the environment. Answers and bytes: [`crate::tcp`].
    Connect(ConnectSpec),
    /// Tell the ports on which the environment listens, and every change. Answers [`crate::ports::PortsReply`].
    Ports,
    /// Do something with files of the environment. Answers as [`crate::fs`] says.
    Fs(FsSpec),
    /// What sessions may, from now on. Answers a [`PolicyReply`](crate::policy::PolicyReply).
    Policy(PolicySpec),
    /// Tell me who connects to the environment's own socket. Answers [`CallReply::Call`](crate::calls::CallReply)
    /// for each, for as long as the stream lives.
    Calls,
    /// Make this stream the connection of a call. Answers [`CallReply::Taken`](crate::calls::CallReply), then bytes.
    Take {
        /// The call, as it was told.
        call: u64,
    },
    /// What services there are to be, and something about them. Answers as [`crate::services`] says.
    Services(ServicesSpec),
}

/// How the environment is to look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvironmentSpec {
    /// Its host name: the sprite's name.
    pub hostname: String,
    /// Variables added to the defaults of every session, `(name, value)`.
    #[serde(default)]
    pub env: Vec<(String, String)>,
    /// Name servers for `/etc/resolv.conf`, as IP addresses.
    #[serde(default)]
    pub nameservers: Vec<String>,
}

/// A command to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecSpec {
    /// The executable: an absolute path, or looked up on the environment's `PATH`.
    pub path: String,
    /// Arguments, `argv[0]` first; never empty.
    pub argv: Vec<String>,
    /// Variables merged over the defaults, `(name, value)`.
    #[serde(default)]
    pub env: Vec<(String, String)>,
    /// Working directory; absent: the user's home.
    #[serde(default)]
    pub dir: Option<String>,
    /// A terminal of this size instead of three pipes.
    #[serde(default)]
    pub tty: Option<TtySize>,
    /// Whether stdin stays open until [`Input::StdinEof`]. Without it the process reads EOF at once.
    #[serde(default)]
    pub stdin: bool,
    /// How long it may run on with no client attached, in ms; absent: for ever.
    #[serde(default)]
    pub max_run_after_disconnect_ms: Option<u64>,
    /// Whether ports that are opened and closed from now on are told too, as [`Reply::Port`].
    #[serde(default)]
    pub ports: bool,
}

/// A terminal's size in character cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TtySize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub cols: u16,
}

/// Which session to attach to, and from where its output is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachSpec {
    /// The session.
    pub session: SessionId,
    /// First byte of stdout (or of the terminal) that is wanted; what is no longer kept is skipped.
    #[serde(default)]
    pub stdout_offset: u64,
    /// First byte of stderr that is wanted.
    #[serde(default)]
    pub stderr_offset: u64,
    /// As in [`ExecSpec`].
    #[serde(default)]
    pub ports: bool,
    /// Instead: what its terminal shows now, drawn anew, then what comes. Without a terminal that can be drawn it is
    /// all that is kept.
    #[serde(default)]
    pub screen: bool,
    /// The size of the client's terminal, which the session's gets before.
    #[serde(default)]
    pub size: Option<TtySize>,
}

/// Which session to signal, and what to do if that does not end it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KillSpec {
    /// The session.
    pub session: SessionId,
    /// Signal number, 1 to 64.
    pub signal: i32,
    /// How long to wait for the end before SIGKILL, in ms; 0: signal and do not wait.
    pub timeout_ms: u64,
}

/// What the host says on an exec or attach stream after its request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "input", rename_all = "snake_case")]
pub enum Input {
    /// No more stdin.
    StdinEof,
    /// The client's terminal has another size now.
    Resize(TtySize),
    /// Signal the session's process group. Signal number, 1 to 64.
    Signal {
        /// Signal number.
        signal: i32,
    },
    /// The client is gone; the session lives on under its own rules.
    Detach,
}

/// What the agent answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// The environment is there.
    Ready(AgentInfo),
    /// A session runs and its output follows.
    Started(SessionStarted),
    /// The session ended; the last message of its stream. All its output came before.
    Exited {
        /// Exit status 0 to 255; 128 + n for signal n.
        code: u8,
    },
    /// The sessions that run now.
    Sessions {
        /// In order of their start.
        sessions: Vec<SessionInfo>,
    },
    /// Progress of a kill.
    Kill(KillEvent),
    /// All that was written is on the disk.
    Synced,
    /// A port was opened or closed; only before [`Reply::Exited`], and only if it was asked for.
    Port(PortEvent),
    /// The operation could not be done; the last message of its stream.
    Failed(Failure),
}

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentInfo {
    /// [`PROTOCOL`](crate::PROTOCOL) of the agent.
    pub protocol: u32,
    /// Whether the environment has been built.
    pub environment: bool,
}

/// A session that a client is attached to now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionStarted {
    /// The session.
    pub session: SessionId,
    /// The command as it was resolved: absolute path and arguments, separated by blanks.
    pub command: String,
    /// Start, Unix seconds.
    pub created_unix: i64,
    /// Whether it has a terminal.
    pub tty: bool,
    /// The terminal's size now; zeros without one.
    pub size: TtySize,
    /// Offset of the first byte of stdout that follows.
    pub stdout_start: u64,
    /// Offset of the first byte of stderr that follows.
    pub stderr_start: u64,
    /// Bytes that draw the terminal's screen; they come before those that the offset counts.
    #[serde(default)]
    pub screen_bytes: u64,
    /// What is kept of stdout.
    #[serde(default)]
    pub stdout: Kept,
    /// What is kept of stderr.
    #[serde(default)]
    pub stderr: Kept,
}

/// What a session's journal has of a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Offset of the first byte that can still be read.
    pub from: u64,
    /// Bytes so far, in all.
    pub total: u64,
}

/// A session in a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionInfo {
    /// The session.
    pub session: SessionId,
    /// The command as it was resolved.
    pub command: String,
    /// Working directory at the start.
    pub workdir: String,
    /// Start, Unix milliseconds.
    pub created_unix_ms: i64,
    /// Last output or input, Unix milliseconds.
    pub last_activity_unix_ms: i64,
    /// Output so far, both streams, in bytes.
    pub output_bytes: u64,
    /// Output in the last second or so, bytes per second.
    pub bytes_per_second: u64,
    /// Clients attached now.
    pub attached: u32,
    /// Whether it has a terminal.
    pub tty: bool,
    /// What is kept of stdout.
    #[serde(default)]
    pub stdout: Kept,
    /// What is kept of stderr.
    #[serde(default)]
    pub stderr: Kept,
}

/// Progress of a kill. Source: behaviour reference §1.4.5.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum KillEvent {
    /// The signal was sent.
    Signal {
        /// Signal number.
        signal: i32,
        /// The process group that got it.
        pid: u32,
    },
    /// It did not end in time.
    Timeout,
    /// SIGKILL was sent.
    Killed,
    /// It is gone.
    Exited,
    /// Nothing more follows. `exit_code` is absent if nobody waited for the end.
    Complete {
        /// Exit status 0 to 255.
        exit_code: Option<u8>,
    },
}

/// Why an operation failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What kind of failure.
    pub kind: FailureKind,
    /// For people: lower-case verb phrase.
    pub message: String,
}

/// Kinds of failure that the host tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The request does not make sense.
    Invalid,
    /// No such session now, and none that ended lately.
    NoSession,
    /// The session has ended; its exit status is in the message `exit status N`.
    SessionEnded,
    /// The environment has not been built.
    NotReady,
    /// A limit of the machine was met (processes, memory, sessions).
    Limit,
    /// The working directory does not exist or cannot be entered.
    Dir,
    /// The environment or the kernel refused.
    System,
    /// A kind that this side does not know yet.
    #[serde(other)]
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a released host or agent said; a later one reads it for ever.
    #[test]
    fn requests_are_written_as_they_always_were() {
        let clock = Request::Clock {
            unix_nanos: 1_700_000_000_123_456_789,
        };
        for (request, text) in [
            (Request::Ping, r#"{"op":"ping"}"#),
            (Request::Sync, r#"{"op":"sync"}"#),
            (Request::Idle, r#"{"op":"idle"}"#),
            (clock, r#"{"op":"clock","unix_nanos":1700000000123456789}"#),
        ] {
            assert_eq!(serde_json::to_string(&request).expect("plain"), text);
            let read = serde_json::from_str::<Request>(text);
            assert_eq!(read.expect("a request"), request);
        }
    }
}
