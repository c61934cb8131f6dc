//! What the control socket says about snapshots.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::{ConfigError, NetworkOverride, VsockOverride, usable_path};

/// Longest name of a disk's generation in bytes: room for two UUIDs and what is between them.
const MAX_GENERATION: usize = 128;

/// Which state of the disk a snapshot belongs to. Only whoever drives this program knows what it means; here
/// it is compared and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DiskGeneration(String);

impl TryFrom<String> for DiskGeneration {
    type Error = ConfigError;

    fn try_from(text: String) -> Result<DiskGeneration, ConfigError> {
        if text.is_empty()
            || text.len() > MAX_GENERATION
            || !text.bytes().all(|b| b.is_ascii_graphic())
        {
            return Err(ConfigError::Form {
                field: "disk_generation",
                rule: "1 to 128 printable ASCII characters without spaces",
            });
        }
        Ok(DiskGeneration(text))
    }
}

impl From<DiskGeneration> for String {
    fn from(generation: DiskGeneration) -> String {
        generation.0
    }
}

impl fmt::Display for DiskGeneration {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// How much of the memory is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum SnapshotType {
    /// All of it, into a new file that takes the place of the old one.
    #[default]
    Full,
    /// What changed, into the memory file of the last snapshot or a clone of it.
    Diff,
}

/// The body of `PUT /snapshot/create`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "WireCreate")]
pub struct CreateSnapshot {
    /// How much of the memory is written.
    pub snapshot_type: SnapshotType,
    /// The file for the machine's state.
    pub snapshot_path: PathBuf,
    /// The file for its memory.
    pub mem_file_path: PathBuf,
    /// The disk that it belongs to. Ours alone.
    pub disk_generation: Option<DiskGeneration>,
}

/// The body of `PUT /snapshot/load`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "WireLoad")]
pub struct LoadSnapshot {
    /// The file with the machine's state.
    pub snapshot_path: PathBuf,
    /// The file with its memory. It must stay as it is, but for snapshots of this machine, while this program
    /// runs.
    pub mem_file_path: PathBuf,
    /// Whether the machine goes on at once.
    pub resume_vm: bool,
    /// Other taps.
    pub network_overrides: Vec<NetworkOverride>,
    /// Another socket.
    pub vsock_override: Option<VsockOverride>,
    /// The disk that is there. Ours alone.
    pub disk_generation: Option<DiskGeneration>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireCreate {
    #[serde(default)]
    snapshot_type: SnapshotType,
    snapshot_path: PathBuf,
    mem_file_path: PathBuf,
    disk_generation: Option<DiskGeneration>,
}

impl TryFrom<WireCreate> for CreateSnapshot {
    type Error = ConfigError;

    fn try_from(wire: WireCreate) -> Result<CreateSnapshot, ConfigError> {
        let snapshot_path = usable_path(&wire.snapshot_path, "snapshot_path")?;
        let mem_file_path = usable_path(&wire.mem_file_path, "mem_file_path")?;
        if snapshot_path == mem_file_path {
            return Err(ConfigError::Form {
                field: "mem_file_path",
                rule: "another file than snapshot_path",
            });
        }
        Ok(CreateSnapshot {
            snapshot_type: wire.snapshot_type,
            snapshot_path,
            mem_file_path,
            disk_generation: wire.disk_generation,
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireLoad {
    snapshot_path: PathBuf,
    mem_backend: Option<WireBackend>,
    mem_file_path: Option<PathBuf>,
    #[serde(default)]
    resume_vm: bool,
    // What changed is found without tracking it, so it need not be switched on.
    #[serde(rename = "track_dirty_pages")]
    _track_dirty_pages: Option<bool>,
    #[serde(rename = "enable_diff_snapshots")]
    _enable_diff_snapshots: Option<bool>,
    #[serde(default)]
    network_overrides: Vec<NetworkOverride>,
    vsock_override: Option<VsockOverride>,
    #[serde(default)]
    clock_realtime: bool,
    disk_generation: Option<DiskGeneration>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireBackend {
    backend_type: BackendType,
    backend_path: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
enum BackendType {
    File,
    Uffd,
}

impl TryFrom<WireLoad> for LoadSnapshot {
    type Error = ConfigError;

    fn try_from(wire: WireLoad) -> Result<LoadSnapshot, ConfigError> {
        let memory = match (wire.mem_backend, wire.mem_file_path) {
            (Some(backend), None) => match backend.backend_type {
                BackendType::File => backend.backend_path,
                BackendType::Uffd => {
                    return Err(ConfigError::NotSupported {
                        field: "backend_type Uffd",
                        instead: "memory is mapped from a File",
                    });
                }
            },
            (None, Some(path)) => path,
            (None, None) | (Some(_), Some(_)) => {
                return Err(ConfigError::Form {
                    field: "mem_backend",
                    rule: "exactly one of mem_backend and mem_file_path",
                });
            }
        };
        if wire.clock_realtime {
            return Err(ConfigError::NotSupported {
                field: "clock_realtime",
                instead: "set the guest's clock from inside",
            });
        }
        Ok(LoadSnapshot {
            snapshot_path: usable_path(&wire.snapshot_path, "snapshot_path")?,
            mem_file_path: usable_path(&memory, "backend_path")?,
            resume_vm: wire.resume_vm,
            network_overrides: wire.network_overrides,
            vsock_override: wire.vsock_override,
            disk_generation: wire.disk_generation,
        })
    }
}
