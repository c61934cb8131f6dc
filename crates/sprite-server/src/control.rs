//! `GET /v1/sprites/{name}/control`: operations one after the other over one WebSocket.
//! Source: behaviour reference §1.5, §11.
//!
//! The socket itself does not keep the sprite awake; an operation does, while it runs. When the sprite falls
//! asleep, an idle socket is closed with 1001, so that its client opens another one, which wakes it.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::header;
use axum::response::Response;
use hyper_util::rt::TokioIo;
use sprite_api::control::{ClientEnvelope, PREFIX, ServerEnvelope};
use sprite_api::exec::{self, ServerText};
use sprite_api::query::Query;
use sprite_api::{ErrorBody, ErrorKind};
use sprite_host::{Watch, WatchEvent};
use sprite_types::{SpriteId, SpriteStatus};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tracing::Instrument;

use crate::connection::Connection;
use crate::exec::open::Session;
use crate::exec::relay::{self, Dialect, KEEPALIVE, Outcome};
use crate::exec::{params, socket};
use crate::named::Named;
use crate::problem::{Answer, Problem};
use crate::routes::App;
use crate::ws::{Goodbye, Message, ReadError, Socket, Upgrade, Violation};

/// The client that probes for this socket and then uses it wrongly: without it, it works.
/// Source: behaviour reference §1.5, §9.5.
const WITHOUT: &str = "sprites-go-sdk/";

/// How long the connection may take to become a WebSocket once it was answered.
const UPGRADE_WITHIN: Duration = Duration::from_secs(10);

/// Run operations one after the other
///
/// Text messages that begin with `control:` are envelopes: `op.start` from the client, `op.complete` or
/// `op.error` from the server. Between them the messages are those of the operation. The operation is `exec`.
#[utoipa::path(
    get, path = "/v1/sprites/{name}/control", tag = "exec", operation_id = "control",
    params(("name" = String, Path, description = "Name of the sprite")),
    responses(
        (status = 101, description = "The socket is open"),
        (status = 404, description = "There is no such sprite", body = ErrorBody),
        (status = 426, description = "The request is no WebSocket upgrade", body = ErrorBody),
    )
)]
pub(crate) async fn control(
    State(app): State<App>,
    named: Named,
    connection: Connection,
    request: Request,
) -> Answer<Response> {
    let (mut parts, _) = request.into_parts();
    let agent = parts
        .headers
        .get(header::USER_AGENT)
        .and_then(|value| value.to_str().ok());
    if agent.is_some_and(|agent| agent.starts_with(WITHOUT)) {
        return Err(Problem::new(
            ErrorKind::NotFound,
            "this client works without the control socket",
        ));
    }
    let Some(upgrade) = Upgrade::of(&mut parts)? else {
        return Err(Problem::new(
            ErrorKind::UpgradeRequired,
            "control needs a WebSocket upgrade",
        ));
    };
    let response = upgrade.response();
    let sprite = named.sprite;
    let span = tracing::info_span!("control", org = %sprite.org_slug, sprite = %sprite.id);
    let tasks = connection.tasks.clone();
    let task = async move {
        if let Ok(Ok(io)) = timeout(UPGRADE_WITHIN, upgrade.connection).await {
            let sleep = Sleep {
                sprite: sprite.id,
                watch: app.host.watch(&sprite.org),
                status: sprite.status,
            };
            let control = Control {
                app,
                sprite: sprite.id,
                connection,
                sleep,
                socket: Socket::new(TokioIo::new(io)),
            };
            control.run().await;
        }
    };
    tasks.spawn(task.instrument(span));
    Ok(response)
}

/// A socket and what it is about.
struct Control<S> {
    app: App,
    sprite: SpriteId,
    connection: Connection,
    sleep: Sleep,
    socket: Socket<S>,
}

/// Why the socket ends.
enum End {
    Gone,
    Closed,
    Violation(Violation),
    Stopped,
    Asleep,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Control<S> {
    async fn run(mut self) {
        let end = loop {
            let next = match self.idle().await {
                Ok(query) => self.exec(&query).await,
                Err(end) => break end,
            };
            if let Err(end) = next {
                break end;
            }
        };
        let (goodbye, code, reason) = match end {
            End::Gone => return,
            End::Closed => (Goodbye::Said, exec::CLOSE_OK, ""),
            End::Violation(violation) => (Goodbye::Unsaid, violation.code, violation.reason),
            End::Stopped => (Goodbye::Unsaid, exec::CLOSE_GOING_AWAY, "server stops"),
            End::Asleep => (
                Goodbye::Unsaid,
                exec::CLOSE_GOING_AWAY,
                "sprite falls asleep",
            ),
        };
        self.socket.close(goodbye, code, reason).await;
    }

    /// Waits for an exec to be asked for, and answers everything else.
    async fn idle(&mut self) -> Result<Query, End> {
        loop {
            self.socket.writer.flush().await.map_err(|_| End::Gone)?;
            let message = tokio::select! {
                message = self.socket.reader.next() => message,
                () = self.sleep.fallen() => return Err(End::Asleep),
                () = self.connection.stop.cancelled() => return Err(End::Stopped),
                () = tokio::time::sleep(KEEPALIVE) => {
                    self.socket.writer.text(ServerText::Keepalive.to_json());
                    continue;
                }
            };
            match message {
                Ok(Message::Text(text)) => match asked(&text) {
                    Asked::Exec(query) => return Ok(query),
                    Asked::Nothing => {}
                    Asked::Wrong(error) => self.error(error),
                },
                // Input for an operation that has just ended.
                Ok(Message::Binary(_)) => {}
                Ok(Message::Ping(payload)) => self.socket.writer.pong(payload),
                Ok(Message::Close(_)) => return Err(End::Closed),
                Err(ReadError::Violation(violation)) => return Err(End::Violation(violation)),
                Err(ReadError::Eof | ReadError::Io(_)) => return Err(End::Gone),
            }
        }
    }

    /// Runs one exec.
    async fn exec(&mut self, query: &Query) -> Result<(), End> {
        let mut session = match open(&self.app, self.sprite, query).await {
            Ok(session) => session,
            Err(problem) => {
                self.error(problem.message().to_owned());
                return Ok(());
            }
        };
        let stream = &mut session.operation.stream;
        let stop = &self.connection.stop;
        let outcome = relay::relay(
            &mut self.socket,
            stream,
            &session.started,
            Dialect::Control,
            stop,
        )
        .await;
        match outcome {
            Outcome::Exited(code) => {
                socket::queue_exit(&mut self.socket, session.started.tty, code);
                // Behind the exit. Source: behaviour reference §1.5.
                self.socket
                    .writer
                    .text(ServerEnvelope::Complete { exit_code: code }.to_text());
                drop(session);
                match self.socket.deliver().await {
                    Goodbye::Unsaid => Ok(()),
                    Goodbye::Said => Err(End::Closed),
                    Goodbye::Gone => Err(End::Gone),
                }
            }
            Outcome::Lost(reason) => {
                tracing::info!(reason, "session lost its machine");
                self.error(reason);
                Ok(())
            }
            Outcome::Closed => {
                session.detach().await;
                Err(End::Closed)
            }
            Outcome::Vanished => {
                session.detach().await;
                Err(End::Gone)
            }
            Outcome::Violation(violation) => {
                session.detach().await;
                Err(End::Violation(violation))
            }
            Outcome::Stopped => {
                session.detach().await;
                Err(End::Stopped)
            }
        }
    }

    fn error(&mut self, error: String) {
        self.socket
            .writer
            .text(ServerEnvelope::Error { error }.to_text());
    }
}

async fn open(app: &App, sprite: SpriteId, query: &Query) -> Answer<Session> {
    let wanted = params::wanted(query)?;
    // Its status may have changed since the socket was opened, and so may its being there at all.
    let sprite = app.host.sprite_by_id(sprite).await?;
    Session::open(app, &sprite, wanted).await
}

/// What a text message between operations asks for.
enum Asked {
    Exec(Query),
    Nothing,
    Wrong(String),
}

fn asked(text: &str) -> Asked {
    let Some(json) = text.strip_prefix(PREFIX) else {
        // A late resize or signal, or Go's `{"type":"release"}`; but who starts something must be answered.
        return match ClientEnvelope::parse(text) {
            Some(ClientEnvelope::Unknown { kind }) if kind == "start" => {
                Asked::Wrong("this server does not run that operation over control".to_owned())
            }
            Some(ClientEnvelope::Start { op, args }) => start(&op, args),
            Some(ClientEnvelope::Release | ClientEnvelope::Unknown { .. }) | None => Asked::Nothing,
        };
    };
    match ClientEnvelope::parse(json) {
        Some(ClientEnvelope::Start { op, args }) => start(&op, args),
        Some(ClientEnvelope::Release) => Asked::Nothing,
        Some(ClientEnvelope::Unknown { kind }) => {
            Asked::Wrong(format!("envelope of unknown type {kind:?}"))
        }
        None => Asked::Wrong("envelope cannot be read".to_owned()),
    }
}

fn start(op: &str, args: Query) -> Asked {
    match op {
        "exec" => Asked::Exec(args),
        other => {
            let other: String = other.chars().take(80).collect();
            Asked::Wrong(format!("unsupported operation {other:?}"))
        }
    }
}

/// Notices when the sprite, having run, runs no more.
struct Sleep {
    sprite: SpriteId,
    watch: Watch,
    /// As it was last seen. A sprite that sleeps already, or is only just waking, does not fall asleep.
    status: SpriteStatus,
}

impl Sleep {
    /// Returns when the sprite falls asleep or is gone.
    ///
    /// # Cancel safety
    /// Safe: what was seen is remembered.
    async fn fallen(&mut self) {
        loop {
            match self.watch.next().await {
                Some(WatchEvent::Changed { sprite, .. }) if sprite.id == self.sprite => {
                    let before = std::mem::replace(&mut self.status, sprite.status);
                    match (before, sprite.status) {
                        (SpriteStatus::Running, SpriteStatus::Warm | SpriteStatus::Cold) => return,
                        (_, SpriteStatus::Running)
                        | (
                            SpriteStatus::Warm | SpriteStatus::Cold,
                            SpriteStatus::Warm | SpriteStatus::Cold,
                        ) => {}
                    }
                }
                Some(WatchEvent::Gone { sprite, .. }) if sprite.id == self.sprite => return,
                Some(WatchEvent::Changed { .. } | WatchEvent::Gone { .. } | WatchEvent::Missed) => {
                }
                // The host closes; the server's own stop follows.
                None => std::future::pending().await,
            }
        }
    }
}
