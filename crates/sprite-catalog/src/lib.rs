//! What is known of organisations, tokens and sprites. Only this crate speaks SQL.
#![warn(missing_docs)]

mod error;
mod settings;

pub use error::CatalogError;
pub use settings::{PrivateAccess, UnknownWord, UrlAuth};

/// The catalog of one data directory. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Catalog {}
