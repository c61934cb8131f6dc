//! `GET /v1/sprites/{name}/fs/watch`: a WebSocket that tells what happens to files.
//!
//! Opening it wakes the sprite; it keeps nothing awake, and is closed with 1001 when the sprite falls asleep.
//! Source: behaviour reference §1.10, §11.12.

use axum::extract::{Request, State};
use axum::response::Response;
use sprite_agent_api::fs::{FsCall, FsEvent, FsEventKind, FsReply, FsSpec, WatchInput};
use sprite_agent_api::{Frame, link};
use sprite_api::fs::{WatchEventKind, WatchMessage, WatchRequest};
use sprite_api::{ErrorBody, Stamp};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{Running, nonsense};
use crate::connection::Connection;
use crate::exec::relay::KEEPALIVE;
use crate::named::Named;
use crate::ports::{End, close};
use crate::problem::Answer;
use crate::routes::App;
use crate::sleep::Sleep;
use crate::ws::{Message, ReadError, Reader, Socket, Upgrade};

/// Longest message of a client: what a frame to the machine takes.
const LONGEST: usize = 1 << 20;

/// Watch files
///
/// The client says `{"type":"subscribe","paths":[…],"recursive":true}` and `unsubscribe`; the server says
/// `subscribed`, `unsubscribed`, `event` and `error`. Watching does not keep the sprite awake.
#[utoipa::path(
    get, path = "/v1/sprites/{name}/fs/watch", tag = "fs", operation_id = "fs_watch",
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
    let upgrade = Upgrade::required(&mut parts, "watching files")?;
    let span = tracing::info_span!("files", org = %sprite.org_slug, sprite = %sprite.id);
    async {
        let mut sleep = Sleep::of(&app.host, &sprite);
        let spec = FsSpec {
            call: FsCall::Watch,
            working_dir: None,
            as_root: false,
        };
        let mut running = Running::begin(&app, &sprite, spec).await?;
        match running.reply().await? {
            FsReply::Watching => {}
            _other => return Err(nonsense()),
        }
        // The hold ends here; the stream goes on for as long as the machine runs.
        let mut stream = running.stream;
        let response = upgrade.response();
        let stop = connection.stop.clone();
        let task = async move {
            if let Some(io) = upgrade.connected().await {
                let mut socket = Socket::new(io);
                let end = tell(&mut socket, &mut stream, &mut sleep, &stop).await;
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

async fn tell<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut Socket<S>,
    stream: &mut link::Stream,
    sleep: &mut Sleep,
    stop: &CancellationToken,
) -> End {
    loop {
        // A client that does not read is told no more until it does. What the machine cannot say meanwhile fills its
        // kernel's queue, and what does not fit there is told as an overflow.
        let flushed = tokio::select! {
            flushed = socket.writer.flush() => flushed,
            () = sleep.fallen() => return End::Asleep,
            () = stop.cancelled() => return End::Stopped,
        };
        if flushed.is_err() {
            return End::Gone;
        }
        let said = tokio::select! {
            message = heard(&mut socket.reader, &stream.sender) => match message {
                Ok(Message::Text(text)) => asked(text.as_bytes()),
                // Some clients send their texts so.
                Ok(Message::Binary(bytes)) => asked(&bytes),
                Ok(Message::Ping(payload)) => {
                    socket.writer.pong(payload);
                    continue;
                }
                Ok(Message::Close(_)) => return End::Closed,
                Err(ReadError::Violation(violation)) => return End::Violation(violation),
                Err(ReadError::Eof | ReadError::Io(_)) => return End::Gone,
            },
            received = stream.receiver.recv() => {
                match happened(received) {
                    Ok(message) => say(socket, &message),
                    Err(reason) => return End::Lost(reason),
                }
                continue;
            }
            () = sleep.fallen() => return End::Asleep,
            () = stop.cancelled() => return End::Stopped,
            () = tokio::time::sleep(KEEPALIVE) => {
                socket.writer.ping();
                continue;
            }
        };
        match said {
            // There is room for it.
            Ok(input) => {
                if let Err(error) = stream.sender.send(Frame::control(&input)).await {
                    return End::Lost(error.to_string());
                }
            }
            Err(message) => say(
                socket,
                &WatchMessage::Error {
                    message,
                    path: String::new(),
                },
            ),
        }
    }
}

/// What the client says next, once the machine has room for it: what the machine says meanwhile must be heard, or each
/// of the two would wait for the other.
async fn heard<R: AsyncRead + Unpin>(
    reader: &mut Reader<R>,
    sender: &link::Sender,
) -> Result<Message, ReadError> {
    // That the stream has ended is told by its other direction.
    let _ = sender.room().await;
    reader.next().await
}

fn say<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut Socket<S>, message: &WatchMessage) {
    let json = serde_json::to_string(message).expect("messages are JSON");
    socket.writer.text(json);
}

fn asked(text: &[u8]) -> Result<WatchInput, String> {
    if text.len() > LONGEST {
        return Err(format!("message is longer than {LONGEST} bytes"));
    }
    match serde_json::from_slice(text) {
        Ok(WatchRequest::Subscribe {
            paths,
            recursive,
            working_dir,
        }) => Ok(WatchInput::Subscribe {
            paths,
            recursive,
            working_dir,
        }),
        Ok(WatchRequest::Unsubscribe { paths, working_dir }) => {
            Ok(WatchInput::Unsubscribe { paths, working_dir })
        }
        Err(error) => Err(format!("message cannot be read: {error}")),
    }
}

fn happened(received: Result<Option<Frame>, link::LinkError>) -> Result<WatchMessage, String> {
    let frame = received.map_err(|error| error.to_string())?;
    let frame = frame.ok_or("the machine ended")?;
    match frame.message() {
        Ok(FsReply::Subscribed { paths, recursive }) => {
            Ok(WatchMessage::Subscribed { paths, recursive })
        }
        Ok(FsReply::Unsubscribed { paths }) => Ok(WatchMessage::Unsubscribed { paths }),
        Ok(FsReply::Event(event)) => Ok(told(event)),
        Ok(FsReply::WatchError { message, path }) => Ok(WatchMessage::Error { message, path }),
        Ok(FsReply::Refused(error)) => Err(error.step),
        Ok(FsReply::Failed(failure)) => Err(failure.message),
        Ok(_other) => Err("the machine answered something else".to_owned()),
        Err(_) => Err("the machine sent a message that cannot be read".to_owned()),
    }
}

fn told(event: FsEvent) -> WatchMessage {
    WatchMessage::Event {
        event: match event.what {
            FsEventKind::Write => WatchEventKind::Write,
            FsEventKind::Create => WatchEventKind::Create,
            FsEventKind::Remove => WatchEventKind::Remove,
            FsEventKind::Rename => WatchEventKind::Rename,
            FsEventKind::Chmod => WatchEventKind::Chmod,
        },
        path: event.path,
        dest: event.dest,
        timestamp: Stamp::from_unix_nanos(i128::from(event.unix_nanos)),
        size: event.size,
        is_dir: event.is_dir,
    }
}
