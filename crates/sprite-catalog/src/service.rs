//! Services: programs that a sprite keeps running. What they are, and whether a person stopped them; how they are
//! knows the machine alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sprite_types::{ServiceName, ServiceRun, ServiceSpec, ServicesError, SpriteId, check_services};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use time::OffsetDateTime;

use crate::error::{CatalogError, Step};
use crate::row;
use crate::store::Catalog;

/// A service as it is in the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name, unique in its sprite.
    pub name: ServiceName,
    /// What it is.
    pub spec: ServiceSpec,
    /// Whether it is to run.
    pub run: ServiceRun,
}

/// All services of a sprite at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Services {
    /// How often they were changed: 0 for a sprite that never had one.
    pub revision: u64,
    /// In the order of their names.
    pub services: Vec<Service>,
}

impl Services {
    /// Checks whether a change could be made of these.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, change: &ServiceChange) -> Result<(), ServiceChangeError> {
        changed(self.services.clone(), change).map(drop)
    }

    /// The service of that name.
    #[must_use]
    pub fn get(&self, name: &ServiceName) -> Option<&Service> {
        self.services.iter().find(|service| service.name == *name)
    }
}

/// A change of a sprite's services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceChange {
    /// There is a service of that name, this one, and it is to run; so are those that it needs.
    Put(ServiceName, ServiceSpec),
    /// It is to run, and so are those that it needs.
    Start(ServiceName),
    /// It is not to run, until it is started again.
    Stop(ServiceName),
    /// There is none of that name any more.
    Delete(ServiceName),
}

impl ServiceChange {
    /// The service that is changed.
    #[must_use]
    pub fn name(&self) -> &ServiceName {
        match self {
            Self::Put(name, _) | Self::Start(name) | Self::Stop(name) | Self::Delete(name) => name,
        }
    }
}

/// Why services were not changed. Nothing was.
#[derive(Debug, thiserror::Error)]
pub enum ServiceChangeError {
    /// There is none of that name.
    #[error("service {0} does not exist")]
    NotFound(ServiceName),
    /// Another one needs it.
    #[error("service {service} is needed by {by}")]
    Needed {
        /// Which.
        service: ServiceName,
        /// Who needs it.
        by: ServiceName,
    },
    /// They could not be services of one sprite.
    #[error(transparent)]
    Services(#[from] ServicesError),
    /// There is no such sprite (any more).
    #[error("find the sprite")]
    NoSprite,
    /// The catalog cannot be written.
    #[error("record the service")]
    Catalog(#[from] CatalogError),
}

const OF_SPRITE: &str = "SELECT name, spec, run FROM services WHERE sprite_id = ? ORDER BY name";
const REVISION: &str = "SELECT revision FROM service_revisions WHERE sprite_id = ?";

const STARTED: &str = "started";
const STOPPED: &str = "stopped";

fn stored(run: ServiceRun) -> &'static str {
    match run {
        ServiceRun::Started => STARTED,
        ServiceRun::Stopped => STOPPED,
    }
}

fn read(row: &SqliteRow) -> Result<Service, CatalogError> {
    let run = row::text(row, "run")?;
    Ok(Service {
        name: row::parsed(row, "name")?,
        spec: row::json(row, "spec")?,
        run: match run.as_str() {
            STARTED => ServiceRun::Started,
            STOPPED => ServiceRun::Stopped,
            unknown => return Err(row::unreadable("run", unknown)),
        },
    })
}

async fn all(
    connection: &mut SqliteConnection,
    sprite: SpriteId,
    step: &'static str,
) -> Result<Services, CatalogError> {
    let revision = sqlx::query(REVISION)
        .bind(sprite.to_string())
        .fetch_optional(&mut *connection)
        .await
        .step(step)?;
    let Some(revision) = revision else {
        return Ok(Services::default());
    };
    let rows = sqlx::query(OF_SPRITE)
        .bind(sprite.to_string())
        .fetch_all(&mut *connection)
        .await
        .step(step)?;
    Ok(Services {
        revision: row::number(&revision, "revision")?,
        services: rows.iter().map(read).collect::<Result<_, _>>()?,
    })
}

impl Catalog {
    /// The services of a sprite. Those of no sprite are none.
    ///
    /// # Errors
    /// The catalog cannot be read, or holds a service that this version does not know: it is not guessed at.
    pub async fn services(&self, sprite: SpriteId) -> Result<Arc<Services>, CatalogError> {
        const STEP: &str = "list services";
        let look_up = async {
            // One picture of both tables.
            let mut tx = self.reader.begin().await.step(STEP)?;
            all(&mut tx, sprite, STEP).await.map(Arc::new)
        };
        self.recent.services.get(sprite, look_up).await
    }

    /// Changes the services of a sprite; all of them as they are then.
    ///
    /// # Errors
    /// Nothing was changed.
    ///
    /// # Crash safety
    /// Durable when it returns.
    pub async fn change_service(
        &self,
        sprite: SpriteId,
        change: &ServiceChange,
        at: OffsetDateTime,
    ) -> Result<Services, ServiceChangeError> {
        const STEP: &str = "change a service";
        let mut tx = self.write(STEP).await?;
        let before = all(&mut tx, sprite, STEP).await?;
        let after = changed(before.services.clone(), change)?;
        let revision = before.revision + 1;
        // Selecting from the sprite makes nothing where there is none.
        let counted = sqlx::query(
            "INSERT INTO service_revisions (sprite_id, revision) SELECT id, ? FROM sprites WHERE id = ? \
             ON CONFLICT (sprite_id) DO UPDATE SET revision = excluded.revision",
        )
        .bind(row::stored(revision))
        .bind(sprite.to_string())
        .execute(&mut *tx)
        .await
        .step(STEP)?;
        if counted.rows_affected() != 1 {
            return Err(ServiceChangeError::NoSprite);
        }
        for gone in before
            .services
            .iter()
            .filter(|old| !after.contains_key(&old.name))
        {
            sqlx::query("DELETE FROM services WHERE sprite_id = ? AND name = ?")
                .bind(sprite.to_string())
                .bind(gone.name.as_str())
                .execute(&mut *tx)
                .await
                .step(STEP)?;
        }
        for (name, (spec, run)) in &after {
            let same = |old: &Service| old.name == *name && old.spec == *spec && old.run == *run;
            if !before.services.iter().any(same) {
                store(&mut tx, sprite, name, (spec, *run), at).await?;
            }
        }
        tx.commit().await.step(STEP)?;
        let services = after.into_iter();
        Ok(Services {
            revision,
            services: services
                .map(|(name, (spec, run))| Service { name, spec, run })
                .collect(),
        })
    }
}

async fn store(
    connection: &mut SqliteConnection,
    sprite: SpriteId,
    name: &ServiceName,
    (spec, run): (&ServiceSpec, ServiceRun),
    at: OffsetDateTime,
) -> Result<(), CatalogError> {
    let json = serde_json::to_string(spec).expect("specs have text keys and no failing impls");
    sqlx::query(
        "INSERT INTO services (sprite_id, name, spec, run, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?) \
         ON CONFLICT (sprite_id, name) DO UPDATE SET spec = excluded.spec, run = excluded.run, \
         updated_at = excluded.updated_at",
    )
    .bind(sprite.to_string())
    .bind(name.as_str())
    .bind(json)
    .bind(stored(run))
    .bind(row::micros(at))
    .bind(row::micros(at))
    .execute(connection)
    .await
    .step("store a service")
    .map(drop)
}

type All = BTreeMap<ServiceName, (ServiceSpec, ServiceRun)>;

/// All services after a change.
fn changed(before: Vec<Service>, change: &ServiceChange) -> Result<All, ServiceChangeError> {
    let services = before.into_iter();
    let mut all: All = services
        .map(|service| (service.name, (service.spec, service.run)))
        .collect();
    let name = change.name();
    let missing = || ServiceChangeError::NotFound(name.clone());
    match change {
        ServiceChange::Put(_, spec) => {
            all.insert(name.clone(), (spec.clone(), ServiceRun::Started));
            let specs = all.iter();
            let specs = specs.map(|(name, (spec, _))| (name.clone(), spec.clone()));
            check_services(&specs.collect(), name)?;
            start(&mut all, name);
        }
        ServiceChange::Start(_) => {
            all.get(name).ok_or_else(missing)?;
            start(&mut all, name);
        }
        ServiceChange::Stop(_) => {
            all.get_mut(name).ok_or_else(missing)?.1 = ServiceRun::Stopped;
        }
        ServiceChange::Delete(_) => {
            all.remove(name).ok_or_else(missing)?;
            let by = all.iter().find(|(_, (spec, _))| spec.needs.contains(name));
            if let Some((by, _)) = by {
                return Err(ServiceChangeError::Needed {
                    service: name.clone(),
                    by: by.clone(),
                });
            }
        }
    }
    Ok(all)
}

/// Has a service run, and all that it needs, each once.
fn start(all: &mut All, name: &ServiceName) {
    let (mut wanted, mut seen) = (vec![name.clone()], BTreeSet::new());
    while let Some(name) = wanted.pop() {
        if let Some((spec, run)) = all.get_mut(&name)
            && seen.insert(name)
        {
            *run = ServiceRun::Started;
            wanted.extend(spec.needs.iter().cloned());
        }
    }
}

/// Stores for a new sprite the services of another.
pub(crate) async fn copy(
    tx: &mut SqliteConnection,
    from: SpriteId,
    to: SpriteId,
    at: OffsetDateTime,
) -> Result<(), CatalogError> {
    const STEP: &str = "copy services";
    let copied = sqlx::query(
        "INSERT INTO services (sprite_id, name, spec, run, created_at, updated_at) \
         SELECT ?, name, spec, run, ?, ? FROM services WHERE sprite_id = ?",
    )
    .bind(to.to_string())
    .bind(row::micros(at))
    .bind(row::micros(at))
    .bind(from.to_string())
    .execute(&mut *tx)
    .await
    .step(STEP)?;
    if copied.rows_affected() > 0 {
        sqlx::query("INSERT INTO service_revisions (sprite_id, revision) VALUES (?, 1)")
            .bind(to.to_string())
            .execute(tx)
            .await
            .step(STEP)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use sqlx::Row;

    use super::*;

    #[tokio::test]
    async fn no_look_up_walks_all_services() {
        let dir = tempfile::tempdir().expect("a directory");
        let catalog = Catalog::open(&dir.path().join("catalog.db"))
            .await
            .expect("open");
        for query in [OF_SPRITE, REVISION] {
            let plan = sqlx::query(sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {query}")))
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
}
