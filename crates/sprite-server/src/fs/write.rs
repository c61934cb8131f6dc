//! `PUT /v1/sprites/{name}/fs/write`.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use http_body_util::BodyExt;
use sprite_agent_api::fs::{FsReply, FsSpec};
use sprite_api::fs::Written;
use sprite_api::{ErrorBody, ErrorKind};
use tokio::time::timeout;

use super::{Running, nonsense, octal, params};
use crate::named::Named;
use crate::problem::{Answer, Problem};
use crate::routes::App;
use crate::{answer, connection};

/// What of a refused body is still read, and for how long: most clients read an answer only when they have said all.
const READ_ON: usize = 16 << 20;
const READ_ON_FOR: Duration = Duration::from_secs(5);

/// Write a file
///
/// The body is the file. It takes the place of what was there all at once, when all of it is on the disk; a request
/// that breaks off changes nothing. A link at the end of the path stays, and what it leads to is replaced.
#[utoipa::path(
    put, path = "/v1/sprites/{name}/fs/write", tag = "fs", operation_id = "fs_write",
    params(
        ("name" = String, Path, description = "Name of the sprite"),
        ("path" = String, Query, description = "The file, absolute or below `workingDir`"),
        ("workingDir" = Option<String>, Query, description = "Where relative paths begin; `/home/sprite` if absent"),
        ("mode" = Option<String>, Query, description = "Octal digits; if absent as it was, 0644 for a new file"),
        ("mkdirParents" = Option<bool>, Query, description = "Make directories that are missing; true if absent. `mkdir` says the same"),
        ("asRoot" = Option<bool>, Query, description = "As root of the environment"),
    ),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(
        (status = 200, description = "It is on the disk", body = Written),
        (status = 400, description = "A parameter is wrong, or it is no regular file", body = ErrorBody),
        (status = 403, description = "The user `sprite` may not write it", body = ErrorBody),
        (status = 404, description = "There is no such sprite or directory", body = ErrorBody),
        (status = 409, description = "Something stands in its way", body = ErrorBody),
        (status = 500, description = "`EIO`: it cannot be written", body = ErrorBody),
        (status = 503, description = "`sprite_starting`: it did not wake in time", body = ErrorBody),
        (status = 507, description = "The disk is full", body = ErrorBody),
    )
)]
pub(crate) async fn write(
    State(app): State<App>,
    named: Named,
    request: Request,
) -> Answer<Response> {
    let (parts, body) = request.into_parts();
    let spec = params::write(&connection::query(&parts)?);
    let done = put(&app, &named, spec, body, async |mut running| {
        written(&mut running).await
    });
    Ok(answer::ok(&done.await?))
}

/// Hands a body to an operation, and lets `answer` read what it says then.
///
/// # Errors
/// The operation refuses, now or later. As much of the body is read on as most clients need to hear of it.
pub(crate) async fn put<T>(
    app: &App,
    named: &Named,
    spec: Answer<FsSpec>,
    mut body: Body,
    answer: impl AsyncFnOnce(Running) -> Answer<T>,
) -> Answer<T> {
    let done = async {
        let running = give(app, named, spec?, &mut body).await?;
        answer(running).await
    };
    let done = done.await;
    if done.is_err() {
        // It is refused either way; what does not come within bounds is cut off.
        let _ = timeout(READ_ON_FOR, read_on(&mut body)).await;
    }
    done
}

async fn give(app: &App, named: &Named, spec: FsSpec, body: &mut Body) -> Answer<Running> {
    let mut running = Running::begin(app, &named.sprite, spec).await?;
    match running.reply().await? {
        FsReply::Writing { .. } | FsReply::Unpacking { .. } => {}
        _other => return Err(nonsense()),
    }
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            // Nobody hears it; the log does.
            Problem::new(ErrorKind::Invalid, format!("read the body: {error}"))
        })?;
        if let Ok(bytes) = frame.into_data() {
            running.give(bytes).await?;
        }
    }
    running.finish();
    Ok(running)
}

/// The answer to all bytes.
pub(crate) async fn written(running: &mut Running) -> Answer<Written> {
    match running.reply().await? {
        FsReply::Written { path, size, mode } => Ok(Written {
            path,
            size,
            mode: octal(mode),
        }),
        _other => Err(nonsense()),
    }
}

async fn read_on(body: &mut Body) {
    let mut read = 0;
    while read < READ_ON
        && let Some(Ok(frame)) = body.frame().await
    {
        read += frame.data_ref().map_or(0, Bytes::len);
    }
}
