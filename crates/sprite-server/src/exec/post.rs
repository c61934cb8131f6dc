//! `POST /v1/sprites/{name}/exec`: a command over plain HTTP. Source: behaviour reference §1.4.6, §11.14.
//!
//! Every chunk of the answer is one frame ([`super::chunks`]). The last chunk is the exit. An answer that is broken off has no last chunk: the command's end is not known.

use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::{FutureExt, stream};
use http_body_util::BodyExt;
use serde::Deserialize;
use sprite_agent_api::link::{LinkError, Receiver, Sender, Stream};
use sprite_agent_api::message::{ExecSpec, Input, Reply};
use sprite_agent_api::{Frame, FrameKind, MAX_DATA};
use sprite_api::ErrorBody;
use sprite_api::exec::StreamId;
use sprite_api::query::Query;
use sprite_host::Awake;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::Instrument;

use super::chunks::{Chunks, Pace};
use super::open::{Operation, Session};
use super::params::{self, Wanted};
use crate::body;
use crate::connection::{self, Connection};
use crate::named::Named;
use crate::problem::{Answer, Problem};
use crate::routes::App;

/// Run a command over plain HTTP
///
/// The body is its stdin (with `stdin=true`), whatever its content type. Each chunk of the answer is one frame:
/// a byte for the stream (1 stdout, 2 stderr, 3 exit) and its bytes; the last is the exit with its status.
/// Without `cmd` and `path`, a JSON body `{"command": …}` names the command: a text for `bash -c`, or a list.
#[utoipa::path(
    post, path = "/v1/sprites/{name}/exec", tag = "exec", operation_id = "exec_http",
    params(
        ("name" = String, Path, description = "Name of the sprite"),
        ("cmd" = Option<Vec<String>>, Query, description = "The command and its arguments, one `cmd` each"),
        ("path" = Option<String>, Query, description = "The executable, if it is not the first `cmd`"),
        ("env" = Option<Vec<String>>, Query, description = "`NAME=VALUE`, one `env` each; added to the defaults"),
        ("dir" = Option<String>, Query, description = "Working directory; the home of the user `sprite` if absent"),
        ("stdin" = Option<bool>, Query, description = "Give it the body as stdin; false if absent"),
    ),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(
        (status = 200, description = "Frames, one a chunk", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 400, description = "A parameter is wrong", body = ErrorBody),
        (status = 404, description = "There is no such sprite", body = ErrorBody),
        (status = 503, description = "`sprite_starting`: it did not wake in time", body = ErrorBody),
    )
)]
pub(crate) async fn post(
    State(app): State<App>,
    named: Named,
    connection: Connection,
    request: Request,
) -> Answer<Response> {
    let (parts, request) = request.into_parts();
    let query = connection::query(&parts)?;
    let (spec, stdin) = spec(&query, request).await?;
    let sprite = named.sprite;
    let span = tracing::info_span!("exec", org = %sprite.org_slug, sprite = %sprite.id);
    async {
        let session = Session::open(&app, &sprite, Wanted::Start(spec)).await?;
        Ok(answer(session, stdin, &connection))
    }
    .instrument(span)
    .await
}

/// What is to be run, and what is its stdin.
async fn spec(query: &Query, request: Body) -> Answer<(ExecSpec, Option<Body>)> {
    let named = ["cmd", "path", "stdin"]
        .iter()
        .any(|key| query.get(key).is_some());
    let mut spec = params::start(query)?;
    if query.get("id").is_some_and(|id| !id.is_empty()) {
        return Err(Problem::field("id: attaching needs a WebSocket"));
    }
    if spec.tty.is_some() {
        return Err(Problem::field("tty: a terminal needs a WebSocket"));
    }
    if named {
        return Ok((spec.clone(), spec.stdin.then_some(request)));
    }
    let command: JsonCommand = serde_json::from_slice(&body::whole(request).await?)
        .map_err(|_| Problem::field("cmd is required"))?;
    spec.argv = match command.command {
        JsonArgv::Shell(line) => vec!["bash".to_owned(), "-c".to_owned(), line],
        JsonArgv::List(argv) => argv,
    };
    match spec.argv.first() {
        Some(first) if spec.argv.iter().all(|arg| !arg.contains('\0')) => spec.path = first.clone(),
        Some(_) | None => return Err(Problem::field("command is empty or holds NUL")),
    }
    Ok((spec, None))
}

/// A body that names the command. Source: behaviour reference §1.3 (home page of the hosted service).
#[derive(Deserialize)]
struct JsonCommand {
    command: JsonArgv,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum JsonArgv {
    Shell(String),
    List(Vec<String>),
}

fn answer(session: Session, stdin: Option<Body>, connection: &Connection) -> Response {
    let Session {
        operation:
            Operation {
                stream: Stream { sender, receiver },
                awake,
            },
        ..
    } = session;
    let sender = Arc::new(sender);
    let done = CancellationToken::new();
    if let Some(body) = stdin {
        let task = feed(sender.clone(), body, done.clone());
        connection.tasks.spawn(task.in_current_span());
    }
    let output = Output {
        attached: Some(Attached {
            sender,
            receiver,
            awake,
        }),
        chunks: Chunks::default(),
        broken: None,
        pace: Pace::default(),
        connection: connection.clone(),
        _done: done.drop_guard(),
    };
    let chunks = stream::unfold(output, |mut output| async move {
        let chunk = output.next().await?;
        Some((chunk, output))
    });
    let mut response = Response::new(Body::from_stream(chunks));
    let kind = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// Gives the body of the request to the command, at the pace at which it reads.
async fn feed(sender: Arc<Sender>, body: Body, done: CancellationToken) {
    let feed = async {
        let mut body = body;
        while let Some(frame) = body.frame().await {
            // A client that breaks off is noticed by the answer as well, which detaches.
            let Ok(mut data) = frame.map(|frame| frame.into_data().unwrap_or_default()) else {
                return;
            };
            while !data.is_empty() {
                let piece = data.split_to(data.len().min(MAX_DATA));
                if sender
                    .send(Frame::data(FrameKind::Stdin, piece))
                    .await
                    .is_err()
                {
                    return;
                }
            }
        }
        // The stream may have ended meanwhile; then nobody waits for this.
        let _ = sender.send(Frame::control(&Input::StdinEof)).await;
    };
    tokio::select! {
        () = feed => {}
        () = done.cancelled() => {}
    }
}

struct Attached {
    sender: Arc<Sender>,
    receiver: Receiver,
    awake: Awake,
}

/// The answer's body.
struct Output {
    /// `None` behind the end.
    attached: Option<Attached>,
    chunks: Chunks,
    /// Why it is broken off, behind what waits.
    broken: Option<io::Error>,
    pace: Pace,
    connection: Connection,
    /// Ends the feeding of stdin with the answer.
    _done: DropGuard,
}

impl Output {
    /// The next chunk; `None` behind the exit.
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        while self.chunks.is_empty() {
            let Some(attached) = self.attached.as_mut() else {
                return self.broken.take().map(Err);
            };
            let received = tokio::select! {
                received = attached.receiver.recv() => received,
                () = self.connection.stop.cancelled() => {
                    return Some(Err(io::Error::other("server stops")));
                }
            };
            self.take(received);
        }
        self.pace.wait(self.chunks.next_stream()).await;
        // What has come meanwhile goes along.
        while !self.chunks.is_full()
            && let Some(attached) = self.attached.as_mut()
            && let Some(received) = attached.receiver.recv().now_or_never()
        {
            self.take(received);
        }
        let chunk = self.chunks.pop()?;
        self.pace.sent(&chunk);
        Some(Ok(chunk))
    }

    fn take(&mut self, received: Result<Option<Frame>, LinkError>) {
        match received {
            Ok(Some(frame)) => match frame.kind {
                FrameKind::Stdout => self.chunks.push(StreamId::Stdout, &frame.payload),
                FrameKind::Stderr => self.chunks.push(StreamId::Stderr, &frame.payload),
                FrameKind::Control => self.control(&frame),
                FrameKind::Stdin => self.lost("the machine sent stdin"),
            },
            Ok(None) => self.lost("the machine ended before the command did"),
            Err(error) => self.lost(&error.to_string()),
        }
    }

    fn control(&mut self, frame: &Frame) {
        match frame.message() {
            Ok(Reply::Exited { code }) => {
                self.attached = None;
                self.chunks.push(StreamId::Exit, &[code]);
            }
            Ok(Reply::Failed(failure)) => self.lost(&failure.message),
            // Of no meaning here; a newer agent may say more than we know.
            Ok(
                Reply::Ready(_)
                | Reply::Started(_)
                | Reply::Sessions { .. }
                | Reply::Kill(_)
                | Reply::Synced
                | Reply::Port(_),
            ) => {}
            Err(_) => self.lost("the machine sent a message that cannot be read"),
        }
    }

    fn lost(&mut self, reason: &str) {
        tracing::info!(reason, "session lost its machine");
        self.attached = None;
        self.broken = Some(io::Error::other(reason.to_owned()));
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // The client went away before the exit.
        if let Some(Attached {
            sender,
            receiver,
            awake,
        }) = self.attached.take()
        {
            self.connection
                .tasks
                .spawn(super::open::detach(sender, receiver, awake));
        }
    }
}
