//! `GET /v1/sprites/{name}/fs/read`.

use std::io;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use sprite_agent_api::fs::FsReply;
use sprite_api::{ErrorBody, ErrorKind};
use tokio_util::sync::CancellationToken;

use super::{Running, Said, nonsense, params};
use crate::connection::{self, Connection};
use crate::named::Named;
use crate::problem::{Answer, Problem};
use crate::routes::App;

/// Read a file
///
/// With `Range`, a part of it. Only regular files can be read.
#[utoipa::path(
    get, path = "/v1/sprites/{name}/fs/read", tag = "fs", operation_id = "fs_read",
    params(
        ("name" = String, Path, description = "Name of the sprite"),
        ("path" = String, Query, description = "The file, absolute or below `workingDir`"),
        ("workingDir" = Option<String>, Query, description = "Where relative paths begin; `/home/sprite` if absent"),
        ("asRoot" = Option<bool>, Query, description = "As root of the environment"),
        ("Range" = Option<String>, Header, description = "One range of bytes"),
    ),
    responses(
        (status = 200, description = "Its bytes", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 206, description = "The bytes of the part", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 400, description = "A parameter is wrong, or it is no regular file", body = ErrorBody),
        (status = 403, description = "The user `sprite` may not read it", body = ErrorBody),
        (status = 404, description = "There is no such sprite or file", body = ErrorBody),
        (status = 416, description = "The file has no such part", body = ErrorBody),
        (status = 500, description = "`EIO`: it cannot be read", body = ErrorBody),
        (status = 503, description = "`sprite_starting`: it did not wake in time", body = ErrorBody),
    )
)]
pub(crate) async fn read(
    State(app): State<App>,
    named: Named,
    connection: Connection,
    request: Request,
) -> Answer<Response> {
    let (parts, _) = request.into_parts();
    let range = parts.headers.get(header::RANGE);
    let range = range.and_then(|value| params::range(value.to_str().ok()?));
    let spec = params::read(&connection::query(&parts)?, range)?;
    let mut running = Running::begin(&app, &named.sprite, spec).await?;
    match running.reply().await? {
        FsReply::Reading {
            size,
            offset,
            length,
            ..
        } => {
            let part = range.and(size).zip(length);
            let mut response = Response::new(body(running, length, connection.stop));
            let headers = response.headers_mut();
            let kind = HeaderValue::from_static("application/octet-stream");
            headers.insert(header::CONTENT_TYPE, kind);
            headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
            if let Some(length) = length {
                headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
            }
            if let Some((size, length)) = part {
                let last = offset.saturating_add(length).saturating_sub(1);
                let range = HeaderValue::try_from(format!("bytes {offset}-{last}/{size}"));
                let range = range.expect("numbers are printable");
                headers.insert(header::CONTENT_RANGE, range);
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            }
            Ok(response)
        }
        FsReply::Unsatisfiable { size } => Err(Problem::new(
            ErrorKind::NoSuchRange,
            format!("the file has {size} bytes"),
        )
        .with_range(size)),
        _other => Err(nonsense()),
    }
}

/// The bytes as they come, and no more than were promised; fewer break the answer off.
pub(super) fn body(running: Running, length: Option<u64>, stop: CancellationToken) -> Body {
    let begun = Some((running, length));
    let pieces = stream::unfold(begun, move |state| {
        let stop = stop.clone();
        async move {
            let (mut running, left) = state?;
            let said = tokio::select! {
                said = running.next() => said,
                () = stop.cancelled() => return Some((Err(io::Error::other("server stops")), None)),
            };
            match said {
                Ok(Said::Bytes(bytes)) => {
                    let (bytes, left) = within(bytes, left);
                    Some((Ok(bytes), Some((running, left))))
                }
                Ok(Said::Reply(FsReply::Done)) if left.is_none_or(|left| left == 0) => None,
                Ok(Said::Reply(_)) => Some((Err(io::Error::other("the file was cut")), None)),
                Err(problem) => {
                    let reason = problem.message().to_owned();
                    tracing::info!(reason, "reading files broke off");
                    // What came before is sent before the connection breaks: it may say why.
                    tokio::task::yield_now().await;
                    Some((Err(io::Error::other(reason)), None))
                }
            }
        }
    });
    Body::from_stream(pieces)
}

/// A machine that sends more than it said is not believed.
fn within(mut bytes: Bytes, left: Option<u64>) -> (Bytes, Option<u64>) {
    let Some(left) = left else {
        return (bytes, None);
    };
    bytes.truncate(usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len()));
    let left = left - bytes.len() as u64;
    (bytes, Some(left))
}
