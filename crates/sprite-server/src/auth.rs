//! Who asks.

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sprite_api::ErrorKind;
use sprite_host::{Host, Principal};

use crate::problem::{Answer, Problem};

/// Paths that everybody may read.
const PUBLIC: [&str; 3] = ["/healthz", "/openapi.json", "/streams.json"];

/// The organisation that a request's token stands for.
#[derive(Debug, Clone)]
pub(crate) struct Caller(pub(crate) Principal);

/// Lets a request pass if its path is public or its token is known, and remembers whose it is.
pub(crate) async fn check(State(host): State<Host>, mut request: Request, next: Next) -> Response {
    if !PUBLIC.contains(&request.uri().path()) {
        let caller = match bearer(request.headers()) {
            Ok(token) => host.authenticate(token).await.map_err(Problem::from),
            Err(problem) => Err(problem),
        };
        match caller {
            Ok(principal) => request.extensions_mut().insert(Caller(principal)),
            Err(problem) => return problem.into_response(),
        };
    }
    next.run(request).await
}

/// The token of an `Authorization: Bearer` header. Source: behaviour reference §1.1.
pub(crate) fn bearer(headers: &HeaderMap) -> Answer<&str> {
    let refuse = |message: &str| Problem::new(ErrorKind::Unauthorized, message);
    let header = headers
        .get(header::AUTHORIZATION)
        .ok_or_else(|| {
            refuse("no token was shown").with_hint("send the header Authorization: Bearer <token>")
        })?
        .to_str()
        .map_err(|_| refuse("the Authorization header is not text"))?;
    let (scheme, token) = header.trim().split_once(' ').unwrap_or((header, ""));
    if scheme.eq_ignore_ascii_case("FlyV1") {
        return Err(
            refuse("tokens of Fly.io are not known to this server").with_hint(
                "make a token with `sprited token create`, or with a token of this organization",
            ),
        );
    }
    if !scheme.eq_ignore_ascii_case("Bearer") || token.trim().is_empty() {
        return Err(refuse(
            "the Authorization header is not of the form Bearer <token>",
        ));
    }
    Ok(token.trim())
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Answer<Self> {
        parts
            .extensions
            .get::<Self>()
            .cloned()
            .ok_or_else(|| Problem::new(ErrorKind::Unauthorized, "no token was shown"))
    }
}
