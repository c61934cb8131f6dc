//! Who a token stands for.
//!
//! A token that any process revoked, `sprited token revoke` as well, is refused from the next request on.

use sprite_catalog::{Catalog, Token};
use sprite_types::{OrgId, OrgSlug, TokenId};

use crate::error::{AuthError, TokenError};
use crate::shared;
use crate::sprite::{Principal, Who};

/// Longest token text that is looked at: the longest slug, the ids and the secret are well below.
const LONGEST: usize = 256;

/// Longest description of a token.
const LONGEST_DESCRIPTION: usize = 200;

/// Whose the token is, if it is one and not revoked.
pub(crate) async fn authenticate(catalog: &Catalog, text: &str) -> Result<Principal, AuthError> {
    let shown = Shown::parse(text).ok_or(AuthError::Malformed)?;
    let token = catalog.token(&shown.id).await?.ok_or(AuthError::Unknown)?;
    shown.principal(&token)
}

/// Whom a token of that id stands for, if there is one and it is not revoked. Its secret was shown before.
pub(crate) async fn holder(catalog: &Catalog, id: &TokenId) -> Result<Principal, AuthError> {
    let token = catalog.token(id).await?.ok_or(AuthError::Unknown)?;
    if token.revoked_at.is_some() {
        return Err(AuthError::Unknown);
    }
    Ok(Principal {
        org: token.org.id,
        slug: token.org.slug,
        who: Who::Token(token.id),
    })
}

/// Makes a token.
pub(crate) async fn create(
    catalog: &Catalog,
    org: &OrgSlug,
    description: &str,
) -> Result<String, TokenError> {
    if description.chars().count() > LONGEST_DESCRIPTION {
        return Err(TokenError::Description {
            max: LONGEST_DESCRIPTION,
        });
    }
    let made = catalog
        .create_token(org, description, shared::now())
        .await?;
    Ok(made.text)
}

/// Makes a token useless. Says whether there was one.
pub(crate) async fn revoke(
    catalog: &Catalog,
    org: &OrgId,
    id: &TokenId,
) -> Result<bool, TokenError> {
    Ok(catalog.revoke_token(org, id, shared::now()).await?)
}

/// A token as it was shown: its parts are well formed, nothing else is known.
struct Shown<'t> {
    slug: OrgSlug,
    org: OrgId,
    id: TokenId,
    secret: &'t str,
}

impl<'t> Shown<'t> {
    fn parse(text: &'t str) -> Option<Self> {
        if text.len() > LONGEST {
            return None;
        }
        let mut parts = text.split('/');
        let (slug, org, id, secret) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        Some(Self {
            slug: slug.parse().ok()?,
            org: org.parse().ok()?,
            id: id.parse().ok()?,
            secret,
        })
    }

    fn principal(&self, token: &Token) -> Result<Principal, AuthError> {
        let ours = token.has_secret(self.secret)
            && token.revoked_at.is_none()
            && token.org.id == self.org
            && token.org.slug == self.slug;
        if ours {
            let (org, slug) = (self.org.clone(), self.slug.clone());
            Ok(Principal {
                org,
                slug,
                who: Who::Token(self.id.clone()),
            })
        } else {
            Err(AuthError::Unknown)
        }
    }
}
