//! `POST /v1/sprites`.

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use sprite_api::sprite::{CreateSprite, ForkOf as WireForkOf, Sprite as SpriteBody};
use sprite_api::{ErrorBody, ErrorKind};
use sprite_host::{
    ForkOf, Idleness, LookupError, NewSprite, Principal, PrivateAccess, ResourceRequest, UrlAuth,
    Who,
};
use sprite_types::{NameError, SpriteName};

use super::Fields;
use crate::auth::Caller;
use crate::problem::{Answer, Problem};
use crate::routes::App;
use crate::{answer, body};

/// Create a sprite
///
/// When this answers, the sprite is durable, and its first machine is starting.
#[utoipa::path(
    post, path = "/v1/sprites", tag = "sprites", operation_id = "create_sprite",
    request_body = CreateSprite,
    responses(
        (status = 201, description = "The sprite", body = SpriteBody),
        (status = 400, description = "A field is wrong", body = ErrorBody),
        (status = 403, description = "A sprite asks for what only a token may give", body = ErrorBody),
        (status = 404, description = "There is no such sprite or checkpoint to be forked", body = ErrorBody),
        (status = 409, description = "`name_taken`", body = ErrorBody),
        (status = 429, description = "The organization has as many sprites as it may", body = ErrorBody),
    )
)]
pub(crate) async fn create(
    State(app): State<App>,
    Caller(caller): Caller,
    request: Body,
) -> Answer<Response> {
    let mut request: CreateSprite = body::json(request).await?;
    let from = match request.from.take() {
        Some(from) => Some(fork_of(&app, &caller, from).await?),
        None => None,
    };
    let mut new = new_sprite(request)?;
    new.from = from;
    if let Who::Sprite(maker) = caller.who {
        if new.url_auth != UrlAuth::Sprite || new.private_access != PrivateAccess::Admins {
            return Err(Problem::not_from_inside("who may use a sprite's URL"));
        }
        new.made_by = Some(maker);
    }
    let sprite = app.host.create(&caller.org, new).await?;
    tracing::info!(org = %caller.slug, sprite = %sprite.id, name = %sprite.name, "sprite created");
    Ok(answer::json(
        StatusCode::CREATED,
        &super::body(&sprite, &app.config),
    ))
}

/// Of what a new sprite is to be a fork, if the caller may know of that.
async fn fork_of(app: &App, caller: &Principal, from: WireForkOf) -> Answer<ForkOf> {
    if from.memory == Some(true) {
        return Err(Problem::field("from.memory: memory cannot be forked yet"));
    }
    let name = from.sprite.unwrap_or_default();
    if name.is_empty() {
        return Err(Problem::field("from.sprite is required"));
    }
    let none = || Problem::new(ErrorKind::NotFound, "from: sprite not found");
    let name: SpriteName = name.parse().map_err(|_| none())?;
    let source = app.host.sprite(&caller.org, &name).await;
    let source = source.map_err(|error| match error {
        LookupError::NotFound => none(),
        LookupError::Catalog(_) => error.into(),
    })?;
    if !caller.sees(&source) {
        return Err(none());
    }
    let checkpoint = from.checkpoint.map(|id| {
        id.parse().map_err(|_| {
            let id: String = id.chars().take(80).collect();
            Problem::new(
                ErrorKind::NotFound,
                format!("from: checkpoint not found: {id}"),
            )
        })
    });
    Ok(ForkOf {
        sprite: source.id,
        checkpoint: checkpoint.transpose()?,
    })
}

fn new_sprite(request: CreateSprite) -> Answer<NewSprite> {
    let mut fields = Fields::default();
    let name = name(&mut fields, request.name.as_deref());
    let url_auth = fields.url_auth(request.url_settings.as_ref());
    let private_access = fields.private_access(request.url_settings.as_ref());
    let labels = fields.labels(request.labels);
    let idle_timeout = fields.idle_timeout(request.config.as_ref());
    let connections = fields.connections(request.config.as_ref());
    let config = request.config.unwrap_or_default();
    let Some(name) = name.filter(|_| fields.errors.is_empty()) else {
        return Err(Problem::fields(fields.errors));
    };
    Ok(NewSprite {
        name,
        labels: labels.unwrap_or_default(),
        url_auth: url_auth.unwrap_or(UrlAuth::Sprite),
        private_access: private_access.unwrap_or(PrivateAccess::Admins),
        resources: ResourceRequest {
            cpus: config.cpus,
            memory_mib: config.ram_mb,
            storage_gb: config.storage_gb,
        },
        environment: request.environment.unwrap_or_default(),
        idleness: Idleness {
            timeout: idle_timeout.unwrap_or_default(),
            connections: connections.unwrap_or_default(),
        },
        api_access: config.api_access.unwrap_or(false),
        made_by: None,
        from: None,
    })
}

fn name(fields: &mut Fields, name: Option<&str>) -> Option<SpriteName> {
    match name.unwrap_or_default().parse() {
        Ok(name) => Some(name),
        // For the empty name this is the text that clients know. Source: behaviour reference §1.1.
        Err(error) => fields.wrong(NameError::to_string(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Behaviour reference §1.2: every broken rule is told.
    #[test]
    fn every_wrong_field_is_told() {
        let request: CreateSprite = serde_json::from_str(
            r#"{"labels":["a,b"],"url_settings":{"auth":"open","private_access":"all"}}"#,
        )
        .expect("JSON");
        let problem = new_sprite(request).expect_err("four rules are broken");
        for rule in [
            "name is required",
            "label",
            "url_settings.auth",
            "private_access",
        ] {
            assert!(problem.message().contains(rule), "{rule}: {problem:?}");
        }
    }
}
