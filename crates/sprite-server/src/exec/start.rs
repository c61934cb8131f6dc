//! `GET` and `HEAD /v1/sprites/{name}/exec`: a WebSocket that starts (or with `?id=` attaches to) a session;
//! without an upgrade, the sessions that run.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use sprite_api::ErrorBody;
use sprite_api::session::SessionList;
use tracing::Instrument;

use super::open::Session;
use super::{params, sessions, socket};
use crate::answer;
use crate::connection::{self, Connection};
use crate::named::Named;
use crate::problem::Answer;
use crate::routes::App;
use crate::ws::Upgrade;

/// Run a command, or list sessions
///
/// With a WebSocket upgrade a command is started, and the connection carries its stdin, stdout and stderr; it
/// is answered when the command runs. Without an upgrade the sessions that run are listed.
#[utoipa::path(
    get, path = "/v1/sprites/{name}/exec", tag = "exec", operation_id = "exec",
    params(
        ("name" = String, Path, description = "Name of the sprite"),
        ("cmd" = Option<Vec<String>>, Query, description = "The command and its arguments, one `cmd` each; `bash` if absent"),
        ("path" = Option<String>, Query, description = "The executable, if it is not the first `cmd`"),
        ("env" = Option<Vec<String>>, Query, description = "`NAME=VALUE`, one `env` each; added to the defaults"),
        ("dir" = Option<String>, Query, description = "Working directory; the home of the user `sprite` if absent"),
        ("tty" = Option<bool>, Query, description = "Give it a terminal"),
        ("rows" = Option<u16>, Query, description = "Lines of the terminal; 24 if absent"),
        ("cols" = Option<u16>, Query, description = "Columns of the terminal; 80 if absent"),
        ("stdin" = Option<bool>, Query, description = "Keep stdin open; true with a terminal, else false"),
        ("detachable" = Option<bool>, Query, description = "Let it run on for ever without a client"),
        ("max_run_after_disconnect" = Option<String>, Query, description = "How long it runs on without a client (`10s`; `0s`: for ever)"),
        ("id" = Option<String>, Query, description = "Attach to this session instead"),
        ("browser" = Option<bool>, Query, description = "The client opens URLs for programs in the sprite (`open_url`)"),
    ),
    responses(
        (status = 101, description = "The command runs"),
        (status = 200, description = "Without an upgrade: the sessions that run", body = SessionList),
        (status = 400, description = "A parameter is wrong", body = ErrorBody),
        (status = 404, description = "There is no such sprite or session", body = ErrorBody),
        (status = 503, description = "`sprite_starting`: it did not wake in time", body = ErrorBody),
    )
)]
pub(crate) async fn start(
    State(app): State<App>,
    named: Named,
    connection: Connection,
    request: Request,
) -> Answer<Response> {
    let (mut parts, _) = request.into_parts();
    let sprite = named.sprite;
    let Some(upgrade) = Upgrade::of(&mut parts)? else {
        return Ok(answer::ok(&sessions::list(&app, &sprite).await?));
    };
    let query = connection::query(&parts)?;
    let (wanted, takes_urls) = (params::wanted(&query)?, params::takes_urls(&query)?);
    let span = tracing::info_span!("exec", org = %sprite.org_slug, sprite = %sprite.id);
    async {
        let session = Session::open(&app, &sprite, wanted).await?;
        let browser = if takes_urls {
            app.browsers.listen(sprite.id)
        } else {
            None
        };
        Ok(socket::answer(upgrade, session, browser, connection))
    }
    .instrument(span)
    .await
}

/// Only the headers: clients read the version from them. Does not wake the sprite.
pub(crate) async fn head(_named: Named) -> Response {
    answer::empty(StatusCode::OK)
}
