//! `.sprite`: which sprite a directory, and everything below it, works with.
//!
//! Form: `{"organization":"personal","sprite":"my-sprite"}`. Unknown keys are kept. Source: behaviour reference §3.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{ConfigError, durable};

/// Largest file that is read: it holds two names.
const SIZE_LIMIT: u64 = 64 << 10;
const NAME: &str = ".sprite";

/// A directory's choice.
#[derive(Debug, Clone)]
pub(crate) struct Project {
    json: Map<String, Value>,
}

impl Project {
    /// The nearest choice: of `dir` or of a directory above it.
    pub(crate) fn find(dir: &Path) -> Result<Option<Self>, ConfigError> {
        for dir in dir.ancestors() {
            let path = dir.join(NAME);
            // Something else of that name, a directory say, is none of ours.
            if path.is_file() {
                return Self::read(path).map(Some);
            }
        }
        Ok(None)
    }

    fn read(path: PathBuf) -> Result<Self, ConfigError> {
        let form = |reason: String| ConfigError::Form {
            path: path.clone(),
            reason,
        };
        let read = |source| ConfigError::Read {
            path: path.clone(),
            source,
        };
        if fs::metadata(&path).map_err(read)?.len() > SIZE_LIMIT {
            return Err(form("it is too large".to_owned()));
        }
        let text = fs::read(&path).map_err(read)?;
        let json = serde_json::from_slice(&text).map_err(|error| form(error.to_string()))?;
        Ok(Self { json })
    }

    pub(crate) fn sprite(&self) -> Option<&str> {
        self.json
            .get("sprite")
            .and_then(Value::as_str)
            .filter(|name| !name.is_empty())
    }

    pub(crate) fn organization(&self) -> Option<&str> {
        self.json
            .get("organization")
            .and_then(Value::as_str)
            .filter(|name| !name.is_empty())
    }

    /// Chooses a sprite for `dir`.
    pub(crate) fn choose(
        dir: &Path,
        organization: &str,
        sprite: &str,
    ) -> Result<PathBuf, ConfigError> {
        let path = dir.join(NAME);
        let mut json = if path.is_file() {
            Self::read(path.clone())?.json
        } else {
            Map::new()
        };
        json.insert("organization".to_owned(), organization.into());
        json.insert("sprite".to_owned(), sprite.into());
        let text = format!("{}\n", Value::Object(json));
        durable::replace(&path, text.as_bytes(), 0o644).map_err(|source| ConfigError::Write {
            path: path.clone(),
            source,
        })?;
        Ok(path)
    }

    /// Takes back the choice of `dir` itself. Says whether there was one.
    pub(crate) fn unset(dir: &Path) -> Result<bool, ConfigError> {
        let path = dir.join(NAME);
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(ConfigError::Write { path, source }),
        }
    }
}
