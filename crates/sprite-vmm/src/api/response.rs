//! What goes back to the client.

use serde::Serialize;

use crate::command::Answer;
use crate::control::{CommandError, FaultKind};
use crate::failure::chain;

/// Bytes of one response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Response {
    status: Status,
    body: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Ok,
    NoContent,
    BadRequest,
    Unavailable,
}

/// Whether another request may come on the same connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Afterwards {
    Keep,
    Close,
}

#[derive(Serialize)]
struct Fault<'a> {
    fault_message: &'a str,
    fault_kind: FaultKind,
}

impl Response {
    pub(super) fn of(outcome: &Result<Answer, CommandError>) -> Response {
        match outcome {
            Ok(Answer::Done) => Response {
                status: Status::NoContent,
                body: Vec::new(),
            },
            Ok(answer) => Response {
                status: Status::Ok,
                body: json(answer),
            },
            Err(error) => Response::fault(&chain(error), error.kind()),
        }
    }

    pub(super) fn fault(message: &str, kind: FaultKind) -> Response {
        Response {
            status: Status::BadRequest,
            body: json(&Fault {
                fault_message: message,
                fault_kind: kind,
            }),
        }
    }

    pub(super) fn unavailable(message: &str) -> Response {
        Response {
            status: Status::Unavailable,
            ..Response::fault(message, FaultKind::Failed)
        }
    }

    /// The bytes on the wire.
    pub(super) fn bytes(&self, afterwards: Afterwards) -> Vec<u8> {
        let status = match self.status {
            Status::Ok => "200 OK",
            Status::NoContent => "204 No Content",
            Status::BadRequest => "400 Bad Request",
            Status::Unavailable => "503 Service Unavailable",
        };
        let connection = match afterwards {
            Afterwards::Keep => "keep-alive",
            Afterwards::Close => "close",
        };
        let mut bytes =
            format!("HTTP/1.1 {status}\r\nServer: sprite-vmm\r\nConnection: {connection}\r\n")
                .into_bytes();
        // A 204 has no body and must not speak of one. Source: RFC 9110, section 8.6.
        if self.status != Status::NoContent {
            bytes.extend_from_slice(
                format!(
                    "Content-Type: application/json\r\nContent-Length: {}\r\n",
                    self.body.len()
                )
                .as_bytes(),
            );
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

fn json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("answers are structs of texts, numbers and lists")
}
