//! Services: programs that a sprite keeps running. Source: behaviour reference §1.9.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Stamp;

/// A service, and how it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// The executable: an absolute path, or looked up on `PATH`.
    pub cmd: String,
    /// Its arguments.
    #[serde(default)]
    pub args: Vec<String>,
    /// Variables over those of the sprite.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Working directory; absent: the user's home.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dir: Option<String>,
    /// Services that have to run before this one is started.
    #[serde(default)]
    pub needs: Vec<String>,
    /// The port to which the sprite's URL leads, if it leads to this service.
    #[serde(default)]
    pub http_port: Option<u16>,
    /// How it is now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<ServiceState>,
}

/// How a service is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ServiceState {
    /// The service's name.
    pub name: String,
    /// What it does.
    pub status: ServiceStatus,
    /// Its process as the environment sees it, while there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// When that began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started_at: Option<Stamp>,
    /// Why it does not run, if it should; else empty.
    #[serde(default)]
    pub error: String,
    /// How often it was started again after it had ended by itself, since somebody started it.
    #[serde(default)]
    pub restart_count: u64,
    /// When it is started again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_restart_at: Option<Stamp>,
}

/// What a service does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ServiceStatus {
    /// It has no process, and is to have none.
    Stopped,
    /// It waits for those that it needs, or its process is being made.
    Starting,
    /// Its process runs.
    Running,
    /// Its process was told to end.
    Stopping,
    /// Its process ended, or could not be made; it is started again at `next_restart_at`.
    Failed,
}

/// `PUT …/services/{service}`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PutService {
    /// The executable: an absolute path, or looked up on `PATH`. One word; arguments are apart.
    #[serde(default)]
    pub cmd: String,
    /// Its arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<Vec<String>>,
    /// Variables over those of the sprite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<BTreeMap<String, String>>,
    /// Working directory; absent: the user's home.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dir: Option<String>,
    /// Services that have to run before this one is started; they must exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needs: Option<Vec<String>>,
    /// The port to which the sprite's URL is to lead, 1 to 65,535; one service of a sprite at most has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_port: Option<i64>,
}

/// `POST …/services/signal`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SignalService {
    /// The service's name.
    #[serde(default)]
    pub name: String,
    /// `SIGTERM`, `TERM`, `15` or `"15"`.
    #[serde(default)]
    #[schema(value_type = String)]
    pub signal: serde_json::Value,
}

/// A line of what is told about a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ServiceEvent {
    /// When, Unix milliseconds.
    #[serde(default)]
    pub timestamp: i64,
    /// What.
    #[serde(flatten)]
    pub what: ServiceEventKind,
}

/// What happened to a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum ServiceEventKind {
    /// Its process runs.
    Started {
        /// The process as the environment sees it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pid: Option<u32>,
    },
    /// It wrote a line.
    Stdout {
        /// The line, without its end; longer ones than 8 KiB come in pieces.
        data: String,
    },
    /// It wrote a line to stderr.
    Stderr {
        /// As above.
        data: String,
    },
    /// Its process ended by itself.
    Exit {
        /// 0 to 255; 128 + n for signal n.
        exit_code: i32,
    },
    /// Its process was told to end.
    Stopping,
    /// Its process ended as it was told to.
    Stopped {
        /// As above; absent if there was no process.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exit_code: Option<i32>,
    },
    /// Something did not work.
    Error {
        /// For people.
        data: String,
    },
    /// The last line.
    Complete {
        /// Where its output is kept, in the sprite. All of it is in one file, each line with its stream's name.
        log_files: LogFiles,
    },
}

/// Where the output of a service is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogFiles {
    /// All of it.
    pub combined: String,
    /// Where stdout is.
    #[serde(default)]
    pub stdout: String,
    /// Where stderr is.
    #[serde(default)]
    pub stderr: String,
}

impl LogFiles {
    /// The files of a service.
    #[must_use]
    pub fn of(service: &str) -> Self {
        let path = format!("/.sprite/logs/services/{service}.log");
        Self {
            combined: path.clone(),
            stdout: path.clone(),
            stderr: path,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Behaviour reference §1.9: events as clients know them.
    #[test]
    fn events_are_written_as_clients_know_them() {
        let at = |what| ServiceEvent {
            timestamp: 1_780_420_274_555,
            what,
        };
        let path = "/.sprite/logs/services/web.log";
        for (event, line) in [
            (
                ServiceEventKind::Started { pid: None },
                json!({"type": "started", "timestamp": 1_780_420_274_555_i64}),
            ),
            (
                ServiceEventKind::Stderr {
                    data: "x".to_owned(),
                },
                json!({"type": "stderr", "data": "x", "timestamp": 1_780_420_274_555_i64}),
            ),
            (
                ServiceEventKind::Stopped {
                    exit_code: Some(143),
                },
                json!({"type": "stopped", "exit_code": 143, "timestamp": 1_780_420_274_555_i64}),
            ),
            (
                ServiceEventKind::Complete {
                    log_files: LogFiles::of("web"),
                },
                json!({
                    "type": "complete",
                    "log_files": {"combined": path, "stdout": path, "stderr": path},
                    "timestamp": 1_780_420_274_555_i64
                }),
            ),
        ] {
            let event = at(event);
            assert_eq!(serde_json::to_value(&event).expect("JSON"), line);
            assert_eq!(
                serde_json::from_value::<ServiceEvent>(line).expect("an event"),
                event
            );
        }
    }
}
