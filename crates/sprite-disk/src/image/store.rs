//! Directories of finished images: the cache and the pool's `images/`.
//!
//! `ID.ext4` is the image; it exists complete or not at all. `ID.json` says for people what it is; an image
//! without it is a good image all the same.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::ImageId;

/// Longest description that is read, in bytes.
const LONGEST_DESCRIPTION: u64 = 64 << 10;

/// An image in the pool or in the cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StoredImage {
    /// Its id.
    pub id: ImageId,
    /// What it is, for people; empty where nothing is known.
    pub description: String,
    /// When it was made, in seconds since 1970.
    pub made_at: u64,
    /// Nominal size in bytes.
    pub nominal_bytes: u64,
    /// What it takes of the file system, in bytes. In the pool most of it is shared with disks.
    pub used_bytes: u64,
}

/// The content of `ID.json`. Fields are only ever added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Description {
    /// What the image is, for people.
    pub(crate) description: String,
    /// When it was made, in seconds since 1970.
    pub(crate) made_at: u64,
}

pub(crate) fn image_path(directory: &Path, id: &ImageId) -> PathBuf {
    directory.join(format!("{id}.ext4"))
}

pub(crate) fn description_path(directory: &Path, id: &ImageId) -> PathBuf {
    directory.join(format!("{id}.json"))
}

/// The image in another size than its own.
pub(crate) fn sized_path(directory: &Path, id: &ImageId, storage_gb: u32) -> PathBuf {
    directory.join(format!("{id}-{storage_gb}g.ext4"))
}

/// Every other size of an image that is there.
pub(crate) fn sized_paths(directory: &Path, id: &ImageId) -> io::Result<Vec<PathBuf>> {
    let prefix = format!("{id}-");
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let sized = entry.file_name().to_str().is_some_and(|name| {
            name.strip_prefix(&prefix)
                .is_some_and(|size| size.ends_with("g.ext4"))
        });
        if sized {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// The text beside an image, if there is one.
pub(crate) fn read_description(image: &Path) -> io::Result<Option<String>> {
    let path = image.with_extension("json");
    match fs::metadata(&path) {
        Ok(data) if data.len() <= LONGEST_DESCRIPTION => fs::read_to_string(path).map(Some),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The images of a directory in the order of their ids. A directory that does not exist has none.
pub(crate) fn list(directory: &Path) -> io::Result<Vec<StoredImage>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut images = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let id = name.to_str().and_then(|name| name.strip_suffix(".ext4"));
        let Some(id) = id.and_then(|id| id.parse::<ImageId>().ok()) else {
            continue;
        };
        let data = entry.metadata()?;
        let text = read_description(&entry.path())?.unwrap_or_default();
        let description = serde_json::from_str::<Description>(&text).ok();
        images.push(StoredImage {
            id,
            made_at: description
                .as_ref()
                .map_or(0, |description| description.made_at),
            description: description
                .map(|description| description.description)
                .unwrap_or_default(),
            nominal_bytes: data.len(),
            used_bytes: data.blocks() * 512,
        });
    }
    images.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(images)
}
