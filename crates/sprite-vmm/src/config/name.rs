//! Names of devices, interfaces and files.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ConfigError;

/// Longest path in bytes: `PATH_MAX` of Linux with its final zero. Source: `linux/limits.h`.
pub const MAX_PATH: usize = 4095;

/// Longest id of a device in bytes, as in Firecracker.
const MAX_ID: usize = 64;

/// Longest name of a network interface in bytes: `IFNAMSIZ` less the final zero. Source: `linux/if.h`.
const MAX_INTERFACE_NAME: usize = 15;

/// The id of a drive or a network interface: letters, digits and underscores.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceId(String);

impl DeviceId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for DeviceId {
    type Error = ConfigError;

    fn try_from(id: String) -> Result<DeviceId, ConfigError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if id.is_empty() || id.len() > MAX_ID || !id.bytes().all(allowed) {
            return Err(ConfigError::Form {
                field: "id",
                rule: "1 to 64 letters, digits and underscores",
            });
        }
        Ok(DeviceId(id))
    }
}

impl FromStr for DeviceId {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<DeviceId, ConfigError> {
        DeviceId::try_from(text.to_owned())
    }
}

impl From<DeviceId> for String {
    fn from(id: DeviceId) -> String {
        id.0
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The name of a host's network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InterfaceName(String);

impl InterfaceName {
    /// The name as text: 1 to 15 bytes without slash, space or zero.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for InterfaceName {
    type Error = ConfigError;

    fn try_from(name: String) -> Result<InterfaceName, ConfigError> {
        let allowed = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':' | b'%');
        let dots = name == "." || name == "..";
        if name.is_empty() || name.len() > MAX_INTERFACE_NAME || dots || !name.bytes().all(allowed)
        {
            return Err(ConfigError::Form {
                field: "host_dev_name",
                rule: "1 to 15 printable characters but '/', ':' and '%'",
            });
        }
        Ok(InterfaceName(name))
    }
}

impl FromStr for InterfaceName {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<InterfaceName, ConfigError> {
        InterfaceName::try_from(text.to_owned())
    }
}

impl From<InterfaceName> for String {
    fn from(name: InterfaceName) -> String {
        name.0
    }
}

/// An Ethernet address, written as `06:00:ac:10:00:02`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress([u8; 6]);

impl MacAddress {
    /// The six bytes in the order of the wire.
    #[must_use]
    pub fn bytes(self) -> [u8; 6] {
        self.0
    }
}

impl From<[u8; 6]> for MacAddress {
    fn from(bytes: [u8; 6]) -> MacAddress {
        MacAddress(bytes)
    }
}

impl TryFrom<String> for MacAddress {
    type Error = ConfigError;

    fn try_from(text: String) -> Result<MacAddress, ConfigError> {
        let wrong = ConfigError::Form {
            field: "guest_mac",
            rule: "six pairs of hexadecimal digits with colons between them",
        };
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().ok_or_else(|| wrong.clone())?;
            // `from_str_radix` would take a sign.
            if part.len() != 2 || !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(wrong);
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| wrong.clone())?;
        }
        match parts.next() {
            None => Ok(MacAddress(bytes)),
            Some(_) => Err(wrong),
        }
    }
}

impl FromStr for MacAddress {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<MacAddress, ConfigError> {
        MacAddress::try_from(text.to_owned())
    }
}

impl From<MacAddress> for String {
    fn from(mac: MacAddress) -> String {
        mac.to_string()
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(formatter, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

/// A path that the system can be asked for: not empty, not too long, without a zero byte.
pub(crate) fn usable_path(path: &Path, field: &'static str) -> Result<PathBuf, ConfigError> {
    let bytes = path.as_os_str().as_encoded_bytes();
    if bytes.is_empty() || bytes.len() > MAX_PATH || bytes.contains(&0) {
        return Err(ConfigError::Form {
            field,
            rule: "a path of 1 to 4095 bytes without a zero",
        });
    }
    Ok(path.to_owned())
}
