//! What can go wrong in the catalog.

use std::path::PathBuf;

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
    #[error("bring catalog {path} to this version's schema; a newer sprited may have written it", path = path.display())]
    Migrate {
        /// The file.
        path: PathBuf,
        /// What was said.
        #[source]
        source: sqlx::migrate::MigrateError,
    },
    /// A query failed.
    #[error("{step}")]
    Query {
        /// What it was for.
        step: &'static str,
        /// What was said.
        #[source]
        source: sqlx::Error,
    },
    /// A row holds what this program never writes.
    #[error("read {column} of a row: {text:?}")]
    Row {
        /// The column.
        column: &'static str,
        /// Its value, cut to 80 characters.
        text: String,
    },
    /// The row was changed by another owner, or is not in the state that the change starts from.
    #[error("change sprite {sprite}: its row is not in the expected state")]
    Conflict {
        /// The sprite.
        sprite: sprite_types::SpriteId,
    },
}
