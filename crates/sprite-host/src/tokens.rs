//! Who a token stands for, without a query for one that was seen before.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sprite_catalog::{Catalog, Token};
use sprite_types::{OrgId, OrgSlug, TokenId};

use crate::error::{AuthError, TokenError};
use crate::shared;
use crate::sprite::Principal;

/// Tokens kept in memory. Beyond, all are forgotten and looked up again: simple, and rare.
const MOST: usize = 10_000;

/// Longest token text that is looked at: the longest slug, the ids and the secret are well below.
const LONGEST: usize = 256;

/// Longest description of a token.
const LONGEST_DESCRIPTION: usize = 200;

#[derive(Debug, Default)]
pub(crate) struct TokenCache {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    tokens: HashMap<TokenId, Token>,
    /// Grows with every revocation: a look-up that was under way during one is not kept.
    revocations: u64,
}

impl TokenCache {
    fn known(&self) -> MutexGuard<'_, Known> {
        // Nothing panics while holding it.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) async fn authenticate(
        &self,
        catalog: &Catalog,
        text: &str,
    ) -> Result<Principal, AuthError> {
        let shown = Shown::parse(text).ok_or(AuthError::Malformed)?;
        let (cached, revocations) = {
            let known = self.known();
            (
                known
                    .tokens
                    .get(&shown.id)
                    .map(|token| shown.principal(token)),
                known.revocations,
            )
        };
        if let Some(principal) = cached {
            return principal;
        }
        let token = catalog.token(&shown.id).await?.ok_or(AuthError::Unknown)?;
        let principal = shown.principal(&token)?;
        let mut known = self.known();
        if known.revocations == revocations {
            if known.tokens.len() >= MOST {
                known.tokens.clear();
            }
            known.tokens.insert(shown.id, token);
        }
        Ok(principal)
    }

    pub(crate) async fn create(
        &self,
        catalog: &Catalog,
        org: &OrgSlug,
        description: &str,
    ) -> Result<String, TokenError> {
        if description.chars().count() > LONGEST_DESCRIPTION {
            return Err(TokenError::Description {
                max: LONGEST_DESCRIPTION,
            });
        }
        Ok(catalog
            .create_token(org, description, shared::now())
            .await?
            .text)
    }

    pub(crate) async fn revoke(
        &self,
        catalog: &Catalog,
        org: &OrgId,
        id: &TokenId,
    ) -> Result<bool, TokenError> {
        let revoked = catalog.revoke_token(org, id, shared::now()).await?;
        if revoked {
            let mut known = self.known();
            known.revocations += 1;
            known.tokens.remove(id);
        }
        Ok(revoked)
    }
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
                token: self.id.clone(),
            })
        } else {
            Err(AuthError::Unknown)
        }
    }
}
