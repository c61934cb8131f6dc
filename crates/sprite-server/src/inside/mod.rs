//! The API inside a sprite: HTTP on its environment's own socket.
//!
//! Whoever connects there needs no token and has none: the only thing that is known of a caller is which sprite it
//! is in, and nothing but that sprite can be seen or changed. The router is its own, so that no route of the public
//! API can be reached by it. Everything that comes is hostile; see [`serve`] for its bounds.
//!
//! Source: behaviour reference §1.13.

mod serve;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::middleware;
use axum::response::Response;
use axum::routing::{any, get};
use sprite_api::ErrorKind;
use sprite_api::inside::Info;
use sprite_host::{IfTaken, Sprite};
use sprite_types::{RUNTIME_VERSION, SpriteId};

use crate::answer;
use crate::policy;
use crate::problem::{Answer, Problem};
use crate::routes::{self, App};
use crate::tasks::{self, TaskOf};

pub(crate) use serve::serve;

/// The sprite that the caller is in.
#[derive(Debug, Clone, Copy)]
struct Inside(SpriteId);

/// That sprite's row.
struct Me(Sprite);

impl FromRequestParts<App> for Me {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Answer<Self> {
        let inside = parts.extensions.get::<Inside>();
        let Inside(sprite) = inside.ok_or_else(Problem::no_sprite)?;
        Ok(Self(app.host.sprite_by_id(*sprite).await?))
    }
}

/// Operations that programs inside know and this server does not do, by their paths.
const UNSUPPORTED: [(&str, &str); 8] = [
    ("/v1/services", "services"),
    ("/v1/services/{service}", "services"),
    ("/v1/services/{service}/{action}", "services"),
    ("/v1/checkpoint", "checkpoint.create"),
    ("/v1/checkpoints", "checkpoint.list"),
    ("/v1/checkpoints/{id}", "checkpoint"),
    ("/v1/checkpoints/{id}/restore", "checkpoint.restore"),
    ("/v1/browser", "browser"),
];

fn router(app: App) -> Router {
    let mut router = Router::new()
        .route("/info", get(info))
        .route("/v1/tasks", get(list_tasks).post(create_task).put(put_task))
        .route(
            "/v1/tasks/{task}",
            get(show_task).put(put_named_task).delete(delete_task),
        )
        .route("/policy/network", get(network))
        .route("/policy/privileges", get(privileges))
        .route("/policy/resources", get(resources))
        .route("/v1/orgs", any(closed))
        .route("/v1/orgs/{*rest}", any(closed));
    for (path, operation) in UNSUPPORTED {
        let refuse =
            move |Me(sprite): Me| async move { Problem::unsupported(operation, sprite.driver) };
        router = router.route(path, any(refuse));
    }
    router
        .fallback(no_route)
        .method_not_allowed_fallback(routes::no_method)
        .with_state(app)
        .layer(middleware::from_fn(routes::with_version))
}

async fn no_route(request: Request) -> Problem {
    let path: String = request.uri().path().chars().take(200).collect();
    let message = format!("no such route: {} {path}", request.method());
    Problem::new(ErrorKind::NotFound, message).with_hint("/.sprite/docs/api.md tells what there is")
}

/// Who and where this is.
async fn info(State(app): State<App>, Me(sprite): Me) -> Response {
    answer::ok(&Info {
        version: RUNTIME_VERSION.to_owned(),
        sprite_name: sprite.name.to_string(),
        sprite_url: app.config.sprite_urls.of(&sprite.name, &sprite.org),
        sprite_id: sprite.id,
        org: sprite.org_slug.to_string(),
    })
}

async fn list_tasks(State(app): State<App>, Me(sprite): Me) -> Answer<Response> {
    tasks::list_of(&app.host, &sprite).await
}

async fn create_task(State(app): State<App>, Me(sprite): Me, body: Body) -> Answer<Response> {
    tasks::put_of(&app.host, &sprite, None, body, IfTaken::Refuse).await
}

async fn put_task(State(app): State<App>, Me(sprite): Me, body: Body) -> Answer<Response> {
    tasks::put_of(&app.host, &sprite, None, body, IfTaken::Extend).await
}

async fn put_named_task(
    State(app): State<App>,
    Me(sprite): Me,
    task: TaskOf,
    body: Body,
) -> Answer<Response> {
    tasks::put_of(&app.host, &sprite, Some(task), body, IfTaken::Extend).await
}

async fn show_task(State(app): State<App>, Me(sprite): Me, task: TaskOf) -> Answer<Response> {
    tasks::show_of(&app.host, &sprite, task).await
}

async fn delete_task(State(app): State<App>, Me(sprite): Me, task: TaskOf) -> Answer<Response> {
    tasks::delete_of(&app.host, &sprite, task).await
}

async fn network(State(app): State<App>, Me(sprite): Me) -> Answer<Response> {
    policy::network_of(&app, &sprite).await
}

async fn privileges(State(app): State<App>, Me(sprite): Me) -> Answer<Response> {
    policy::privileges_of(&app, &sprite).await
}

async fn resources(State(app): State<App>, Me(sprite): Me) -> Answer<Response> {
    policy::resources_of(&app, &sprite).await
}

/// The public API is not for what runs inside a sprite.
async fn closed() -> Problem {
    Problem::new(
        ErrorKind::Forbidden,
        "this sprite may not use the API of its organization",
    )
    .with_hint("give the sprite a token of its own and use the server's address")
}
