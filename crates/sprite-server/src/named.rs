//! What a path names.

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use sprite_api::ErrorKind;
use sprite_host::{Principal, Sprite};
use sprite_types::SpriteName;

use crate::auth::Caller;
use crate::problem::{Answer, Problem};
use crate::routes::App;

/// The sprite that a path names, if the caller may know of it.
#[derive(Debug)]
pub(crate) struct Named {
    pub(crate) caller: Principal,
    pub(crate) sprite: Sprite,
}

impl FromRequestParts<App> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Answer<Self> {
        let Caller(caller) = Caller::from_request_parts(parts, app).await?;
        let name = param(parts, "name").await?;
        // What cannot be a name is the name of no sprite.
        let name: SpriteName = name.parse().map_err(|_| Problem::no_sprite())?;
        let sprite = app.host.sprite(&caller.org, &name).await?;
        // What somebody may not know of is not there.
        if !caller.sees(&sprite) {
            return Err(Problem::no_sprite());
        }
        Ok(Self { caller, sprite })
    }
}

/// The session that a path names, as the client wrote it.
#[derive(Debug)]
pub(crate) struct SessionText(pub(crate) String);

impl<S: Sync> FromRequestParts<S> for SessionText {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Answer<Self> {
        param(parts, "session").await.map(Self)
    }
}

/// A parameter of the path, decoded.
///
/// # Errors
/// It is not UTF-8.
pub(crate) async fn param(parts: &mut Parts, key: &str) -> Answer<String> {
    let params = RawPathParams::from_request_parts(parts, &())
        .await
        .map_err(|error| Problem::new(ErrorKind::Invalid, error.body_text()))?;
    let found = params
        .iter()
        .find(|(name, _)| *name == key)
        .map(|(_, value)| value.to_owned());
    found.ok_or_else(|| Problem::new(ErrorKind::NotFound, "no such route"))
}
