//! `GET /v1/sprites/{name}/ports/watch`: a WebSocket that tells the ports on which a sprite's programs listen.
//! Source: behaviour reference §1.7, §11.12.
//!
//! Opening it wakes the sprite; from its first message on it keeps nothing awake, and is closed with 1001 when the
//! sprite falls asleep.

use axum::extract::{Request, State};
use axum::response::Response;
use sprite_agent_api::message::Request as AgentRequest;
use sprite_agent_api::ports::{Port, PortEvent, PortsReply};
use sprite_agent_api::{Frame, link};
use sprite_api::ErrorBody;
use sprite_api::exec;
use sprite_api::ports::{PortInfo, PortMessage};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::connection::Connection;
use crate::exec::open::Operation;
use crate::exec::relay::KEEPALIVE;
use crate::named::Named;
use crate::problem::{Answer, Problem};
use crate::routes::App;
use crate::sleep::Sleep;
use crate::ws::{Goodbye, Message, ReadError, Socket, Upgrade, Violation};

/// Watch ports
///
/// The first message is `port_list`, then come `port_opened` and `port_closed`. Nothing that the client says has a
/// meaning. Watching does not keep the sprite awake.
#[utoipa::path(
    get, path = "/v1/sprites/{name}/ports/watch", tag = "proxy", operation_id = "watch_ports",
    params(("name" = String, Path, description = "Name of the sprite")),
    responses(
        (status = 101, description = "The watch has begun"),
        (status = 404, description = "There is no such sprite", body = ErrorBody),
        (status = 426, description = "The request is no WebSocket upgrade", body = ErrorBody),
        (status = 503, description = "`sprite_starting`: it did not wake in time", body = ErrorBody),
    )
)]
pub(crate) async fn watch(
    State(app): State<App>,
    named: Named,
    connection: Connection,
    request: Request,
) -> Answer<Response> {
    let (mut parts, _) = request.into_parts();
    let sprite = named.sprite;
    let upgrade = Upgrade::required(&mut parts, "watching ports")?;
    let span = tracing::info_span!("ports", org = %sprite.org_slug, sprite = %sprite.id);
    async {
        let mut sleep = Sleep::of(&app.host, &sprite);
        let asked = Operation::ask(&app, &sprite, &AgentRequest::Ports).await?;
        let (operation, list) = match asked {
            (operation, PortsReply::List { ports }) => (operation, list(ports)),
            (_, PortsReply::Failed(failure)) => return Err(Problem::refused(failure, None)),
            (_, PortsReply::Port(_)) => {
                return Err(Problem::machine_lost("the machine answered something else"));
            }
        };
        // The hold ends here; the stream goes on for as long as the machine runs.
        let mut stream = operation.stream;
        let response = upgrade.response();
        let stop = connection.stop.clone();
        let task = async move {
            if let Some(io) = upgrade.connected().await {
                let mut socket = Socket::new(io);
                socket.writer.text(list.to_json());
                let end = tell(&mut socket, &mut stream.receiver, &mut sleep, &stop).await;
                drop(stream);
                close(socket, end).await;
            }
        };
        connection.tasks.spawn(task.in_current_span());
        Ok(response)
    }
    .instrument(span)
    .await
}

fn list(ports: Vec<Port>) -> PortMessage {
    let ports = ports.into_iter();
    PortMessage::PortList {
        ports: ports
            .map(|port| PortMessage::PortOpened(info(port)))
            .collect(),
    }
}

fn info(port: Port) -> PortInfo {
    PortInfo {
        port: port.port,
        address: port.address.to_string(),
        pid: port.pid,
    }
}

/// What clients are told of an event.
pub(crate) fn message(event: PortEvent) -> PortMessage {
    match event {
        PortEvent::Opened(port) => PortMessage::PortOpened(info(port)),
        PortEvent::Closed(port) => PortMessage::PortClosed(info(port)),
    }
}

/// Why a watch ends.
pub(crate) enum End {
    Gone,
    Closed,
    Violation(Violation),
    Stopped,
    Asleep,
    Lost(String),
}

async fn tell<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut Socket<S>,
    receiver: &mut link::Receiver,
    sleep: &mut Sleep,
    stop: &CancellationToken,
) -> End {
    loop {
        // A client that does not read is told no more until it does: the agent lays changes together meanwhile.
        let flushed = tokio::select! {
            flushed = socket.writer.flush() => flushed,
            () = sleep.fallen() => return End::Asleep,
            () = stop.cancelled() => return End::Stopped,
        };
        if flushed.is_err() {
            return End::Gone;
        }
        tokio::select! {
            message = socket.reader.next() => match message {
                Ok(Message::Text(_) | Message::Binary(_)) => {}
                Ok(Message::Ping(payload)) => socket.writer.pong(payload),
                Ok(Message::Close(_)) => return End::Closed,
                Err(ReadError::Violation(violation)) => return End::Violation(violation),
                Err(ReadError::Eof | ReadError::Io(_)) => return End::Gone,
            },
            received = receiver.recv() => match event(received) {
                Ok(event) => socket.writer.text(message(event).to_json()),
                Err(reason) => return End::Lost(reason),
            },
            () = sleep.fallen() => return End::Asleep,
            () = stop.cancelled() => return End::Stopped,
            () = tokio::time::sleep(KEEPALIVE) => socket.writer.ping(),
        }
    }
}

fn event(received: Result<Option<Frame>, link::LinkError>) -> Result<PortEvent, String> {
    let frame = received.map_err(|error| error.to_string())?;
    let frame = frame.ok_or("the machine ended")?;
    match frame.message() {
        Ok(PortsReply::Port(event)) => Ok(event),
        Ok(PortsReply::Failed(failure)) => Err(failure.message),
        Ok(PortsReply::List { .. }) | Err(_) => {
            Err("the machine sent a message that cannot be read".to_owned())
        }
    }
}

/// Ends a watch's socket, and says why.
pub(crate) async fn close<S: AsyncRead + AsyncWrite + Unpin>(socket: Socket<S>, end: End) {
    let (goodbye, code, reason) = match &end {
        End::Gone => return,
        End::Closed => (Goodbye::Said, exec::CLOSE_OK, ""),
        End::Violation(violation) => (Goodbye::Unsaid, violation.code, violation.reason),
        End::Stopped => (Goodbye::Unsaid, exec::CLOSE_GOING_AWAY, "server stops"),
        End::Asleep => (
            Goodbye::Unsaid,
            exec::CLOSE_GOING_AWAY,
            "sprite falls asleep",
        ),
        End::Lost(reason) => {
            tracing::info!(reason, "watch lost its machine");
            (Goodbye::Unsaid, exec::CLOSE_LOST, reason.as_str())
        }
    };
    socket.close(goodbye, code, reason).await;
}
