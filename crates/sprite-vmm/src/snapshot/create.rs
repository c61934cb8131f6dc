//! Making a snapshot.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::durable::{NewFile, sync_directory};
use super::envelope::{self, EnvelopeError};
use super::memory_file::{self, MemoryFileError};
use super::seal::{self, Seal, SealError};
use super::{CpuIdentity, CreateSnapshot, Lineage, Payload, SnapshotId, SnapshotType};
use crate::config::VmConfig;
use crate::control::{Failure, Machine};
use crate::memory;

/// No snapshot was made. The machine can go on, and a later snapshot loses nothing by it.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The machine did not say what it is.
    #[error("save the machine's state")]
    Save(#[source] Failure),
    /// There is no name for the snapshot.
    #[error("name the snapshot")]
    Name(#[source] io::Error),
    /// The state does not fit into its file's form.
    #[error("put the state into its form")]
    Envelope(#[source] EnvelopeError),
    /// A step with a file failed.
    #[error("{step} {path}")]
    File {
        /// What was being done.
        step: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The memory was not written.
    #[error("write memory file {path}")]
    Memory {
        /// The file.
        path: PathBuf,
        /// The step that failed.
        #[source]
        source: MemoryFileError,
    },
    /// The memory file that changes are for does not say what it is.
    #[error("write changes into {path}")]
    Seal {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: SealError,
    },
    /// The memory file that changes are for is another one's.
    #[error(
        "write changes into {path}: it is not the memory of the snapshot that this machine comes from"
    )]
    NotOurs {
        /// The file.
        path: PathBuf,
    },
}

/// Writes a paused machine to files.
///
/// A diff snapshot of a machine that has no snapshot yet is a full one.
///
/// # Errors
/// [`CreateError`] names the step.
///
/// # Crash safety
/// When this returns `Ok`, memory, state and the names of both are on the medium. Before that there is, at any
/// moment, either the old snapshot, or a pair of files that is refused because their names differ or the seal
/// is broken, or the new snapshot.
pub fn create<M: Machine>(
    params: &CreateSnapshot,
    config: &VmConfig,
    cpu: CpuIdentity,
    machine: &mut M,
    lineage: &mut Lineage,
) -> Result<(), CreateError> {
    let id = SnapshotId::new().map_err(CreateError::Name)?;
    let payload = Payload {
        id,
        cpu,
        disk_generation: params.disk_generation.clone(),
        config: config.clone(),
        machine: machine.save().map_err(CreateError::Save)?,
    };
    let state = write_state(&params.snapshot_path, &payload)?;
    let memory = machine.memory();
    match (params.snapshot_type, lineage.base) {
        (SnapshotType::Full, _) | (SnapshotType::Diff, None) => {
            write_full(&params.mem_file_path, memory, id, *lineage)?;
        }
        (SnapshotType::Diff, Some(base)) => {
            write_diff(&params.mem_file_path, memory, id, base, *lineage)?;
        }
    }
    // From here on the memory file is the new snapshot's, whatever becomes of the state file.
    lineage.base = Some(id);
    state
        .publish()
        .map_err(file_failure("rename state file", &params.snapshot_path))?;
    for path in [&params.mem_file_path, &params.snapshot_path] {
        sync_directory(path).map_err(file_failure("flush the directory of", path))?;
    }
    Ok(())
}

fn write_state<S: serde::Serialize>(
    path: &Path,
    payload: &Payload<S>,
) -> Result<NewFile, CreateError> {
    let bytes = envelope::seal_up(payload).map_err(CreateError::Envelope)?;
    let mut new = NewFile::create(path).map_err(file_failure("make state file", path))?;
    new.file
        .write_all(&bytes)
        .map_err(file_failure("write state file", path))?;
    new.file
        .sync_all()
        .map_err(file_failure("flush state file", path))?;
    Ok(new)
}

fn write_full(
    path: &Path,
    memory: &memory::GuestMemory,
    id: SnapshotId,
    lineage: Lineage,
) -> Result<(), CreateError> {
    let new = NewFile::create(path).map_err(file_failure("make memory file", path))?;
    // A file system that is filled to its end, even for a moment, stops everybody's writes.
    memory_file::check_room(memory, &new.file).map_err(memory_failure(path))?;
    memory_file::write_all(memory, lineage.origin, &new.file).map_err(memory_failure(path))?;
    set_seal(&new.file, path, memory, Seal::Sealed(id))?;
    new.publish()
        .map_err(file_failure("rename memory file", path))
}

fn write_diff(
    path: &Path,
    memory: &memory::GuestMemory,
    id: SnapshotId,
    base: SnapshotId,
    lineage: Lineage,
) -> Result<(), CreateError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(file_failure("open memory file", path))?;
    let found = seal::read(&file, memory::size(memory)).map_err(|source| CreateError::Seal {
        path: path.to_owned(),
        source,
    })?;
    let writing = Seal::Writing {
        base,
        writer: lineage.writer,
    };
    // What this process itself began and did not finish is as good as new: all that it wrote then is written
    // again now.
    if found != Seal::Sealed(base) && found != writing {
        return Err(CreateError::NotOurs {
            path: path.to_owned(),
        });
    }
    memory_file::check_room(memory, &file).map_err(memory_failure(path))?;
    set_seal(&file, path, memory, writing)?;
    memory_file::write_changes(memory, &file).map_err(memory_failure(path))?;
    // The seal must not be on the medium before the memory is.
    file.sync_data()
        .map_err(file_failure("flush memory file", path))?;
    set_seal(&file, path, memory, Seal::Sealed(id))
}

/// Writes the seal, and with it all that was written before, to the medium.
fn set_seal(
    file: &File,
    path: &Path,
    memory: &memory::GuestMemory,
    seal: Seal,
) -> Result<(), CreateError> {
    seal::write(file, memory::size(memory), seal)
        .map_err(file_failure("seal memory file", path))?;
    file.sync_all()
        .map_err(file_failure("flush memory file", path))
}

fn file_failure(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CreateError {
    let path = path.to_owned();
    move |source| CreateError::File { step, path, source }
}

fn memory_failure(path: &Path) -> impl FnOnce(MemoryFileError) -> CreateError {
    let path = path.to_owned();
    move |source| CreateError::Memory { path, source }
}
