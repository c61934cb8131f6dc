//! Sprites: reserving a name, looking up, changing settings.

use std::collections::BTreeMap;

use sprite_types::{
    DriverKind, Generation, Incarnation, Label, MachineId, OrgId, OrgSlug, Resources, SpriteId,
    SpriteName, SpriteStatus,
};
use sqlx::sqlite::SqliteConnection;
use time::OffsetDateTime;

use crate::error::{CatalogError, Step};
use crate::policy;
use crate::record::read;
use crate::row;
use crate::service;
use crate::settings::{Connections, IdleTimeout, Idleness, PrivateAccess, UrlAuth};
use crate::store::Catalog;
use crate::transition::Fence;
use crate::usage;

/// A sprite as it is in the catalog. A picture of one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sprite {
    /// Its id, never used again.
    pub id: SpriteId,
    /// Its name, unique in its organisation.
    pub name: SpriteName,
    /// Its organisation.
    pub org: OrgId,
    /// Its organisation's name.
    pub org_slug: OrgSlug,
    /// What it does.
    pub status: SpriteStatus,
    /// Which driver makes its machines; fixed at its creation.
    pub driver: DriverKind,
    /// The base image that its disk was cloned from, as the pool spells its id.
    pub image: String,
    /// Its labels, in the order given.
    pub labels: Vec<Label>,
    /// Who may use its URL.
    pub url_auth: UrlAuth,
    /// Which people of the organisation its URL is for.
    pub private_access: PrivateAccess,
    /// How much of the host its machine may use.
    pub resources: Resources,
    /// Variables of every session.
    pub environment: BTreeMap<String, String>,
    /// When it is idle.
    pub idleness: Idleness,
    /// Whether programs in it may make sprites of their own.
    pub api_access: bool,
    /// The sprite that made it, which may be gone; `None`: a token did.
    pub made_by: Option<SpriteId>,
    /// Which owner may write its durable state.
    pub generation: Generation,
    /// How often it has run.
    pub incarnation: Incarnation,
    /// Its machine while it is running or warm.
    pub machine: Option<MachineId>,
    /// When it was created.
    pub created_at: OffsetDateTime,
    /// When its settings last changed.
    pub updated_at: OffsetDateTime,
    /// When it last began or ceased to run.
    pub last_running_at: Option<OffsetDateTime>,
    /// When it last fell asleep with its memory kept.
    pub last_warming_at: Option<OffsetDateTime>,
    /// Why its last wake or stop failed, until one succeeds.
    pub failure: Option<String>,
}

impl Sprite {
    /// What a change of this row starts from.
    #[must_use]
    pub fn fence(&self) -> Fence {
        Fence {
            generation: self.generation,
            incarnation: self.incarnation,
        }
    }
}

/// What a row is made from.
#[derive(Debug, Clone)]
pub struct NewSprite {
    /// Its id.
    pub id: SpriteId,
    /// Its organisation.
    pub org: OrgId,
    /// Its name.
    pub name: SpriteName,
    /// Which driver makes its machines.
    pub driver: DriverKind,
    /// The base image of its disk.
    pub image: String,
    /// Its labels.
    pub labels: Vec<Label>,
    /// Who may use its URL.
    pub url_auth: UrlAuth,
    /// Which people of the organisation its URL is for.
    pub private_access: PrivateAccess,
    /// How much of the host its machine may use.
    pub resources: Resources,
    /// Variables of every session.
    pub environment: BTreeMap<String, String>,
    /// When it is idle.
    pub idleness: Idleness,
    /// Whether programs in it may make sprites of their own.
    pub api_access: bool,
    /// The sprite that makes it, if one does. It begins under the policies of that sprite.
    pub maker: Option<Maker>,
    /// The sprite of which it is a fork. It begins with the services of that one, and under its policies alone.
    pub fork_of: Option<SpriteId>,
    /// When it is created.
    pub at: OffsetDateTime,
}

/// A sprite that makes another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Maker {
    /// Which.
    pub sprite: SpriteId,
    /// How many it may have made that are still there.
    pub most: u64,
}

/// Why a row was not made.
#[derive(Debug, thiserror::Error)]
pub enum InsertError {
    /// The organisation has a sprite of that name.
    #[error("name {0} is taken")]
    NameTaken(SpriteName),
    /// The organisation has as many sprites as it may.
    #[error("organisation has {0} sprites, which is its limit")]
    TooMany(u64),
    /// The sprite that makes it has made as many as it may.
    #[error("sprite has made {0} sprites, which is its limit")]
    MadeTooMany(u64),
    /// The sprite that makes it is gone, or may not make any.
    #[error("let sprite {0} make a sprite")]
    MayNotMake(SpriteId),
    /// There is no such organisation.
    #[error("find organisation {0}")]
    Organisation(OrgId),
    /// The catalog cannot be written.
    #[error("record the sprite")]
    Catalog(#[from] CatalogError),
}

/// Settings to change; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Who may use the URL.
    pub url_auth: Option<UrlAuth>,
    /// Which people of the organisation the URL is for.
    pub private_access: Option<PrivateAccess>,
    /// All labels, in place of those there are; an empty list clears them.
    pub labels: Option<Vec<Label>>,
    /// How long it runs on that nobody uses.
    pub idle_timeout: Option<IdleTimeout>,
    /// Which connections keep it awake.
    pub connections: Option<Connections>,
    /// Whether programs in it may make sprites of their own.
    pub api_access: Option<bool>,
}

const BY_ID: &str = "SELECT s.*, o.slug AS org_slug FROM sprites s JOIN organisations o ON o.id = s.org_id \
                     WHERE s.id = ?";
const BY_NAME: &str = "SELECT s.*, o.slug AS org_slug FROM sprites s JOIN organisations o ON o.id = s.org_id \
                       WHERE s.org_id = ? AND s.name = ?";
const LONGEST_WARM: &str = "SELECT id FROM sprites WHERE status = 'warm' AND driver = ? \
                            ORDER BY last_warming_at LIMIT ?";
const COUNT: &str = "SELECT COUNT(*) FROM sprites WHERE org_id = ?";
const MAY_MAKE: &str = "SELECT api_access FROM sprites WHERE id = ? AND org_id = ?";
const COUNT_MADE: &str = "SELECT COUNT(*) FROM sprites WHERE made_by = ?";

impl Catalog {
    /// Reserves a name: makes the row of a new sprite, cold and in its zeroth incarnation, and the intent to create
    /// it. Of any number of callers with one name, one wins.
    ///
    /// # Errors
    /// Nothing was recorded.
    ///
    /// # Crash safety
    /// Durable when it returns; only then may a disk be made.
    pub async fn insert_sprite(&self, new: &NewSprite, limit: u64) -> Result<Sprite, InsertError> {
        const STEP: &str = "record a sprite";
        let mut tx = self.write(STEP).await?;
        let count: i64 = sqlx::query_scalar(COUNT)
            .bind(new.org.as_str())
            .fetch_one(&mut *tx)
            .await
            .step(STEP)?;
        let taken = sqlx::query("SELECT 1 FROM sprites WHERE org_id = ? AND name = ?")
            .bind(new.org.as_str())
            .bind(new.name.as_str())
            .fetch_optional(&mut *tx)
            .await
            .step(STEP)?;
        if taken.is_some() {
            return Err(InsertError::NameTaken(new.name.clone()));
        }
        if count >= row::stored(limit) {
            return Err(InsertError::TooMany(limit));
        }
        if let Some(maker) = new.maker {
            check_maker(&mut tx, maker, &new.org).await?;
        }
        insert(&mut tx, new).await?;
        let recorded = sqlx::query(BY_ID)
            .bind(new.id.to_string())
            .fetch_optional(&mut *tx)
            .await
            .step(STEP)?
            .ok_or_else(|| InsertError::Organisation(new.org.clone()))?;
        sqlx::query(
            "INSERT INTO intents (sprite_id, operation, created_at) VALUES (?, 'create', ?)",
        )
        .bind(new.id.to_string())
        .bind(row::micros(new.at))
        .execute(&mut *tx)
        .await
        .step(STEP)?;
        if let Some(like) = new.fork_of.or(new.maker.map(|maker| maker.sprite)) {
            policy::inherit(&mut tx, like, new.id, new.at).await?;
        }
        if let Some(source) = new.fork_of {
            service::copy(&mut tx, source, new.id, new.at).await?;
        }
        usage::begin(&mut tx, STEP, new.id, new.at).await?;
        let sprite = read(&recorded)?;
        tx.commit().await.step(STEP)?;
        Ok(sprite)
    }

    /// The sprite of that name.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub async fn sprite_named(
        &self,
        org: &OrgId,
        name: &SpriteName,
    ) -> Result<Option<Sprite>, CatalogError> {
        let look_up = async {
            let row = sqlx::query(BY_NAME)
                .bind(org.as_str())
                .bind(name.as_str())
                .fetch_optional(&self.reader)
                .await
                .step("look a sprite up")?;
            row.as_ref().map(read).transpose()
        };
        let key = (org.clone(), name.clone());
        self.recent.named.get(key, look_up).await
    }

    /// The sprite of that id.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub async fn sprite(&self, id: SpriteId) -> Result<Option<Sprite>, CatalogError> {
        let row = sqlx::query(BY_ID)
            .bind(id.to_string())
            .fetch_optional(&self.reader)
            .await
            .step("look a sprite up")?;
        row.as_ref().map(read).transpose()
    }

    /// The sprites of a driver that are warm, at most `limit`: those that have slept for the longest first.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub async fn longest_warm(
        &self,
        driver: DriverKind,
        limit: u32,
    ) -> Result<Vec<SpriteId>, CatalogError> {
        let rows = sqlx::query(LONGEST_WARM)
            .bind(driver.to_string())
            .bind(limit)
            .fetch_all(&self.reader)
            .await
            .step("list warm sprites")?;
        rows.iter().map(|row| row::parsed(row, "id")).collect()
    }

    /// Changes settings; the sprite as it is then, or `None` if there is none of that id.
    ///
    /// # Errors
    /// Nothing was changed.
    pub async fn update_sprite(
        &self,
        id: SpriteId,
        settings: &Settings,
        at: OffsetDateTime,
    ) -> Result<Option<Sprite>, CatalogError> {
        const STEP: &str = "change settings";
        let mut tx = self.write(STEP).await?;
        sqlx::query(
            "UPDATE sprites SET url_auth = COALESCE(?, url_auth), private_access = COALESCE(?, private_access), \
             labels = COALESCE(?, labels), api_access = COALESCE(?, api_access), \
             connections = COALESCE(?, connections), \
             idle_timeout_ms = CASE WHEN ? THEN ? ELSE idle_timeout_ms END, updated_at = ? WHERE id = ?",
        )
        .bind(settings.url_auth.map(UrlAuth::as_str))
        .bind(settings.private_access.map(PrivateAccess::as_str))
        .bind(settings.labels.as_ref().map(words))
        .bind(settings.api_access.map(i64::from))
        .bind(settings.connections.map(Connections::as_str))
        .bind(i64::from(settings.idle_timeout.is_some()))
        .bind(settings.idle_timeout.and_then(IdleTimeout::millis))
        .bind(row::micros(at))
        .bind(id.to_string())
        .execute(&mut *tx)
        .await
        .step(STEP)?;
        let row = sqlx::query(BY_ID)
            .bind(id.to_string())
            .fetch_optional(&mut *tx)
            .await
            .step(STEP)?;
        let sprite = row.as_ref().map(read).transpose()?;
        tx.commit().await.step(STEP)?;
        Ok(sprite)
    }
}

fn words<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value)
        .expect("lists and maps of text have string keys and no failing impls")
}

/// Whether a sprite may make one more, as it is in this very transaction.
async fn check_maker(
    tx: &mut SqliteConnection,
    maker: Maker,
    org: &OrgId,
) -> Result<(), InsertError> {
    const STEP: &str = "look the maker up";
    let may: Option<i64> = sqlx::query_scalar(MAY_MAKE)
        .bind(maker.sprite.to_string())
        .bind(org.as_str())
        .fetch_optional(&mut *tx)
        .await
        .step(STEP)?;
    if may != Some(1) {
        return Err(InsertError::MayNotMake(maker.sprite));
    }
    let made: i64 = sqlx::query_scalar(COUNT_MADE)
        .bind(maker.sprite.to_string())
        .fetch_one(&mut *tx)
        .await
        .step(STEP)?;
    if made >= row::stored(maker.most) {
        return Err(InsertError::MadeTooMany(maker.most));
    }
    Ok(())
}

async fn insert(tx: &mut SqliteConnection, new: &NewSprite) -> Result<(), CatalogError> {
    // Selecting from the organisation makes nothing where there is none.
    sqlx::query(
        "INSERT INTO sprites (id, org_id, name, driver, image, generation, incarnation, status, labels, url_auth, \
         private_access, cpus, memory_mib, storage_gb, pids, environment, idle_timeout_ms, connections, api_access, \
         made_by, created_at, updated_at) \
         SELECT ?, id, ?, ?, ?, 1, ?, 'cold', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ? FROM organisations WHERE id = ?",
    )
    .bind(new.id.to_string())
    .bind(new.name.as_str())
    .bind(new.driver.to_string())
    .bind(&new.image)
    // The disk of a fork was run on already: a first machine's is as its image.
    .bind(i64::from(new.fork_of.is_some()))
    .bind(words(&new.labels))
    .bind(new.url_auth.as_str())
    .bind(new.private_access.as_str())
    .bind(i64::from(new.resources.cpus))
    .bind(i64::from(new.resources.memory_mib))
    .bind(i64::from(new.resources.storage_gb))
    .bind(i64::from(new.resources.pids))
    .bind(words(&new.environment))
    .bind(new.idleness.timeout.millis())
    .bind(new.idleness.connections.as_str())
    .bind(i64::from(new.api_access))
    .bind(new.maker.map(|maker| maker.sprite.to_string()))
    .bind(row::micros(new.at))
    .bind(row::micros(new.at))
    .bind(new.org.as_str())
    .execute(tx)
    .await
    .step("record a sprite")?;
    Ok(())
}

/// With 100,000 sprites a look-up that walks them all takes as long as all others together.
#[cfg(test)]
pub(crate) async fn walks_nothing(query: &'static str, arguments: usize) {
    use sqlx::Row;

    let dir = tempfile::tempdir().expect("a directory");
    let catalog = Catalog::open(&dir.path().join("catalog.db"))
        .await
        .expect("open");
    let explained = format!("EXPLAIN QUERY PLAN {query}");
    let mut explained = sqlx::query(sqlx::AssertSqlSafe(explained));
    for _ in 0..arguments {
        explained = explained.bind("1");
    }
    let plan = explained.fetch_all(&catalog.reader).await.expect("explain");
    let plan: Vec<String> = plan.iter().map(|row| row.get("detail")).collect();
    assert!(!plan.is_empty());
    for step in plan {
        // The partial index of sprites with machines is walked, and holds no other.
        let walks = step.starts_with("SCAN") && !step.contains("sprites_with_machine");
        let sorts = step.contains("TEMP B-TREE");
        assert!(!walks && !sorts, "{query}: {step}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_look_up_walks_the_whole_table() {
        for (query, arguments) in [
            (BY_ID, 1),
            (BY_NAME, 2),
            (COUNT, 1),
            (COUNT_MADE, 1),
            (MAY_MAKE, 2),
        ] {
            walks_nothing(query, arguments).await;
        }
    }
}
