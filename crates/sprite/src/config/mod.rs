//! What the CLI remembers: tokens and the chosen organisation in `~/.sprites/sprites.json`, the sprite of a
//! directory in `.sprite`.

mod durable;
mod project;
mod sprites_file;

pub(crate) use project::Project;
pub(crate) use sprites_file::SpritesFile;

use std::path::PathBuf;

/// Why a file of the configuration cannot be read or written. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("the variable HOME is not set, so there is no place for logins")]
    NoHome,
    #[error("read {}", path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{} is not JSON of the expected form: {reason}", path.display())]
    Form { path: PathBuf, reason: String },
    #[error("{} is of version {found:?}, this program knows \"1\"", path.display())]
    Version { path: PathBuf, found: String },
    #[error("write {}", path.display())]
    Write {
        path: PathBuf,
        source: std::io::Error,
    },
}
