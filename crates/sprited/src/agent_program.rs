//! The agent's program: carried in this file, laid down where machines can run it.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

const AGENT: &[u8] = include_bytes!(env!("SPRITE_AGENT_PROGRAM"));

/// Lays the agent's program down in `run_dir` under the hash of its bytes, and returns its path. Machines of an
/// older server keep using theirs.
pub(crate) fn install(run_dir: &Path) -> io::Result<PathBuf> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(run_dir)?;
    let hash = blake3::hash(AGENT).to_hex();
    let path = run_dir.join(format!("agent-{}", &hash[..16]));
    if fs::read(&path).is_ok_and(|bytes| bytes == AGENT) {
        return Ok(path);
    }
    let fresh = path.with_extension("new");
    let mut file = File::create(&fresh)?;
    file.write_all(AGENT)?;
    file.set_permissions(fs::Permissions::from_mode(0o555))?;
    drop(file);
    fs::rename(&fresh, &path)?;
    Ok(path)
}
