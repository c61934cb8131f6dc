//! Block devices.

use std::path::PathBuf;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::name::usable_path;
use super::{ConfigError, DeviceId, absent};

/// What a flush of the guest means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum CacheType {
    /// The guest is offered no flush: what it wrote is as safe as the host's page cache.
    #[default]
    Unsafe,
    /// A flush is acknowledged once the bytes are on the medium.
    Writeback,
}

/// A file or block device of the host that the guest sees as a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Wire")]
pub struct Drive {
    /// Its name on the control socket.
    pub drive_id: DeviceId,
    /// The file.
    pub path_on_host: PathBuf,
    /// Whether the kernel is told to mount it as its root.
    pub is_root_device: bool,
    /// Whether the guest may only read it.
    pub is_read_only: bool,
    /// What a flush means.
    pub cache_type: CacheType,
}

/// A change of a drive while the machine runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WireUpdate")]
pub struct DriveUpdate {
    /// Which drive.
    pub drive_id: DeviceId,
    /// The file that takes the place of the old one.
    pub path_on_host: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    drive_id: DeviceId,
    path_on_host: Option<PathBuf>,
    is_root_device: bool,
    #[serde(default)]
    is_read_only: bool,
    #[serde(default)]
    cache_type: CacheType,
    partuuid: Option<IgnoredAny>,
    rate_limiter: Option<IgnoredAny>,
    io_engine: Option<String>,
    socket: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireUpdate {
    drive_id: DeviceId,
    path_on_host: Option<PathBuf>,
    rate_limiter: Option<IgnoredAny>,
}

/// Why a drive has no limit of its own here.
const LIMITS: &str = "limit the machine's cgroup instead";

impl TryFrom<Wire> for Drive {
    type Error = ConfigError;

    fn try_from(wire: Wire) -> Result<Drive, ConfigError> {
        absent(
            wire.partuuid.as_ref(),
            "partuuid",
            "name the root partition in boot_args",
        )?;
        absent(wire.rate_limiter.as_ref(), "rate_limiter", LIMITS)?;
        absent(
            wire.socket.as_ref(),
            "socket",
            "drives are files or block devices, given by path_on_host",
        )?;
        absent(
            wire.io_engine
                .as_deref()
                .filter(|engine| *engine != "Sync")
                .map(|_| &IgnoredAny),
            "io_engine",
            "the engine is Sync, with threads of its own",
        )?;
        let Some(path) = wire.path_on_host else {
            return Err(ConfigError::Form {
                field: "path_on_host",
                rule: "a drive needs a file",
            });
        };
        Ok(Drive {
            drive_id: wire.drive_id,
            path_on_host: usable_path(&path, "path_on_host")?,
            is_root_device: wire.is_root_device,
            is_read_only: wire.is_read_only,
            cache_type: wire.cache_type,
        })
    }
}

impl TryFrom<WireUpdate> for DriveUpdate {
    type Error = ConfigError;

    fn try_from(wire: WireUpdate) -> Result<DriveUpdate, ConfigError> {
        absent(wire.rate_limiter.as_ref(), "rate_limiter", LIMITS)?;
        let Some(path) = wire.path_on_host else {
            return Err(ConfigError::Form {
                field: "path_on_host",
                rule: "an update of a drive names its file",
            });
        };
        Ok(DriveUpdate {
            drive_id: wire.drive_id,
            path_on_host: usable_path(&path, "path_on_host")?,
        })
    }
}
