//! Domains of people's own that lead to sprites.
//!
//! Who has a token of an organisation can map whatever name no other sprite has: that it is theirs is for the
//! server's operator to see to, who turns this on ([`CustomDomains`]) and whose DNS or certificates decide what
//! arrives here. What is the API's, or under the URL domain, leads to no sprite.

use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use sprite_api::domain::{Domain as DomainBody, DomainList};
use sprite_api::{ErrorBody, ErrorKind, Stamp};
use sprite_host::{Domain, DomainError};
use sprite_types::{CustomDomain, CustomDomainError};

use crate::answer;
use crate::config::{CustomDomains, ServerConfig};
use crate::named::{Named, param};
use crate::problem::{Answer, Problem};
use crate::routes::App;

/// The domain that a path names.
#[derive(Debug)]
pub(crate) struct DomainOf(CustomDomain);

impl<S: Sync> FromRequestParts<S> for DomainOf {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Answer<Self> {
        let text = param(parts, "domain").await?;
        text.parse().map(Self).map_err(|error| {
            let problem = Problem::field(format!("domain: {error}"));
            match error {
                CustomDomainError::Unicode => problem
                    .with_hint("write it as DNS has it: xn--… for each label with other letters"),
                CustomDomainError::Length
                | CustomDomainError::Label
                | CustomDomainError::Single
                | CustomDomainError::Address
                | CustomDomainError::Localhost => problem,
            }
        })
    }
}

/// List the domains that lead to a sprite
///
/// In the order of their names. Does not wake it.
#[utoipa::path(
    get, path = "/v1/sprites/{name}/domains", tag = "domains", operation_id = "list_domains",
    params(("name" = String, Path, description = "Name of the sprite")),
    responses(
        (status = 200, description = "The domains", body = DomainList),
        (status = 404, description = "There is no sprite of that name", body = ErrorBody),
    )
)]
pub(crate) async fn list(State(app): State<App>, named: Named) -> Answer<Response> {
    let domains = app.host.domains(named.sprite.id).await?;
    Ok(answer::ok(&DomainList {
        domains: domains
            .into_iter()
            .map(|domain| shown(&app.config, domain))
            .collect(),
    }))
}

/// Show a domain that leads to a sprite
///
/// Does not wake it.
#[utoipa::path(
    get, path = "/v1/sprites/{name}/domains/{domain}", tag = "domains", operation_id = "get_domain",
    params(
        ("name" = String, Path, description = "Name of the sprite"),
        ("domain" = String, Path, description = "The domain"),
    ),
    responses(
        (status = 200, description = "The domain", body = DomainBody),
        (status = 400, description = "That is no domain", body = ErrorBody),
        (status = 404, description = "There is no such sprite, or the domain does not lead to it", body = ErrorBody),
    )
)]
pub(crate) async fn show(
    State(app): State<App>,
    named: Named,
    DomainOf(name): DomainOf,
) -> Answer<Response> {
    let domains = app.host.domains(named.sprite.id).await?;
    let found = domains.into_iter().find(|domain| domain.name == name);
    let domain = found.ok_or(DomainError::NotFound)?;
    Ok(answer::ok(&shown(&app.config, domain)))
}

/// Map a domain to a sprite
///
/// Requests that name the domain as their host lead to the sprite then, as those for its own URL. One that leads to it
/// already is left as it is. Does not wake the sprite.
#[utoipa::path(
    put, path = "/v1/sprites/{name}/domains/{domain}", tag = "domains", operation_id = "put_domain",
    params(
        ("name" = String, Path, description = "Name of the sprite"),
        ("domain" = String, Path, description = "The domain: a DNS name"),
    ),
    responses(
        (status = 200, description = "It leads to the sprite", body = DomainBody),
        (status = 400, description = "That is no domain, it is this server's own, or the sprite has too many",
            body = ErrorBody),
        (status = 403, description = "This server maps no domains", body = ErrorBody),
        (status = 404, description = "There is no sprite of that name", body = ErrorBody),
        (status = 409, description = "The domain leads to another sprite", body = ErrorBody),
    )
)]
pub(crate) async fn put(
    State(app): State<App>,
    named: Named,
    DomainOf(domain): DomainOf,
) -> Answer<Response> {
    match app.config.custom_domains {
        CustomDomains::On => {}
        CustomDomains::Off => {
            return Err(Problem::new(
                ErrorKind::Forbidden,
                "this server maps no domains to sprites",
            )
            .with_hint("its operator can: sprited serve --custom-domains on"));
        }
    }
    if app.config.is_ours(domain.as_str()) {
        return Err(Problem::field(format!(
            "domain: {domain} is one of this server's own"
        )));
    }
    let domain = app.host.map_domain(named.sprite.id, &domain).await?;
    Ok(answer::ok(&shown(&app.config, domain)))
}

/// Let a domain go
///
/// It leads to the sprite no more, and can be mapped to another. Does not wake the sprite.
#[utoipa::path(
    delete, path = "/v1/sprites/{name}/domains/{domain}", tag = "domains", operation_id = "delete_domain",
    params(
        ("name" = String, Path, description = "Name of the sprite"),
        ("domain" = String, Path, description = "The domain"),
    ),
    responses(
        (status = 204, description = "It leads to the sprite no more"),
        (status = 400, description = "That is no domain", body = ErrorBody),
        (status = 404, description = "There is no such sprite, or the domain does not lead to it", body = ErrorBody),
    )
)]
pub(crate) async fn delete(
    State(app): State<App>,
    named: Named,
    DomainOf(domain): DomainOf,
) -> Answer<Response> {
    app.host.unmap_domain(named.sprite.id, &domain).await?;
    Ok(answer::empty(StatusCode::NO_CONTENT))
}

fn shown(config: &ServerConfig, domain: Domain) -> DomainBody {
    DomainBody {
        url: config.sprite_urls.at(domain.name.as_str()),
        domain: domain.name.into(),
        created_at: Stamp(domain.created_at),
    }
}

impl From<DomainError> for Problem {
    fn from(error: DomainError) -> Self {
        match &error {
            DomainError::NotFound => Self::new(
                ErrorKind::NotFound,
                "that domain does not lead to the sprite",
            ),
            // Whose it is, is nobody's business.
            DomainError::Taken { .. } => Self::new(ErrorKind::Conflict, error.to_string())
                .with_hint("let it go where it is mapped, or ask the server's operator"),
            DomainError::TooMany { .. } => Self::field(error.to_string()),
            DomainError::NoSprite => Self::no_sprite(),
            DomainError::Catalog(_) => Self::internal(&error),
        }
    }
}
