//! The archive that a guest starts from: the early modules, then the agent as `/init`.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::cpio::{Archive, Device};
use super::description::EARLY_MODULES;
use crate::durable;

/// Grows when the archive is made in another way.
const FORMAT: u32 = 1;

/// Names of such archives begin and end so; between stands the hash of what they are made of.
const PREFIX: &str = "initramfs-";
const SUFFIX: &str = ".cpio";

/// Directories that are mounted on before anything else is there.
const MOUNT_POINTS: [&str; 3] = ["proc", "sys", "machine"];

/// Why the archive could not be written.
#[derive(Debug, thiserror::Error)]
#[error("use {path}")]
pub struct InitramfsError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// The archive for this agent in the directory of a guest system; made if it is not there. Those for other agents
/// are removed: a machine needs its archive only while it starts.
///
/// # Crash safety
/// It appears under its name complete, or not at all.
pub(super) fn ensure(directory: &Path, agent: &[u8]) -> Result<PathBuf, InitramfsError> {
    let failed = |path: &Path, source| InitramfsError {
        path: path.to_owned(),
        source,
    };
    let mut hasher = blake3::Hasher::new();
    hasher.update(&FORMAT.to_le_bytes());
    hasher.update(agent);
    let hash = hasher.finalize().to_hex();
    let path = directory.join(format!("{PREFIX}{}{SUFFIX}", &hash[..16]));
    if !path.is_file() {
        write(directory, &path, agent).map_err(|source| failed(&path, source))?;
        remove_others(directory, &path).map_err(|source| failed(directory, source))?;
    }
    Ok(path)
}

fn write(directory: &Path, path: &Path, agent: &[u8]) -> io::Result<()> {
    let mut content = fs::read(directory.join(EARLY_MODULES))?;
    content.extend(with_agent(agent)?);
    let new = path.with_extension("new");
    fs::write(&new, content)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o644))?;
    File::open(&new)?.sync_all()?;
    fs::rename(&new, path)?;
    durable::sync_parent(path)
}

fn with_agent(agent: &[u8]) -> io::Result<Vec<u8>> {
    let mut archive = Archive::default();
    archive.directory("dev");
    // The kernel opens it for its first program, before anything is mounted.
    archive.device("dev/console", Device { major: 5, minor: 1 });
    MOUNT_POINTS.iter().for_each(|name| archive.directory(name));
    archive
        .file("init", agent, 0o755)
        .map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    Ok(archive.finish())
}

fn remove_others(directory: &Path, kept: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_string_lossy().starts_with(PREFIX) && entry.path() != kept {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_agent_replaces_the_archive() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut modules = Archive::default();
        modules.file("modules/order", b"", 0o644).expect("short");
        fs::write(directory.path().join(EARLY_MODULES), modules.finish()).expect("a file");
        let first = ensure(directory.path(), b"agent 1").expect("an archive");
        assert_eq!(
            ensure(directory.path(), b"agent 1").expect("the same"),
            first
        );
        let content = fs::read(&first).expect("the archive");
        assert!(content.windows(7).any(|bytes| bytes == b"agent 1"));
        // What a crash left in the middle of another one.
        fs::write(directory.path().join("initramfs-0.new"), b"half").expect("a file");
        let second = ensure(directory.path(), b"agent 2").expect("an archive");
        assert!(second.is_file() && !first.exists());
        assert_eq!(fs::read_dir(directory.path()).expect("it").count(), 2);
    }
}
