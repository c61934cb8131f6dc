//! vCPUs and memory.

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::{ConfigError, absent};

/// Most vCPUs of one machine, as in Firecracker.
const MAX_VCPUS: u8 = 32;

/// Largest memory in MiB: 512 GiB, below what the first level of any x86-64 CPU's guest paging can address.
const MAX_MEMORY_MIB: u32 = 512 << 10;

/// How many vCPUs: 1 to 32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct VcpuCount(u8);

impl VcpuCount {
    /// The number.
    #[must_use]
    pub fn get(self) -> u8 {
        self.0
    }
}

impl TryFrom<u64> for VcpuCount {
    type Error = ConfigError;

    fn try_from(given: u64) -> Result<VcpuCount, ConfigError> {
        match u8::try_from(given) {
            Ok(count @ 1..=MAX_VCPUS) => Ok(VcpuCount(count)),
            Ok(_) | Err(_) => Err(ConfigError::OutOfRange {
                field: "vcpu_count",
                given,
                least: 1,
                most: u64::from(MAX_VCPUS),
            }),
        }
    }
}

impl From<VcpuCount> for u64 {
    fn from(count: VcpuCount) -> u64 {
        u64::from(count.0)
    }
}

/// How much memory, in MiB: 1 to 524,288.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct MemoryMib(u32);

impl MemoryMib {
    /// The number of MiB.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }

    /// The number of bytes.
    #[must_use]
    pub fn bytes(self) -> u64 {
        u64::from(self.0) << 20
    }
}

impl TryFrom<u64> for MemoryMib {
    type Error = ConfigError;

    fn try_from(given: u64) -> Result<MemoryMib, ConfigError> {
        match u32::try_from(given) {
            Ok(mib @ 1..=MAX_MEMORY_MIB) => Ok(MemoryMib(mib)),
            Ok(_) | Err(_) => Err(ConfigError::OutOfRange {
                field: "mem_size_mib",
                given,
                least: 1,
                most: u64::from(MAX_MEMORY_MIB),
            }),
        }
    }
}

impl From<MemoryMib> for u64 {
    fn from(memory: MemoryMib) -> u64 {
        u64::from(memory.0)
    }
}

/// vCPUs and memory of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Wire", into = "Shown")]
pub struct MachineConfig {
    /// How many vCPUs.
    pub vcpu_count: VcpuCount,
    /// How much memory.
    pub mem_size_mib: MemoryMib,
    /// Accepted for the sake of its senders: what changed is found without tracking it.
    pub track_dirty_pages: bool,
}

/// What a machine has until it is told otherwise, as in Firecracker.
impl Default for MachineConfig {
    fn default() -> MachineConfig {
        MachineConfig {
            vcpu_count: VcpuCount(1),
            mem_size_mib: MemoryMib(128),
            track_dirty_pages: false,
        }
    }
}

/// A change of some of it: what is absent stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "WireChange")]
pub struct MachineConfigChange {
    vcpu_count: Option<VcpuCount>,
    mem_size_mib: Option<MemoryMib>,
    track_dirty_pages: Option<bool>,
}

impl MachineConfigChange {
    /// The configuration after the change.
    #[must_use]
    pub fn applied_to(self, before: MachineConfig) -> MachineConfig {
        MachineConfig {
            vcpu_count: self.vcpu_count.unwrap_or(before.vcpu_count),
            mem_size_mib: self.mem_size_mib.unwrap_or(before.mem_size_mib),
            track_dirty_pages: self.track_dirty_pages.unwrap_or(before.track_dirty_pages),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    vcpu_count: VcpuCount,
    mem_size_mib: MemoryMib,
    #[serde(default)]
    track_dirty_pages: bool,
    #[serde(default)]
    smt: bool,
    cpu_template: Option<String>,
    huge_pages: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireChange {
    vcpu_count: Option<VcpuCount>,
    mem_size_mib: Option<MemoryMib>,
    track_dirty_pages: Option<bool>,
    #[serde(default)]
    smt: bool,
    cpu_template: Option<String>,
    huge_pages: Option<String>,
}

/// Only what the published description has, so that what reads Firecracker's answer reads ours.
#[derive(Serialize)]
struct Shown {
    vcpu_count: VcpuCount,
    mem_size_mib: MemoryMib,
    smt: bool,
    track_dirty_pages: bool,
    cpu_template: &'static str,
    huge_pages: &'static str,
}

impl TryFrom<Wire> for MachineConfig {
    type Error = ConfigError;

    fn try_from(wire: Wire) -> Result<MachineConfig, ConfigError> {
        refuse_the_rest(
            wire.smt,
            wire.cpu_template.as_deref(),
            wire.huge_pages.as_deref(),
        )?;
        Ok(MachineConfig {
            vcpu_count: wire.vcpu_count,
            mem_size_mib: wire.mem_size_mib,
            track_dirty_pages: wire.track_dirty_pages,
        })
    }
}

impl TryFrom<WireChange> for MachineConfigChange {
    type Error = ConfigError;

    fn try_from(wire: WireChange) -> Result<MachineConfigChange, ConfigError> {
        refuse_the_rest(
            wire.smt,
            wire.cpu_template.as_deref(),
            wire.huge_pages.as_deref(),
        )?;
        Ok(MachineConfigChange {
            vcpu_count: wire.vcpu_count,
            mem_size_mib: wire.mem_size_mib,
            track_dirty_pages: wire.track_dirty_pages,
        })
    }
}

impl From<MachineConfig> for Shown {
    fn from(config: MachineConfig) -> Shown {
        Shown {
            vcpu_count: config.vcpu_count,
            mem_size_mib: config.mem_size_mib,
            smt: false,
            track_dirty_pages: config.track_dirty_pages,
            cpu_template: "None",
            huge_pages: "None",
        }
    }
}

/// Refuses what Firecracker's API has here and this program does not do.
fn refuse_the_rest(
    smt: bool,
    cpu_template: Option<&str>,
    huge_pages: Option<&str>,
) -> Result<(), ConfigError> {
    absent(
        smt.then_some(&IgnoredAny),
        "smt",
        "every vCPU is a core of its own",
    )?;
    absent(
        cpu_template
            .filter(|name| *name != "None")
            .map(|_| &IgnoredAny),
        "cpu_template",
        "the guest's CPU has one template; change it by PUT /cpu-config",
    )?;
    absent(
        huge_pages
            .filter(|size| *size != "None")
            .map(|_| &IgnoredAny),
        "huge_pages",
        "guest memory is made of ordinary pages",
    )
}
