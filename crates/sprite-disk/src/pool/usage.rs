//! What a sprite takes of the pool: of its disk what no other file shares, and all of its memory.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sprite_types::SpriteId;

use super::Pool;
use crate::fiemap;

/// What a sprite takes of the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SpriteSpace {
    /// What of its disk no other file shares, in bytes: what deleting it would free.
    pub unique_bytes: u64,
    /// What its snapshots take, in bytes, with what was set aside of them.
    pub snapshot_bytes: u64,
}

/// Why it cannot be told what a sprite takes.
#[derive(Debug, thiserror::Error)]
#[error("measure {path}")]
pub struct MeasureError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl Pool {
    /// What a sprite takes of the pool now. A sprite without a disk takes nothing. Takes a few milliseconds, more for a
    /// disk that was written in very many pieces.
    ///
    /// # Errors
    /// Something could not be read.
    pub fn sprite_space(&self, sprite: SpriteId) -> Result<SpriteSpace, MeasureError> {
        let disk = self.disk_path(sprite);
        let unique_bytes = match File::open(&disk) {
            Ok(file) => fiemap::unshared_bytes(&file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        };
        let unique_bytes = unique_bytes.map_err(|source| MeasureError { path: disk, source })?;
        let mut snapshot_bytes = 0;
        for path in [self.snapshots_path(sprite), self.snapshots_aside(sprite)] {
            snapshot_bytes +=
                taken(&path, DEEPEST).map_err(|source| MeasureError { path, source })?;
        }
        Ok(SpriteSpace {
            unique_bytes,
            snapshot_bytes,
        })
    }
}

/// Directories in directories of snapshots: ours have one. A monitor writes in it and is not believed.
const DEEPEST: u32 = 3;

/// Blocks of all files in a directory, in bytes. What goes away meanwhile takes nothing.
fn taken(directory: &Path, deepest: u32) -> io::Result<u64> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let mut bytes = 0;
    for entry in entries {
        let entry = entry?;
        match entry.metadata() {
            Ok(data) if data.is_dir() && deepest > 0 => bytes += taken(&entry.path(), deepest - 1)?,
            Ok(data) => bytes += data.blocks() * 512,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}
