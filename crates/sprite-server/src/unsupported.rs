//! Operations that clients know and this server does not do: said so, never pretended.

use axum::extract::Request;
use axum::response::Response;

use crate::named::Named;
use crate::problem::{Answer, Problem};

/// Paths below a sprite that clients know, and what they are called. Source: behaviour reference §1.6 to §1.11.
pub(crate) const PATHS: [(&str, &str); 4] = [
    ("/checkpoint", "checkpoint.create"),
    ("/checkpoints", "checkpoint.list"),
    ("/checkpoints/{id}", "checkpoint"),
    ("/checkpoints/{id}/restore", "checkpoint.restore"),
];

/// Answers 501 for a sprite that exists.
pub(crate) async fn refuse(named: Named, request: Request) -> Answer<Response> {
    let path = request.uri().path();
    // `/v1/sprites/{name}` lies before it.
    let below = path.splitn(5, '/').nth(4).unwrap_or_default();
    let first = below.split('/').next().unwrap_or_default();
    let whole = PATHS
        .iter()
        .find(|(known, _)| *known == format!("/{below}"));
    let operation = whole.map_or_else(
        || first.to_owned(),
        |(_, operation)| (*operation).to_owned(),
    );
    Err(Problem::unsupported(&operation, named.sprite.driver))
}
