//! Checkpoints of a sprite. Source: behaviour reference §1.8, §4.2.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, stream};
use sprite_api::checkpoint::{
    CURRENT, Checkpoint as CheckpointBody, CheckpointEvent, CheckpointEventKind, CreateCheckpoint,
};
use sprite_api::query::Query;
use sprite_api::{ErrorBody, ErrorKind, NDJSON, Stamp};
use sprite_host::{
    Checkpoint, CheckpointError, Checkpoints, DeleteCheckpointError, Host, LONGEST_COMMENT,
    RestoreError, Sprite,
};
use sprite_types::CheckpointId;
use time::OffsetDateTime;

use crate::named::{Named, param};
use crate::problem::{Answer, Problem};
use crate::routes::App;
use crate::{answer, body, connection};

/// A line's end at least this often, so that both ends notice when the other is gone. Clients skip empty lines.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// The checkpoint that a path names.
#[derive(Debug)]
pub(crate) struct CheckpointOf(CheckpointId);

impl<S: Sync> FromRequestParts<S> for CheckpointOf {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Answer<Self> {
        let id = param(parts, "id").await?;
        // What cannot be an id is the id of no checkpoint.
        id.parse().map(Self).map_err(|_| not_found(&id))
    }
}

/// Keep the state of a sprite's disk
///
/// Nothing is stopped, and a sprite that sleeps is not woken. What was written before the request is in it; memory and
/// processes are not. The answer is a line for each thing that happens; the last one is `complete`, which names the
/// checkpoint, or `error`.
#[utoipa::path(
    post, path = "/v1/sprites/{name}/checkpoint", tag = "checkpoints", operation_id = "create_checkpoint",
    params(("name" = String, Path, description = "Name of the sprite")),
    request_body = Option<CreateCheckpoint>,
    responses(
        (status = 200, description = "What happens, line by line", body = CheckpointEvent, content_type = "application/x-ndjson"),
        (status = 400, description = "The comment is too long", body = ErrorBody),
        (status = 404, description = "There is no sprite of that name", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
    )
)]
pub(crate) async fn create(
    State(app): State<App>,
    named: Named,
    request: Body,
) -> Answer<Response> {
    create_of(&app.host, &named.sprite, request).await
}

/// List a sprite's checkpoints
///
/// The newest first; before them `Current`, the sprite as it is now. Does not wake it.
#[utoipa::path(
    get, path = "/v1/sprites/{name}/checkpoints", tag = "checkpoints", operation_id = "list_checkpoints",
    params(
        ("name" = String, Path, description = "Name of the sprite"),
        ("includeAuto" = Option<bool>, Query, description = "Those too that were made automatically"),
        ("history" = Option<String>, Query, description = "Only this checkpoint and those that it goes back to"),
    ),
    responses(
        (status = 200, description = "The checkpoints", body = Vec<CheckpointBody>),
        (status = 400, description = "A parameter is wrong", body = ErrorBody),
        (status = 404, description = "There is no sprite of that name", body = ErrorBody),
    )
)]
pub(crate) async fn list(
    State(app): State<App>,
    named: Named,
    request: Request,
) -> Answer<Response> {
    list_of(&app.host, &named.sprite, request).await
}

/// Show a checkpoint
///
/// Does not wake the sprite.
#[utoipa::path(
    get, path = "/v1/sprites/{name}/checkpoints/{id}", tag = "checkpoints", operation_id = "get_checkpoint",
    params(
        ("name" = String, Path, description = "Name of the sprite"),
        ("id" = String, Path, description = "Id of the checkpoint"),
    ),
    responses(
        (status = 200, description = "The checkpoint", body = CheckpointBody),
        (status = 404, description = "There is no such sprite or checkpoint", body = ErrorBody),
    )
)]
pub(crate) async fn show(
    State(app): State<App>,
    named: Named,
    id: CheckpointOf,
) -> Answer<Response> {
    show_of(&app.host, &named.sprite, id).await
}

/// Delete a checkpoint
///
/// What only it had of the disk is freed. Does not wake the sprite.
#[utoipa::path(
    delete, path = "/v1/sprites/{name}/checkpoints/{id}", tag = "checkpoints", operation_id = "delete_checkpoint",
    params(
        ("name" = String, Path, description = "Name of the sprite"),
        ("id" = String, Path, description = "Id of the checkpoint"),
    ),
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, description = "There is no such sprite or checkpoint", body = ErrorBody),
        (status = 409, description = "The sprite stands on it", body = ErrorBody),
    )
)]
pub(crate) async fn delete(
    State(app): State<App>,
    named: Named,
    id: CheckpointOf,
) -> Answer<Response> {
    delete_of(&app.host, &named.sprite, id).await
}

/// Bring a sprite back to a checkpoint
///
/// Its machine is ended in order and another started: sessions end, services start again. The state that is replaced is
/// kept as an automatic checkpoint; the last five are. The answer is a line for each thing that happens; the last one is
/// `complete` or `error`.
#[utoipa::path(
    post, path = "/v1/sprites/{name}/checkpoints/{id}/restore", tag = "checkpoints", operation_id = "restore_checkpoint",
    params(
        ("name" = String, Path, description = "Name of the sprite"),
        ("id" = String, Path, description = "Id of the checkpoint"),
    ),
    responses(
        (status = 200, description = "What happens, line by line", body = CheckpointEvent, content_type = "application/x-ndjson"),
        (status = 404, description = "There is no such sprite or checkpoint", body = ErrorBody),
        (status = 409, description = "The sprite is being restored", body = ErrorBody),
        (status = 503, description = "Too many requests wait for the sprite", body = ErrorBody),
    )
)]
pub(crate) async fn restore(
    State(app): State<App>,
    named: Named,
    id: CheckpointOf,
) -> Answer<Response> {
    let CheckpointOf(id) = id;
    let restoring = app.host.restore(named.sprite.id, id).await?;
    let begun = [
        info(format!("Restoring to checkpoint {id}...")),
        info("Stopping services...".to_owned()),
        info("Restoring filesystem...".to_owned()),
    ];
    let work = async move {
        vec![match restoring.done().await {
            Ok(()) => complete(format!("Restored to {id}")),
            Err(error) => failed(format!("Failed to restore checkpoint: {error}")),
        }]
    };
    Ok(told(begun.into(), work.boxed()))
}

pub(crate) async fn create_of(host: &Host, sprite: &Sprite, request: Body) -> Answer<Response> {
    let wanted: CreateCheckpoint = body::optional_json(request).await?;
    let comment = wanted.comment.unwrap_or_default();
    if comment.len() > LONGEST_COMMENT {
        return Err(Problem::field(format!(
            "comment may have at most {LONGEST_COMMENT} bytes"
        )));
    }
    let begun = [
        info("Creating checkpoint...".to_owned()),
        info("Saving filesystem state...".to_owned()),
    ];
    let (host, sprite) = (host.clone(), sprite.id);
    let work = async move {
        match host.checkpoint(sprite, comment).await {
            Ok(Checkpoint { id, .. }) => vec![
                info(format!("  ID: {id}")),
                complete(format!("Checkpoint {id} created successfully")),
            ],
            Err(error) => vec![failed(format!(
                "Failed to create checkpoint: {}",
                explained(&error)
            ))],
        }
    };
    Ok(told(begun.into(), work.boxed()))
}

pub(crate) async fn list_of(host: &Host, sprite: &Sprite, request: Request) -> Answer<Response> {
    let (parts, _) = request.into_parts();
    let query: Query = connection::query(&parts)?;
    let automatic = query.switch("includeAuto").transpose();
    let automatic = automatic.map_err(|_| Problem::field("includeAuto must be true or false"))?;
    let of = query.get("history").and_then(|text| text.parse().ok());
    let checkpoints = host.checkpoints(sprite.id).await?;
    let line = of.map(|id| line_of(&checkpoints, id));
    let all = checkpoints.all.iter().filter(|checkpoint| {
        (automatic == Some(true) || !checkpoint.id.is_automatic())
            && line
                .as_ref()
                .is_none_or(|line| line.contains(&checkpoint.id))
    });
    let mut shown_all = Vec::new();
    if line.is_none() {
        shown_all.push(current(&checkpoints));
    }
    shown_all.extend(all.map(|checkpoint| shown(checkpoint, &checkpoints)));
    Ok(answer::ok(&shown_all))
}

pub(crate) async fn show_of(
    host: &Host,
    sprite: &Sprite,
    CheckpointOf(id): CheckpointOf,
) -> Answer<Response> {
    let checkpoints = host.checkpoints(sprite.id).await?;
    let found = checkpoints.all.iter().find(|it| it.id == id);
    let found = found.ok_or_else(|| not_found(&id.to_string()))?;
    Ok(answer::ok(&shown(found, &checkpoints)))
}

pub(crate) async fn delete_of(
    host: &Host,
    sprite: &Sprite,
    CheckpointOf(id): CheckpointOf,
) -> Answer<Response> {
    host.delete_checkpoint(sprite.id, id).await?;
    Ok(answer::empty(StatusCode::NO_CONTENT))
}

/// Begins a restore for a program that does not live to see its end.
pub(crate) async fn begin_restore(
    host: &Host,
    sprite: &Sprite,
    CheckpointOf(id): CheckpointOf,
) -> Answer<CheckpointId> {
    host.restore(sprite.id, id).await?;
    Ok(id)
}

/// A checkpoint and those that it goes back to, as far as they are kept.
fn line_of(checkpoints: &Checkpoints, id: CheckpointId) -> Vec<CheckpointId> {
    let sources: HashMap<_, _> = checkpoints
        .all
        .iter()
        .map(|it| (it.id, it.source))
        .collect();
    let mut line = Vec::new();
    let mut next = Some(id);
    while let Some(id) = next
        && !line.contains(&id)
    {
        line.push(id);
        next = sources.get(&id).copied().flatten();
    }
    line
}

fn text(id: Option<CheckpointId>) -> String {
    id.map(|id| id.to_string()).unwrap_or_default()
}

fn current(checkpoints: &Checkpoints) -> CheckpointBody {
    let now = OffsetDateTime::now_utc();
    CheckpointBody {
        id: CURRENT.to_owned(),
        create_time: Stamp(now),
        source_id: text(checkpoints.source),
        comment: String::new(),
        is_auto: false,
        health: String::new(),
        history: history(checkpoints, checkpoints.source),
    }
}

fn shown(checkpoint: &Checkpoint, all: &Checkpoints) -> CheckpointBody {
    CheckpointBody {
        id: checkpoint.id.to_string(),
        create_time: Stamp(checkpoint.created_at),
        source_id: text(checkpoint.source),
        comment: checkpoint.comment.clone(),
        is_auto: checkpoint.id.is_automatic(),
        health: String::new(),
        history: history(all, checkpoint.source),
    }
}

fn history(checkpoints: &Checkpoints, source: Option<CheckpointId>) -> Vec<String> {
    let line = source.map(|id| line_of(checkpoints, id));
    let line = line.unwrap_or_default();
    line.iter().rev().map(ToString::to_string).collect()
}

fn line(kind: CheckpointEventKind) -> Bytes {
    let time = Stamp(OffsetDateTime::now_utc());
    answer::line(&CheckpointEvent { kind, time })
}

fn info(data: String) -> Bytes {
    line(CheckpointEventKind::Info { data })
}

fn complete(data: String) -> Bytes {
    line(CheckpointEventKind::Complete { data })
}

fn failed(error: String) -> Bytes {
    line(CheckpointEventKind::Error { error })
}

/// The lines as they come: those that are ready, and those of the work at its end.
fn told(ready: VecDeque<Bytes>, work: BoxFuture<'static, Vec<Bytes>>) -> Response {
    let lines = stream::unfold((ready, Some(work)), |(mut ready, mut work)| async move {
        if let Some(line) = ready.pop_front() {
            return Some((Ok::<_, io::Error>(line), (ready, work)));
        }
        match tokio::time::timeout(KEEPALIVE, work.as_mut()?).await {
            Ok(told) => {
                ready.extend(told);
                let line = ready.pop_front()?;
                Some((Ok(line), (ready, None)))
            }
            Err(_) => Some((Ok(Bytes::from_static(b"\n")), (ready, work))),
        }
    });
    let mut response = Response::new(Body::from_stream(lines));
    let kind = HeaderValue::from_static(NDJSON);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn not_found(id: &str) -> Problem {
    let id: String = id.chars().take(80).collect();
    Problem::new(ErrorKind::NotFound, format!("checkpoint not found: {id}"))
        .with_hint("sprite checkpoint list --include-auto shows those that there are")
}

/// What a person is told, with what can be done about it.
fn explained(error: &CheckpointError) -> String {
    match error {
        CheckpointError::TooMany { .. } => {
            format!("{error}; delete some with sprite checkpoint delete")
        }
        CheckpointError::Disk(_)
        | CheckpointError::Wake(_)
        | CheckpointError::Catalog(_)
        | CheckpointError::Failed { .. } => {
            tracing::error!(error = error as &dyn std::error::Error, "make a checkpoint");
            error.to_string()
        }
        CheckpointError::NotFound | CheckpointError::Comment { .. } | CheckpointError::Closing => {
            error.to_string()
        }
    }
}

impl From<DeleteCheckpointError> for Problem {
    fn from(error: DeleteCheckpointError) -> Self {
        match error {
            DeleteCheckpointError::NotFound { id } => not_found(&id.to_string()),
            DeleteCheckpointError::InUse { .. } => {
                Self::new(ErrorKind::Conflict, error.to_string())
                    .with_hint("make another checkpoint, or restore another, and delete it then")
            }
            DeleteCheckpointError::Catalog(_) => Self::internal(&error),
        }
    }
}

impl From<RestoreError> for Problem {
    fn from(error: RestoreError) -> Self {
        match error {
            RestoreError::NotFound { id } => not_found(&id.to_string()),
            RestoreError::UnderWay { .. } => Self::new(ErrorKind::Conflict, error.to_string())
                .with_hint("wait until that has ended"),
            RestoreError::Later { .. } | RestoreError::Failed { .. } | RestoreError::Closing => {
                Self::new(ErrorKind::Unavailable, error.to_string())
            }
            RestoreError::Catalog(_) => Self::internal(&error),
        }
    }
}
