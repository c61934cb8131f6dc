//! `GET /v1/sprites/{name}/proxy`: a WebSocket that is a TCP connection to a port of a sprite.
//! Source: behaviour reference §1.6.
//!
//! The sprite is awake before the upgrade is answered, and stays so while the connection is open. The client says
//! where to, the machine connects, and its answer is the server's.

mod stream;
mod tunnel;

use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::response::Response;
use sprite_api::exec;
use sprite_api::proxy::{MAX_MESSAGE, ProxyAnswer, ProxyHello, TARGET_HEADER};
use sprite_api::query::Query;
use sprite_api::{ErrorBody, ErrorKind};
use sprite_host::Awake;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

pub(crate) use tunnel::{Connected, Counted, Dialect, Outcome, Proxies, connect, open_reusable};

use crate::connection::{Connection, query};
use crate::named::Named;
use crate::problem::{Answer, Problem};
use crate::routes::App;
use crate::ws::{Goodbye, Message, ReadError, Socket, Upgrade, Violation};

/// How long a client may take to say where to: as long as clients wait for the answer.
const HELLO_WITHIN: Duration = Duration::from_secs(10);

/// Connect to a port
///
/// The client's first message is `{"host":"localhost","port":8080}`, the server's
/// `{"status":"connected","target":"…"}`, or another status with `error` and `message`. Then binary messages are the
/// bytes of the connection. A Close ends both directions; with `"half_close":true` in both first messages, the text
/// `{"type":"eof"}` ends one. The sprite stays awake while the connection is open.
///
/// A client that says where to in the query is spared the first messages: `Sprite-Proxy-Target` in the upgrade's answer
/// is the `target`. Where it is not, the server knows no such query, and waits for the message.
#[utoipa::path(
    get, path = "/v1/sprites/{name}/proxy", tag = "proxy", operation_id = "proxy",
    params(
        ("name" = String, Path, description = "Name of the sprite"),
        ("port" = Option<u16>, Query, description = "1 to 65535; absent: the first message says where to"),
        ("host" = Option<String>, Query, description = "Behind `port`: as in the first message"),
        ("half_close" = Option<bool>, Query, description = "Behind `port`: as in the first message"),
    ),
    responses(
        (status = 101, description = "The sprite is awake, and waits for the first message or is connected"),
        (status = 400, description = "The query is wrong", body = ErrorBody),
        (status = 404, description = "There is no such sprite", body = ErrorBody),
        (status = 426, description = "The request is no WebSocket upgrade", body = ErrorBody),
        (status = 502, description = "`connection_refused`: nobody listens at the port of the query", body = ErrorBody),
        (status = 503, description = "`sprite_starting`: it did not wake in time", body = ErrorBody),
    )
)]
pub(crate) async fn proxy(
    State(app): State<App>,
    named: Named,
    connection: Connection,
    request: Request,
) -> Answer<Response> {
    let (mut parts, _) = request.into_parts();
    let sprite = named.sprite;
    let hello = asked(&query(&parts)?)?;
    let upgrade = Upgrade::required(&mut parts, "a proxy")?;
    let span = tracing::info_span!("proxy", org = %sprite.org_slug, sprite = %sprite.id);
    async {
        let awake = app.host.awake(sprite.id).await;
        let awake = awake.map_err(|error| Problem::waking(error, sprite.id, &sprite.name))?;
        let mut response = upgrade.response();
        let begun = match hello {
            None => Begun::Unasked(awake),
            Some(hello) => {
                let connected = connect(&app.proxies, awake, &hello).await?;
                let target = HeaderValue::try_from(connected.target().to_string());
                let target = target.map_err(|error| Problem::internal(&error))?;
                response.headers_mut().insert(TARGET_HEADER, target);
                Begun::Asked(connected, hello.half_close)
            }
        };
        let stop = connection.stop.clone();
        let task = async move {
            if let Some(io) = upgrade.connected().await {
                let socket = Socket::with_most(io, MAX_MESSAGE);
                run(socket, &app.proxies, begun, &stop).await;
            }
        };
        connection.tasks.spawn(task.in_current_span());
        Ok(response)
    }
    .instrument(span)
    .await
}

/// What is known when the socket is open.
enum Begun {
    /// The client has not said where to.
    Unasked(Awake),
    /// It has, and whether it knows [`EOF`](sprite_api::proxy::EOF).
    Asked(Connected, bool),
}

async fn run<S: AsyncRead + AsyncWrite + Unpin>(
    mut socket: Socket<S>,
    proxies: &Proxies,
    begun: Begun,
    stop: &CancellationToken,
) {
    let (mut connected, half_close) = match begun {
        Begun::Asked(connected, half_close) => (connected, half_close),
        Begun::Unasked(awake) => {
            let Some((returned, hello)) = asked_by_message(socket, stop).await else {
                return;
            };
            socket = returned;
            let connected = match connect(proxies, awake, &hello).await {
                Ok(connected) => connected,
                Err(problem) => return refuse(socket, &problem).await,
            };
            let answer = connected.answer(hello.half_close);
            socket.writer.text(answer.to_json());
            (connected, hello.half_close)
        }
    };
    let dialect = Dialect::Direct { half_close };
    let outcome = connected.relay(&mut socket, dialect, stop).await;
    end(socket, connected, outcome).await;
}

/// Where to, by the client's first message. `None`: it has been told why there is no connection.
async fn asked_by_message<S: AsyncRead + AsyncWrite + Unpin>(
    mut socket: Socket<S>,
    stop: &CancellationToken,
) -> Option<(Socket<S>, ProxyHello)> {
    let hello = tokio::select! {
        hello = timeout(HELLO_WITHIN, hello(&mut socket)) => hello,
        () = stop.cancelled() => {
            let reason = "server stops";
            socket.close(Goodbye::Unsaid, exec::CLOSE_GOING_AWAY, reason).await;
            return None;
        }
    };
    match hello {
        Ok(Ok(hello)) => return Some((socket, hello)),
        Ok(Err(NoHello::Gone)) => {}
        Ok(Err(NoHello::Closed)) => socket.close(Goodbye::Said, exec::CLOSE_OK, "").await,
        Ok(Err(NoHello::Violation(violation))) => {
            socket
                .close(Goodbye::Unsaid, violation.code, violation.reason)
                .await;
        }
        Ok(Err(NoHello::Wrong(problem))) => refuse(socket, &problem).await,
        Err(_) => {
            let problem = Problem::new(ErrorKind::Invalid, "no message said where to connect to");
            refuse(socket, &problem).await;
        }
    }
    None
}

/// Ends a connection and its socket as the other side is to see it.
async fn end<S: AsyncRead + AsyncWrite + Unpin>(
    mut socket: Socket<S>,
    connected: Connected,
    outcome: Outcome,
) {
    match outcome {
        Outcome::Finished => {
            // Nothing more comes from the port: however slowly the client reads, the sprite may sleep.
            drop(connected);
            let goodbye = socket.deliver().await;
            socket.close(goodbye, exec::CLOSE_OK, "").await;
        }
        Outcome::Broken(reason) => {
            drop(connected);
            let goodbye = socket.deliver().await;
            socket.close(goodbye, exec::CLOSE_LOST, &reason).await;
        }
        Outcome::Closed | Outcome::Released => {
            tokio::join!(
                connected.close(),
                socket.close(Goodbye::Said, exec::CLOSE_OK, "")
            );
        }
        Outcome::Vanished => connected.reset(),
        Outcome::Violation(violation) => {
            connected.reset();
            socket
                .close(Goodbye::Unsaid, violation.code, violation.reason)
                .await;
        }
        Outcome::Stopped => {
            connected.reset();
            let reason = "server stops";
            socket
                .close(Goodbye::Unsaid, exec::CLOSE_GOING_AWAY, reason)
                .await;
        }
    }
}

async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(mut socket: Socket<S>, problem: &Problem) {
    socket.writer.text(refusal(problem).to_json());
    // Clients close when they have read it; the code is for those that do not read.
    socket
        .close(Goodbye::Unsaid, exec::CLOSE_LOST, "not connected")
        .await;
}

/// Why a client did not say where to.
enum NoHello {
    Gone,
    Closed,
    Violation(Violation),
    Wrong(Problem),
}

async fn hello<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut Socket<S>,
) -> Result<ProxyHello, NoHello> {
    loop {
        match socket.reader.next().await {
            Ok(Message::Text(text)) => return read_hello(text.as_bytes()).map_err(NoHello::Wrong),
            // Some clients know one kind of message only.
            Ok(Message::Binary(bytes)) => return read_hello(&bytes).map_err(NoHello::Wrong),
            Ok(Message::Ping(payload)) => {
                socket.writer.pong(payload);
                socket.writer.flush().await.map_err(|_| NoHello::Gone)?;
            }
            Ok(Message::Close(_)) => return Err(NoHello::Closed),
            Err(ReadError::Violation(violation)) => return Err(NoHello::Violation(violation)),
            Err(ReadError::Eof | ReadError::Io(_)) => return Err(NoHello::Gone),
        }
    }
}

/// Reads where to connect to.
///
/// # Errors
/// It is no such message, or its port is none.
pub(crate) fn read_hello(json: &[u8]) -> Answer<ProxyHello> {
    let hello: ProxyHello = serde_json::from_slice(json).map_err(|error| {
        Problem::new(
            ErrorKind::Invalid,
            format!("the first message is not {{\"host\":…,\"port\":…}}: {error}"),
        )
    })?;
    check_hello(hello)
}

/// Where to connect to, by a query or the arguments of an operation; `None`: they do not say it.
///
/// # Errors
/// The port is none, or a switch is neither on nor off.
pub(crate) fn asked(query: &Query) -> Answer<Option<ProxyHello>> {
    let Some(port) = query.get("port") else {
        return Ok(None);
    };
    let half_close = query.switch("half_close").unwrap_or(Ok(false));
    let hello = ProxyHello {
        host: query.get("host").unwrap_or_default().to_owned(),
        // Zero is none either.
        port: port.parse().unwrap_or(0),
        half_close: half_close.map_err(|value| {
            Problem::field(format!("half_close={value} is neither true nor false"))
        })?,
    };
    check_hello(hello).map(Some)
}

/// Checks where to connect to.
///
/// # Errors
/// The port is none.
pub(crate) fn check_hello(hello: ProxyHello) -> Answer<ProxyHello> {
    if hello.port == 0 {
        return Err(Problem::field("port must be 1 to 65535"));
    }
    Ok(hello)
}

/// What a client is told who has no connection.
pub(crate) fn refusal(problem: &Problem) -> ProxyAnswer {
    ProxyAnswer::Error {
        error: problem.code().to_owned(),
        message: problem.message().to_owned(),
    }
}
