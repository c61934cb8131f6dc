//! Services: programs that the agent keeps running.
//!
//! The host says what there is to be with every [`ServicesSpec`]: all services of the sprite, and a revision, of which
//! a later one replaces an earlier one. So whoever speaks last with the newest knowledge is right, in whatever order
//! streams arrive, and a host that was killed between storing and telling tells again at its next start. Services
//! that are as they were are left alone.
//!
//! The agent answers [`ServicesReply::Applied`], then what the [`ServicesCall`] asks for, then ends the stream.
//!
//! Source: behaviour reference §1.9, §4.3.

use serde::{Deserialize, Serialize};
use sprite_types::{ServiceName, ServiceRun, ServiceSpec};

use crate::message::Failure;

/// Longest line of output that is told whole; longer ones are told in pieces. In bytes.
pub const LONGEST_LINE: usize = 8 << 10;

/// What there is to be, and what is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicesSpec {
    /// All services; absent: as was told last.
    #[serde(default)]
    pub set: Option<ServiceSet>,
    /// What is asked for beside that.
    pub call: ServicesCall,
}

/// All services of a sprite at some moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSet {
    /// Grows with every change.
    pub revision: u64,
    /// At most [`ServiceSpec::MOST`].
    pub services: Vec<WantedService>,
}

/// A service as it is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantedService {
    /// Its name.
    pub name: ServiceName,
    /// What it is.
    pub spec: ServiceSpec,
    /// Whether it is to run.
    pub run: ServiceRun,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "snake_case")]
pub enum ServicesCall {
    /// Nothing more.
    Apply,
    /// How all services are. Answers [`ServicesReply::States`].
    States,
    /// See to it that it runs, without waiting for a restart that is due later, and tell what happens. Answers
    /// [`ServicesReply::Event`] until `watch_ms` are over or the service failed.
    Start {
        /// Which.
        name: ServiceName,
        /// For how long it is watched, in ms.
        watch_ms: u64,
    },
    /// As [`Start`](Self::Start), after ending the process that there is.
    Restart {
        /// Which.
        name: ServiceName,
        /// For how long it is watched, in ms.
        watch_ms: u64,
    },
    /// End its process, and tell what happens until it has ended. That it stays so says the set.
    Stop {
        /// Which.
        name: ServiceName,
        /// How long it may take before SIGKILL, in ms.
        timeout_ms: u64,
    },
    /// Signal its process group.
    Signal {
        /// Which.
        name: ServiceName,
        /// Signal number, 1 to 64.
        signal: i32,
    },
    /// Its kept output, then what comes. Answers [`ServicesReply::Event`].
    Logs {
        /// Which.
        name: ServiceName,
        /// At most so many of the last lines; absent: all that is kept.
        #[serde(default)]
        lines: Option<u64>,
        /// For how long what comes is told, in ms.
        follow_ms: u64,
    },
    /// Start it unless it runs, and wait until its port is listened on, at most so long. Answers
    /// [`ServicesReply::Listening`] at the end, if it does.
    Demand {
        /// Which.
        name: ServiceName,
        /// In ms.
        within_ms: u64,
    },
}

/// What the agent answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum ServicesReply {
    /// The set is known; processes follow.
    Applied,
    /// How services are.
    States {
        /// In the order of their names.
        states: Vec<ServiceState>,
    },
    /// Something happened, or was said.
    Event(ServiceEvent),
    /// The port that was asked for is listened on.
    Listening,
    /// The operation could not be done; the last message of its stream.
    Failed(Failure),
}

/// How a service is: what the agent, whose child its process is, knows at that moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceState {
    /// Which.
    pub name: ServiceName,
    /// What it does.
    pub status: ServiceStatus,
    /// Its process as the environment sees it, while there is one.
    #[serde(default)]
    pub pid: Option<u32>,
    /// When that began, Unix microseconds.
    #[serde(default)]
    pub started_unix_us: Option<i64>,
    /// Why it does not run, if it should; else empty.
    #[serde(default)]
    pub error: String,
    /// How often it was started again after it had ended by itself, since a person started it.
    #[serde(default)]
    pub restart_count: u64,
    /// When it is started again, Unix microseconds.
    #[serde(default)]
    pub next_restart_unix_us: Option<i64>,
}

/// What a service does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceStatus {
    /// It has no process, and is to have none.
    Stopped,
    /// It waits for those that it needs, or its process is being made.
    Starting,
    /// Its process runs.
    Running,
    /// Its process was told to end.
    Stopping,
    /// Its process ended, or could not be made; it will be started again.
    Failed,
}

/// Something that happened at some time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceEvent {
    /// When, Unix milliseconds.
    pub unix_ms: i64,
    /// What.
    #[serde(flatten)]
    pub what: ServiceHappening,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ServiceHappening {
    /// Its process runs.
    Started {
        /// The process as the environment sees it.
        pid: u32,
    },
    /// It wrote a line, at most [`LONGEST_LINE`] bytes; without the line's end.
    Stdout {
        /// The line; what is not UTF-8 is replaced.
        data: String,
    },
    /// It wrote a line to stderr; as above.
    Stderr {
        /// The line.
        data: String,
    },
    /// Its process ended by itself.
    Exit {
        /// 0 to 255; 128 + n for signal n.
        code: u8,
    },
    /// Its process was told to end.
    Stopping,
    /// Its process ended as it was told to.
    Stopped {
        /// As above; absent if there was no process.
        #[serde(default)]
        code: Option<u8>,
    },
    /// It could not be started.
    Error {
        /// For people.
        message: String,
    },
    /// Whoever listens was too slow; the log has what is missing.
    Skipped {
        /// So many events.
        count: u64,
    },
}
