//! Policies: what sprites may, where that differs from the default.

use serde::Serialize;
use serde::de::DeserializeOwned;
use sprite_types::{NetworkPolicy, Policies, Privileges, ResourceLimits, SpriteId};
use sqlx::Row;
use sqlx::sqlite::SqliteConnection;
use time::OffsetDateTime;

use crate::error::{CatalogError, Step};
use crate::row;
use crate::store::Catalog;

/// One policy, to be stored in place of the one of its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Policy {
    /// To where the sprite may connect.
    Network(NetworkPolicy),
    /// What its sessions may become.
    Privileges(Privileges),
    /// How much of the host it may use.
    Resources(ResourceLimits),
}

const NETWORK: &str = "network";
const PRIVILEGES: &str = "privileges";
const RESOURCES: &str = "resources";

impl Policy {
    fn stored(&self) -> (&'static str, String) {
        match self {
            Self::Network(policy) => (NETWORK, json(policy)),
            Self::Privileges(policy) => (PRIVILEGES, json(policy)),
            Self::Resources(policy) => (RESOURCES, json(policy)),
        }
    }
}

fn json<T: Serialize>(policy: &T) -> String {
    serde_json::to_string(policy).expect("policies have text keys and no failing impls")
}

const OF_SPRITE: &str = "SELECT kind, policy FROM policies WHERE sprite_id = ?";

impl Catalog {
    /// The policies of a sprite; those that were never stored are the default. So are those of no sprite.
    ///
    /// # Errors
    /// The catalog cannot be read, or holds a policy that this version does not know: it is not guessed at.
    pub async fn policies(&self, sprite: SpriteId) -> Result<Policies, CatalogError> {
        let rows = sqlx::query(OF_SPRITE)
            .bind(sprite.to_string())
            .fetch_all(&self.reader)
            .await
            .step("read policies")?;
        let mut policies = Policies::default();
        for row in &rows {
            let kind: String = row.try_get("kind").step("read policies")?;
            match kind.as_str() {
                NETWORK => policies.network = parsed(row)?,
                PRIVILEGES => policies.privileges = parsed(row)?,
                RESOURCES => policies.resources = parsed(row)?,
                unknown => return Err(row::unreadable("kind", unknown)),
            }
        }
        Ok(policies)
    }

    /// Stores a policy. Says whether there is such a sprite.
    ///
    /// # Errors
    /// Nothing was changed.
    ///
    /// # Crash safety
    /// Durable when it returns.
    pub async fn set_policy(
        &self,
        sprite: SpriteId,
        policy: &Policy,
        at: OffsetDateTime,
    ) -> Result<bool, CatalogError> {
        const STEP: &str = "store a policy";
        let (kind, text) = policy.stored();
        let mut tx = self.write(STEP).await?;
        let stored = sqlx::query(
            "INSERT INTO policies (sprite_id, kind, policy, updated_at) \
             SELECT id, ?, ?, ? FROM sprites WHERE id = ? \
             ON CONFLICT (sprite_id, kind) DO UPDATE SET policy = excluded.policy, updated_at = excluded.updated_at",
        )
        .bind(kind)
        .bind(text)
        .bind(row::micros(at))
        .bind(sprite.to_string())
        .execute(&mut *tx)
        .await
        .step(STEP)?;
        tx.commit().await.step(STEP)?;
        Ok(stored.rows_affected() == 1)
    }
}

/// Stores for a new sprite what holds for the one that makes it.
pub(crate) async fn inherit(
    tx: &mut SqliteConnection,
    maker: SpriteId,
    made: SpriteId,
    at: OffsetDateTime,
) -> Result<(), CatalogError> {
    sqlx::query(
        "INSERT INTO policies (sprite_id, kind, policy, updated_at) \
         SELECT ?, kind, policy, ? FROM policies WHERE sprite_id = ?",
    )
    .bind(made.to_string())
    .bind(row::micros(at))
    .bind(maker.to_string())
    .execute(tx)
    .await
    .step("hand policies on")?;
    Ok(())
}

fn parsed<T: DeserializeOwned>(row: &sqlx::sqlite::SqliteRow) -> Result<T, CatalogError> {
    row::json(row, "policy")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_look_up_walks_all_policies() {
        let dir = tempfile::tempdir().expect("a directory");
        let catalog = Catalog::open(&dir.path().join("catalog.db"))
            .await
            .expect("open");
        let explained = format!("EXPLAIN QUERY PLAN {OF_SPRITE}");
        let plan = sqlx::query(sqlx::AssertSqlSafe(explained))
            .bind("1")
            .fetch_all(&catalog.reader)
            .await
            .expect("explain");
        let plan: Vec<String> = plan.iter().map(|row| row.get("detail")).collect();
        assert!(
            plan.iter().all(|step| step.starts_with("SEARCH")),
            "{plan:?}"
        );
    }
}
