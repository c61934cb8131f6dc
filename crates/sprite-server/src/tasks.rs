//! Tasks of a sprite, from outside. Source: behaviour reference §1.13.

use axum::body::Body;
use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use sprite_api::task::{PutTask, Task as TaskBody, TaskList};
use sprite_api::{ErrorBody, ErrorKind, Stamp};
use sprite_host::{Host, IfTaken, PutTaskError, Sprite, Task, TaskError};
use sprite_types::{NameError, TaskName};

use crate::named::{Named, param};
use crate::problem::{Answer, Problem};
use crate::routes::App;
use crate::{answer, body};

/// The task that a path names.
#[derive(Debug)]
pub(crate) struct TaskOf(TaskName);

impl<S: Sync> FromRequestParts<S> for TaskOf {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Answer<Self> {
        let name = param(parts, "task").await?;
        name.parse()
            .map(Self)
            .map_err(|error| Problem::field(format!("task: {error}")))
    }
}

/// List a sprite's tasks
///
/// Those that have not expired, in the order of their names. Does not wake it.
#[utoipa::path(
    get, path = "/v1/sprites/{name}/tasks", tag = "tasks", operation_id = "list_tasks",
    params(("name" = String, Path, description = "Name of the sprite")),
    responses(
        (status = 200, description = "The tasks", body = TaskList),
        (status = 404, description = "There is no sprite of that name", body = ErrorBody),
    )
)]
pub(crate) async fn list(State(app): State<App>, named: Named) -> Answer<Response> {
    list_of(&app.host, &named.sprite).await
}

/// Create a task
///
/// Wakes the sprite and keeps it awake until the task expires or is deleted.
#[utoipa::path(
    post, path = "/v1/sprites/{name}/tasks", tag = "tasks", operation_id = "create_task",
    params(("name" = String, Path, description = "Name of the sprite")),
    request_body = PutTask,
    responses(
        (status = 201, description = "The task", body = TaskBody),
        (status = 400, description = "The name or the time is wrong, or there are too many", body = ErrorBody),
        (status = 404, description = "There is no sprite of that name", body = ErrorBody),
        (status = 409, description = "The sprite has a task of that name", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
        (status = 503, description = "The sprite could not be woken", body = ErrorBody),
    )
)]
pub(crate) async fn create(
    State(app): State<App>,
    named: Named,
    request: Body,
) -> Answer<Response> {
    put_of(&app.host, &named.sprite, None, request, IfTaken::Refuse).await
}

/// Create a task, or give it another end
///
/// The task's name is in the body.
#[utoipa::path(
    put, path = "/v1/sprites/{name}/tasks", tag = "tasks", operation_id = "put_task",
    params(("name" = String, Path, description = "Name of the sprite")),
    request_body = PutTask,
    responses(
        (status = 200, description = "The task", body = TaskBody),
        (status = 400, description = "The name or the time is wrong, or there are too many", body = ErrorBody),
        (status = 404, description = "There is no sprite of that name", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
        (status = 503, description = "The sprite could not be woken", body = ErrorBody),
    )
)]
pub(crate) async fn put(State(app): State<App>, named: Named, request: Body) -> Answer<Response> {
    put_of(&app.host, &named.sprite, None, request, IfTaken::Extend).await
}

/// Create a task of a name, or give it another end
#[utoipa::path(
    put, path = "/v1/sprites/{name}/tasks/{task}", tag = "tasks", operation_id = "put_named_task",
    params(
        ("name" = String, Path, description = "Name of the sprite"),
        ("task" = String, Path, description = "Name of the task"),
    ),
    request_body = PutTask,
    responses(
        (status = 200, description = "The task", body = TaskBody),
        (status = 400, description = "The name or the time is wrong, or there are too many", body = ErrorBody),
        (status = 404, description = "There is no sprite of that name", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
        (status = 503, description = "The sprite could not be woken", body = ErrorBody),
    )
)]
pub(crate) async fn put_named(
    State(app): State<App>,
    named: Named,
    task: TaskOf,
    request: Body,
) -> Answer<Response> {
    let task = Some(task);
    put_of(&app.host, &named.sprite, task, request, IfTaken::Extend).await
}

/// Show a task
///
/// Does not wake the sprite.
#[utoipa::path(
    get, path = "/v1/sprites/{name}/tasks/{task}", tag = "tasks", operation_id = "get_task",
    params(
        ("name" = String, Path, description = "Name of the sprite"),
        ("task" = String, Path, description = "Name of the task"),
    ),
    responses(
        (status = 200, description = "The task", body = TaskBody),
        (status = 400, description = "No task can have that name", body = ErrorBody),
        (status = 404, description = "There is no such sprite or task, or it has expired", body = ErrorBody),
    )
)]
pub(crate) async fn show(State(app): State<App>, named: Named, task: TaskOf) -> Answer<Response> {
    show_of(&app.host, &named.sprite, task).await
}

/// End a task
///
/// Does not wake the sprite. Nothing that runs is ended: the sprite may sleep when it is idle.
#[utoipa::path(
    delete, path = "/v1/sprites/{name}/tasks/{task}", tag = "tasks", operation_id = "delete_task",
    params(
        ("name" = String, Path, description = "Name of the sprite"),
        ("task" = String, Path, description = "Name of the task"),
    ),
    responses(
        (status = 204, description = "It holds the sprite no more"),
        (status = 400, description = "No task can have that name", body = ErrorBody),
        (status = 404, description = "There is no such sprite or task, or it has expired", body = ErrorBody),
    )
)]
pub(crate) async fn delete(State(app): State<App>, named: Named, task: TaskOf) -> Answer<Response> {
    delete_of(&app.host, &named.sprite, task).await
}

pub(crate) async fn list_of(host: &Host, sprite: &Sprite) -> Answer<Response> {
    let tasks = host.tasks(sprite.id).await?;
    Ok(answer::ok(&TaskList {
        tasks: tasks.into_iter().map(shown).collect(),
    }))
}

pub(crate) async fn show_of(host: &Host, sprite: &Sprite, task: TaskOf) -> Answer<Response> {
    Ok(answer::ok(&shown(host.task(sprite.id, &task.0).await?)))
}

pub(crate) async fn delete_of(host: &Host, sprite: &Sprite, task: TaskOf) -> Answer<Response> {
    host.delete_task(sprite.id, &task.0).await?;
    Ok(answer::empty(StatusCode::NO_CONTENT))
}

/// Creates or extends; the name in the path wins over that in the body.
pub(crate) async fn put_of(
    host: &Host,
    sprite: &Sprite,
    task: Option<TaskOf>,
    request: Body,
    if_taken: IfTaken,
) -> Answer<Response> {
    let wanted: PutTask = body::json(request).await?;
    let name = match task {
        Some(TaskOf(name)) => name,
        None => match wanted.name.unwrap_or_default().parse::<TaskName>() {
            Ok(name) => name,
            Err(NameError::Empty) => return Err(Problem::field("name is required")),
            Err(error) => return Err(Problem::field(format!("name: {error}"))),
        },
    };
    let expire = wanted
        .expire
        .ok_or_else(|| Problem::field("expire is required"))?
        .duration()
        .map_err(|error| Problem::field(format!("expire: {error}")))?;
    let put = host.put_task(sprite.id, name, expire, if_taken).await;
    let task = put.map_err(|error| refused(error, sprite))?;
    let status = match if_taken {
        IfTaken::Refuse => StatusCode::CREATED,
        IfTaken::Extend => StatusCode::OK,
    };
    Ok(answer::json(status, &shown(task)))
}

fn shown(task: Task) -> TaskBody {
    TaskBody {
        name: task.name.to_string(),
        started_at: Stamp(task.started_at),
        expires_at: Stamp(task.expires_at),
    }
}

fn refused(error: PutTaskError, sprite: &Sprite) -> Problem {
    match error {
        PutTaskError::Expire => Problem::field("expire must be more than 0 and at most 1h"),
        PutTaskError::Taken { .. } => Problem::new(ErrorKind::Conflict, error.to_string())
            .with_hint("PUT gives a task that exists another end"),
        PutTaskError::TooMany { .. } => Problem::field(error.to_string()),
        PutTaskError::Wake(error) => Problem::waking(error, sprite.id, &sprite.name),
        PutTaskError::Closing => Problem::new(ErrorKind::Unavailable, error.to_string()),
        PutTaskError::Catalog(_) => Problem::internal(&error),
    }
}

impl From<TaskError> for Problem {
    fn from(error: TaskError) -> Self {
        match error {
            TaskError::NotFound => Self::new(ErrorKind::NotFound, "task not found"),
            TaskError::Catalog(_) => Self::internal(&error),
        }
    }
}
