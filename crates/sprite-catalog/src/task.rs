//! Tasks: a sprite's own reasons to stay awake, each until a moment.
//!
//! A task that has expired is gone for every reader from that moment on; its row goes with a later write.

use sprite_types::{SpriteId, TaskName};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use time::OffsetDateTime;

use crate::error::{CatalogError, Step};
use crate::row;
use crate::store::Catalog;

/// A task as it is in the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Its name, unique in its sprite.
    pub name: TaskName,
    /// When it was created.
    pub started_at: OffsetDateTime,
    /// When it ends by itself.
    pub expires_at: OffsetDateTime,
}

/// Why a task was not recorded. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum PutTaskError {
    /// The sprite has a task of that name, and another end was not asked for.
    #[error("task {0} exists")]
    Taken(TaskName),
    /// The sprite has as many tasks as it may.
    #[error("sprite has {0} tasks, which is its limit")]
    TooMany(u32),
    /// There is no such sprite (any more).
    #[error("find the sprite")]
    NoSprite,
    /// The catalog cannot be written.
    #[error("record the task")]
    Catalog(#[from] CatalogError),
}

/// What happens to a task of that name which is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfTaken {
    /// It stays as it is, and the caller is told.
    Refuse,
    /// It gets the new end, and keeps its beginning.
    Extend,
}

const LIVE: &str = "SELECT name, started_at, expires_at FROM tasks WHERE sprite_id = ? AND expires_at > ? \
                    ORDER BY name";
const NAMED: &str = "SELECT name, started_at, expires_at FROM tasks WHERE sprite_id = ? AND name = ? AND \
                     expires_at > ?";
const LAST_END: &str = "SELECT MAX(expires_at) AS last FROM tasks WHERE sprite_id = ?";
const AWAKE: &str = "SELECT sprite_id FROM tasks WHERE expires_at > ? GROUP BY sprite_id \
                     ORDER BY MIN(started_at), sprite_id";

fn read(row: &SqliteRow) -> Result<Task, CatalogError> {
    Ok(Task {
        name: row::parsed(row, "name")?,
        started_at: row::time(row, "started_at")?,
        expires_at: row::time(row, "expires_at")?,
    })
}

impl Catalog {
    /// The tasks of a sprite that have not expired at `now`, in the order of their names.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub async fn tasks(
        &self,
        sprite: SpriteId,
        now: OffsetDateTime,
    ) -> Result<Vec<Task>, CatalogError> {
        let rows = sqlx::query(LIVE)
            .bind(sprite.to_string())
            .bind(row::micros(now))
            .fetch_all(&self.reader)
            .await
            .step("list tasks")?;
        rows.iter().map(read).collect()
    }

    /// The task of that name, if it has not expired at `now`.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub async fn task(
        &self,
        sprite: SpriteId,
        name: &TaskName,
        now: OffsetDateTime,
    ) -> Result<Option<Task>, CatalogError> {
        let found = sqlx::query(NAMED)
            .bind(sprite.to_string())
            .bind(name.as_str())
            .bind(row::micros(now))
            .fetch_optional(&self.reader)
            .await
            .step("look a task up")?;
        found.as_ref().map(read).transpose()
    }

    /// When the last task of a sprite expires, or did; `None` if none is recorded.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub async fn last_task_end(
        &self,
        sprite: SpriteId,
    ) -> Result<Option<OffsetDateTime>, CatalogError> {
        let found = sqlx::query(LAST_END)
            .bind(sprite.to_string())
            .fetch_one(&self.reader)
            .await
            .step("look for the last task")?;
        row::optional_time(&found, "last")
    }

    /// The sprites with a task that has not expired at `now`, the longest held first.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub async fn sprites_with_tasks(
        &self,
        now: OffsetDateTime,
    ) -> Result<Vec<SpriteId>, CatalogError> {
        let rows = sqlx::query(AWAKE)
            .bind(row::micros(now))
            .fetch_all(&self.reader)
            .await
            .step("list sprites with tasks")?;
        rows.iter()
            .map(|row| row::parsed(row, "sprite_id"))
            .collect()
    }

    /// Records a task from `now` to `expires_at`, of at most `limit` of the sprite; the task as it is then.
    ///
    /// # Errors
    /// Nothing was recorded.
    ///
    /// # Crash safety
    /// Durable when it returns.
    pub async fn put_task(
        &self,
        sprite: SpriteId,
        task: &Task,
        if_taken: IfTaken,
        limit: u32,
    ) -> Result<Task, PutTaskError> {
        const STEP: &str = "record a task";
        let now = row::micros(task.started_at);
        let mut tx = self.write(STEP).await?;
        forget_expired(&mut tx, sprite, now).await?;
        let there = sqlx::query(NAMED)
            .bind(sprite.to_string())
            .bind(task.name.as_str())
            .bind(now)
            .fetch_optional(&mut *tx)
            .await
            .step(STEP)?;
        match (&there, if_taken) {
            (Some(_), IfTaken::Refuse) => return Err(PutTaskError::Taken(task.name.clone())),
            (Some(_), IfTaken::Extend) => {}
            (None, IfTaken::Refuse | IfTaken::Extend) => {
                let count: i64 =
                    sqlx::query_scalar("SELECT COUNT(*) FROM tasks WHERE sprite_id = ?")
                        .bind(sprite.to_string())
                        .fetch_one(&mut *tx)
                        .await
                        .step(STEP)?;
                if count >= i64::from(limit) {
                    return Err(PutTaskError::TooMany(limit));
                }
            }
        }
        // Selecting from the sprite makes nothing where there is none.
        let recorded = sqlx::query(
            "INSERT INTO tasks (sprite_id, name, started_at, expires_at) SELECT id, ?, ?, ? FROM sprites \
             WHERE id = ? ON CONFLICT (sprite_id, name) DO UPDATE SET expires_at = excluded.expires_at",
        )
        .bind(task.name.as_str())
        .bind(now)
        .bind(row::micros(task.expires_at))
        .bind(sprite.to_string())
        .execute(&mut *tx)
        .await
        .step(STEP)?;
        if recorded.rows_affected() != 1 {
            return Err(PutTaskError::NoSprite);
        }
        tx.commit().await.step(STEP)?;
        let started_at = match &there {
            Some(row) => read(row)?.started_at,
            None => task.started_at,
        };
        Ok(Task {
            started_at,
            ..task.clone()
        })
    }

    /// Deletes a task. Says whether there was one that had not expired at `now`.
    ///
    /// # Errors
    /// Nothing was changed.
    ///
    /// # Crash safety
    /// Durable when it returns.
    pub async fn delete_task(
        &self,
        sprite: SpriteId,
        name: &TaskName,
        now: OffsetDateTime,
    ) -> Result<bool, CatalogError> {
        const STEP: &str = "delete a task";
        let mut tx = self.write(STEP).await?;
        forget_expired(&mut tx, sprite, row::micros(now)).await?;
        let deleted = sqlx::query("DELETE FROM tasks WHERE sprite_id = ? AND name = ?")
            .bind(sprite.to_string())
            .bind(name.as_str())
            .execute(&mut *tx)
            .await
            .step(STEP)?;
        tx.commit().await.step(STEP)?;
        Ok(deleted.rows_affected() == 1)
    }

    /// Deletes what expired before `now`, of all sprites.
    ///
    /// # Errors
    /// Nothing was changed.
    pub async fn forget_expired_tasks(&self, now: OffsetDateTime) -> Result<(), CatalogError> {
        const STEP: &str = "delete expired tasks";
        let mut tx = self.write(STEP).await?;
        sqlx::query("DELETE FROM tasks WHERE expires_at <= ?")
            .bind(row::micros(now))
            .execute(&mut *tx)
            .await
            .step(STEP)?;
        tx.commit().await.step(STEP)
    }
}

async fn forget_expired(
    tx: &mut SqliteConnection,
    sprite: SpriteId,
    now: i64,
) -> Result<(), CatalogError> {
    sqlx::query("DELETE FROM tasks WHERE sprite_id = ? AND expires_at <= ?")
        .bind(sprite.to_string())
        .bind(now)
        .execute(tx)
        .await
        .step("delete expired tasks")
        .map(drop)
}
