//! The programs of machines: carried in this file, laid down where machines can run them.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A program that this one carries. Static: of a constant there would be a copy wherever it is used.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) name: &'static str,
    pub(crate) bytes: &'static [u8],
}

/// The agent, which builds walls, is the first program of a virtual machine, and runs sessions.
pub(crate) static AGENT: Program = Program {
    name: "agent",
    bytes: include_bytes!(env!("SPRITE_AGENT_PROGRAM")),
};

/// The monitor of virtual machines.
pub(crate) static MONITOR: Program = Program {
    name: "vmm",
    bytes: include_bytes!(env!("SPRITE_VMM_PROGRAM")),
};

impl Program {
    /// Lays the program down in `run_dir` under the hash of its bytes, and returns its path. Machines of an older
    /// server keep using theirs.
    pub(crate) fn install(&self, run_dir: &Path) -> io::Result<PathBuf> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(run_dir)?;
        let hash = blake3::hash(self.bytes).to_hex();
        let path = run_dir.join(format!("{}-{}", self.name, &hash[..16]));
        if fs::read(&path).is_ok_and(|bytes| bytes == self.bytes) {
            return Ok(path);
        }
        let fresh = path.with_extension("new");
        let mut file = File::create(&fresh)?;
        file.write_all(self.bytes)?;
        file.set_permissions(fs::Permissions::from_mode(0o555))?;
        drop(file);
        fs::rename(&fresh, &path)?;
        Ok(path)
    }
}
