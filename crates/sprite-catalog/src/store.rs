//! The file and its connections.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sprite_types::{CustomDomain, OrgId, SpriteId, SpriteName, TokenId};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};

use crate::error::{CatalogError, Step};
use crate::organisation::Token;
use crate::recent::{Commits, Editions, Recent, Writing};
use crate::revocations::Revocations;
use crate::service::Services;
use crate::sprite::Sprite;

/// How long a write waits for another process (such as `sprited token create`) that writes.
const BUSY: Duration = Duration::from_secs(10);

/// The file beside the catalog that counts revoked tokens.
const REVOCATIONS: &str = "revocations";

/// Connections that read. Each is a thread; a look-up takes about 50 µs, so a few serve thousands a second.
const READERS: u32 = 4;

/// The catalog of one data directory. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Catalog {
    pub(crate) reader: SqlitePool,
    writer: SqlitePool,
    commits: Arc<Commits>,
    pub(crate) revocations: Arc<Revocations>,
    pub(crate) recent: Arc<RecentAnswers>,
}

/// What every request asks for.
#[derive(Debug)]
pub(crate) struct RecentAnswers {
    pub(crate) named: Recent<(OrgId, SpriteName), Option<Sprite>>,
    pub(crate) at: Recent<CustomDomain, Option<Sprite>>,
    pub(crate) services: Recent<SpriteId, Arc<Services>>,
    pub(crate) tokens: Recent<TokenId, Token, Revocations>,
}

impl Catalog {
    /// Opens the file, makes it if it does not exist, and brings its schema to this version's.
    ///
    /// # Errors
    /// The file cannot be opened, is not a catalog, or was written by a newer version; then it is unchanged.
    ///
    /// # Crash safety
    /// Each migration is one transaction.
    pub async fn open(path: &Path) -> Result<Self, CatalogError> {
        let open = |source| CatalogError::Open {
            path: path.to_owned(),
            source,
        };
        // Made here, so that nobody else can read it: it holds variables of sprites. SQLite gives the files beside it
        // the same mode.
        tokio::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
            .await
            .map_err(|error| open(error.into()))?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY);
        let writer = pool(1).connect_with(options.clone()).await.map_err(open)?;
        sqlx::migrate!()
            .run(&writer)
            .await
            .map_err(|source| CatalogError::Migrate {
                path: path.to_owned(),
                source,
            })?;
        let reader = pool(READERS).connect_lazy_with(options.read_only(true));
        let commits = Arc::new(Commits::default());
        let revocations = Revocations::open(&path.with_extension(REVOCATIONS));
        let revocations = Arc::new(revocations.map_err(|error| open(error.into()))?);
        if revocations.edition().is_none() {
            // Whoever has the right to write revokes; while we have it, what is under way was given up.
            let right = writer.begin_with("BEGIN IMMEDIATE").await.map_err(open)?;
            revocations.settle().map_err(|error| open(error.into()))?;
            right.rollback().await.map_err(open)?;
        }
        let recent = RecentAnswers {
            named: Recent::new(commits.clone()),
            at: Recent::new(commits.clone()),
            services: Recent::new(commits.clone()),
            tokens: Recent::new(revocations.clone()),
        };
        Ok(Self {
            reader,
            writer,
            commits,
            revocations,
            recent: Arc::new(recent),
        })
    }

    /// Closes the connections; what is under way ends first.
    pub async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }

    /// A transaction that holds the right to write from its beginning, so that it never fails for having read
    /// before another wrote.
    pub(crate) async fn write(&self, step: &'static str) -> Result<Writing, CatalogError> {
        let tx = self.writer.begin_with("BEGIN IMMEDIATE").await.step(step)?;
        Ok(Writing::new(tx, self.commits.clone()))
    }
}

fn pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections)
        // Nothing that wakes up now and then while nobody asks for anything.
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
}
