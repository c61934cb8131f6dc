//! What was announced and not finished.

use std::fmt;
use std::str::FromStr;

use sprite_types::SpriteId;
use time::OffsetDateTime;

use crate::error::{CatalogError, Step};
use crate::row;
use crate::settings::UnknownWord;
use crate::store::Catalog;
use crate::transition::Fence;

/// An operation that is announced before its first side effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// The sprite is not complete: a crash undoes it.
    Create,
    /// The sprite is going: a crash does not stop it.
    Destroy,
}

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Destroy => "destroy",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Operation {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        match text {
            "create" => Ok(Self::Create),
            "destroy" => Ok(Self::Destroy),
            unknown => Err(UnknownWord::new("operation", unknown)),
        }
    }
}

impl Catalog {
    /// Everything that was announced and not finished.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub async fn intents(&self) -> Result<Vec<(SpriteId, Operation)>, CatalogError> {
        let rows =
            sqlx::query("SELECT sprite_id, operation FROM intents ORDER BY created_at, sprite_id")
                .fetch_all(&self.reader)
                .await
                .step("read intents")?;
        rows.iter()
            .map(|row| {
                Ok((
                    row::parsed(row, "sprite_id")?,
                    row::parsed(row, "operation")?,
                ))
            })
            .collect()
    }

    /// Announces that a sprite is to be destroyed, in place of whatever was announced before. Idempotent.
    ///
    /// # Errors
    /// [`CatalogError::Conflict`] if the row is gone or belongs to another owner.
    ///
    /// # Crash safety
    /// From here on the sprite will be gone, whatever happens.
    pub async fn mark_destroyed(
        &self,
        sprite: SpriteId,
        fence: Fence,
        at: OffsetDateTime,
    ) -> Result<(), CatalogError> {
        const STEP: &str = "announce the end";
        let mut tx = self.write(STEP).await?;
        let announced = sqlx::query(
            "INSERT INTO intents (sprite_id, operation, created_at) \
             SELECT id, ?, ? FROM sprites WHERE id = ? AND generation = ? \
             ON CONFLICT (sprite_id) DO UPDATE SET operation = excluded.operation, created_at = excluded.created_at",
        )
        .bind(Operation::Destroy.as_str())
        .bind(row::micros(at))
        .bind(sprite.to_string())
        .bind(row::stored(fence.generation.0))
        .execute(&mut *tx)
        .await
        .step(STEP)?;
        if announced.rows_affected() != 1 {
            return Err(CatalogError::Conflict { step: STEP, sprite });
        }
        tx.commit().await.step(STEP)
    }

    /// Deletes a sprite's row and its intent: its name is free. Idempotent.
    ///
    /// # Errors
    /// The catalog cannot be written.
    ///
    /// # Crash safety
    /// The last step of a destroy: nothing of the sprite may be left before.
    pub async fn delete_sprite(&self, sprite: SpriteId, fence: Fence) -> Result<(), CatalogError> {
        const STEP: &str = "delete the row";
        let mut tx = self.write(STEP).await?;
        sqlx::query("DELETE FROM sprites WHERE id = ? AND generation = ?")
            .bind(sprite.to_string())
            .bind(row::stored(fence.generation.0))
            .execute(&mut *tx)
            .await
            .step(STEP)?;
        tx.commit().await.step(STEP)
    }
}
