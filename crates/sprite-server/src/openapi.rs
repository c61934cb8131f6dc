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
        crate::sprites::upkeep::upgrade,
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
        crate::fs::list::list,
        crate::fs::change::delete,
        crate::fs::change::rename,
        crate::fs::change::copy,
        crate::fs::change::chmod,
        crate::fs::change::chown,
        crate::fs::watch::watch,
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
    let mut text = Api::openapi()
        .to_pretty_json()
        .expect("the document has string keys");
    text.push('\n');
    text
}

/// The document with the address of this server in it.
pub(crate) fn document_at(public_base: &str) -> Bytes {
    let mut api = Api::openapi();
    api.servers = Some(vec![Server::new(public_base)]);
    api.to_pretty_json()
        .expect("the document has string keys")
        .into()
}

/// `GET /openapi.json`; needs no token.
pub(crate) async fn show(State(app): State<App>) -> Response {
    let mut response = Response::new(Body::from(app.document));
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use super::document;

    /// `cargo run -p sprite-server --example openapi` rewrites the file.
    #[test]
    fn the_kept_document_is_not_stale() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../openapi/sprited.json");
        let kept = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            kept == document(),
            "openapi/sprited.json is stale: run `cargo run -p sprite-server --example openapi`"
        );
    }
}
