//! The socket between host and guest, the source of randomness, the console.

use std::path::{Path, PathBuf};

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::name::usable_path;
use super::{ConfigError, absent};

/// Longest path of the socket in bytes: `sun_path` holds 108 with the final zero, and a guest's own
/// connection goes to this path with `_` and a port of at most ten digits behind it. Source: `unix(7)`.
const MAX_SOCKET_PATH: usize = 107 - 11;

/// The address of the guest on its socket: 3 to 4,294,967,294; the ones below are the host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct GuestCid(u32);

impl GuestCid {
    /// The number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<u64> for GuestCid {
    type Error = ConfigError;

    fn try_from(given: u64) -> Result<GuestCid, ConfigError> {
        const MOST: u32 = u32::MAX - 1;
        match u32::try_from(given) {
            Ok(cid @ 3..=MOST) => Ok(GuestCid(cid)),
            Ok(_) | Err(_) => Err(ConfigError::OutOfRange {
                field: "guest_cid",
                given,
                least: 3,
                most: u64::from(MOST),
            }),
        }
    }
}

impl From<GuestCid> for u64 {
    fn from(cid: GuestCid) -> u64 {
        u64::from(cid.0)
    }
}

/// The socket between host and guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Wire")]
pub struct Vsock {
    /// The guest's address.
    pub guest_cid: GuestCid,
    /// The Unix socket that this program listens on; a line `CONNECT <port>` leads to the guest's port.
    pub uds_path: PathBuf,
}

/// Another Unix socket for a machine that is loaded from a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WireOverride")]
pub struct VsockOverride {
    /// The path of the socket.
    pub uds_path: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    guest_cid: GuestCid,
    uds_path: PathBuf,
    // Firecracker still takes it and means nothing by it.
    #[serde(rename = "vsock_id")]
    _vsock_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireOverride {
    uds_path: PathBuf,
}

impl TryFrom<Wire> for Vsock {
    type Error = ConfigError;

    fn try_from(wire: Wire) -> Result<Vsock, ConfigError> {
        Ok(Vsock {
            guest_cid: wire.guest_cid,
            uds_path: socket_path(&wire.uds_path)?,
        })
    }
}

impl TryFrom<WireOverride> for VsockOverride {
    type Error = ConfigError;

    fn try_from(wire: WireOverride) -> Result<VsockOverride, ConfigError> {
        Ok(VsockOverride {
            uds_path: socket_path(&wire.uds_path)?,
        })
    }
}

fn socket_path(path: &Path) -> Result<PathBuf, ConfigError> {
    if path.as_os_str().len() > MAX_SOCKET_PATH {
        return Err(ConfigError::Form {
            field: "uds_path",
            rule: "a path of at most 96 bytes, for a port is written behind it",
        });
    }
    usable_path(path, "uds_path")
}

/// The source of randomness. It has nothing to be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "WireEntropy")]
pub struct Entropy {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireEntropy {
    rate_limiter: Option<IgnoredAny>,
}

impl TryFrom<WireEntropy> for Entropy {
    type Error = ConfigError;

    fn try_from(wire: WireEntropy) -> Result<Entropy, ConfigError> {
        absent(
            wire.rate_limiter.as_ref(),
            "rate_limiter",
            "the device gives small amounts at a time anyway",
        )?;
        Ok(Entropy {})
    }
}

/// Where the guest's console goes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "WireSerial")]
pub struct Serial {
    /// The file; without one, this program's standard output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial_out_path: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireSerial {
    serial_out_path: Option<PathBuf>,
    rate_limiter: Option<IgnoredAny>,
}

impl TryFrom<WireSerial> for Serial {
    type Error = ConfigError;

    fn try_from(wire: WireSerial) -> Result<Serial, ConfigError> {
        absent(
            wire.rate_limiter.as_ref(),
            "rate_limiter",
            "the console's file is bounded by itself",
        )?;
        Ok(Serial {
            serial_out_path: wire
                .serial_out_path
                .map(|path| usable_path(&path, "serial_out_path"))
                .transpose()?,
        })
    }
}
