//! The sessions of a sprite: listing them and ending them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use hyper::Method;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use sprite_types::SessionId;

use crate::body::Lines;
use crate::client::Call;
use crate::error::Error;
use crate::exec::{ExitStatus, Kept};
use crate::model::Timestamp;
use crate::sprite::Sprite;

/// A session that runs.
///
/// Source: behaviour reference §1.4.5.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Session {
    /// Its id.
    #[serde(deserialize_with = "session_id", serialize_with = "session_id_as_text")]
    pub id: SessionId,
    /// The command: absolute path and arguments.
    #[serde(default)]
    pub command: String,
    /// Whether it has a terminal.
    #[serde(default)]
    pub tty: bool,
    /// Whether it is doing something now.
    #[serde(default)]
    pub is_active: bool,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// When it last wrote or read something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_activity: Option<Timestamp>,
    /// What the server keeps of its output.
    #[serde(flatten)]
    pub kept: Kept,
    /// Everything else that the server told.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Session ids are texts; older servers wrote numbers.
pub(crate) fn session_id<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<SessionId, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        Number(u32),
        Text(String),
    }
    match Form::deserialize(deserializer)? {
        Form::Number(id) => Ok(SessionId(id)),
        Form::Text(text) => text.parse().map_err(serde::de::Error::custom),
    }
}

fn session_id_as_text<S: serde::Serializer>(
    id: &SessionId,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}

/// A signal by its name, without `SIG`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signal(String);

/// A text that names no signal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the name or number of a signal")]
pub struct SignalError(String);

impl Signal {
    /// The request to end.
    #[must_use]
    pub fn term() -> Self {
        Self("TERM".to_owned())
    }

    /// What Ctrl-C sends.
    #[must_use]
    pub fn int() -> Self {
        Self("INT".to_owned())
    }

    /// The order to end, which no process can refuse.
    #[must_use]
    pub fn kill() -> Self {
        Self("KILL".to_owned())
    }

    /// What a closed terminal sends.
    #[must_use]
    pub fn hup() -> Self {
        Self("HUP".to_owned())
    }

    /// What writing to a closed pipe sends.
    #[must_use]
    pub fn pipe() -> Self {
        Self("PIPE".to_owned())
    }

    /// Its name without `SIG`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl FromStr for Signal {
    type Err = SignalError;

    /// Reads `TERM`, `SIGTERM`, `term` or `15`.
    fn from_str(text: &str) -> Result<Self, SignalError> {
        let upper = text.trim().to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let plausible = !name.is_empty()
            && name.len() <= 12
            && name
                .bytes()
                .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b"+-".contains(&b));
        if plausible {
            Ok(Self(name.to_owned()))
        } else {
            Err(SignalError(text.chars().take(40).collect()))
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What came of ending a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Killed {
    /// It ended; its exit status, if the server told.
    Ended(Option<ExitStatus>),
    /// It had ended before.
    AlreadyEnded,
}

#[derive(Deserialize)]
struct KillEvent {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    exit_code: Option<i32>,
}

impl Sprite {
    /// The sessions that run now.
    ///
    /// # Errors
    /// When there is no such sprite or the call fails.
    pub async fn sessions(&self) -> Result<Vec<Session>, Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Answer {
            Wrapped { sessions: Vec<Session> },
            Bare(Vec<Session>),
        }
        let call = Call::new(Method::GET, self.target()?.path("/exec"));
        match self.client().json(&call).await? {
            Answer::Wrapped { sessions } | Answer::Bare(sessions) => Ok(sessions),
        }
    }

    /// Sends `signal` to the session's processes, waits up to `patience` for its end, and then has it killed.
    ///
    /// # Errors
    /// [`Error::is_not_found`] when there is no such session; [`Error::Interrupted`] when the server did not
    /// tell how it ended.
    ///
    /// # Cancel safety
    /// When the future is dropped, the session may be ended all the same.
    pub async fn kill(
        &self,
        session: SessionId,
        signal: &Signal,
        patience: Duration,
    ) -> Result<Killed, Error> {
        let target = self
            .target()?
            .path("/exec")
            .segment(&session.to_string())?
            .path("/kill");
        let target = target
            .param("signal", signal.name())
            .param("timeout", &duration(patience));
        let call = Call::new(Method::POST, target);
        let response = match self.client().accepted(&call).await {
            Ok(response) => response,
            Err(Error::Refused(refusal)) if refusal.status == 410 => {
                return Ok(Killed::AlreadyEnded);
            }
            Err(error) => return Err(error),
        };
        let mut lines = Lines::new(response.into_body(), patience + Duration::from_secs(60));
        let mut ended = false;
        while let Some(event) = lines.next::<KillEvent>().await? {
            match event.kind.as_str() {
                "complete" => return Ok(Killed::Ended(event.exit_code.map(ExitStatus::from_code))),
                "error" => {
                    let reason = event
                        .message
                        .unwrap_or_else(|| "end the session".to_owned());
                    return Err(Error::malformed(reason));
                }
                "exited" | "killed" => ended = true,
                // `signal`, `timeout` and kinds to come tell of progress.
                _ => {}
            }
        }
        if ended {
            Ok(Killed::Ended(None))
        } else {
            Err(Error::Interrupted { source: None })
        }
    }
}

impl Sprite {
    /// Sends a signal to the session's processes and does not wait.
    pub(crate) async fn signal(&self, session: SessionId, signal: &Signal) -> Result<(), Error> {
        let target = self
            .target()?
            .path("/exec")
            .segment(&session.to_string())?
            .path("/kill");
        let target = target
            .param("signal", signal.name())
            .param("timeout", &duration(Duration::ZERO));
        match self.client().done(&Call::new(Method::POST, target)).await {
            Err(Error::Refused(refusal)) if refusal.status == 410 => Ok(()),
            other => other,
        }
    }
}

/// A duration as the API reads it (Go's form).
///
/// Source: behaviour reference §1.1.
pub(crate) fn duration(duration: Duration) -> String {
    if duration.subsec_millis() == 0 {
        format!("{}s", duration.as_secs())
    } else {
        format!("{}ms", duration.as_millis())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_many_spellings_and_one_name() {
        for text in ["TERM", "SIGTERM", "sigterm", " term "] {
            assert_eq!(text.parse::<Signal>(), Ok(Signal::term()));
        }
        assert_eq!("9".parse::<Signal>().expect("a number").name(), "9");
        for bad in ["", "SIG", "TE RM", "TERM\"", "ABCDEFGHIJKLMNOP"] {
            assert!(bad.parse::<Signal>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn durations_are_written_as_go_reads_them() {
        assert_eq!(duration(Duration::from_secs(10)), "10s");
        assert_eq!(duration(Duration::from_millis(1500)), "1500ms");
        assert_eq!(duration(Duration::ZERO), "0s");
    }
}
