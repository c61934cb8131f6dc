//! `PUT` and `DELETE /v1/sprites/{name}`.

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use sprite_api::ErrorBody;
use sprite_api::sprite::{Sprite as SpriteBody, UpdateSprite};
use sprite_host::Change;

use super::Fields;
use crate::named::SpriteNameOf;
use crate::problem::{Answer, Problem};
use crate::routes::App;
use crate::{answer, body};

/// Change a sprite's settings
///
/// What is absent stays as it is. Does not wake the sprite.
#[utoipa::path(
    put, path = "/v1/sprites/{name}", tag = "sprites", operation_id = "update_sprite",
    params(("name" = String, Path, description = "Name of the sprite")),
    request_body = UpdateSprite,
    responses(
        (status = 200, description = "The sprite as it is now", body = SpriteBody),
        (status = 400, description = "A field is wrong", body = ErrorBody),
        (status = 404, description = "There is none of that name", body = ErrorBody),
    )
)]
pub(crate) async fn update(
    State(app): State<App>,
    SpriteNameOf { caller, name }: SpriteNameOf,
    request: Body,
) -> Answer<Response> {
    let change = change(body::json(request).await?)?;
    let sprite = app.host.update(&caller.org, &name, change).await?;
    Ok(answer::ok(&super::body(&sprite, &app.config)))
}

fn change(request: UpdateSprite) -> Answer<Change> {
    let mut fields = Fields::default();
    let url_auth = fields.url_auth(request.url_settings.as_ref());
    let private_access = fields.private_access(request.url_settings.as_ref());
    let mut labels = fields.labels(request.labels);
    if !fields.errors.is_empty() {
        return Err(Problem::fields(fields.errors));
    }
    if request.clear_labels == Some(true) {
        labels.get_or_insert_default();
    }
    Ok(Change {
        url_auth,
        private_access,
        labels,
    })
}

/// Delete a sprite
///
/// When this answers, its machine and its disk are gone and its name is free.
#[utoipa::path(
    delete, path = "/v1/sprites/{name}", tag = "sprites", operation_id = "delete_sprite",
    params(("name" = String, Path, description = "Name of the sprite")),
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, description = "There is none of that name", body = ErrorBody),
    )
)]
pub(crate) async fn delete(
    State(app): State<App>,
    SpriteNameOf { caller, name }: SpriteNameOf,
) -> Answer<Response> {
    app.host.destroy(&caller.org, &name).await?;
    tracing::info!(org = %caller.slug, %name, "sprite deleted");
    Ok(answer::empty(StatusCode::NO_CONTENT))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(json: &str) -> Change {
        change(serde_json::from_str(json).expect("JSON")).expect("valid")
    }

    /// Behaviour reference §1.3: partial update.
    #[test]
    fn what_is_absent_stays() {
        assert_eq!(parsed("{}"), Change::default());
        assert_eq!(parsed(r#"{"clear_labels":false}"#).labels, None);
        assert_eq!(parsed(r#"{"clear_labels":true}"#).labels, Some(Vec::new()));
        let both = parsed(r#"{"clear_labels":true,"labels":["a"]}"#)
            .labels
            .expect("set");
        assert_eq!(both.len(), 1);
    }
}
