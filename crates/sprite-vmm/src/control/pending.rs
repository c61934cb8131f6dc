//! A machine that is being configured.

use crate::command::Configuration;
use crate::config::{
    BootSource, CpuConfig, Drive, Entropy, MAX_DRIVES, MAX_NETWORK_INTERFACES, MachineConfig,
    NetworkInterface, Serial, VmConfig, Vsock,
};

/// What was said of the machine so far.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Pending {
    pub(super) machine: MachineConfig,
    pub(super) cpu: CpuConfig,
    pub(super) boot_source: Option<BootSource>,
    drives: Vec<Drive>,
    network_interfaces: Vec<NetworkInterface>,
    pub(super) vsock: Option<Vsock>,
    pub(super) entropy: Option<Entropy>,
    pub(super) serial: Serial,
}

/// Things that are valid, but not together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// There is no interrupt line for another one.
    #[error("a machine has at most {most} {what}")]
    TooMany {
        /// What there are too many of.
        what: &'static str,
        /// How many there may be.
        most: usize,
    },
    /// Two drives want to be the kernel's root.
    #[error("drive {other} is the root device already")]
    SecondRoot {
        /// The drive that is.
        other: String,
    },
    /// Two network interfaces want the same tap.
    #[error("network interface {other} has this host_dev_name already")]
    SameTap {
        /// The interface that has it.
        other: String,
    },
    /// There is nothing to boot.
    #[error("nothing is said about what to boot: PUT /boot-source first")]
    NoBootSource,
}

impl Pending {
    pub(super) fn set_drive(&mut self, drive: Drive) -> Result<(), Mismatch> {
        let root = self
            .drives
            .iter()
            .find(|other| other.is_root_device && other.drive_id != drive.drive_id);
        if let (true, Some(other)) = (drive.is_root_device, root) {
            return Err(Mismatch::SecondRoot {
                other: other.drive_id.to_string(),
            });
        }
        let same = |other: &Drive| other.drive_id == drive.drive_id;
        put(&mut self.drives, same, drive.clone(), "drives", MAX_DRIVES)
    }

    pub(super) fn set_network_interface(
        &mut self,
        interface: NetworkInterface,
    ) -> Result<(), Mismatch> {
        let taken = self.network_interfaces.iter().find(|other| {
            other.host_dev_name == interface.host_dev_name && other.iface_id != interface.iface_id
        });
        if let Some(other) = taken {
            return Err(Mismatch::SameTap {
                other: other.iface_id.to_string(),
            });
        }
        let same = |other: &NetworkInterface| other.iface_id == interface.iface_id;
        put(
            &mut self.network_interfaces,
            same,
            interface.clone(),
            "network interfaces",
            MAX_NETWORK_INTERFACES,
        )
    }

    /// Whether nothing was said but where the console goes, which is not the machine's own.
    pub(super) fn is_untouched(&self) -> bool {
        let untouched = Pending {
            serial: self.serial.clone(),
            ..Pending::default()
        };
        *self == untouched
    }

    /// The machine as it is to be made: the root drive first, so that the guest finds it as `/dev/vda`.
    pub(super) fn complete(&self) -> Result<VmConfig, Mismatch> {
        let pending = self.clone();
        let mut drives = pending.drives;
        drives.sort_by_key(|drive| !drive.is_root_device);
        Ok(VmConfig {
            machine_config: pending.machine,
            cpu_config: pending.cpu,
            boot_source: pending.boot_source.ok_or(Mismatch::NoBootSource)?,
            drives,
            network_interfaces: pending.network_interfaces,
            vsock: pending.vsock,
            entropy: pending.entropy,
            serial: pending.serial,
        })
    }

    pub(super) fn describe(&self) -> Configuration {
        let pending = self.clone();
        Configuration {
            machine_config: pending.machine,
            cpu_config: pending.cpu,
            boot_source: pending.boot_source,
            drives: pending.drives,
            network_interfaces: pending.network_interfaces,
            vsock: pending.vsock,
            entropy: pending.entropy,
        }
    }
}

/// Puts `new` in the place of the one that is the same, or behind all.
fn put<T>(
    list: &mut Vec<T>,
    same: impl FnMut(&T) -> bool,
    new: T,
    what: &'static str,
    most: usize,
) -> Result<(), Mismatch> {
    match list.iter().position(same) {
        Some(place) => list[place] = new,
        None if list.len() == most => return Err(Mismatch::TooMany { what, most }),
        None => list.push(new),
    }
    Ok(())
}
