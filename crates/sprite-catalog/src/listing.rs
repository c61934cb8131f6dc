//! Sprites by the many: pages of them, counts, and those that are active.

use sprite_types::{OrgId, SpriteId, SpriteStatus};
use sqlx::sqlite::SqliteRow;

use crate::error::{CatalogError, Step};
use crate::record::{self, read};
use crate::row;
use crate::sprite::Sprite;
use crate::store::Catalog;

/// Which sprites somebody may know of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Scope {
    /// Those of the organisation.
    #[default]
    Organisation,
    /// Those of the organisation that this sprite made.
    MadeBy(SpriteId),
}

/// How many sprites an organisation has, by status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StatusCounts {
    /// With a machine that runs.
    pub running: u64,
    /// Asleep, memory kept.
    pub warm: u64,
    /// Asleep, disk only.
    pub cold: u64,
}

impl StatusCounts {
    /// All of them.
    #[must_use]
    pub fn total(self) -> u64 {
        self.running + self.warm + self.cold
    }
}

const ACTIVE: &str = "SELECT s.*, o.slug AS org_slug FROM sprites s JOIN organisations o ON o.id = s.org_id \
                      WHERE s.status = 'running' OR (s.status = 'warm' AND s.driver = 'container')";
const PAGE: &str = "SELECT s.*, o.slug AS org_slug FROM sprites s JOIN organisations o ON o.id = s.org_id \
                    WHERE s.org_id = ? AND s.name >= ? AND s.name < ? AND s.name > ? ORDER BY s.name LIMIT ?";

const PAGE_MADE: &str = "SELECT s.*, o.slug AS org_slug FROM sprites s JOIN organisations o ON o.id = s.org_id \
                         WHERE s.made_by = ? AND s.name >= ? AND s.name < ? AND s.name > ? ORDER BY s.name LIMIT ?";

const COUNTS: &str = "SELECT status, sprites FROM sprite_counts WHERE org_id = ?";
const COUNTS_OF_ALL: &str =
    "SELECT status, SUM(sprites) AS sprites FROM sprite_counts GROUP BY status";
const COUNTS_MADE: &str = "SELECT status, COUNT(*) AS sprites FROM sprites WHERE made_by = ? \
                           GROUP BY status";

impl Catalog {
    /// The sprites that have a machine, or may have one: those that run, and those whose memory is kept in their
    /// machine, in the order of their creation. Those that sleep on disk alone are not read, however many they are.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub async fn active_sprites(&self) -> Result<Vec<Sprite>, CatalogError> {
        let rows = sqlx::query(ACTIVE)
            .fetch_all(&self.reader)
            .await
            .step("list active sprites")?;
        let mut sprites: Vec<Sprite> = rows.iter().map(read).collect::<Result<_, _>>()?;
        sprites.sort_by_key(|sprite| (sprite.created_at, sprite.id));
        Ok(sprites)
    }

    /// The ids of all sprites.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub async fn sprite_ids(&self) -> Result<Vec<SpriteId>, CatalogError> {
        let rows = sqlx::query("SELECT id FROM sprites")
            .fetch_all(&self.reader)
            .await
            .step("list sprites")?;
        rows.iter().map(|row| row::parsed(row, "id")).collect()
    }

    /// At most `limit` sprites of an organisation, or of those of a scope, whose names begin with `prefix` and come
    /// behind `after`, in the order of their names.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub async fn sprites(
        &self,
        org: &OrgId,
        scope: Scope,
        prefix: &str,
        after: &str,
        limit: u32,
    ) -> Result<Vec<Sprite>, CatalogError> {
        // '~' sorts behind every character that a name can have: a half-open range of the index, not a pattern.
        let end = format!("{prefix}~");
        let (page, whose) = match scope {
            Scope::Organisation => (PAGE, org.to_string()),
            Scope::MadeBy(maker) => (PAGE_MADE, maker.to_string()),
        };
        let rows = sqlx::query(page)
            .bind(whose)
            .bind(prefix)
            .bind(end)
            .bind(after)
            .bind(i64::from(limit))
            .fetch_all(&self.reader)
            .await
            .step("list sprites")?;
        rows.iter().map(read).collect()
    }

    /// How many sprites an organisation, or a scope of it, has, by status.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub async fn counts(&self, org: &OrgId, scope: Scope) -> Result<StatusCounts, CatalogError> {
        let (counts, whose) = match scope {
            Scope::Organisation => (COUNTS, org.to_string()),
            Scope::MadeBy(maker) => (COUNTS_MADE, maker.to_string()),
        };
        let rows = sqlx::query(counts)
            .bind(whose)
            .fetch_all(&self.reader)
            .await
            .step("count sprites")?;
        sum(&rows)
    }

    /// How many sprites all organisations have, by status.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub async fn all_counts(&self) -> Result<StatusCounts, CatalogError> {
        let rows = sqlx::query(COUNTS_OF_ALL)
            .fetch_all(&self.reader)
            .await
            .step("count all sprites")?;
        sum(&rows)
    }
}

fn sum(rows: &[SqliteRow]) -> Result<StatusCounts, CatalogError> {
    let mut counts = StatusCounts::default();
    for row in rows {
        let count: u64 = row::number(row, "sprites")?;
        match row::parsed::<record::StatusWord>(row, "status")?.0 {
            SpriteStatus::Running => counts.running = count,
            SpriteStatus::Warm => counts.warm = count,
            SpriteStatus::Cold => counts.cold = count,
        }
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_list_walks_the_whole_table() {
        for (query, arguments) in [(PAGE, 5), (PAGE_MADE, 5), (COUNTS, 1), (ACTIVE, 0)] {
            crate::sprite::walks_nothing(query, arguments).await;
        }
    }
}
