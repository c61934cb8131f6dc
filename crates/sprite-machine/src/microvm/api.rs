//! The control socket of a monitor: HTTP/1.1 over a Unix socket, one request after the other.
//!
//! Whoever took the monitor over answers here; every answer has a longest length and a deadline.

use std::io;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::request::{self, Request};
use crate::MachineError;

/// Longest head of an answer, and its most fields: more than either monitor sends.
const LONGEST_HEAD: usize = 8 << 10;
const MOST_FIELDS: usize = 32;
/// Longest body of an answer.
const LONGEST_BODY: usize = 64 << 10;
/// How much of a refusal is told.
const TOLD: usize = 1000;

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    /// The connection broke: the monitor has ended, or is about to.
    #[error("speak with the monitor")]
    Io(#[source] io::Error),
    /// The answer is not one.
    #[error("understand the monitor's answer")]
    NotHttp,
    /// The monitor refused.
    #[error("{message}")]
    Refused {
        /// Why, in its own words.
        message: String,
        /// Of which kind, if it said so.
        kind: Option<FaultKind>,
    },
    /// No answer came in time.
    #[error("no answer within {} s", .0.as_secs())]
    Timeout(Duration),
}

/// What kinds of refusals our monitor tells apart; Firecracker tells none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FaultKind {
    /// The snapshot is of another format, CPU or disk.
    SnapshotUnfit,
    /// The snapshot is not whole.
    SnapshotDamaged,
    /// Anything else.
    #[serde(other)]
    Other,
}

/// What a monitor can do besides what the published description says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub(super) struct Capabilities {
    /// It writes changed memory into the file that the machine was loaded from.
    pub(super) diff_in_place: bool,
    /// It keeps the name of the disk's state in a snapshot, and refuses any other.
    pub(super) disk_generation: bool,
}

#[derive(Deserialize)]
struct Fault {
    fault_message: String,
    #[serde(default)]
    fault_kind: Option<FaultKind>,
}

impl ApiError {
    /// For `map_err`: names what was asked for.
    pub(super) fn step(self, step: &str) -> MachineError {
        match self {
            Self::Timeout(within) => MachineError::Timeout {
                step: step.to_owned(),
                seconds: within.as_secs(),
            },
            Self::Io(_) | Self::NotHttp | Self::Refused { .. } => MachineError::Step {
                step: step.to_owned(),
                source: io::Error::other(self),
            },
        }
    }
}

/// A connection to a control socket.
#[derive(Debug)]
pub(super) struct Api {
    stream: UnixStream,
    /// What was read behind the last answer: nothing, if the monitor is sane.
    buffer: Vec<u8>,
}

impl Api {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    /// Asks, and waits for the answer; returns its body, if it has one.
    ///
    /// # Cancel safety
    /// None: the connection is of no use afterwards.
    pub(super) async fn ask(
        &mut self,
        request: &Request,
        within: Duration,
    ) -> Result<Option<Value>, ApiError> {
        let exchange = async {
            self.send(request).await.map_err(ApiError::Io)?;
            self.receive().await
        };
        match tokio::time::timeout(within, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(ApiError::Timeout(within)),
        }
    }

    /// What the monitor can do besides; nothing, if it does not know the question.
    pub(super) async fn capabilities(
        &mut self,
        within: Duration,
    ) -> Result<Capabilities, ApiError> {
        match self.ask(&request::capabilities(), within).await {
            Ok(Some(body)) => serde_json::from_value(body).map_err(|_| ApiError::NotHttp),
            Ok(None) | Err(ApiError::Refused { .. }) => Ok(Capabilities::default()),
            Err(error) => Err(error),
        }
    }

    async fn send(&mut self, request: &Request) -> io::Result<()> {
        let Request { method, path, body } = request;
        let body = body.as_ref().map(Value::to_string).unwrap_or_default();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\
            Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.stream.write_all(head.as_bytes()).await?;
        self.stream.write_all(body.as_bytes()).await
    }

    async fn receive(&mut self) -> Result<Option<Value>, ApiError> {
        let (status, length, length_of_head) = loop {
            match parse_head(&self.buffer)? {
                Some(head) => break head,
                None if self.buffer.len() >= LONGEST_HEAD => return Err(ApiError::NotHttp),
                None => self.read_more().await?,
            }
        };
        let end = length_of_head + length;
        while self.buffer.len() < end {
            self.read_more().await?;
        }
        let body: Vec<u8> = self.buffer.drain(..end).skip(length_of_head).collect();
        if (200..300).contains(&status) {
            if body.is_empty() {
                return Ok(None);
            }
            let value = serde_json::from_slice(&body);
            return value.map(Some).map_err(|_| ApiError::NotHttp);
        }
        Err(refusal(status, &body))
    }

    async fn read_more(&mut self) -> Result<(), ApiError> {
        let mut chunk = [0; 4096];
        match self.stream.read(&mut chunk).await {
            Ok(0) => Err(ApiError::Io(io::ErrorKind::UnexpectedEof.into())),
            Ok(length) => {
                self.buffer.extend_from_slice(&chunk[..length]);
                Ok(())
            }
            Err(error) => Err(ApiError::Io(error)),
        }
    }
}

/// Status, length of the body and length of the head, once the head is whole.
fn parse_head(bytes: &[u8]) -> Result<Option<(u16, usize, usize)>, ApiError> {
    let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let parsed = response.parse(bytes).map_err(|_| ApiError::NotHttp)?;
    let httparse::Status::Complete(length_of_head) = parsed else {
        return Ok(None);
    };
    let status = response.code.ok_or(ApiError::NotHttp)?;
    let mut length = 0;
    for field in response.headers.iter() {
        if field.name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(ApiError::NotHttp);
        }
        if field.name.eq_ignore_ascii_case("content-length") {
            let text = std::str::from_utf8(field.value).map_err(|_| ApiError::NotHttp)?;
            length = text.trim().parse().map_err(|_| ApiError::NotHttp)?;
        }
    }
    if length > LONGEST_BODY {
        return Err(ApiError::NotHttp);
    }
    Ok(Some((status, length, length_of_head)))
}

fn refusal(status: u16, body: &[u8]) -> ApiError {
    let fault = serde_json::from_slice::<Fault>(body).ok();
    let (message, kind) = match fault {
        Some(fault) => (fault.fault_message, fault.fault_kind),
        None => (format!("it answered with status {status}"), None),
    };
    let message = crate::log::printable(message.as_bytes());
    ApiError::Refused {
        message: message.chars().take(TOLD).collect(),
        kind,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const WITHIN: Duration = Duration::from_secs(5);

    /// A monitor that answers the requests that come with these bytes, one after the other.
    fn monitor(answers: Vec<String>) -> (Api, tokio::task::JoinHandle<String>) {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        let served = tokio::spawn(async move {
            let mut heard = String::new();
            for answer in answers {
                let mut chunk = vec![0; 4096];
                let length = theirs.read(&mut chunk).await.expect("a request");
                heard.push_str(&String::from_utf8_lossy(&chunk[..length]));
                // In pieces, as they may come.
                for piece in answer.as_bytes().chunks(7) {
                    theirs.write_all(piece).await.expect("answered");
                }
            }
            heard
        });
        (Api::new(ours), served)
    }

    fn answer(status: &str, body: &str) -> String {
        let length = body.len();
        format!("HTTP/1.1 {status}\r\nServer: x\r\nContent-Length: {length}\r\n\r\n{body}")
    }

    #[tokio::test]
    async fn requests_are_made_one_after_the_other_on_one_connection() {
        let (mut api, served) = monitor(vec![
            "HTTP/1.1 204 No Content\r\nServer: x\r\n\r\n".to_owned(),
            answer("200 OK", "{\"diff_in_place\":true,\"later\":1}"),
        ]);
        assert_eq!(
            api.ask(&request::pause(), WITHIN).await.expect("done"),
            None
        );
        let can = api.capabilities(WITHIN).await.expect("told");
        assert!(can.diff_in_place && !can.disk_generation);
        let heard = served.await.expect("served");
        assert!(heard.starts_with("PATCH /vm HTTP/1.1\r\n"), "{heard}");
        assert!(
            heard.contains("{\"state\":\"Paused\"}GET /capabilities"),
            "{heard}"
        );
    }

    #[tokio::test]
    async fn a_refusal_is_told_in_the_monitors_words() {
        let (mut api, _served) = monitor(vec![
            answer(
                "400 Bad Request",
                r#"{"fault_message":"no\u001b","fault_kind":"snapshot_damaged"}"#,
            ),
            answer(
                "400 Bad Request",
                r#"{"fault_message":"of the published form, no kind"}"#,
            ),
            answer("503 Service Unavailable", ""),
        ]);
        let mut refused = async || match api.ask(&request::resume(), WITHIN).await {
            Err(ApiError::Refused { message, kind }) => (message, kind),
            other => panic!("{other:?}"),
        };
        assert_eq!(
            refused().await,
            ("no?".to_owned(), Some(FaultKind::SnapshotDamaged))
        );
        assert_eq!(
            refused().await,
            ("of the published form, no kind".to_owned(), None)
        );
        assert!(refused().await.0.contains("503"));
    }

    #[tokio::test]
    async fn a_monitor_that_does_not_know_the_question_can_nothing_besides() {
        let (mut api, _served) = monitor(vec![answer("404 Not Found", "{}")]);
        let can = api.capabilities(WITHIN).await.expect("told");
        assert_eq!(can, Capabilities::default());
    }

    #[tokio::test]
    async fn no_answer_is_too_strange_and_none_too_long() {
        let long = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", usize::MAX);
        let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(LONGEST_HEAD));
        for answer in [
            "SSH-2.0-x\r\n\r\n",
            long.as_str(),
            endless.as_str(),
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{x}",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        ] {
            let (ours, mut theirs) = UnixStream::pair().expect("a pair");
            theirs.write_all(answer.as_bytes()).await.expect("room");
            let refused = Api::new(ours).ask(&request::pause(), WITHIN).await;
            assert!(matches!(refused, Err(ApiError::NotHttp)), "{refused:?}");
        }
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        drop(theirs);
        let broken = Api::new(ours).ask(&request::pause(), WITHIN).await;
        assert!(matches!(broken, Err(ApiError::Io(_))), "{broken:?}");
        let (ours, _theirs) = UnixStream::pair().expect("a pair");
        let moment = Duration::from_millis(5);
        let silent = Api::new(ours).ask(&request::pause(), moment).await;
        assert!(matches!(silent, Err(ApiError::Timeout(_))));
        let body = json!({ "fault_message": "x".repeat(LONGEST_BODY / 2) }).to_string();
        let refused = refusal(400, body.as_bytes());
        assert!(refused.to_string().len() <= TOLD);
    }
}
