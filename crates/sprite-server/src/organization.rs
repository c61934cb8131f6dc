//! The caller's organisation and its tokens. Source: behaviour reference §1.1, §1.3.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use sprite_api::organization::{CreateToken, Organization, OrganizationAnswer, TokenCreated};
use sprite_api::{ErrorBody, ErrorKind};

use crate::auth::Caller;
use crate::problem::{Answer, Problem};
use crate::routes::App;
use crate::{answer, body};

/// Show the organization of the token
#[utoipa::path(
    get, path = "/v1/organization", tag = "organization", operation_id = "get_organization",
    responses((status = 200, description = "The organization", body = OrganizationAnswer))
)]
pub(crate) async fn show(State(app): State<App>, Caller(caller): Caller) -> Answer<Response> {
    let organisation = app.host.organisation(&caller.org).await?;
    Ok(answer::ok(&OrganizationAnswer {
        organization: Organization {
            slug: organisation.slug.to_string(),
            id: organisation.id.to_string(),
            sprites_enabled: true,
            active_sprites: organisation.counts.running,
            sprites: organisation.counts.total(),
            max_sprites: Some(organisation.max_sprites),
            active_sprite_limit: None,
        },
    }))
}

/// Make a token
///
/// Shown with a token of the same organization. The new token is told once: only its hash is kept.
#[utoipa::path(
    post, path = "/v1/organizations/{slug}/tokens", tag = "organization", operation_id = "create_token",
    params(("slug" = String, Path, description = "Slug of the organization")),
    request_body = Option<CreateToken>,
    responses(
        (status = 201, description = "The token", body = TokenCreated),
        (status = 401, description = "No token of this server was shown", body = ErrorBody),
        (status = 404, description = "The token shown is not of this organization", body = ErrorBody),
    )
)]
pub(crate) async fn create_token(
    State(app): State<App>,
    Caller(caller): Caller,
    Path(slug): Path<String>,
    request: Body,
) -> Answer<Response> {
    if caller.slug.as_str() != slug {
        return Err(Problem::new(ErrorKind::NotFound, "organization not found"));
    }
    let wanted: CreateToken = body::optional_json(request).await?;
    let description = wanted.description.unwrap_or_default();
    let token = app.host.create_token(&caller.slug, &description).await?;
    tracing::info!(org = %caller.slug, by = ?caller.who, "token made");
    Ok(answer::json(StatusCode::CREATED, &TokenCreated { token }))
}
