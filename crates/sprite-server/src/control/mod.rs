//! `GET /v1/sprites/{name}/control`: operations one after the other over one WebSocket.
//! Source: behaviour reference §1.5, §11.
//!
//! What a client asks for is read in `asked`; each kind of operation is run here, and ends so that the socket can
//! take the next one.
//!
//! The socket itself does not keep the sprite awake; an operation does, while it runs. When the sprite falls
//! asleep, an idle socket is closed with 1001, so that its client opens another one, which wakes it.

mod asked;
mod files;

use axum::extract::{Request, State};
use axum::http::header;
use axum::response::Response;
use sprite_api::control::{Envelope, ServerEnvelope};
use sprite_api::exec::{self, ServerText};
use sprite_api::proxy::ProxyHello;
use sprite_api::query::Query;
use sprite_api::{ErrorBody, ErrorKind};
use sprite_types::SpriteId;
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::Instrument;

use crate::connection::Connection;
use crate::control::asked::{Asked, Operation, Started};
use crate::exec::open::Session;
use crate::exec::relay::{self, Dialect, KEEPALIVE, Outcome};
use crate::exec::{params, socket};
use crate::named::Named;
use crate::problem::{Answer, Problem};
use crate::proxy;
use crate::routes::App;
use crate::sleep::Sleep;
use crate::ws::{Goodbye, Message, ReadError, Socket, Upgrade, Violation};

/// The client that probes for this socket and then uses it wrongly: without it, it works.
/// Source: behaviour reference §1.5, §9.5.
const WITHOUT: &str = "sprites-go-sdk/";

/// Run operations one after the other
///
/// Text messages that begin with `control:` are envelopes: `op.start` from the client, `op.complete` or
/// `op.error` from the server. Between them the messages are those of the operation: `exec` or `proxy`. A start that
/// is not an envelope, `{"type":"start","operation":…,"params":…}`, is answered in the same manner.
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
    let upgrade = Upgrade::required(&mut parts, "control")?;
    let response = upgrade.response();
    let sprite = named.sprite;
    let span = tracing::info_span!("control", org = %sprite.org_slug, sprite = %sprite.id);
    let tasks = connection.tasks.clone();
    let task = async move {
        if let Some(io) = upgrade.connected().await {
            let sleep = Sleep::of(&app.host, &sprite);
            let control = Control {
                app,
                sprite: sprite.id,
                connection,
                sleep,
                socket: Socket::new(io),
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
    /// An operation ended that only the socket's end can tell.
    Finished,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Control<S> {
    async fn run(mut self) {
        let end = loop {
            let next = match self.idle().await {
                Ok(started) => self.perform(started).await,
                Err(end) => break end,
            };
            if let Err(end) = next {
                break end;
            }
        };
        let (goodbye, code, reason) = match end {
            End::Gone => return,
            End::Closed => (Goodbye::Said, exec::CLOSE_OK, ""),
            End::Finished => (Goodbye::Unsaid, exec::CLOSE_OK, ""),
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

    async fn perform(&mut self, started: Started) -> Result<(), End> {
        match started.operation {
            Operation::Exec(query) => self.exec(&query).await,
            Operation::Proxy(hello) => self.proxy(hello, started.envelope).await,
            Operation::Files(operation, query) => {
                self.files(operation, &query, started.envelope).await
            }
        }
    }

    /// Waits for an operation to be asked for, and answers everything else.
    async fn idle(&mut self) -> Result<Started, End> {
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
                Ok(Message::Text(text)) => match asked::read(&text) {
                    Asked::Start(started) => return Ok(started),
                    Asked::Nothing => {}
                    Asked::Wrong(error, envelope) => self.error(error, envelope),
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
                self.error(problem.message().to_owned(), Envelope::Prefixed);
                return Ok(());
            }
        };
        session.attached();
        let stream = &mut session.operation.stream;
        let stop = &self.connection.stop;
        let outcome = relay::relay(
            &mut self.socket,
            stream,
            &session.started,
            Dialect::Control,
            None,
            stop,
        )
        .await;
        match outcome {
            Outcome::Exited(code) => {
                socket::queue_exit(&mut self.socket, session.started.tty, code);
                // Behind the exit. Source: behaviour reference §1.5.
                self.socket
                    .writer
                    .text(ServerEnvelope::Complete { exit_code: code }.to_text(Envelope::Prefixed));
                drop(session);
                match self.socket.deliver().await {
                    Goodbye::Unsaid => Ok(()),
                    Goodbye::Said => Err(End::Closed),
                    Goodbye::Gone => Err(End::Gone),
                }
            }
            Outcome::Lost(reason) => {
                tracing::info!(reason, "session lost its machine");
                self.error(reason, Envelope::Prefixed);
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

    /// Runs one connection to a port.
    async fn proxy(&mut self, hello: ProxyHello, envelope: Envelope) -> Result<(), End> {
        let mut connected = match connect(&self.app, self.sprite, &hello).await {
            Ok(connected) => connected,
            Err(problem) => {
                match envelope {
                    Envelope::Prefixed => self.error(problem.message().to_owned(), envelope),
                    Envelope::Bare => self.socket.writer.text(proxy::refusal(&problem).to_json()),
                }
                return Ok(());
            }
        };
        self.socket.writer.text(connected.answer(false).to_json());
        let (dialect, stop) = (proxy::Dialect::Control, &self.connection.stop);
        match connected.relay(&mut self.socket, dialect, stop).await {
            proxy::Outcome::Finished => {
                drop(connected);
                match (self.socket.deliver().await, envelope) {
                    (Goodbye::Said, _) => Err(End::Closed),
                    (Goodbye::Gone, _) => Err(End::Gone),
                    // Source: behaviour reference §11.9: this client sees an end by nothing else.
                    (Goodbye::Unsaid, Envelope::Bare) => Err(End::Finished),
                    (Goodbye::Unsaid, Envelope::Prefixed) => {
                        self.complete(envelope);
                        Ok(())
                    }
                }
            }
            proxy::Outcome::Released => {
                connected.close().await;
                self.complete(envelope);
                Ok(())
            }
            proxy::Outcome::Broken(reason) => {
                drop(connected);
                self.error(reason, envelope);
                match envelope {
                    Envelope::Prefixed => Ok(()),
                    Envelope::Bare => Err(End::Finished),
                }
            }
            proxy::Outcome::Closed => {
                connected.close().await;
                Err(End::Closed)
            }
            proxy::Outcome::Vanished => {
                connected.reset();
                Err(End::Gone)
            }
            proxy::Outcome::Violation(violation) => {
                connected.reset();
                Err(End::Violation(violation))
            }
            proxy::Outcome::Stopped => {
                connected.reset();
                Err(End::Stopped)
            }
        }
    }

    fn complete(&mut self, envelope: Envelope) {
        let complete = ServerEnvelope::Complete { exit_code: 0 };
        self.socket.writer.text(complete.to_text(envelope));
    }

    fn error(&mut self, error: String, envelope: Envelope) {
        let error = ServerEnvelope::Error { error };
        self.socket.writer.text(error.to_text(envelope));
    }
}

async fn open(app: &App, sprite: SpriteId, query: &Query) -> Answer<Session> {
    let wanted = params::wanted(query)?;
    // Its status may have changed since the socket was opened, and so may its being there at all.
    let sprite = app.host.sprite_by_id(sprite).await?;
    Session::open(app, &sprite, wanted).await
}

async fn connect(app: &App, sprite: SpriteId, hello: &ProxyHello) -> Answer<proxy::Connected> {
    let sprite = app.host.sprite_by_id(sprite).await?;
    let awake = app.host.awake(sprite.id).await;
    let awake = awake.map_err(|error| Problem::waking(error, sprite.id, &sprite.name))?;
    proxy::connect(&app.proxies, awake, hello).await
}

/// Reads a message between operations, and what it asks for to its end, as the socket would.
///
/// # Panics
/// The answer is no envelope, or an operation is asked for that cannot be.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn try_text(text: &str) {
    match asked::read(text) {
        Asked::Nothing => {}
        Asked::Start(started) => match started.operation {
            Operation::Exec(query) => crate::fuzzing::session(&query),
            Operation::Proxy(hello) => assert_ne!(hello.port, 0, "port 0 is none"),
            Operation::Files(_, query) => crate::fs::params::try_all(&query),
        },
        Asked::Wrong(error, envelope) => {
            let answer = ServerEnvelope::Error { error };
            let said = answer.to_text(envelope);
            let prefixed = said.strip_prefix(sprite_api::control::PREFIX);
            assert_eq!(prefixed.is_some(), envelope == Envelope::Prefixed);
            let again = serde_json::from_str(prefixed.unwrap_or(&said));
            assert_eq!(again.ok(), Some(answer), "what was said can be read");
        }
    }
}
