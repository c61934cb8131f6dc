//! Alarms: moments at which a sprite wants to be awake.
//!
//! One that has rung is deleted once the sprite was awake behind it; until then it rings again.

use sprite_types::SpriteId;
use time::OffsetDateTime;

use crate::error::{CatalogError, Step};
use crate::row;
use crate::store::Catalog;

/// Why an alarm was not recorded. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum PutAlarmError {
    /// The sprite has as many alarms as it may.
    #[error("sprite has {0} alarms, which is its limit")]
    TooMany(u32),
    /// There is no such sprite (any more).
    #[error("find the sprite")]
    NoSprite,
    /// The catalog cannot be written.
    #[error("record the alarm")]
    Catalog(#[from] CatalogError),
}

impl Catalog {
    /// The moments at which a sprite wants to be awake, the next one first.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub async fn alarms(&self, sprite: SpriteId) -> Result<Vec<OffsetDateTime>, CatalogError> {
        let rows = sqlx::query("SELECT at FROM alarms WHERE sprite_id = ? ORDER BY at")
            .bind(sprite.to_string())
            .fetch_all(&self.reader)
            .await
            .step("list alarms")?;
        rows.iter().map(|row| row::time(row, "at")).collect()
    }

    /// Records an alarm, of at most `limit` of the sprite. One of the same moment stays as it is.
    ///
    /// # Errors
    /// Nothing was recorded.
    ///
    /// # Crash safety
    /// Durable when it returns.
    pub async fn put_alarm(
        &self,
        sprite: SpriteId,
        at: OffsetDateTime,
        limit: u32,
    ) -> Result<(), PutAlarmError> {
        const STEP: &str = "record an alarm";
        let mut tx = self.write(STEP).await?;
        let others: i64 =
            sqlx::query_scalar("SELECT COUNT(*) FROM alarms WHERE sprite_id = ? AND at <> ?")
                .bind(sprite.to_string())
                .bind(row::micros(at))
                .fetch_one(&mut *tx)
                .await
                .step(STEP)?;
        if others >= i64::from(limit) {
            return Err(PutAlarmError::TooMany(limit));
        }
        // Selecting from the sprite makes nothing where there is none.
        let recorded = sqlx::query(
            "INSERT INTO alarms (sprite_id, at, due_at) SELECT id, ?, ? FROM sprites WHERE id = ? \
             ON CONFLICT (sprite_id, at) DO UPDATE SET due_at = excluded.due_at",
        )
        .bind(row::micros(at))
        .bind(row::micros(at))
        .bind(sprite.to_string())
        .execute(&mut *tx)
        .await
        .step(STEP)?;
        if recorded.rows_affected() != 1 {
            return Err(PutAlarmError::NoSprite);
        }
        tx.commit().await.step(STEP)?;
        Ok(())
    }

    /// Deletes an alarm, or all of the sprite's; how many there were.
    ///
    /// # Errors
    /// Nothing was changed.
    ///
    /// # Crash safety
    /// Durable when it returns.
    pub async fn delete_alarms(
        &self,
        sprite: SpriteId,
        at: Option<OffsetDateTime>,
    ) -> Result<u64, CatalogError> {
        const STEP: &str = "delete alarms";
        let mut tx = self.write(STEP).await?;
        let deleted =
            sqlx::query("DELETE FROM alarms WHERE sprite_id = ?1 AND (?2 IS NULL OR at = ?2)")
                .bind(sprite.to_string())
                .bind(at.map(row::micros))
                .execute(&mut *tx)
                .await
                .step(STEP)?;
        tx.commit().await.step(STEP)?;
        Ok(deleted.rows_affected())
    }

    /// When the next alarm of all sprites is due behind `now`; `None` if there is none.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub async fn next_alarm(
        &self,
        now: OffsetDateTime,
    ) -> Result<Option<OffsetDateTime>, CatalogError> {
        let found = sqlx::query("SELECT MIN(due_at) AS next FROM alarms WHERE due_at > ?")
            .bind(row::micros(now))
            .fetch_one(&self.reader)
            .await
            .step("look for the next alarm")?;
        row::optional_time(&found, "next")
    }

    /// Sprites with an alarm that is due at `now`, each once, at most `limit` of them, the longest due first.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub async fn alarmed_sprites(
        &self,
        now: OffsetDateTime,
        limit: u32,
    ) -> Result<Vec<SpriteId>, CatalogError> {
        let rows = sqlx::query(
            "SELECT sprite_id FROM alarms WHERE due_at <= ? GROUP BY sprite_id ORDER BY MIN(due_at) LIMIT ?",
        )
        .bind(row::micros(now))
        .bind(limit)
        .fetch_all(&self.reader)
        .await
        .step("list sprites with an alarm")?;
        rows.iter()
            .map(|row| row::parsed(row, "sprite_id"))
            .collect()
    }

    /// Deletes the alarms of a sprite that were due at `now`: they have rung.
    ///
    /// # Errors
    /// Nothing was changed.
    ///
    /// # Crash safety
    /// Durable when it returns.
    pub async fn end_alarms(
        &self,
        sprite: SpriteId,
        now: OffsetDateTime,
    ) -> Result<(), CatalogError> {
        const STEP: &str = "delete alarms that have rung";
        let mut tx = self.write(STEP).await?;
        sqlx::query("DELETE FROM alarms WHERE sprite_id = ? AND due_at <= ?")
            .bind(sprite.to_string())
            .bind(row::micros(now))
            .execute(&mut *tx)
            .await
            .step(STEP)?;
        tx.commit().await.step(STEP)
    }

    /// Puts the alarms of a sprite that were due at `now` off: it could not be woken.
    ///
    /// # Errors
    /// Nothing was changed.
    pub async fn put_alarms_off(
        &self,
        sprite: SpriteId,
        now: OffsetDateTime,
        until: OffsetDateTime,
    ) -> Result<(), CatalogError> {
        const STEP: &str = "put alarms off";
        let mut tx = self.write(STEP).await?;
        sqlx::query("UPDATE alarms SET due_at = ? WHERE sprite_id = ? AND due_at <= ?")
            .bind(row::micros(until))
            .bind(sprite.to_string())
            .bind(row::micros(now))
            .execute(&mut *tx)
            .await
            .step(STEP)?;
        tx.commit().await.step(STEP)
    }
}
