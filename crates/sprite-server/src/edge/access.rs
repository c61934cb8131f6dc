//! Who may pass.
//!
//! Whoever shows nothing is told the same of a private sprite and of none; whoever shows a token of another
//! organisation, the same of a foreign sprite and of none.

use axum::http::{HeaderMap, header};
use sprite_api::ErrorKind;
use sprite_host::{AuthError, LookupError, Principal, Sprite, UrlAuth};

use super::headers::Authorization;
use super::host::Address;
use super::{Edge, cookies};
use crate::auth;
use crate::problem::{Answer, Problem};

/// Somebody who may pass.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) sprite: Sprite,
    /// Whether the token that was shown is for us.
    pub(super) authorization: Authorization,
}

/// Why somebody may not pass.
#[derive(Debug)]
pub(super) enum Refused {
    /// They have not said who they are.
    Stranger,
    /// They have, and there is nothing here for them.
    Known(Problem),
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self::Known(problem)
    }
}

impl Edge {
    /// Lets a request for a sprite pass, or not; for no address there is none. Wakes nothing.
    pub(super) async fn admit(
        &self,
        address: Option<&Address>,
        headers: &HeaderMap,
    ) -> Result<Admitted, Refused> {
        let sprite = match address {
            Some(address) => self.find(address).await?,
            None => None,
        };
        let sprite = match sprite {
            Some(sprite) if sprite.url_auth == UrlAuth::Public => {
                return Ok(Admitted {
                    sprite,
                    authorization: Authorization::Theirs,
                });
            }
            other => other,
        };
        let bearer = self.bearer(headers).await?;
        let browser = match &sprite {
            Some(sprite) => self.browser(sprite, headers).await?,
            None => None,
        };
        let authorization = match bearer {
            Some(_) => Authorization::Ours,
            None => Authorization::Theirs,
        };
        match sprite {
            Some(sprite)
                if [&bearer, &browser]
                    .into_iter()
                    .flatten()
                    .any(|principal| may_open(principal, &sprite)) =>
            {
                Ok(Admitted {
                    sprite,
                    authorization,
                })
            }
            Some(_) | None if bearer.is_none() && browser.is_none() => Err(Refused::Stranger),
            Some(_) | None => Err(Refused::Known(Problem::no_sprite())),
        }
    }

    /// The sprite of an address, private or not.
    pub(super) async fn find(&self, address: &Address) -> Answer<Option<Sprite>> {
        let found = match address {
            Address::Named { name, org } => self.app.host.sprite(org, name).await,
            Address::Domain(domain) => self.app.host.sprite_at(domain).await,
        };
        match found {
            Ok(sprite) => Ok(Some(sprite)),
            Err(LookupError::NotFound) => Ok(None),
            Err(error @ LookupError::Catalog(_)) => Err(error.into()),
        }
    }

    /// Whose token a program shows, if it is one of ours.
    async fn bearer(&self, headers: &HeaderMap) -> Answer<Option<Principal>> {
        if !headers.contains_key(header::AUTHORIZATION) {
            return Ok(None);
        }
        let Ok(token) = auth::bearer(headers) else {
            return Ok(None);
        };
        known(self.app.host.authenticate(token).await)
    }

    /// Who has logged in with the browser that asks.
    async fn browser(&self, sprite: &Sprite, headers: &HeaderMap) -> Answer<Option<Principal>> {
        let name = cookies::name(cookies::SEEN, self.secure());
        for value in cookies::values(headers, &name) {
            let Some(token) = self.keys.seen(value, sprite.id, self.now()) else {
                continue;
            };
            if let Some(principal) = known(self.app.host.holder(&token).await)? {
                return Ok(Some(principal));
            }
        }
        Ok(None)
    }
}

/// Who that is; nobody, if there is no such token.
pub(super) fn known(found: Result<Principal, AuthError>) -> Answer<Option<Principal>> {
    match found {
        Ok(principal) => Ok(Some(principal)),
        Err(AuthError::Malformed | AuthError::Unknown) => Ok(None),
        Err(error @ AuthError::Catalog(_)) => Err(error.into()),
    }
}

/// Whether a sprite's private URL is for the holder of a token. Whoever holds one of an organisation's tokens
/// administers its sprites, and so belongs to both kinds of people for whom a URL can be: `admins` and `org_users`.
pub(super) fn may_open(principal: &Principal, sprite: &Sprite) -> bool {
    principal.sees(sprite)
}

/// What a program is told that has shown nothing.
pub(super) fn stranger() -> Problem {
    Problem::new(ErrorKind::Unauthorized, "this URL is private")
        .with_hint("send the header Authorization: Bearer <token>")
        .with_header(header::CACHE_CONTROL, "no-store")
}
