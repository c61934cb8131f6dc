//! A session on a socket of its own: the relay, and how each end of it is told to the client.
//! Source: behaviour reference §1.4.4.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;
use bytes::Bytes;
use sprite_api::exec::{self, ServerText, StreamId};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::open::Session;
use super::relay::{self, Dialect, Outcome};
use crate::browsers::Listener;
use crate::connection::Connection;
use crate::ws::{Goodbye, Socket, Upgrade};

/// How long a client may take to close after the exit, before the server does.
const LINGER: Duration = Duration::from_secs(5);

/// Answers an upgrade, and runs the session on the connection behind the answer.
pub(crate) fn answer(
    upgrade: Upgrade,
    session: Session,
    browser: Option<Listener>,
    connection: Connection,
) -> Response {
    let mut response = upgrade.response();
    response.headers_mut().insert(
        HeaderName::from_static(sprite_api::CAPABILITIES_HEADER),
        HeaderValue::from_static("signal"),
    );
    let stop = connection.stop.clone();
    let task = async move {
        match upgrade.connected().await {
            Some(io) => run(Socket::new(io), session, browser, &stop).await,
            None => session.detach().await,
        }
    };
    connection.tasks.spawn(task.in_current_span());
    response
}

async fn run<S: AsyncRead + AsyncWrite + Unpin>(
    mut socket: Socket<S>,
    mut session: Session,
    browser: Option<Listener>,
    stop: &CancellationToken,
) {
    let tty = session.started.tty;
    session.attached();
    let stream = &mut session.operation.stream;
    let started = &session.started;
    let outcome = relay::relay(&mut socket, stream, started, Dialect::Direct, browser, stop).await;
    match outcome {
        Outcome::Exited(code) => {
            // The session is over: however slowly the client reads the rest, the sprite may sleep.
            drop(session);
            exited(socket, tty, code).await;
        }
        Outcome::Lost(reason) => {
            drop(session);
            tracing::info!(reason, "session lost its machine");
            socket.writer.text(ServerText::error(&reason).to_json());
            let goodbye = socket.deliver().await;
            // Never an exit: nobody knows how the command would have ended.
            socket.close(goodbye, exec::CLOSE_LOST, &reason).await;
        }
        Outcome::Closed => {
            tokio::join!(
                session.detach(),
                socket.close(Goodbye::Said, exec::CLOSE_OK, "")
            );
        }
        Outcome::Vanished => session.detach().await,
        Outcome::Violation(violation) => {
            let close = socket.close(Goodbye::Unsaid, violation.code, violation.reason);
            tokio::join!(session.detach(), close);
        }
        Outcome::Stopped => {
            let close = socket.close(Goodbye::Unsaid, exec::CLOSE_GOING_AWAY, "server stops");
            tokio::join!(session.detach(), close);
        }
    }
}

/// Says the exit so that every known client understands it, then ends the connection.
async fn exited<S: AsyncRead + AsyncWrite + Unpin>(mut socket: Socket<S>, tty: bool, code: u8) {
    queue_exit(&mut socket, tty, code);
    // As long as the client reads, however slowly: output is never dropped.
    let goodbye = socket.deliver().await;
    if tty {
        // Rule 2: JavaScript takes the close code for the exit.
        socket.close(goodbye, exec::close_code(code), "").await;
    } else {
        // Rule 3: the client closes first if it will.
        let goodbye = match goodbye {
            Goodbye::Unsaid => socket.await_close(LINGER).await,
            said @ (Goodbye::Said | Goodbye::Gone) => said,
        };
        socket.close(goodbye, exec::CLOSE_OK, "").await;
    }
}

/// The exit as messages. Rule 1: without a terminal the binary one is the last message of all.
pub(crate) fn queue_exit<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut Socket<S>,
    tty: bool,
    code: u8,
) {
    socket.writer.text(ServerText::exit(code).to_json());
    if !tty {
        socket
            .writer
            .binary(&[StreamId::Exit.byte(), code], Bytes::new());
    }
}
