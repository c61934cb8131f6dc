//! Domains of people's own: rows, and nothing that runs.

use sprite_catalog::{Domain, Sprite};
use sprite_types::{CustomDomain, SpriteId};

use crate::error::{DomainError, LookupError};
use crate::host::Host;
use crate::shared;

/// Most domains of one sprite.
pub const MOST_DOMAINS: u32 = 16;

impl Host {
    /// The domains that lead to a sprite, in the order of their names. Does not wake it.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub async fn domains(&self, sprite: SpriteId) -> Result<Vec<Domain>, DomainError> {
        Ok(self.shared().catalog.domains(sprite).await?)
    }

    /// The sprite to which a domain leads, of whichever organisation. Does not wake it.
    ///
    /// # Errors
    /// There is none.
    pub async fn sprite_at(&self, domain: &CustomDomain) -> Result<Sprite, LookupError> {
        let found = self.shared().catalog.sprite_at(domain).await?;
        found.ok_or(LookupError::NotFound)
    }

    /// Has a domain lead to a sprite until it is let go or the sprite is destroyed. Does not wake it.
    ///
    /// # Errors
    /// It leads to another one, or the sprite has [`MOST_DOMAINS`].
    ///
    /// # Crash safety
    /// Durable when it returns.
    pub async fn map_domain(
        &self,
        sprite: SpriteId,
        domain: &CustomDomain,
    ) -> Result<Domain, DomainError> {
        let shared = self.shared();
        let mapped = shared
            .catalog
            .map_domain(sprite, domain, MOST_DOMAINS, shared::now());
        Ok(mapped.await?)
    }

    /// Has a domain lead to a sprite no more. Does not wake it.
    ///
    /// # Errors
    /// It did not.
    pub async fn unmap_domain(
        &self,
        sprite: SpriteId,
        domain: &CustomDomain,
    ) -> Result<(), DomainError> {
        match self.shared().catalog.unmap_domain(sprite, domain).await? {
            true => Ok(()),
            false => Err(DomainError::NotFound),
        }
    }
}
