//! What can go wrong in a call.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::{HeaderMap, StatusCode};
use serde_json::Value;

use crate::url::ServerUrl;

/// Why a call to the server gave no result.
///
/// A server that says no is [`Error::Refused`], one that tried and could not is [`Error::Failed`]; every other kind
/// means that the answer is not known: what the call asked for may or may not have happened.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No connection could be made: nothing was sent.
    #[error("connect to {server}")]
    Connect {
        /// The server.
        server: ServerUrl,
        /// What the system or TLS said.
        source: Arc<io::Error>,
    },
    /// The connection broke before an answer came.
    #[error("exchange a request with {server}")]
    Exchange {
        /// The server.
        server: ServerUrl,
        /// What the transport said.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// Something took longer than it may.
    #[error("{what} took longer than {} s", after.as_secs())]
    TimedOut {
        /// What was waited for.
        what: &'static str,
        /// How long.
        after: Duration,
    },
    /// The server answered with an error.
    #[error(transparent)]
    Refused(#[from] ApiError),
    /// The server began, and then told that it could not do what was asked for.
    #[error("{message}")]
    Failed {
        /// The text for people.
        message: String,
    },
    /// The answer broke off: what came of it is not to be trusted as whole.
    #[error("read the whole answer")]
    Interrupted {
        /// What the transport said, if anything.
        source: Option<Arc<dyn std::error::Error + Send + Sync>>,
    },
    /// The answer is not of the form that the API promises.
    #[error("understand the answer: {reason}")]
    Malformed {
        /// What is wrong with it.
        reason: String,
    },
    /// The answer or one line of it is larger than any the API sends.
    #[error("the answer is larger than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The request cannot be written: a header or path that HTTP does not allow, or one that is too long.
    #[error("write the request: {reason}")]
    Unwritable {
        /// What is wrong with it.
        reason: String,
    },
}

impl Error {
    pub(crate) fn malformed(reason: impl Into<String>) -> Self {
        Self::Malformed {
            reason: reason.into(),
        }
    }

    /// What the server said, if it is the server that refused.
    #[must_use]
    pub fn refusal(&self) -> Option<&ApiError> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            Self::Connect { .. }
            | Self::Exchange { .. }
            | Self::TimedOut { .. }
            | Self::Failed { .. }
            | Self::Interrupted { .. }
            | Self::Malformed { .. }
            | Self::TooLarge { .. }
            | Self::Unwritable { .. } => None,
        }
    }

    /// Whether the server said that what was asked for does not exist. No outage looks like this.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.refusal().is_some_and(|refusal| refusal.status == 404)
    }
}

/// An answer of the server that says no.
///
/// Source: behaviour reference §1.2.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({request}: {status} {code})")]
pub struct ApiError {
    /// The HTTP status.
    pub status: u16,
    /// The code for programs: `not_found`, `name_taken`, …; the status' own name where the server sent none.
    pub code: String,
    /// The text for people.
    pub message: String,
    /// The kernel's word for what went wrong with a file: `ENOENT`, `EACCES`, …
    pub file_code: Option<String>,
    /// When to try again, if the server said so.
    pub retry_after: Option<Duration>,
    /// Method and path of the request.
    pub request: String,
}

/// Longest text of a server that is shown.
const MESSAGE_LIMIT: usize = 2_000;

impl ApiError {
    /// Reads an error answer leniently: JSON in any of the known shapes, or plain text.
    pub(crate) fn read(
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
        request: String,
    ) -> Self {
        let json: Option<Value> = serde_json::from_slice(body).ok();
        let text = |key: &str| {
            json.as_ref()
                .and_then(|json| json.get(key))
                .and_then(Value::as_str)
                .map(str::to_owned)
        };
        let code = text("error").filter(|code| is_code(code));
        let errors = json
            .as_ref()
            .and_then(|json| json.get("errors"))
            .map(listed);
        let plain =
            || Some(String::from_utf8_lossy(body).trim().to_owned()).filter(|_| json.is_none());
        let reason = status.canonical_reason().unwrap_or("error").to_lowercase();
        let message = text("message")
            .or_else(|| text("error").filter(|_| code.is_none()))
            .or(errors)
            .or_else(plain)
            .filter(|message| !message.is_empty())
            .unwrap_or_else(|| reason.clone());
        let retry_after = headers
            .get("retry-after")
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .or_else(|| json.as_ref()?.get("retry_after_seconds")?.as_u64())
            .map(Duration::from_secs);
        Self {
            status: status.as_u16(),
            code: code.unwrap_or_else(|| reason.replace(' ', "_")),
            message: shown(&message),
            file_code: text("code").map(|code| code.chars().take(40).collect()),
            retry_after,
            request,
        }
    }
}

/// A text of the server as it is shown: bounded, and without what could drive a terminal.
pub(crate) fn shown(text: &str) -> String {
    let plain = text.chars().filter(|c| !c.is_control() || *c == '\n');
    plain.take(MESSAGE_LIMIT).collect()
}

/// A code is one word; some answers put a sentence in its place.
fn is_code(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

fn listed(errors: &Value) -> String {
    let one = |error: &Value| {
        error
            .as_str()
            .map_or_else(|| error.to_string(), str::to_owned)
    };
    match errors {
        Value::Array(all) => all.iter().map(one).collect::<Vec<_>>().join("; "),
        other => one(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(status: u16, body: &str) -> ApiError {
        let status = StatusCode::from_u16(status).expect("a valid status");
        ApiError::read(status, &HeaderMap::new(), body.as_bytes(), "GET /".into())
    }

    #[test]
    fn every_known_shape_of_error_is_read() {
        let taken = read(
            409,
            r#"{"error":"name_taken","message":"a sprite named x exists"}"#,
        );
        assert_eq!(
            (taken.code.as_str(), taken.message.as_str()),
            ("name_taken", "a sprite named x exists")
        );
        assert_eq!(
            read(400, r#"{"error":"name is required"}"#).message,
            "name is required"
        );
        assert_eq!(read(422, r#"{"errors":["a","b"]}"#).message, "a; b");
        assert_eq!(
            read(404, "session not found: 7\n").message,
            "session not found: 7"
        );
        let bare = read(502, "");
        assert_eq!(
            (bare.code.as_str(), bare.message.as_str()),
            ("bad_gateway", "bad gateway")
        );
        let waking = read(
            503,
            r#"{"error":"sprite_starting","retry_after_seconds":2}"#,
        );
        assert_eq!(waking.retry_after, Some(Duration::from_secs(2)));
    }

    #[test]
    fn a_hostile_text_neither_floods_nor_drives_the_terminal() {
        let flood = read(500, &format!("\u{1b}]0;x\u{7}{}", "y".repeat(100_000)));
        assert!(flood.message.len() <= MESSAGE_LIMIT);
        assert!(!flood.message.contains('\u{1b}'));
    }
}
