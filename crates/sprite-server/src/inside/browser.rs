//! `POST /v1/browser`: a program inside wants a URL opened in the browser of whoever is attached.

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use sprite_api::inside::{OpenInBrowser, UrlPassedOn};
use sprite_api::{ErrorBody, ErrorKind};
use sprite_types::WebUrl;

use super::Me;
use crate::browsers::Unasked;
use crate::problem::{Answer, Problem};
use crate::routes::App;
use crate::{answer, body};

/// Open a URL in the browser of whoever is attached
///
/// Of the clients that said `browser=true` the one is asked that typed last. Whether it is opened is for the person
/// there to decide.
#[utoipa::path(
    post, path = "/v1/browser", tag = "sprite", operation_id = "open_url",
    request_body = OpenInBrowser,
    responses(
        (status = 202, description = "Somebody is asked", body = UrlPassedOn),
        (status = 400, description = "It is no URL of the web", body = ErrorBody),
        (status = 404, description = "The sprite is no more", body = ErrorBody),
        (status = 409, description = "Nobody who opens URLs is attached", body = ErrorBody),
        (status = 503, description = "Whoever is attached has not read earlier ones yet", body = ErrorBody),
    )
)]
pub(crate) async fn open(
    State(app): State<App>,
    Me(sprite): Me,
    request: Body,
) -> Answer<Response> {
    let wanted: OpenInBrowser = body::json(request).await?;
    let url = wanted
        .url
        .ok_or_else(|| Problem::field("url is required"))?;
    let url: WebUrl = url
        .parse()
        .map_err(|error| Problem::field(format!("{error}")))?;
    match app.browsers.ask(sprite.id, &url.into()) {
        Ok(()) => {
            let sent = UrlPassedOn {
                status: "sent".to_owned(),
            };
            Ok(answer::json(StatusCode::ACCEPTED, &sent))
        }
        Err(Unasked::Nobody) => Err(Problem::new(
            ErrorKind::Conflict,
            "nobody who opens URLs is attached to this sprite",
        )
        .with_hint(&format!(
            "attach with `sprite console {}`, or open the URL yourself",
            sprite.name
        ))),
        Err(Unasked::Busy) => Err(Problem::new(
            ErrorKind::Unavailable,
            "whoever is attached has not read earlier URLs yet",
        )),
    }
}
