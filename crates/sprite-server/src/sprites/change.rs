//! `PUT` and `DELETE /v1/sprites/{name}`.

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use sprite_api::ErrorBody;
use sprite_api::sprite::{Sprite as SpriteBody, UpdateSprite};
use sprite_host::{Change, Who};

use super::Fields;
use crate::named::Named;
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
        (status = 403, description = "A sprite asks for what only a token may change", body = ErrorBody),
        (status = 404, description = "There is none of that name", body = ErrorBody),
    )
)]
pub(crate) async fn update(
    State(app): State<App>,
    Named { caller, sprite }: Named,
    request: Body,
) -> Answer<Response> {
    let change = change(body::json(request).await?)?;
    if matches!(caller.who, Who::Sprite(_)) && !only_labels(&change) {
        return Err(Problem::not_from_inside(
            "what a sprite may and who may use its URL",
        ));
    }
    let sprite = app.host.update(sprite.id, change).await?;
    Ok(answer::ok(&super::body(&sprite, &app.config)))
}

/// Whether nothing is changed by which a sprite, or what it made, could be more than it was.
fn only_labels(change: &Change) -> bool {
    let Change {
        url_auth,
        private_access,
        labels: _,
        // How long it sleeps costs nobody else anything.
        idle_timeout: _,
        connections: _,
        api_access,
    } = change;
    url_auth.is_none() && private_access.is_none() && api_access.is_none()
}

fn change(request: UpdateSprite) -> Answer<Change> {
    let mut fields = Fields::default();
    let url_auth = fields.url_auth(request.url_settings.as_ref());
    let private_access = fields.private_access(request.url_settings.as_ref());
    let mut labels = fields.labels(request.labels);
    let idle_timeout = fields.idle_timeout(request.config.as_ref());
    let connections = fields.connections(request.config.as_ref());
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
        idle_timeout,
        connections,
        api_access: request.config.and_then(|config| config.api_access),
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
    Named { caller, sprite }: Named,
) -> Answer<Response> {
    app.host.destroy(sprite.id).await?;
    tracing::info!(org = %caller.slug, name = %sprite.name, "sprite deleted");
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
