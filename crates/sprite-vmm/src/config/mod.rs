//! What a machine is made of, as the control socket is told it.
//!
//! Every type here is valid once it exists: it comes from JSON through `try_from`, which refuses what this
//! program cannot do and says so, rather than ignore it. The names of fields are those of Firecracker's
//! published API description (`firecracker.yaml`, version 1.16); fields that it has and we cannot honour are
//! known by name, so that the refusal names them; fields that nobody knows are refused as Firecracker does.

mod boot;
mod cpu;
mod drive;
mod machine;
mod name;
mod network;
mod vsock;

use serde::{Deserialize, Serialize};

pub use boot::{BootSource, MAX_BOOT_ARGS};
pub use cpu::{Bitmap, CpuConfig, CpuidModifier, Register, RegisterModifier};
pub use drive::{CacheType, Drive, DriveUpdate};
pub use machine::{MachineConfig, MachineConfigChange, MemoryMib, VcpuCount};
pub(crate) use name::usable_path;
pub use name::{DeviceId, InterfaceName, MAX_PATH, MacAddress};
pub use network::{NetworkInterface, NetworkOverride};
pub use vsock::{Entropy, GuestCid, Serial, Vsock, VsockOverride};

/// Most drives of one machine: each has an interrupt line of its own, of which there are few.
pub const MAX_DRIVES: usize = 8;

/// Most network interfaces of one machine, for the same reason.
pub const MAX_NETWORK_INTERFACES: usize = 4;

/// Everything that a machine is started with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct VmConfig {
    /// vCPUs and memory.
    pub machine_config: MachineConfig,
    /// How the guest's CPU differs from the named template.
    pub cpu_config: CpuConfig,
    /// Kernel, initial RAM disk and command line.
    pub boot_source: BootSource,
    /// Block devices in the order in which the guest finds them: `/dev/vda` first.
    pub drives: Vec<Drive>,
    /// Network devices in the order in which the guest finds them: `eth0` first.
    pub network_interfaces: Vec<NetworkInterface>,
    /// The socket between host and guest.
    pub vsock: Option<Vsock>,
    /// The source of randomness.
    pub entropy: Option<Entropy>,
    /// Where the guest's console goes.
    pub serial: Serial,
}

impl VmConfig {
    /// The kernel's command line: that of the boot source and, if a drive is the root device, its `root=`.
    #[must_use]
    pub fn command_line(&self) -> String {
        let mut line = self.boot_source.boot_args().to_owned();
        if let Some(root) = self.drives.first().filter(|drive| drive.is_root_device) {
            let mode = if root.is_read_only { "ro" } else { "rw" };
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str("root=/dev/vda ");
            line.push_str(mode);
        }
        line
    }
}

/// A value that a machine cannot be made of. The texts are read by people who drive this program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A number is outside its range.
    #[error("{field} is {given}, allowed are {least} to {most}")]
    OutOfRange {
        /// The field's name on the wire.
        field: &'static str,
        /// What was given.
        given: u64,
        /// The smallest allowed value.
        least: u64,
        /// The largest allowed value.
        most: u64,
    },
    /// A text has a form that is not allowed.
    #[error("{field} is not valid: {rule}")]
    Form {
        /// The field's name on the wire.
        field: &'static str,
        /// What it must be.
        rule: &'static str,
    },
    /// Something that Firecracker's API has and this program does not do.
    #[error("{field} is not supported: {instead}")]
    NotSupported {
        /// The field's name on the wire.
        field: &'static str,
        /// What to do instead.
        instead: &'static str,
    },
}

/// A field that must be absent: `Ok` if it is.
pub(crate) fn absent(
    given: Option<&serde::de::IgnoredAny>,
    field: &'static str,
    instead: &'static str,
) -> Result<(), ConfigError> {
    match given {
        None => Ok(()),
        Some(serde::de::IgnoredAny) => Err(ConfigError::NotSupported { field, instead }),
    }
}
