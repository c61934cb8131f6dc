//! `/v1/orgs…`: a part of the public API, for a sprite that may make sprites of its own.
//!
//! Whoever calls shows nothing: it is the sprite that the connection comes out of, and as such it sees the sprites that
//! it made, and no others. There is no token that could be read or taken along. Only the routes of [`is_passed`] lead
//! on; a route that comes to the public API later is closed here until somebody adds it.
//!
//! The permission is asked with each request, and watched while the connection lasts: when it goes, the connection is
//! cut off with all that runs on it.
//!
//! Source: behaviour reference §1.13.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::uri::{PathAndQuery, Uri};
use axum::http::{Method, header};
use axum::response::Response;
use sprite_api::inside::{Org, Orgs};
use sprite_api::{ErrorBody, ErrorKind};
use sprite_host::{Host, Principal, Sprite, Watch, WatchEvent, Who};
use sprite_types::SpriteId;
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use super::Me;
use crate::answer;
use crate::auth::Caller;
use crate::problem::{Answer, Problem};
use crate::routes::App;

/// Where the paths begin that are of the public API.
pub(super) const PREFIX: &str = "/v1/orgs/";

/// Of a connection that may be cut off.
#[derive(Debug, Clone)]
pub(super) struct Leash {
    over: CancellationToken,
    /// Whether the permission is watched already.
    held: Arc<AtomicBool>,
}

impl Leash {
    /// Of the connection whose end, for whatever reason, is `over`.
    pub(super) fn new(over: CancellationToken) -> Self {
        Self {
            over,
            held: Arc::default(),
        }
    }

    /// Watches from now on, until the connection ends.
    fn hold(&self, host: &Host, sprite: &Sprite) {
        if self.held.swap(true, Ordering::Relaxed) {
            return;
        }
        let (host, over, id) = (host.clone(), self.over.clone(), sprite.id);
        let watch = host.watch(&sprite.org);
        tokio::spawn(async move {
            tokio::select! {
                () = until_closed(&host, watch, id) => over.cancel(),
                () = over.cancelled() => {}
            }
        });
    }
}

/// Returns when the sprite may not use the API any more.
async fn until_closed(host: &Host, mut watch: Watch, id: SpriteId) {
    while let Some(event) = watch.next().await {
        let concerns = match event {
            WatchEvent::Changed { sprite, .. } | WatchEvent::Gone { sprite, .. } => sprite.id == id,
            WatchEvent::Missed => true,
        };
        // What events say of settings may be old.
        if concerns && !may(host, id).await {
            return;
        }
    }
}

/// Whether a sprite may, now. What cannot be read is not allowed.
async fn may(host: &Host, id: SpriteId) -> bool {
    let sprite = host.sprite_by_id(id).await;
    sprite.is_ok_and(|sprite| sprite.api_access)
}

/// Show the organization whose API the sprite may use
///
/// Below `/v1/orgs/{org}/sprites` are the routes of the public API below `/v1/sprites`, for the sprites that this one
/// made.
#[utoipa::path(
    get, path = "/v1/orgs", tag = "orgs", operation_id = "list_orgs",
    responses(
        (status = 200, description = "One", body = Orgs),
        (status = 403, description = "The sprite may not make sprites", body = ErrorBody),
        (status = 404, description = "The sprite is no more", body = ErrorBody),
    )
)]
pub(crate) async fn list(Me(sprite): Me) -> Answer<Response> {
    if !sprite.api_access {
        return Err(Problem::no_access());
    }
    let slug = sprite.org_slug.to_string();
    let name = slug.clone();
    Ok(answer::ok(&Orgs {
        orgs: vec![Org { slug, name }],
    }))
}

/// Passes a request on to the public API.
pub(super) async fn pass(
    State(app): State<App>,
    Me(sprite): Me,
    mut public: Router,
    mut request: Request,
) -> Answer<Response> {
    let leash = request.extensions().get::<Leash>().cloned();
    let leash = leash.ok_or_else(Problem::no_access)?;
    // First watched, then asked: nothing that happens between is missed.
    leash.hold(&app.host, &sprite);
    if !may(&app.host, sprite.id).await {
        return Err(Problem::no_access());
    }
    *request.uri_mut() = target(request.method(), request.uri(), sprite.org_slug.as_str())?;
    // It says nothing here, and must not be taken to.
    request.headers_mut().remove(header::AUTHORIZATION);
    request.extensions_mut().insert(Caller(Principal {
        org: sprite.org,
        slug: sprite.org_slug,
        who: Who::Sprite(sprite.id),
    }));
    match public.call(request).await {
        Ok(response) => Ok(response),
        Err(never) => match never {},
    }
}

/// What a request is for in the public API.
fn target(method: &Method, uri: &Uri, slug: &str) -> Answer<Uri> {
    let behind = uri.path().strip_prefix(PREFIX).unwrap_or_default();
    let (org, path) = behind.split_once('/').unwrap_or((behind, ""));
    if org != slug {
        return Err(Problem::new(ErrorKind::NotFound, "organization not found"));
    }
    let segments: Vec<&str> = path.trim_end_matches('/').split('/').collect();
    if !is_passed(method, &segments) {
        let message = format!("{method} /{path} is not for programs in a sprite");
        return Err(Problem::new(ErrorKind::Forbidden, message)
            .with_hint("/.sprite/docs/api.md tells what is"));
    }
    let query = uri.query().map(|query| format!("?{query}"));
    let target = format!("/v1/{path}{}", query.unwrap_or_default());
    let target: PathAndQuery = target
        .parse()
        .map_err(|_| Problem::new(ErrorKind::Invalid, "the path cannot be read"))?;
    Ok(Uri::from(target))
}

/// Whether a request is passed on. What a sprite may, who sees its URL and what holds for its network is decided
/// outside.
fn is_passed(method: &Method, segments: &[&str]) -> bool {
    let one_of = |known: &[Method]| known.contains(method);
    match segments {
        ["sprites"] => one_of(&[Method::GET, Method::POST]),
        ["sprites", name] if !name.is_empty() => {
            one_of(&[Method::GET, Method::PUT, Method::DELETE])
        }
        ["sprites", _, "policy", _] => one_of(&[Method::GET]),
        [
            "sprites",
            _,
            "check" | "restart" | "exec" | "control" | "proxy" | "ports" | "fs" | "tasks"
            | "services" | "checkpoint" | "checkpoints",
            ..,
        ] => true,
        [..] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(method: Method, path: &str) -> Option<String> {
        let uri: Uri = path.parse().expect("a path");
        target(&method, &uri, "acme")
            .ok()
            .map(|uri| uri.to_string())
    }

    #[test]
    fn only_what_is_for_sprites_leads_on() {
        for (path, wanted) in [
            ("/v1/orgs/acme/sprites", "/v1/sprites"),
            ("/v1/orgs/acme/sprites/?prefix=a", "/v1/sprites/?prefix=a"),
            (
                "/v1/orgs/acme/sprites/a/exec?cmd=x",
                "/v1/sprites/a/exec?cmd=x",
            ),
            (
                "/v1/orgs/acme/sprites/a/policy/network",
                "/v1/sprites/a/policy/network",
            ),
        ] {
            assert_eq!(passed(Method::GET, path).as_deref(), Some(wanted), "{path}");
        }
        for path in [
            "/v1/orgs/acme",
            "/v1/orgs/acme/",
            "/v1/orgs/other/sprites",
            "/v1/orgs/acme/organization",
            "/v1/orgs/acme/organizations/acme/tokens",
            "/v1/orgs/acme/spritesx",
            "/v1/orgs/acme//v1/sprites",
            "/v1/orgs/acme/sprites/a/unknown",
            "/v1/orgs/acme/sprites//a/b",
            "/v1/orgs/acme/%73prites",
            "/v1/orgs/%61cme/sprites",
            "/v1/orgs/acme/../sprites",
            "/v1/orgs/acme/healthz",
        ] {
            assert_eq!(passed(Method::GET, path), None, "{path}");
        }
        for (method, path) in [
            (Method::POST, "/v1/orgs/acme/sprites/a/policy/network"),
            (Method::DELETE, "/v1/orgs/acme/sprites/a/policy/resources"),
            (Method::POST, "/v1/orgs/acme/sprites/a/upgrade"),
            (Method::DELETE, "/v1/orgs/acme/sprites"),
            (Method::PATCH, "/v1/orgs/acme/sprites/a"),
        ] {
            assert_eq!(passed(method, path), None, "{path}");
        }
    }
}
