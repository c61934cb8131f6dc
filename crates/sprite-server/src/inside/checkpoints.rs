//! Checkpoints, from inside: as from outside. Source: behaviour reference §1.8, §1.13.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use sprite_api::ErrorBody;
use sprite_api::checkpoint::{Checkpoint, CheckpointEvent, CreateCheckpoint};
use sprite_api::inside::RestoreBegun;

use super::Me;
use crate::answer;
use crate::checkpoints::{self, CheckpointOf};
use crate::problem::Answer;
use crate::routes::App;

/// Keep the state of the disk
///
/// Nothing is stopped. What was written before the request is in it; memory and processes are not.
#[utoipa::path(
    post, path = "/v1/checkpoint", tag = "checkpoints", operation_id = "create_checkpoint",
    request_body = Option<CreateCheckpoint>,
    responses(
        (status = 200, description = "What happens, line by line", body = CheckpointEvent, content_type = "application/x-ndjson"),
        (status = 400, description = "The comment is too long", body = ErrorBody),
        (status = 404, description = "The sprite is no more", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
    )
)]
pub(crate) async fn create(
    State(app): State<App>,
    Me(sprite): Me,
    request: Body,
) -> Answer<Response> {
    checkpoints::create_of(&app.host, &sprite, request).await
}

/// List the checkpoints
#[utoipa::path(
    get, path = "/v1/checkpoints", tag = "checkpoints", operation_id = "list_checkpoints",
    params(
        ("includeAuto" = Option<bool>, Query, description = "Those too that were made automatically"),
        ("history" = Option<String>, Query, description = "Only this checkpoint and those that it goes back to"),
    ),
    responses(
        (status = 200, description = "The newest first; before them `Current`", body = Vec<Checkpoint>),
        (status = 400, description = "A parameter is wrong", body = ErrorBody),
        (status = 404, description = "The sprite is no more", body = ErrorBody),
    )
)]
pub(crate) async fn list(
    State(app): State<App>,
    Me(sprite): Me,
    request: Request,
) -> Answer<Response> {
    checkpoints::list_of(&app.host, &sprite, request).await
}

/// Show a checkpoint
#[utoipa::path(
    get, path = "/v1/checkpoints/{id}", tag = "checkpoints", operation_id = "get_checkpoint",
    params(("id" = String, Path, description = "Id of the checkpoint")),
    responses(
        (status = 200, description = "The checkpoint", body = Checkpoint),
        (status = 404, description = "There is no such checkpoint", body = ErrorBody),
    )
)]
pub(crate) async fn show(
    State(app): State<App>,
    Me(sprite): Me,
    id: CheckpointOf,
) -> Answer<Response> {
    checkpoints::show_of(&app.host, &sprite, id).await
}

/// Delete a checkpoint
#[utoipa::path(
    delete, path = "/v1/checkpoints/{id}", tag = "checkpoints", operation_id = "delete_checkpoint",
    params(("id" = String, Path, description = "Id of the checkpoint")),
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, description = "There is no such checkpoint", body = ErrorBody),
        (status = 409, description = "The sprite stands on it", body = ErrorBody),
    )
)]
pub(crate) async fn delete(
    State(app): State<App>,
    Me(sprite): Me,
    id: CheckpointOf,
) -> Answer<Response> {
    checkpoints::delete_of(&app.host, &sprite, id).await
}

/// Bring this sprite back to a checkpoint
///
/// Everything that runs in it ends, the caller too.
#[utoipa::path(
    post, path = "/v1/checkpoints/{id}/restore", tag = "checkpoints", operation_id = "restore_checkpoint",
    params(("id" = String, Path, description = "Id of the checkpoint")),
    responses(
        (status = 202, description = "It is begun", body = RestoreBegun),
        (status = 404, description = "There is no such checkpoint", body = ErrorBody),
        (status = 409, description = "The sprite is being restored", body = ErrorBody),
        (status = 503, description = "Too many requests wait for the sprite", body = ErrorBody),
    )
)]
pub(crate) async fn restore(
    State(app): State<App>,
    Me(sprite): Me,
    id: CheckpointOf,
) -> Answer<Response> {
    let id = checkpoints::begin_restore(&app.host, &sprite, id).await?;
    let message = format!("Restoring to checkpoint {id}...");
    Ok(answer::json(
        StatusCode::ACCEPTED,
        &RestoreBegun { message },
    ))
}
