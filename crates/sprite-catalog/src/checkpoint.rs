//! Checkpoints: states of a sprite's disk that it can go back to.
//!
//! A row is there before the file, and goes after it: what has a file and is not kept is told by
//! [`Catalog::unfinished_checkpoints`]. Numbers are never given twice.

use sprite_types::{CheckpointId, SpriteId};
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use time::OffsetDateTime;

use crate::error::{CatalogError, Step};
use crate::row;
use crate::store::Catalog;

/// A checkpoint that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// What it is called.
    pub id: CheckpointId,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// The checkpoint that this state goes back to.
    pub source: Option<CheckpointId>,
    /// What it is for.
    pub comment: String,
}

/// The checkpoints of a sprite.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Checkpoints {
    /// Those that are kept, the newest first.
    pub all: Vec<Checkpoint>,
    /// The one that the disk as it is now goes back to.
    pub source: Option<CheckpointId>,
}

/// A restore that was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restore {
    /// The state that the disk gets.
    pub to: CheckpointId,
    /// What the state that it had is kept as.
    pub kept: CheckpointId,
}

/// Why a checkpoint or a restore was not begun. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum BeginCheckpointError {
    /// There is no such sprite (any more).
    #[error("find the sprite")]
    NoSprite,
    /// The sprite has as many checkpoints as it may.
    #[error("sprite has {0} checkpoints, which is its limit")]
    TooMany(u32),
    /// The catalog cannot be written.
    #[error("record the checkpoint")]
    Catalog(#[from] CatalogError),
}

/// Why a restore was not begun. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum BeginRestoreError {
    /// The sprite has no such checkpoint.
    #[error("sprite has no checkpoint {0}")]
    NotFound(CheckpointId),
    /// Another restore was begun and has not ended.
    #[error("the sprite is being restored to {0}")]
    UnderWay(CheckpointId),
    /// The catalog cannot be written.
    #[error("record the restore")]
    Catalog(#[from] CatalogError),
}

/// Why a checkpoint stays. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum DropCheckpointError {
    /// The sprite has no such checkpoint.
    #[error("sprite has no checkpoint {0}")]
    NotFound(CheckpointId),
    /// The disk as it is now goes back to it, or is about to.
    #[error("the sprite stands on checkpoint {0}")]
    InUse(CheckpointId),
    /// The catalog cannot be written.
    #[error("delete the checkpoint")]
    Catalog(#[from] CatalogError),
}

const KEPT: &str = "SELECT id, created_at, source, comment FROM checkpoints WHERE sprite_id = ? AND state = 'kept' \
                    ORDER BY created_at DESC, id DESC";
const RESTORE: &str = "SELECT checkpoint, kept FROM restores WHERE sprite_id = ?";

fn read(row: &SqliteRow) -> Result<Checkpoint, CatalogError> {
    Ok(Checkpoint {
        id: row::parsed(row, "id")?,
        created_at: row::time(row, "created_at")?,
        source: row::optional_parsed(row, "source")?,
        comment: row::text(row, "comment")?,
    })
}

fn restore(row: &SqliteRow) -> Result<Restore, CatalogError> {
    Ok(Restore {
        to: row::parsed(row, "checkpoint")?,
        kept: row::parsed(row, "kept")?,
    })
}

impl Catalog {
    /// The checkpoints of a sprite that are kept.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub async fn checkpoints(&self, sprite: SpriteId) -> Result<Checkpoints, CatalogError> {
        const STEP: &str = "list checkpoints";
        // One view of both.
        let mut tx = self.reader.begin().await.step(STEP)?;
        let rows = sqlx::query(KEPT)
            .bind(sprite.to_string())
            .fetch_all(&mut *tx)
            .await
            .step(STEP)?;
        let source = source(&mut tx, sprite).await?;
        let all = rows.iter().map(read).collect::<Result<_, _>>()?;
        Ok(Checkpoints { all, source })
    }

    /// Announces a checkpoint, of at most `limit` that somebody asked for, and gives it its number.
    ///
    /// # Errors
    /// Nothing was announced.
    ///
    /// # Crash safety
    /// From here on it is unfinished: the next start removes it.
    pub async fn begin_checkpoint(
        &self,
        sprite: SpriteId,
        comment: &str,
        at: OffsetDateTime,
        limit: u32,
    ) -> Result<CheckpointId, BeginCheckpointError> {
        const STEP: &str = "announce a checkpoint";
        let mut tx = self.write(STEP).await?;
        let count: i64 = sqlx::query_scalar(
            "SELECT COUNT(*) FROM checkpoints WHERE sprite_id = ? AND id LIKE 'v%'",
        )
        .bind(sprite.to_string())
        .fetch_one(&mut *tx)
        .await
        .step(STEP)?;
        if count >= i64::from(limit) {
            return Err(BeginCheckpointError::TooMany(limit));
        }
        let number = sqlx::query(
            "INSERT INTO checkpoint_lines (sprite_id, asked) SELECT id, 1 FROM sprites WHERE id = ? \
             ON CONFLICT (sprite_id) DO UPDATE SET asked = asked + 1 RETURNING asked AS number",
        )
        .bind(sprite.to_string())
        .fetch_optional(&mut *tx)
        .await
        .step(STEP)?;
        let number = number.ok_or(BeginCheckpointError::NoSprite)?;
        let id = CheckpointId::Asked(number.try_get("number").step(STEP)?);
        insert(&mut tx, sprite, id, comment, at).await?;
        tx.commit().await.step(STEP)?;
        Ok(id)
    }

    /// Records that a checkpoint's file is durable: it is kept from now on, and the disk goes back to it.
    ///
    /// # Errors
    /// It may be recorded or not. [`CatalogError::Conflict`] if it was not announced, or its sprite is gone.
    ///
    /// # Crash safety
    /// Durable when it returns.
    pub async fn keep_checkpoint(
        &self,
        sprite: SpriteId,
        id: CheckpointId,
        at: OffsetDateTime,
    ) -> Result<(), CatalogError> {
        const STEP: &str = "record a checkpoint";
        let mut tx = self.write(STEP).await?;
        keep(&mut tx, sprite, id, at).await?;
        stand_on(&mut tx, sprite, id).await?;
        tx.commit().await.step(STEP)
    }

    /// Announces that a checkpoint goes; its file may be removed from here on.
    ///
    /// # Errors
    /// Nothing was changed.
    ///
    /// # Crash safety
    /// From here on it is unfinished: the next start removes it.
    pub async fn drop_checkpoint(
        &self,
        sprite: SpriteId,
        id: CheckpointId,
    ) -> Result<(), DropCheckpointError> {
        const STEP: &str = "announce that a checkpoint goes";
        let mut tx = self.write(STEP).await?;
        let restored = under_way(&mut tx, sprite).await?;
        if source(&mut tx, sprite).await? == Some(id) || restored.is_some_and(|it| it.to == id) {
            return Err(DropCheckpointError::InUse(id));
        }
        let dropped = sqlx::query(
            "UPDATE checkpoints SET state = 'going' WHERE sprite_id = ? AND id = ? AND state = 'kept'",
        )
        .bind(sprite.to_string())
        .bind(id.to_string())
        .execute(&mut *tx)
        .await
        .step(STEP)?;
        if dropped.rows_affected() != 1 {
            return Err(DropCheckpointError::NotFound(id));
        }
        Ok(tx.commit().await.step(STEP)?)
    }

    /// Forgets a checkpoint that is not kept and has no file any more. Idempotent.
    ///
    /// # Errors
    /// The catalog cannot be written.
    pub async fn forget_checkpoint(
        &self,
        sprite: SpriteId,
        id: CheckpointId,
    ) -> Result<(), CatalogError> {
        const STEP: &str = "forget a checkpoint";
        let mut tx = self.write(STEP).await?;
        forget(&mut tx, sprite, id).await?;
        tx.commit().await.step(STEP)
    }

    /// The checkpoints that were announced and not finished, but those of restores, in no order that means anything.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub async fn unfinished_checkpoints(
        &self,
    ) -> Result<Vec<(SpriteId, CheckpointId)>, CatalogError> {
        let rows = sqlx::query(
            "SELECT sprite_id, id FROM checkpoints WHERE state <> 'kept' AND NOT EXISTS \
             (SELECT 1 FROM restores WHERE restores.sprite_id = checkpoints.sprite_id AND kept = id) \
             ORDER BY sprite_id, id",
        )
        .fetch_all(&self.reader)
        .await
        .step("list unfinished checkpoints")?;
        rows.iter()
            .map(|row| Ok((row::parsed(row, "sprite_id")?, row::parsed(row, "id")?)))
            .collect()
    }

    /// Announces that the sprite's disk gets the state of a checkpoint, and that its own is kept.
    ///
    /// # Errors
    /// Nothing was announced.
    ///
    /// # Crash safety
    /// From here on the sprite's next boot carries it out.
    pub async fn begin_restore(
        &self,
        sprite: SpriteId,
        to: CheckpointId,
        at: OffsetDateTime,
    ) -> Result<Restore, BeginRestoreError> {
        const STEP: &str = "announce a restore";
        let mut tx = self.write(STEP).await?;
        if let Some(other) = under_way(&mut tx, sprite).await? {
            return Err(BeginRestoreError::UnderWay(other.to));
        }
        let found = sqlx::query(
            "SELECT 1 FROM checkpoints WHERE sprite_id = ? AND id = ? AND state = 'kept'",
        )
        .bind(sprite.to_string())
        .bind(to.to_string())
        .fetch_optional(&mut *tx)
        .await
        .step(STEP)?;
        if found.is_none() {
            return Err(BeginRestoreError::NotFound(to));
        }
        let number = sqlx::query(
            "UPDATE checkpoint_lines SET automatic = automatic + 1 WHERE sprite_id = ? \
             RETURNING automatic AS number",
        )
        .bind(sprite.to_string())
        .fetch_one(&mut *tx)
        .await
        .step(STEP)?;
        let kept = CheckpointId::Automatic(number.try_get("number").step(STEP)?);
        let comment = format!("Before restoring {to}");
        insert(&mut tx, sprite, kept, &comment, at).await?;
        sqlx::query(
            "INSERT INTO restores (sprite_id, checkpoint, kept, created_at) VALUES (?, ?, ?, ?)",
        )
        .bind(sprite.to_string())
        .bind(to.to_string())
        .bind(kept.to_string())
        .bind(row::micros(at))
        .execute(&mut *tx)
        .await
        .step(STEP)?;
        tx.commit().await.step(STEP)?;
        Ok(Restore { to, kept })
    }

    /// The restore of a sprite that was begun and has not ended.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub async fn restore_under_way(
        &self,
        sprite: SpriteId,
    ) -> Result<Option<Restore>, CatalogError> {
        let found = sqlx::query(RESTORE)
            .bind(sprite.to_string())
            .fetch_optional(&self.reader)
            .await
            .step("look for a restore")?;
        found.as_ref().map(restore).transpose()
    }

    /// The sprites whose restore was begun and has not ended, the first begun first.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub async fn restores(&self) -> Result<Vec<SpriteId>, CatalogError> {
        let rows = sqlx::query("SELECT sprite_id FROM restores ORDER BY created_at, sprite_id")
            .fetch_all(&self.reader)
            .await
            .step("list restores")?;
        rows.iter()
            .map(|row| row::parsed(row, "sprite_id"))
            .collect()
    }

    /// Records that the disk has the state that a restore was begun for, and that its own is kept.
    ///
    /// # Errors
    /// It may be recorded or not. [`CatalogError::Conflict`] if that restore is not under way.
    ///
    /// # Crash safety
    /// Durable when it returns.
    pub async fn finish_restore(
        &self,
        sprite: SpriteId,
        restore: Restore,
        at: OffsetDateTime,
    ) -> Result<(), CatalogError> {
        const STEP: &str = "record a restore";
        let mut tx = self.write(STEP).await?;
        end_restore(&mut tx, sprite, restore, STEP).await?;
        keep(&mut tx, sprite, restore.kept, at).await?;
        stand_on(&mut tx, sprite, restore.to).await?;
        tx.commit().await.step(STEP)
    }

    /// Takes a restore back, and keeps the state that the disk had when it was carried out.
    ///
    /// # Errors
    /// It may be recorded or not. [`CatalogError::Conflict`] if that restore is not under way.
    ///
    /// # Crash safety
    /// Durable when it returns.
    pub async fn keep_of_restore(
        &self,
        sprite: SpriteId,
        restore: Restore,
        at: OffsetDateTime,
    ) -> Result<(), CatalogError> {
        const STEP: &str = "take a restore back";
        let mut tx = self.write(STEP).await?;
        end_restore(&mut tx, sprite, restore, STEP).await?;
        keep(&mut tx, sprite, restore.kept, at).await?;
        tx.commit().await.step(STEP)
    }

    /// Takes a restore back of which nothing is left.
    ///
    /// # Errors
    /// It may be taken back or not. [`CatalogError::Conflict`] if that restore is not under way.
    ///
    /// # Crash safety
    /// Durable when it returns.
    pub async fn abandon_restore(
        &self,
        sprite: SpriteId,
        restore: Restore,
    ) -> Result<(), CatalogError> {
        const STEP: &str = "take a restore back";
        let mut tx = self.write(STEP).await?;
        end_restore(&mut tx, sprite, restore, STEP).await?;
        forget(&mut tx, sprite, restore.kept).await?;
        tx.commit().await.step(STEP)
    }
}

async fn insert(
    tx: &mut SqliteConnection,
    sprite: SpriteId,
    id: CheckpointId,
    comment: &str,
    at: OffsetDateTime,
) -> Result<(), CatalogError> {
    sqlx::query(
        "INSERT INTO checkpoints (sprite_id, id, state, created_at, comment) VALUES (?, ?, 'making', ?, ?)",
    )
    .bind(sprite.to_string())
    .bind(id.to_string())
    .bind(row::micros(at))
    .bind(comment)
    .execute(tx)
    .await
    .step("announce a checkpoint")
    .map(drop)
}

/// Goes back to what the disk goes back to now.
async fn keep(
    tx: &mut SqliteConnection,
    sprite: SpriteId,
    id: CheckpointId,
    at: OffsetDateTime,
) -> Result<(), CatalogError> {
    const STEP: &str = "record a checkpoint";
    let kept = sqlx::query(
        "UPDATE checkpoints SET state = 'kept', created_at = ?, source = \
         (SELECT source FROM checkpoint_lines WHERE checkpoint_lines.sprite_id = checkpoints.sprite_id) \
         WHERE sprite_id = ? AND id = ? AND state = 'making'",
    )
    .bind(row::micros(at))
    .bind(sprite.to_string())
    .bind(id.to_string())
    .execute(tx)
    .await
    .step(STEP)?;
    match kept.rows_affected() {
        1 => Ok(()),
        _ => Err(CatalogError::Conflict { step: STEP, sprite }),
    }
}

async fn forget(
    tx: &mut SqliteConnection,
    sprite: SpriteId,
    id: CheckpointId,
) -> Result<(), CatalogError> {
    sqlx::query("DELETE FROM checkpoints WHERE sprite_id = ? AND id = ? AND state <> 'kept'")
        .bind(sprite.to_string())
        .bind(id.to_string())
        .execute(tx)
        .await
        .step("forget a checkpoint")
        .map(drop)
}

async fn stand_on(
    tx: &mut SqliteConnection,
    sprite: SpriteId,
    id: CheckpointId,
) -> Result<(), CatalogError> {
    sqlx::query("UPDATE checkpoint_lines SET source = ? WHERE sprite_id = ?")
        .bind(id.to_string())
        .bind(sprite.to_string())
        .execute(tx)
        .await
        .step("record what a disk goes back to")
        .map(drop)
}

async fn source(
    tx: &mut SqliteConnection,
    sprite: SpriteId,
) -> Result<Option<CheckpointId>, CatalogError> {
    let found = sqlx::query("SELECT source FROM checkpoint_lines WHERE sprite_id = ?")
        .bind(sprite.to_string())
        .fetch_optional(tx)
        .await
        .step("look what a disk goes back to")?;
    match &found {
        Some(row) => row::optional_parsed(row, "source"),
        None => Ok(None),
    }
}

async fn under_way(
    tx: &mut SqliteConnection,
    sprite: SpriteId,
) -> Result<Option<Restore>, CatalogError> {
    let found = sqlx::query(RESTORE)
        .bind(sprite.to_string())
        .fetch_optional(tx)
        .await
        .step("look for a restore")?;
    found.as_ref().map(restore).transpose()
}

async fn end_restore(
    tx: &mut SqliteConnection,
    sprite: SpriteId,
    restore: Restore,
    step: &'static str,
) -> Result<(), CatalogError> {
    let ended =
        sqlx::query("DELETE FROM restores WHERE sprite_id = ? AND checkpoint = ? AND kept = ?")
            .bind(sprite.to_string())
            .bind(restore.to.to_string())
            .bind(restore.kept.to_string())
            .execute(tx)
            .await
            .step(step)?;
    match ended.rows_affected() {
        1 => Ok(()),
        _ => Err(CatalogError::Conflict { step, sprite }),
    }
}
