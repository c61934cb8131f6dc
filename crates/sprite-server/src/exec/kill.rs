//! `POST /v1/sprites/{name}/exec/{session}/kill`. Source: behaviour reference §1.4.5.

use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use futures_util::stream;
use serde_json::Value;
use sprite_agent_api::message::{KillEvent, KillSpec, Reply, Request as AgentRequest};
use sprite_api::query::Query;
use sprite_api::session::{Kill, KillLine};
use sprite_api::unit::{self, Signal};
use sprite_api::{ErrorBody, NDJSON};
use sprite_types::{SessionId, SpriteStatus};

use super::open::Operation;
use crate::connection;
use crate::named::{Named, SessionText};
use crate::problem::{Answer, Problem};
use crate::routes::App;
use crate::{answer, body};

/// How long a session may take to end before SIGKILL, if nothing is said.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How much longer than it was told to wait the machine may take for its next word.
const SLACK: Duration = Duration::from_secs(30);

/// Signal a session
///
/// The signal goes to its process group. The answer is a line for each thing that happens; the last one is
/// `complete`, or `error`. `signal` and `timeout` may be in the query or in a JSON body; the query wins.
#[utoipa::path(
    post, path = "/v1/sprites/{name}/exec/{session}/kill", tag = "exec", operation_id = "kill_session",
    params(
        ("name" = String, Path, description = "Name of the sprite"),
        ("session" = String, Path, description = "Id of the session"),
        ("signal" = Option<String>, Query, description = "`SIGTERM`, `TERM` or `15`; SIGTERM if absent"),
        ("timeout" = Option<String>, Query, description = "How long to wait before SIGKILL (`10s`, the default; `0s`: do not wait)"),
    ),
    request_body = Option<Kill>,
    responses(
        (status = 200, description = "What happens, line by line", body = KillLine, content_type = "application/x-ndjson"),
        (status = 400, description = "A parameter is wrong", body = ErrorBody),
        (status = 404, description = "There is no such sprite or session", body = ErrorBody),
        (status = 410, description = "The session has ended", body = ErrorBody),
    )
)]
pub(crate) async fn kill(
    State(app): State<App>,
    named: Named,
    SessionText(id): SessionText,
    request: Request,
) -> Answer<Response> {
    let (parts, request) = request.into_parts();
    let said = body::optional_json(request).await?;
    let (signal, timeout) = wanted(&connection::query(&parts)?, &said)?;
    let session: SessionId = id.parse().map_err(|_| Problem::no_session(&id))?;
    if named.sprite.status == SpriteStatus::Cold {
        return Err(Problem::no_session(&id));
    }
    let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    let spec = KillSpec {
        session,
        signal: signal.number(),
        timeout_ms,
    };
    let (operation, reply) =
        Operation::begin(&app, &named.sprite, &AgentRequest::Kill(spec)).await?;
    let first = match reply {
        Reply::Kill(event) => event,
        Reply::Failed(failure) => return Err(Problem::refused(failure, Some(&id))),
        Reply::Ready(_)
        | Reply::Started(_)
        | Reply::Exited { .. }
        | Reply::Sessions { .. }
        | Reply::Synced
        | Reply::Port(_) => {
            return Err(Problem::machine_lost("the machine answered something else"));
        }
    };
    Ok(progress(operation, first, timeout.saturating_add(SLACK)))
}

fn wanted(query: &Query, said: &Kill) -> Answer<(Signal, Duration)> {
    let text = |value: &Option<Value>| match value {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text.clone()),
        Some(other) => Some(other.to_string()),
    };
    let of = |key: &str, value: &Option<Value>| {
        query
            .get(key)
            .map(str::to_owned)
            .or_else(|| text(value))
            .filter(|text| !text.is_empty())
    };
    let signal = match of("signal", &said.signal) {
        None => Signal::TERM,
        Some(text) => text
            .parse()
            .map_err(|error| Problem::field(format!("signal: {error}")))?,
    };
    let timeout = match of("timeout", &said.timeout) {
        None => TIMEOUT,
        Some(text) => unit::parse_duration(&text)
            .map_err(|error| Problem::field(format!("timeout: {error}")))?,
    };
    Ok((signal, timeout))
}

/// The answer as it comes, beginning with `first`.
fn progress(operation: Operation, first: KillEvent, within: Duration) -> Response {
    let begun = Some((operation, Some(first)));
    let lines = stream::unfold(begun, move |state| async move {
        let (mut operation, ready) = state?;
        let reply = match ready {
            Some(event) => Ok(Reply::Kill(event)),
            None => tokio::time::timeout(within, operation.reply())
                .await
                .unwrap_or_else(|_| {
                    Err(Problem::machine_lost("the machine did not answer in time"))
                }),
        };
        let (line, last) = match reply {
            Ok(Reply::Kill(event)) => {
                let last = matches!(event, KillEvent::Complete { .. });
                (line(event), last)
            }
            Ok(Reply::Failed(failure)) => (
                KillLine::Error {
                    message: failure.message,
                },
                true,
            ),
            Ok(
                Reply::Ready(_)
                | Reply::Started(_)
                | Reply::Exited { .. }
                | Reply::Sessions { .. }
                | Reply::Synced
                | Reply::Port(_),
            ) => (
                KillLine::Error {
                    message: "the machine answered something else".to_owned(),
                },
                true,
            ),
            Err(problem) => (
                KillLine::Error {
                    message: problem.message().to_owned(),
                },
                true,
            ),
        };
        let next = (!last).then_some((operation, None));
        Some((Ok::<_, io::Error>(answer::line(&line)), next))
    });
    let mut response = Response::new(Body::from_stream(lines));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(NDJSON));
    response
}

fn line(event: KillEvent) -> KillLine {
    match event {
        KillEvent::Signal { signal, pid } => {
            let number = i64::from(signal);
            let signal =
                Signal::from_number(number).map_or_else(|| number.to_string(), Signal::name);
            let message = format!("Signaling {signal} to process group {pid}");
            KillLine::Signal {
                message,
                signal,
                pid,
            }
        }
        KillEvent::Timeout => KillLine::Timeout {
            message: "Process did not exit within the timeout".to_owned(),
        },
        KillEvent::Killed => KillLine::Killed {
            message: "Sent SIGKILL to the process group".to_owned(),
        },
        KillEvent::Exited => KillLine::Exited {
            message: "Process exited".to_owned(),
        },
        KillEvent::Complete { exit_code } => KillLine::Complete { exit_code },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str, said: &str) -> Answer<(Signal, Duration)> {
        let said = serde_json::from_str(said).expect("JSON");
        wanted(&Query::parse(query).expect("form encoding"), &said)
    }

    /// Behaviour reference §1.4.5, §11.5: query and body are both honoured.
    #[test]
    fn query_and_body_are_both_honoured() {
        let seconds = Duration::from_secs;
        assert_eq!(
            read("", "{}").expect("defaults"),
            (Signal::TERM, seconds(10))
        );
        let python = read("", r#"{"signal":"SIGKILL","timeout":3}"#).expect("Python's");
        assert_eq!((python.0.number(), python.1), (9, seconds(3)));
        let go = read("signal=INT&timeout=0s", "{}").expect("Go's");
        assert_eq!((go.0.number(), go.1), (2, Duration::ZERO));
        let number = read("", r#"{"signal":1,"timeout":"1.5s"}"#).expect("numbers");
        assert_eq!(
            (number.0.number(), number.1),
            (1, Duration::from_millis(1500))
        );
        assert!(read("signal=NOPE", "{}").is_err());
        assert!(read("", r#"{"timeout":-1}"#).is_err());
        assert!(read("", r#"{"signal":{}}"#).is_err());
    }
}
