//! The description of this API, made from the code.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{Content, Ref, ResponseBuilder, Server};
use utoipa::{Modify, OpenApi};

use crate::routes::App;
use crate::streams;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "sprited",
        description = "Sprites: persistent, isolated Linux computers. Errors are JSON with `error` and `message`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    paths(
        crate::routes::health,
        crate::organization::show,
        crate::organization::create_token,
        crate::sprites::list::list,
        crate::sprites::create::create,
        crate::sprites::show::show,
        crate::sprites::change::update,
        crate::sprites::change::delete,
        crate::sprites::upkeep::check,
        crate::sprites::upkeep::restart,
        crate::sprites::upkeep::sleep,
        crate::sprites::upkeep::upgrade,
        crate::usage::show,
        crate::exec::start::start,
        crate::exec::post::post,
        crate::exec::attach::attach,
        crate::exec::kill::kill,
        crate::control::control,
        crate::proxy::proxy,
        crate::ports::watch,
        crate::policy::show_network,
        crate::policy::set_network,
        crate::policy::show_privileges,
        crate::policy::set_privileges,
        crate::policy::delete_privileges,
        crate::policy::show_resources,
        crate::policy::set_resources,
        crate::policy::delete_resources,
        crate::fs::read::read,
        crate::fs::write::write,
        crate::fs::archive::unpack,
        crate::fs::archive::pack,
        crate::fs::list::list,
        crate::fs::change::delete,
        crate::fs::change::rename,
        crate::fs::change::copy,
        crate::fs::change::chmod,
        crate::fs::change::chown,
        crate::fs::watch::watch,
        crate::services::list,
        crate::services::show,
        crate::services::put,
        crate::services::delete,
        crate::services::start,
        crate::services::stop,
        crate::services::restart,
        crate::services::signal,
        crate::services::logs,
        crate::checkpoints::create,
        crate::checkpoints::list,
        crate::checkpoints::show,
        crate::checkpoints::delete,
        crate::checkpoints::restore,
        crate::domains::list,
        crate::domains::show,
        crate::domains::put,
        crate::domains::delete,
        crate::tasks::list,
        crate::tasks::create,
        crate::tasks::put,
        crate::tasks::show,
        crate::tasks::put_named,
        crate::tasks::delete,
    ),
    security(("token" = [])),
    modifiers(&Token, &EverywhereAlike),
)]
struct Api;

/// What a sprite's programs are offered on the socket inside.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "sprited: inside a sprite",
        description = "What a sprite's own programs are offered on the Unix socket `/.sprite/api.sock`, without a \
            token: that sprite, and those that it made if it may. Errors are JSON with `error` and `message`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    paths(
        crate::inside::info,
        crate::inside::usage,
        crate::inside::list_tasks,
        crate::inside::create_task,
        crate::inside::put_task,
        crate::inside::show_task,
        crate::inside::put_named_task,
        crate::inside::delete_task,
        crate::inside::services::list,
        crate::inside::services::show,
        crate::inside::services::put,
        crate::inside::services::delete,
        crate::inside::services::start,
        crate::inside::services::stop,
        crate::inside::services::restart,
        crate::inside::services::signal,
        crate::inside::checkpoints::create,
        crate::inside::checkpoints::list,
        crate::inside::checkpoints::show,
        crate::inside::checkpoints::delete,
        crate::inside::checkpoints::restore,
        crate::inside::wake::list,
        crate::inside::wake::create,
        crate::inside::wake::delete,
        crate::inside::network,
        crate::inside::privileges,
        crate::inside::resources,
        crate::inside::browser::open,
        crate::inside::orgs::list,
    ),
    servers((url = "http://localhost", description = "The host is ignored: the socket is `/.sprite/api.sock`")),
)]
struct Inside;

struct Token;

impl Modify for Token {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        api.components
            .get_or_insert_default()
            .add_security_scheme("token", scheme);
    }
}

/// What every route that wants a token may answer, whatever else it says of itself.
struct EverywhereAlike;

impl Modify for EverywhereAlike {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        for item in api.paths.paths.values_mut() {
            for operation in operations(item) {
                // One that names its own security is open to everybody.
                if operation.security.is_some() {
                    continue;
                }
                for (status, description) in [
                    ("400", "The request does not make sense"),
                    ("401", "The token is missing or wrong"),
                ] {
                    let responses = &mut operation.responses.responses;
                    responses.entry(status.to_owned()).or_insert_with(|| {
                        let content = Content::new(Some(Ref::from_schema_name("ErrorBody")));
                        let response = ResponseBuilder::new().description(description);
                        response.content("application/json", content).build().into()
                    });
                }
            }
        }
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let all = [
        &mut item.get,
        &mut item.put,
        &mut item.post,
        &mut item.delete,
        &mut item.head,
        &mut item.options,
        &mut item.patch,
        &mut item.trace,
    ];
    all.into_iter().flatten()
}

/// The OpenAPI document of this API, as it is kept in `openapi/sprited.json`.
///
/// # Panics
/// Never: the document is built from constants.
#[must_use]
pub fn document() -> String {
    kept(&outside())
}

/// The OpenAPI document of the API inside sprites, as it is kept in `openapi/inside.json`.
///
/// # Panics
/// Never: the document is built from constants.
#[must_use]
pub fn document_inside() -> String {
    kept(&inside())
}

fn kept(api: &utoipa::openapi::OpenApi) -> String {
    let mut text = api.to_pretty_json().expect("the document has string keys");
    text.push('\n');
    text
}

/// The API as it is told.
pub(crate) fn outside() -> utoipa::openapi::OpenApi {
    Api::openapi()
}

/// The API inside sprites as it is told.
pub(crate) fn inside() -> utoipa::openapi::OpenApi {
    Inside::openapi()
}

/// The document with the address of this server in it.
fn document_at(public_base: &str) -> Bytes {
    let mut api = outside();
    api.servers = Some(vec![Server::new(public_base)]);
    api.to_pretty_json()
        .expect("the document has string keys")
        .into()
}

/// `GET /openapi.json`; needs no token.
pub(crate) async fn show(State(app): State<App>) -> Response {
    json(app.documents.openapi)
}

/// `GET /streams.json`; needs no token.
pub(crate) async fn show_streams(State(app): State<App>) -> Response {
    json(app.documents.streams)
}

/// `GET /openapi.json` inside a sprite.
pub(crate) async fn show_inside(State(app): State<App>) -> Response {
    json(app.documents.inside)
}

fn json(document: Bytes) -> Response {
    let mut response = Response::new(Body::from(document));
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// What describes this server's API, made once.
#[derive(Debug, Clone)]
pub(crate) struct Documents {
    openapi: Bytes,
    streams: Bytes,
    inside: Bytes,
}

impl Documents {
    /// With the address of this server in them.
    pub(crate) fn at(public_base: &str) -> Self {
        Self {
            openapi: document_at(public_base),
            streams: streams::document().into(),
            inside: document_inside().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{document, document_inside};

    /// `cargo run -p sprite-server --example openapi` rewrites the files.
    #[test]
    fn the_kept_document_is_not_stale() {
        for (name, wanted) in [("sprited", document()), ("inside", document_inside())] {
            let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../../openapi");
            let kept = std::fs::read_to_string(format!("{directory}/{name}.json"));
            assert!(
                kept.unwrap_or_default() == wanted,
                "openapi/{name}.json is stale: run `cargo run -p sprite-server --example openapi`"
            );
        }
    }
}
