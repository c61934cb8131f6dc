//! Files that are there as a whole or not at all.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A file under another name until it is finished. Dropped before that, it is removed.
#[derive(Debug)]
pub(super) struct NewFile {
    pub(super) file: File,
    temporary: PathBuf,
    target: PathBuf,
}

impl NewFile {
    /// Makes an empty file beside `target`.
    pub(super) fn create(target: &Path) -> io::Result<NewFile> {
        let name = target
            .file_name()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no name of a file"))?;
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(".new");
        let temporary = target.with_file_name(hidden);
        // What an earlier process left there is nobody's: one program writes here at a time.
        match std::fs::remove_file(&temporary) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        Ok(NewFile {
            file,
            temporary,
            target: target.to_owned(),
        })
    }

    /// Gives the file its name. Its contents must be on the medium; its name is after [`sync_directory`].
    pub(super) fn publish(self) -> io::Result<()> {
        std::fs::rename(&self.temporary, &self.target)
        // Dropping it now removes a name that is gone.
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // After `publish` there is nothing under this name; otherwise it is waste, and the next one removes it.
        let _ = std::fs::remove_file(&self.temporary);
    }
}

/// Brings the names of a file's directory to the medium.
pub(super) fn sync_directory(of: &Path) -> io::Result<()> {
    let directory = match of.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    File::open(directory)?.sync_all()
}
