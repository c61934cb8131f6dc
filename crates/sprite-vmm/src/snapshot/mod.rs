//! A machine in two files: its state and its memory.
//!
//! * The **state file** is an envelope ([`envelope`]) around all that the machine is but its memory. Magic,
//!   kind, version, length and checksum stand outside of what they protect; a file that is not exactly what
//!   was written is refused before anything is done with it.
//! * The **memory file** is the guest's memory, range after range, and one page more: the seal ([`seal`]),
//!   which names the snapshot that the memory is of. A state goes only with the memory that has its name.
//!
//! A full snapshot writes a new memory file and renames it over the old one. A diff snapshot writes what
//! changed into the memory file of the snapshot that the machine was loaded from, or that it made last, or a
//! clone of that file. While it does, the seal is broken, so that a half-written file is never loaded:
//!
//! ```text
//! full:  state → temporary file, fsync │ memory → temporary file, sealed, fsync │ rename memory │ rename state │ fsync directories
//! diff:  state → temporary file, fsync │ break the seal, fsync │ changed pages │ seal, fsync    │ rename state │ fsync directories
//! ```
//! All that can fail for want of room comes before the first rename (full), and a lack of room that is
//! already visible is refused before the seal is broken (diff). Whatever fails, the machine itself can go on,
//! and a later snapshot of it writes everything again that this one should have.

mod create;
mod durable;
mod envelope;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod load;
mod memory_file;
mod params;
mod seal;

use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};

use crate::config::VmConfig;

pub use create::{CreateError, create};
pub use envelope::EnvelopeError;
pub use load::{LoadError, Loaded, load};
pub use params::{CreateSnapshot, DiskGeneration, LoadSnapshot, SnapshotType};
pub use seal::SealError;

/// The name of one snapshot: 128 random bits, so that no two are ever the same.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotId([u8; 16]);

impl SnapshotId {
    /// A new name.
    ///
    /// # Errors
    /// The system has no randomness to give.
    fn new() -> io::Result<SnapshotId> {
        let mut bytes = [0; 16];
        let got = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
        if got != bytes.len() {
            return Err(io::Error::other("the system gave too little randomness"));
        }
        Ok(SnapshotId(bytes))
    }
}

impl fmt::Debug for SnapshotId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// Where a machine's memory comes from: which file its changes can be written into.
#[derive(Debug, Clone, Copy)]
pub struct Lineage {
    /// The snapshot that the machine was loaded from or that it made last.
    base: Option<SnapshotId>,
    /// Whether memory that the machine did not write reads as zero, or as the file that it was loaded from.
    origin: Origin,
    /// Names this process on files that it is writing.
    writer: SnapshotId,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Zeroes,
    File,
}

impl Lineage {
    /// That of a machine that booted.
    ///
    /// # Errors
    /// The system has no randomness to give.
    pub fn booted() -> io::Result<Lineage> {
        Ok(Lineage {
            base: None,
            origin: Origin::Zeroes,
            writer: SnapshotId::new()?,
        })
    }

    fn loaded(from: SnapshotId) -> io::Result<Lineage> {
        Ok(Lineage {
            base: Some(from),
            origin: Origin::File,
            writer: SnapshotId::new()?,
        })
    }
}

/// The CPU that a guest sees. A snapshot is for exactly this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuIdentity {
    /// The instruction set.
    pub architecture: String,
    /// Who made the host's CPU, as it says itself.
    pub vendor: String,
    /// Name and version of the template that the guest's CPU is made by.
    pub template: String,
}

impl fmt::Display for CpuIdentity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} by {}, template {}",
            self.architecture, self.vendor, self.template
        )
    }
}

/// What is inside the envelope of a state file. Version 1 of it.
#[derive(Debug, Serialize, Deserialize)]
struct Payload<S> {
    /// The memory file that belongs to it has this name in its seal.
    id: SnapshotId,
    cpu: CpuIdentity,
    disk_generation: Option<DiskGeneration>,
    config: VmConfig,
    machine: S,
}
