//! A sprite leaving and entering rest, each one commit.

use sprite_lifecycle::metering::Reading;
use sprite_types::{Generation, Incarnation, MachineId, SpriteId};
use sqlx::sqlite::{SqliteConnection, SqliteQueryResult};
use time::OffsetDateTime;

use crate::error::{CatalogError, Step};
use crate::recent::Writing;
use crate::row;
use crate::store::Catalog;
use crate::usage;

/// Commits a change that must have met exactly one row; of any other there is nothing left.
async fn commit_one(
    tx: Writing,
    changed: &SqliteQueryResult,
    step: &'static str,
    sprite: SpriteId,
) -> Result<(), CatalogError> {
    if changed.rows_affected() != 1 {
        return Err(CatalogError::Conflict { step, sprite });
    }
    tx.commit().await.step(step)
}

/// What the row must say for a change to be made: whose it is, and of which run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    /// The owner.
    pub generation: Generation,
    /// The run.
    pub incarnation: Incarnation,
}

impl Fence {
    /// The fence of the next run of the same owner.
    #[must_use]
    pub fn next(self) -> Self {
        Self {
            incarnation: self.incarnation.next(),
            ..self
        }
    }
}

impl Catalog {
    /// Announces that a sprite leaves rest: from now on it is running, in its next incarnation, and `machine` may
    /// run. Returns the fence of that run.
    ///
    /// # Errors
    /// [`CatalogError::Conflict`] if the row is not at rest, or not of `fence`.
    ///
    /// # Crash safety
    /// Durable when it returns; only then may the machine be started or thawed.
    pub async fn leave_rest(
        &self,
        sprite: SpriteId,
        fence: Fence,
        machine: MachineId,
        at: OffsetDateTime,
    ) -> Result<Fence, CatalogError> {
        const STEP: &str = "announce the wake";
        let mut tx = self.write(STEP).await?;
        let next = leave(&mut tx, STEP, sprite, fence, machine, at).await?;
        tx.commit().await.step(STEP)?;
        Ok(next)
    }

    /// Records that a new sprite is complete, and that it leaves rest for the first time, in one commit.
    ///
    /// # Errors
    /// [`CatalogError::Conflict`] if it is not being created.
    ///
    /// # Crash safety
    /// Before: a crash undoes the sprite. After: it exists. Its disk must be durable before.
    pub async fn complete_create(
        &self,
        sprite: SpriteId,
        fence: Fence,
        machine: MachineId,
        at: OffsetDateTime,
    ) -> Result<Fence, CatalogError> {
        const STEP: &str = "complete the sprite";
        let mut tx = self.write(STEP).await?;
        let completed =
            sqlx::query("DELETE FROM intents WHERE sprite_id = ? AND operation = 'create'")
                .bind(sprite.to_string())
                .execute(&mut *tx)
                .await
                .step(STEP)?;
        if completed.rows_affected() != 1 {
            return Err(CatalogError::Conflict { step: STEP, sprite });
        }
        let next = leave(&mut tx, STEP, sprite, fence, machine, at).await?;
        tx.commit().await.step(STEP)?;
        Ok(next)
    }

    /// Records that a sprite has no machine any more. `failure` tells why, if that is a failure; `reading` what the
    /// machine used in the end, if that is known.
    ///
    /// # Errors
    /// [`CatalogError::Conflict`] if the row is not of `fence`.
    ///
    /// # Crash safety
    /// Nothing of the machine may be left before.
    pub async fn enter_cold(
        &self,
        sprite: SpriteId,
        fence: Fence,
        failure: Option<&str>,
        at: OffsetDateTime,
        reading: Option<Reading>,
    ) -> Result<(), CatalogError> {
        const STEP: &str = "record the end of the machine";
        let mut tx = self.write(STEP).await?;
        usage::fold(&mut tx, STEP, sprite, at, reading).await?;
        let changed = sqlx::query(
            "UPDATE sprites SET status = 'cold', machine_id = NULL, last_running_at = ?, failure = ? \
             WHERE id = ? AND generation = ? AND incarnation = ?",
        )
        .bind(row::micros(at))
        .bind(failure)
        .bind(sprite.to_string())
        .bind(row::stored(fence.generation.0))
        .bind(row::stored(fence.incarnation.0))
        .execute(&mut *tx)
        .await
        .step(STEP)?;
        commit_one(tx, &changed, STEP, sprite).await
    }

    /// Records that a running sprite fell asleep with its memory kept. `reading`: what its machine has used, if that is
    /// known.
    ///
    /// # Errors
    /// [`CatalogError::Conflict`] if the row is not running, or not of `fence`.
    ///
    /// # Crash safety
    /// The disk must be written, and the machine stand still, before.
    pub async fn enter_warm(
        &self,
        sprite: SpriteId,
        fence: Fence,
        at: OffsetDateTime,
        reading: Option<Reading>,
    ) -> Result<(), CatalogError> {
        const STEP: &str = "record the sleep";
        let mut tx = self.write(STEP).await?;
        usage::fold(&mut tx, STEP, sprite, at, reading).await?;
        let changed = sqlx::query(
            "UPDATE sprites SET status = 'warm', last_running_at = ?, last_warming_at = ? \
             WHERE id = ? AND generation = ? AND incarnation = ? AND status = 'running'",
        )
        .bind(row::micros(at))
        .bind(row::micros(at))
        .bind(sprite.to_string())
        .bind(row::stored(fence.generation.0))
        .bind(row::stored(fence.incarnation.0))
        .execute(&mut *tx)
        .await
        .step(STEP)?;
        commit_one(tx, &changed, STEP, sprite).await
    }

    /// Records why a machine could be neither used nor removed; the row goes on to say that it is there.
    ///
    /// # Errors
    /// [`CatalogError::Conflict`] if the row is not of `fence`.
    pub async fn record_failure(
        &self,
        sprite: SpriteId,
        fence: Fence,
        failure: &str,
    ) -> Result<(), CatalogError> {
        const STEP: &str = "record the failure";
        let mut tx = self.write(STEP).await?;
        let changed = sqlx::query(
            "UPDATE sprites SET failure = ? WHERE id = ? AND generation = ? AND incarnation = ?",
        )
        .bind(failure)
        .bind(sprite.to_string())
        .bind(row::stored(fence.generation.0))
        .bind(row::stored(fence.incarnation.0))
        .execute(&mut *tx)
        .await
        .step(STEP)?;
        commit_one(tx, &changed, STEP, sprite).await
    }

    /// Sets sprites to cold whose machines did not outlive the process that started them. What they used since their
    /// counters were last recorded is not known; until `at` they count as they stood. One commit.
    ///
    /// # Errors
    /// The catalog cannot be written.
    ///
    /// # Crash safety
    /// The driver must have removed what was left of the machines before.
    pub async fn forget_machines(
        &self,
        machines: &[(SpriteId, MachineId)],
        at: OffsetDateTime,
    ) -> Result<(), CatalogError> {
        const STEP: &str = "forget machines that are gone";
        if machines.is_empty() {
            return Ok(());
        }
        let mut tx = self.write(STEP).await?;
        for (sprite, machine) in machines {
            usage::fold(&mut tx, STEP, *sprite, at, None).await?;
            sqlx::query(
                "UPDATE sprites SET status = 'cold', machine_id = NULL, failure = NULL, last_running_at = ? \
                 WHERE id = ? AND machine_id = ?",
            )
            .bind(row::micros(at))
            .bind(sprite.to_string())
            .bind(machine.to_string())
            .execute(&mut *tx)
            .await
            .step(STEP)?;
        }
        tx.commit().await.step(STEP)
    }
}

async fn leave(
    tx: &mut SqliteConnection,
    step: &'static str,
    sprite: SpriteId,
    fence: Fence,
    machine: MachineId,
    at: OffsetDateTime,
) -> Result<Fence, CatalogError> {
    let next = fence.next();
    usage::fold(&mut *tx, step, sprite, at, None).await?;
    let changed = sqlx::query(
        "UPDATE sprites SET status = 'running', incarnation = ?, machine_id = ?, last_running_at = ?, \
         failure = NULL WHERE id = ? AND generation = ? AND incarnation = ? AND status <> 'running'",
    )
    .bind(row::stored(next.incarnation.0))
    .bind(machine.to_string())
    .bind(row::micros(at))
    .bind(sprite.to_string())
    .bind(row::stored(fence.generation.0))
    .bind(row::stored(fence.incarnation.0))
    .execute(&mut *tx)
    .await
    .step(step)?;
    if changed.rows_affected() != 1 {
        return Err(CatalogError::Conflict { step, sprite });
    }
    Ok(next)
}
