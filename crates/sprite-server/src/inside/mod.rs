//! The API inside a sprite: HTTP on its environment's own socket.
//!
//! Whoever connects there needs no token and has none: the only thing that is known of a caller is which sprite it
//! is in, and nothing but that sprite can be seen or changed, and what it made itself if it may ([`orgs`]). The router
//! is its own, so that no other route of the public API can be reached by it. Everything that comes is hostile; see
//! [`serve`] for its bounds.
//!
//! Source: behaviour reference §1.13.

pub(crate) mod browser;
pub(crate) mod checkpoints;
pub(crate) mod orgs;
mod serve;
pub(crate) mod services;
pub(crate) mod wake;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::middleware;
use axum::response::Response;
use axum::routing::{any, get, post};
use sprite_api::ErrorBody;
use sprite_api::ErrorKind;
use sprite_api::inside::Info;
use sprite_api::policy::{NetworkPolicyShown, PrivilegesPolicy, ResourcesPolicyShown};
use sprite_api::task::{PutTask, Task, TaskList};
use sprite_api::usage::Usage;
use sprite_host::{IfTaken, Sprite};
use sprite_types::{RUNTIME_VERSION, SpriteId};

use crate::answer;
use crate::metrics::{self, Surface};
use crate::openapi;
use crate::policy;
use crate::problem::{Answer, Problem};
use crate::routes::{self, App};
use crate::tasks::{self, TaskOf};
use crate::usage;

pub(crate) use serve::serve;

/// The sprite that the caller is in.
#[derive(Debug, Clone, Copy)]
struct Inside(SpriteId);

/// That sprite's row.
pub(crate) struct Me(Sprite);

impl FromRequestParts<App> for Me {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Answer<Self> {
        let inside = parts.extensions.get::<Inside>();
        let Inside(sprite) = inside.ok_or_else(Problem::no_sprite)?;
        Ok(Self(app.host.sprite_by_id(*sprite).await?))
    }
}

fn router(app: App) -> Router {
    let public = routes::behind_the_check(app.clone());
    let pass =
        move |app: State<App>, me: Me, request: Request| orgs::pass(app, me, public, request);
    let router = Router::new()
        .route("/openapi.json", get(openapi::show_inside))
        .route("/info", get(info))
        .route("/v1/usage", get(usage))
        .route("/v1/tasks", get(list_tasks).post(create_task).put(put_task))
        .route(
            "/v1/tasks/{task}",
            get(show_task).put(put_named_task).delete(delete_task),
        )
        .route("/v1/services", get(services::list))
        .route("/v1/services/signal", post(services::signal))
        .route(
            "/v1/services/{service}",
            get(services::show)
                .put(services::put)
                .delete(services::delete),
        )
        .route("/v1/services/{service}/start", post(services::start))
        .route("/v1/services/{service}/stop", post(services::stop))
        .route("/v1/services/{service}/restart", post(services::restart))
        .route("/v1/checkpoint", post(checkpoints::create))
        .route("/v1/checkpoints", get(checkpoints::list))
        .route(
            "/v1/checkpoints/{id}",
            get(checkpoints::show).delete(checkpoints::delete),
        )
        .route("/v1/checkpoints/{id}/restore", post(checkpoints::restore))
        .route(
            "/v1/wake",
            get(wake::list).post(wake::create).delete(wake::delete),
        )
        .route("/policy/network", get(network))
        .route("/policy/privileges", get(privileges))
        .route("/policy/resources", get(resources))
        .route("/v1/browser", post(browser::open))
        .route("/v1/orgs", get(orgs::list))
        .route("/v1/orgs/{*rest}", any(pass));
    let counted = (app.metrics.clone(), Surface::Inside);
    router
        .fallback(no_route)
        .method_not_allowed_fallback(routes::no_method)
        .with_state(app)
        .layer(middleware::from_fn(routes::with_version))
        .layer(middleware::from_fn_with_state(counted, metrics::count))
}

async fn no_route(request: Request) -> Problem {
    let path: String = request.uri().path().chars().take(200).collect();
    let message = format!("no such route: {} {path}", request.method());
    Problem::new(ErrorKind::NotFound, message).with_hint("/.sprite/docs/api.md tells what there is")
}

/// Who and where this is
#[utoipa::path(
    get, path = "/info", tag = "sprite", operation_id = "info",
    responses(
        (status = 200, description = "This sprite", body = Info),
        (status = 404, description = "The sprite is no more", body = ErrorBody),
    )
)]
pub(crate) async fn info(State(app): State<App>, Me(sprite): Me) -> Response {
    answer::ok(&Info {
        version: RUNTIME_VERSION.to_owned(),
        sprite_name: sprite.name.to_string(),
        sprite_url: app.config.sprite_urls.of(&sprite.name, &sprite.org),
        sprite_id: sprite.id,
        org: sprite.org_slug.to_string(),
    })
}

/// Show what this sprite has used
#[utoipa::path(
    get, path = "/v1/usage", tag = "sprite", operation_id = "get_usage",
    responses(
        (status = 200, description = "What it has used", body = Usage),
        (status = 404, description = "The sprite is no more", body = ErrorBody),
    )
)]
pub(crate) async fn usage(State(app): State<App>, Me(sprite): Me) -> Answer<Response> {
    usage::show_of(&app.host, &sprite).await
}

/// List the tasks
#[utoipa::path(
    get, path = "/v1/tasks", tag = "tasks", operation_id = "list_tasks",
    responses(
        (status = 200, description = "Those that have not expired", body = TaskList),
        (status = 404, description = "The sprite is no more", body = ErrorBody),
    )
)]
pub(crate) async fn list_tasks(State(app): State<App>, Me(sprite): Me) -> Answer<Response> {
    tasks::list_of(&app.host, &sprite).await
}

/// Create a task
#[utoipa::path(
    post, path = "/v1/tasks", tag = "tasks", operation_id = "create_task",
    request_body = PutTask,
    responses(
        (status = 201, description = "The task", body = Task),
        (status = 400, description = "The name or the time is wrong, or there are too many", body = ErrorBody),
        (status = 404, description = "The sprite is no more", body = ErrorBody),
        (status = 409, description = "There is a task of that name", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
    )
)]
pub(crate) async fn create_task(
    State(app): State<App>,
    Me(sprite): Me,
    body: Body,
) -> Answer<Response> {
    tasks::put_of(&app.host, &sprite, None, body, IfTaken::Refuse).await
}

/// Create a task, or give it another end
#[utoipa::path(
    put, path = "/v1/tasks", tag = "tasks", operation_id = "put_task",
    request_body = PutTask,
    responses(
        (status = 200, description = "The task", body = Task),
        (status = 400, description = "The name or the time is wrong, or there are too many", body = ErrorBody),
        (status = 404, description = "The sprite is no more", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
    )
)]
pub(crate) async fn put_task(
    State(app): State<App>,
    Me(sprite): Me,
    body: Body,
) -> Answer<Response> {
    tasks::put_of(&app.host, &sprite, None, body, IfTaken::Extend).await
}

/// Create a task of a name, or give it another end
#[utoipa::path(
    put, path = "/v1/tasks/{task}", tag = "tasks", operation_id = "put_named_task",
    params(("task" = String, Path, description = "Name of the task")),
    request_body = PutTask,
    responses(
        (status = 200, description = "The task", body = Task),
        (status = 400, description = "The name or the time is wrong, or there are too many", body = ErrorBody),
        (status = 404, description = "The sprite is no more", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
    )
)]
pub(crate) async fn put_named_task(
    State(app): State<App>,
    Me(sprite): Me,
    task: TaskOf,
    body: Body,
) -> Answer<Response> {
    tasks::put_of(&app.host, &sprite, Some(task), body, IfTaken::Extend).await
}

/// Show a task
#[utoipa::path(
    get, path = "/v1/tasks/{task}", tag = "tasks", operation_id = "get_task",
    params(("task" = String, Path, description = "Name of the task")),
    responses(
        (status = 200, description = "The task", body = Task),
        (status = 400, description = "No task can have that name", body = ErrorBody),
        (status = 404, description = "There is no such task, or it has expired", body = ErrorBody),
    )
)]
pub(crate) async fn show_task(
    State(app): State<App>,
    Me(sprite): Me,
    task: TaskOf,
) -> Answer<Response> {
    tasks::show_of(&app.host, &sprite, task).await
}

/// End a task
#[utoipa::path(
    delete, path = "/v1/tasks/{task}", tag = "tasks", operation_id = "delete_task",
    params(("task" = String, Path, description = "Name of the task")),
    responses(
        (status = 204, description = "It holds the sprite no more"),
        (status = 400, description = "No task can have that name", body = ErrorBody),
        (status = 404, description = "There is no such task, or it has expired", body = ErrorBody),
    )
)]
pub(crate) async fn delete_task(
    State(app): State<App>,
    Me(sprite): Me,
    task: TaskOf,
) -> Answer<Response> {
    tasks::delete_of(&app.host, &sprite, task).await
}

/// Show the network policy
#[utoipa::path(
    get, path = "/policy/network", tag = "policies", operation_id = "get_network_policy",
    responses(
        (status = 200, description = "The policy, and what holds", body = NetworkPolicyShown),
        (status = 404, description = "The sprite is no more", body = ErrorBody),
    )
)]
pub(crate) async fn network(State(app): State<App>, Me(sprite): Me) -> Answer<Response> {
    policy::network_of(&app, &sprite).await
}

/// Show the privileges policy
#[utoipa::path(
    get, path = "/policy/privileges", tag = "policies", operation_id = "get_privileges_policy",
    responses(
        (status = 200, description = "The policy", body = PrivilegesPolicy),
        (status = 404, description = "The sprite is no more", body = ErrorBody),
    )
)]
pub(crate) async fn privileges(State(app): State<App>, Me(sprite): Me) -> Answer<Response> {
    policy::privileges_of(&app, &sprite).await
}

/// Show the resources policy
#[utoipa::path(
    get, path = "/policy/resources", tag = "policies", operation_id = "get_resources_policy",
    responses(
        (status = 200, description = "The policy, and what holds", body = ResourcesPolicyShown),
        (status = 404, description = "The sprite is no more", body = ErrorBody),
    )
)]
pub(crate) async fn resources(State(app): State<App>, Me(sprite): Me) -> Answer<Response> {
    policy::resources_of(&app, &sprite).await
}
