//! `GET /v1/sprites/{name}/exec/{session}`: a WebSocket that attaches to a session.

use axum::extract::{Request, State};
use axum::response::Response;
use sprite_api::ErrorBody;
use tracing::Instrument;

use super::open::Session;
use super::params::{self, Wanted};
use super::socket;
use crate::connection::{self, Connection};
use crate::named::{Named, SessionText};
use crate::problem::Answer;
use crate::routes::App;
use crate::ws::Upgrade;

/// Attach to a session
///
/// The first message is `session_info`, which tells what is kept of the output. Then comes the output: from the
/// offsets asked for on, each stream apart; without any, what a terminal shows now, drawn for the size that was told,
/// and without a terminal all that is kept. A session that ended within the last ten minutes is replayed to its true
/// exit.
#[utoipa::path(
    get, path = "/v1/sprites/{name}/exec/{session}", tag = "exec", operation_id = "attach",
    params(
        ("name" = String, Path, description = "Name of the sprite"),
        ("session" = String, Path, description = "Id of the session"),
        ("output_offset" = Option<u64>, Query, description = "The same as `stdout_offset`"),
        ("stdout_offset" = Option<u64>, Query, description = "First byte of stdout (or of the terminal) that is wanted"),
        ("stderr_offset" = Option<u64>, Query, description = "First byte of stderr that is wanted"),
        ("rows" = Option<u16>, Query, description = "Lines of the client's terminal, which the session's gets"),
        ("cols" = Option<u16>, Query, description = "Its columns"),
        ("browser" = Option<bool>, Query, description = "The client opens URLs for programs in the sprite (`open_url`)"),
    ),
    responses(
        (status = 101, description = "Attached"),
        (status = 404, description = "There is no such sprite or session", body = ErrorBody),
        (status = 426, description = "The request is no WebSocket upgrade", body = ErrorBody),
    )
)]
pub(crate) async fn attach(
    State(app): State<App>,
    named: Named,
    SessionText(id): SessionText,
    connection: Connection,
    request: Request,
) -> Answer<Response> {
    let (mut parts, _) = request.into_parts();
    let sprite = named.sprite;
    let upgrade = Upgrade::required(&mut parts, "attaching")?;
    let query = connection::query(&parts)?;
    let (spec, takes_urls) = (params::attach(&id, &query)?, params::takes_urls(&query)?);
    let span = tracing::info_span!("attach", org = %sprite.org_slug, sprite = %sprite.id, session = %spec.session);
    async {
        let session = Session::open(&app, &sprite, Wanted::Attach(id, spec)).await?;
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
