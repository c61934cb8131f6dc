//! `GET /v1/sprites/{name}`.

use axum::extract::State;
use axum::response::Response;
use sprite_api::ErrorBody;
use sprite_api::sprite::Sprite as SpriteBody;

use crate::answer;
use crate::named::Named;
use crate::routes::App;

/// Show a sprite
///
/// Does not wake it.
#[utoipa::path(
    get, path = "/v1/sprites/{name}", tag = "sprites", operation_id = "get_sprite",
    params(("name" = String, Path, description = "Name of the sprite")),
    responses(
        (status = 200, description = "The sprite", body = SpriteBody),
        (status = 404, description = "There is none of that name", body = ErrorBody),
    )
)]
pub(crate) async fn show(State(app): State<App>, named: Named) -> Response {
    answer::ok(&super::body(&named.sprite, &app.config))
}
