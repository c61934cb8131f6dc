//! What can go wrong in the catalog.

use std::path::PathBuf;

use sprite_types::SpriteId;

/// The catalog could not do what it was asked for. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The file could not be opened.
    #[error("open catalog {path}", path = path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What was said.
        #[source]
        source: sqlx::Error,
    },
    /// The schema could not be brought up to date, or is of a newer version than this program knows.
    #[error(
        "bring catalog {path} to this version's schema (a newer sprited may have written it: use that one)",
        path = path.display()
    )]
    Migrate {
        /// The file.
        path: PathBuf,
        /// What was said.
        #[source]
        source: sqlx::migrate::MigrateError,
    },
    /// A query failed.
    #[error("{step} in the catalog")]
    Query {
        /// What it was for.
        step: &'static str,
        /// What was said.
        #[source]
        source: sqlx::Error,
    },
    /// Too many wait for the catalog; later there is room again.
    #[error("{step} in the catalog: too many wait for it")]
    Busy {
        /// What it was for.
        step: &'static str,
    },
    /// A row holds what this program never writes.
    #[error("read {column} of a row of the catalog: {text:?}")]
    Row {
        /// The column.
        column: &'static str,
        /// Its value, cut to 80 characters.
        text: String,
    },
    /// The row belongs to another owner, to another run, or is not in the state that the change starts from.
    #[error("{step} of {sprite} in the catalog: its row is not as this owner left it")]
    Conflict {
        /// The change.
        step: &'static str,
        /// The sprite.
        sprite: SpriteId,
    },
    /// No free id was found; there are too many of that kind.
    #[error("find a free id for {what}")]
    Ids {
        /// What it was for.
        what: &'static str,
    },
}

/// Says what a query was for.
pub(crate) trait Step<T> {
    fn step(self, step: &'static str) -> Result<T, CatalogError>;
}

impl<T> Step<T> for Result<T, sqlx::Error> {
    fn step(self, step: &'static str) -> Result<T, CatalogError> {
        self.map_err(|source| match source {
            sqlx::Error::PoolTimedOut => CatalogError::Busy { step },
            source => CatalogError::Query { step, source },
        })
    }
}
