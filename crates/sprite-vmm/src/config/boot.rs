//! What the guest boots.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::ConfigError;
use super::name::usable_path;

/// Longest command line in bytes: `COMMAND_LINE_SIZE` of Linux on x86-64 less the final zero, and less what
/// the root drive's `root=/dev/vda rw` may add. Source: `arch/x86/include/asm/setup.h`.
pub const MAX_BOOT_ARGS: usize = 2047 - 17;

/// What the kernel is told if nobody says otherwise: its console on the serial port, and an end of the
/// program rather than a halted guest when it restarts or panics.
const DEFAULT_BOOT_ARGS: &str = "console=ttyS0 reboot=k panic=1";

/// Kernel, initial RAM disk and command line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Wire")]
pub struct BootSource {
    /// The kernel: an uncompressed ELF file with a PVH entry.
    pub kernel_image_path: PathBuf,
    /// The initial RAM disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initrd_path: Option<PathBuf>,
    boot_args: String,
}

impl BootSource {
    /// The kernel's command line: printable ASCII, at most [`MAX_BOOT_ARGS`] bytes.
    #[must_use]
    pub fn boot_args(&self) -> &str {
        &self.boot_args
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    kernel_image_path: PathBuf,
    initrd_path: Option<PathBuf>,
    boot_args: Option<String>,
}

impl TryFrom<Wire> for BootSource {
    type Error = ConfigError;

    fn try_from(wire: Wire) -> Result<BootSource, ConfigError> {
        let boot_args = wire
            .boot_args
            .unwrap_or_else(|| DEFAULT_BOOT_ARGS.to_owned());
        let printable = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
        if boot_args.len() > MAX_BOOT_ARGS || !boot_args.bytes().all(printable) {
            return Err(ConfigError::Form {
                field: "boot_args",
                rule: "at most 2030 printable ASCII characters",
            });
        }
        Ok(BootSource {
            kernel_image_path: usable_path(&wire.kernel_image_path, "kernel_image_path")?,
            initrd_path: wire
                .initrd_path
                .map(|path| usable_path(&path, "initrd_path"))
                .transpose()?,
            boot_args,
        })
    }
}
