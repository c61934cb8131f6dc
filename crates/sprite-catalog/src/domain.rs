//! Domains of people's own, each of which leads to one sprite.

use sprite_types::{CustomDomain, SpriteId};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use time::OffsetDateTime;

use crate::error::{CatalogError, Step};
use crate::record::read as read_sprite;
use crate::row;
use crate::sprite::Sprite;
use crate::store::Catalog;

/// A domain as it is in the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain {
    /// The name, which no other sprite of the server has.
    pub name: CustomDomain,
    /// Since when it leads to its sprite.
    pub created_at: OffsetDateTime,
}

/// Why a domain does not lead to a sprite. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum MapDomainError {
    /// It leads to another sprite, of whomever.
    #[error("domain {0} is taken")]
    Taken(CustomDomain),
    /// The sprite has as many as it may.
    #[error("sprite has {0} domains, which is its limit")]
    TooMany(u32),
    /// There is no such sprite (any more).
    #[error("find the sprite")]
    NoSprite,
    /// The catalog cannot be written.
    #[error("record the domain")]
    Catalog(#[from] CatalogError),
}

const ALL: &str = "SELECT domain, created_at FROM domains WHERE sprite_id = ? ORDER BY domain";
const COUNT: &str = "SELECT COUNT(*) FROM domains WHERE sprite_id = ?";
const ONE: &str = "SELECT domain, sprite_id, created_at FROM domains WHERE domain = ?";
const SPRITE: &str = "SELECT s.*, o.slug AS org_slug FROM domains d JOIN sprites s ON s.id = d.sprite_id \
                      JOIN organisations o ON o.id = s.org_id WHERE d.domain = ?";

fn read(row: &SqliteRow) -> Result<Domain, CatalogError> {
    Ok(Domain {
        name: row::parsed(row, "domain")?,
        created_at: row::time(row, "created_at")?,
    })
}

impl Catalog {
    /// The domains of a sprite, in the order of their names.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub async fn domains(&self, sprite: SpriteId) -> Result<Vec<Domain>, CatalogError> {
        let rows = sqlx::query(ALL)
            .bind(sprite.to_string())
            .fetch_all(&self.reader)
            .await
            .step("list domains")?;
        rows.iter().map(read).collect()
    }

    /// The sprite to which a domain leads.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub async fn sprite_at(&self, domain: &CustomDomain) -> Result<Option<Sprite>, CatalogError> {
        let look_up = async {
            let row = sqlx::query(SPRITE)
                .bind(domain.as_str())
                .fetch_optional(&self.reader)
                .await
                .step("look a domain up")?;
            row.as_ref().map(read_sprite).transpose()
        };
        self.recent.at.get(domain.clone(), look_up).await
    }

    /// Has a domain lead to a sprite, as one of at most `limit` of it. One that does already is left as it is. Of any
    /// number of sprites that want one domain, one gets it.
    ///
    /// # Errors
    /// Nothing was recorded.
    ///
    /// # Crash safety
    /// Durable when it returns.
    pub async fn map_domain(
        &self,
        sprite: SpriteId,
        domain: &CustomDomain,
        limit: u32,
        at: OffsetDateTime,
    ) -> Result<Domain, MapDomainError> {
        const STEP: &str = "record a domain";
        let mut tx = self.write(STEP).await?;
        let there = sqlx::query(ONE)
            .bind(domain.as_str())
            .fetch_optional(&mut *tx)
            .await
            .step(STEP)?;
        if let Some(there) = &there {
            let whose: SpriteId = row::parsed(there, "sprite_id")?;
            if whose != sprite {
                return Err(MapDomainError::Taken(domain.clone()));
            }
            return Ok(read(there)?);
        }
        let count = sqlx::query(COUNT)
            .bind(sprite.to_string())
            .fetch_one(&mut *tx)
            .await
            .step(STEP)?;
        let count: i64 = count.try_get(0).step(STEP)?;
        if count >= i64::from(limit) {
            return Err(MapDomainError::TooMany(limit));
        }
        // Selecting from the sprite makes nothing where there is none.
        let recorded = sqlx::query(
            "INSERT INTO domains (domain, sprite_id, created_at) SELECT ?, id, ? FROM sprites WHERE id = ?",
        )
        .bind(domain.as_str())
        .bind(row::micros(at))
        .bind(sprite.to_string())
        .execute(&mut *tx)
        .await
        .step(STEP)?;
        if recorded.rows_affected() != 1 {
            return Err(MapDomainError::NoSprite);
        }
        tx.commit().await.step(STEP)?;
        Ok(Domain {
            name: domain.clone(),
            created_at: at,
        })
    }

    /// Has a domain lead to a sprite no more. Says whether it did.
    ///
    /// # Errors
    /// Nothing was changed.
    ///
    /// # Crash safety
    /// Durable when it returns.
    pub async fn unmap_domain(
        &self,
        sprite: SpriteId,
        domain: &CustomDomain,
    ) -> Result<bool, CatalogError> {
        const STEP: &str = "delete a domain";
        let mut tx = self.write(STEP).await?;
        let deleted = sqlx::query("DELETE FROM domains WHERE domain = ? AND sprite_id = ?")
            .bind(domain.as_str())
            .bind(sprite.to_string())
            .execute(&mut *tx)
            .await
            .step(STEP)?;
        tx.commit().await.step(STEP)?;
        Ok(deleted.rows_affected() == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sprite::walks_nothing;

    #[tokio::test]
    async fn no_look_up_walks_the_whole_table() {
        for query in [ALL, COUNT, ONE, SPRITE] {
            walks_nothing(query, 1).await;
        }
    }
}
