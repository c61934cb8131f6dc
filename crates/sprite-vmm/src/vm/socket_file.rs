//! The name of the socket between host and guest, for as long as there is a machine.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Removes the socket's name with the machine, so that the next one can have it. A name that is somebody
/// else's by then stays.
///
/// It belongs to the machine and not to the device: the device may end on a thread that cannot remove names.
pub(super) struct SocketFile {
    path: PathBuf,
    /// Which file it is: device and number. None if it had gone before it could be looked at.
    file: Option<(u64, u64)>,
}

impl SocketFile {
    /// That of a socket that was made just now.
    pub(super) fn of(path: &Path) -> SocketFile {
        SocketFile {
            path: path.to_owned(),
            file: file_at(path),
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.file.is_some() && file_at(&self.path) == self.file {
            // Who is left to be told? A name that stays is refused to the next machine, with the reason.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn file_at(path: &Path) -> Option<(u64, u64)> {
    let metadata = std::fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}
