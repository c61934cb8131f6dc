//! Which request goes where.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use sprite_api::{ErrorBody, ErrorKind, VERSION_HEADER};
use sprite_host::{Calls, Host};
use sprite_types::RUNTIME_VERSION;

use crate::browsers::Browsers;
use crate::config::ServerConfig;
use crate::edge::{self, Edge};
use crate::exec::{attach, kill, post as exec_post, start};
use crate::metrics::{self, Metrics, Surface};
use crate::openapi::{self, Documents};
use crate::problem::Problem;
use crate::proxy::{self, Proxies};
use crate::sprites::{change, create, list, show, upkeep};
use crate::{
    answer, auth, checkpoints, control, domains, fs, inside, organization, policy, ports, services,
    tasks, usage,
};

/// What every handler has.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) host: Host,
    pub(crate) config: Arc<ServerConfig>,
    /// The connections to ports that there are.
    pub(crate) proxies: Proxies,
    /// Who opens URLs for programs in sprites.
    pub(crate) browsers: Browsers,
    /// What is counted of all this.
    pub(crate) metrics: Metrics,
    /// What describes all this.
    pub(crate) documents: Documents,
}

/// The API over a host, from outside and from inside its sprites. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    app: App,
    edge: Edge,
}

impl Api {
    /// The API over a host.
    #[must_use]
    pub fn new(host: Host, config: ServerConfig) -> Self {
        let app = App {
            metrics: Metrics::of(&host),
            host,
            documents: Documents::at(&config.public_base),
            config: Arc::new(config),
            proxies: Proxies::default(),
            browsers: Browsers::default(),
        };
        let edge = Edge::new(app.clone());
        Self { app, edge }
    }

    /// What is asked from outside. Give it to [`serve`](crate::serve).
    pub fn router(&self) -> Router {
        let edge = self.edge.clone();
        let api = router(self.app.clone()).merge(edge::login_routes(edge.clone()));
        // Before everything of the API: nothing of it is seen under the URL domain.
        Router::new()
            .fallback(edge::dispatch)
            .with_state((edge, api))
    }

    /// What is asked of sprites' URLs, and nothing else. Give it to a listener of its own.
    pub fn url_router(&self) -> Router {
        let edge = self.edge.clone();
        Router::new().fallback(edge::dispatch_urls).with_state(edge)
    }

    /// What monitoring reads: `GET /metrics`, which asks for no token. Give it to a listener of its own.
    pub fn metrics_router(&self) -> Router {
        metrics::router(self.app.clone())
    }

    /// Serves what is asked from inside sprites until `shutdown` is ready, then lets what is under way finish.
    ///
    /// # Cancel safety
    /// Cancelled, no further call is taken; those that there are go on.
    pub async fn serve_inside(&self, calls: Calls, shutdown: impl Future<Output = ()>) {
        inside::serve(self.app.clone(), calls, shutdown).await;
    }
}

fn router(app: App) -> Router {
    let host = app.host.clone();
    let counted = (app.metrics.clone(), Surface::Api);
    behind_the_check(app)
        .layer(middleware::from_fn_with_state(host, auth::check))
        .layer(middleware::from_fn(with_version))
        .layer(middleware::from_fn_with_state(counted, metrics::count))
}

/// All routes, for requests of which is known whose they are.
pub(crate) fn behind_the_check(app: App) -> Router {
    let sprite = "/v1/sprites/{name}";
    let router = Router::new()
        .route("/healthz", get(health))
        .route("/openapi.json", get(openapi::show))
        .route("/streams.json", get(openapi::show_streams))
        .route("/v1/organization", get(organization::show))
        .route(
            "/v1/organizations/{slug}/tokens",
            post(organization::create_token),
        )
        .route("/v1/sprites", get(list::list).post(create::create))
        .route(
            sprite,
            get(show::show).put(change::update).delete(change::delete),
        )
        .route(&format!("{sprite}/check"), get(upkeep::check))
        .route(&format!("{sprite}/restart"), post(upkeep::restart))
        .route(&format!("{sprite}/sleep"), post(upkeep::sleep))
        .route(&format!("{sprite}/upgrade"), post(upkeep::upgrade))
        .route(&format!("{sprite}/usage"), get(usage::show))
        .route(
            &format!("{sprite}/exec"),
            get(start::start).head(start::head).post(exec_post::post),
        )
        .route(&format!("{sprite}/exec/{{session}}"), get(attach::attach))
        .route(&format!("{sprite}/exec/{{session}}/kill"), post(kill::kill))
        .route(
            &format!("{sprite}/policy/network"),
            get(policy::show_network).post(policy::set_network),
        )
        .route(
            &format!("{sprite}/policy/privileges"),
            get(policy::show_privileges)
                .post(policy::set_privileges)
                .delete(policy::delete_privileges),
        )
        .route(
            &format!("{sprite}/policy/resources"),
            get(policy::show_resources)
                .post(policy::set_resources)
                .delete(policy::delete_resources),
        )
        .route(&format!("{sprite}/control"), get(control::control))
        .route(&format!("{sprite}/proxy"), get(proxy::proxy))
        .route(&format!("{sprite}/ports/watch"), get(ports::watch))
        .route(&format!("{sprite}/fs/watch"), get(fs::watch::watch))
        .route(&format!("{sprite}/fs/read"), get(fs::read::read))
        .route(&format!("{sprite}/fs/write"), put(fs::write::write))
        .route(
            &format!("{sprite}/fs/archive"),
            get(fs::archive::pack).put(fs::archive::unpack),
        )
        .route(&format!("{sprite}/fs/list"), get(fs::list::list))
        .route(&format!("{sprite}/fs/delete"), delete(fs::change::delete))
        .route(&format!("{sprite}/fs/rename"), post(fs::change::rename))
        .route(&format!("{sprite}/fs/copy"), post(fs::change::copy))
        .route(&format!("{sprite}/fs/chmod"), post(fs::change::chmod))
        .route(&format!("{sprite}/fs/chown"), post(fs::change::chown))
        .route(&format!("{sprite}/services"), get(services::list))
        .route(&format!("{sprite}/services/signal"), post(services::signal))
        .route(
            &format!("{sprite}/services/{{service}}"),
            get(services::show)
                .put(services::put)
                .delete(services::delete),
        )
        .route(
            &format!("{sprite}/services/{{service}}/start"),
            post(services::start),
        )
        .route(
            &format!("{sprite}/services/{{service}}/stop"),
            post(services::stop),
        )
        .route(
            &format!("{sprite}/services/{{service}}/restart"),
            post(services::restart),
        )
        .route(
            &format!("{sprite}/services/{{service}}/logs"),
            get(services::logs),
        )
        .route(&format!("{sprite}/checkpoint"), post(checkpoints::create))
        .route(&format!("{sprite}/checkpoints"), get(checkpoints::list))
        .route(
            &format!("{sprite}/checkpoints/{{id}}"),
            get(checkpoints::show).delete(checkpoints::delete),
        )
        .route(
            &format!("{sprite}/checkpoints/{{id}}/restore"),
            post(checkpoints::restore),
        )
        .route(&format!("{sprite}/domains"), get(domains::list))
        .route(
            &format!("{sprite}/domains/{{domain}}"),
            get(domains::show).put(domains::put).delete(domains::delete),
        )
        .route(
            &format!("{sprite}/tasks"),
            get(tasks::list).post(tasks::create).put(tasks::put),
        )
        .route(
            &format!("{sprite}/tasks/{{task}}"),
            get(tasks::show).put(tasks::put_named).delete(tasks::delete),
        );
    router
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .with_state(app)
}

/// Is the server there
///
/// Needs no token.
#[utoipa::path(
    get, path = "/healthz", tag = "server", operation_id = "health",
    security(()),
    responses((status = 200, description = "It is", content_type = "text/plain", body = String))
)]
async fn health() -> Response {
    let mut response = Response::new("ok\n".into());
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

pub(crate) async fn no_route(request: Request) -> Problem {
    let path: String = request.uri().path().chars().take(200).collect();
    Problem::new(
        ErrorKind::NotFound,
        format!("no such route: {} {path}", request.method()),
    )
}

pub(crate) async fn no_method(request: Request) -> Problem {
    let message = format!("{} is not allowed here", request.method());
    Problem::new(ErrorKind::MethodNotAllowed, message)
}

/// Every answer tells the version. Source: behaviour reference §1.1.
pub(crate) async fn with_version(request: Request, next: Next) -> Response {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let began = Instant::now();
    let mut response = next.run(request).await;
    // Without the query: commands and variables in it are nobody's business.
    let (path, status) = (uri.path(), response.status().as_u16());
    tracing::debug!(%method, path, status, elapsed = ?began.elapsed(), "answered");
    response.headers_mut().insert(
        HeaderName::from_static(VERSION_HEADER),
        HeaderValue::from_static(RUNTIME_VERSION),
    );
    plain_errors_as_json(response)
}

/// The router's own refusals are plain text; ours are JSON, all of them.
fn plain_errors_as_json(response: Response) -> Response {
    let status = response.status();
    let json = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    if json || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let message = status.canonical_reason().unwrap_or("request failed");
    let code = if status.is_client_error() {
        ErrorKind::Invalid
    } else {
        ErrorKind::Internal
    };
    let mut replaced = answer::json(status, &ErrorBody::new(code, message)).into_response();
    for (name, value) in response.headers() {
        if ![header::CONTENT_TYPE, header::CONTENT_LENGTH].contains(name) {
            replaced.headers_mut().append(name, value.clone());
        }
    }
    replaced
}
