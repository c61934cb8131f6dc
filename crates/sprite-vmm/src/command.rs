//! The whole interface of this program: one enum of commands, and when each is allowed.

use serde::Serialize;

use crate::config::{
    BootSource, CpuConfig, Drive, DriveUpdate, Entropy, MachineConfig, MachineConfigChange,
    NetworkInterface, Serial, VmConfig, Vsock,
};
use crate::log::LogTarget;
use crate::metrics::MetricsTarget;
use crate::snapshot::{CreateSnapshot, LoadSnapshot};

/// All that can be asked of this program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Who is this, and in which state?
    DescribeInstance,
    /// Which version is this?
    DescribeVersion,
    /// What can this do that Firecracker cannot?
    DescribeCapabilities,
    /// vCPUs and memory.
    DescribeMachine,
    /// All that was configured.
    DescribeAll,
    /// Where the log goes.
    SetLogger(LogTarget),
    /// Where counts go.
    SetMetrics(MetricsTarget),
    /// vCPUs and memory.
    SetMachine(MachineConfig),
    /// Some of it.
    ChangeMachine(MachineConfigChange),
    /// How the CPU differs from the template.
    SetCpu(CpuConfig),
    /// What is booted.
    SetBootSource(BootSource),
    /// A drive, new or instead of the one with its id.
    SetDrive(Drive),
    /// A network interface, new or instead of the one with its id.
    SetNetworkInterface(NetworkInterface),
    /// The socket between host and guest.
    SetVsock(Vsock),
    /// The source of randomness.
    SetEntropy(Entropy),
    /// Where the console goes.
    SetSerial(Serial),
    /// Boots the machine.
    Start,
    /// Stops it where it is.
    Pause,
    /// Lets it go on.
    Resume,
    /// Gives a drive another file.
    UpdateDrive(DriveUpdate),
    /// Presses Ctrl, Alt and Delete.
    SendCtrlAltDel,
    /// Writes a line of counts.
    FlushMetrics,
    /// Writes the machine to files.
    CreateSnapshot(CreateSnapshot),
    /// Makes a machine of such files.
    LoadSnapshot(LoadSnapshot),
}

/// How far the machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum MachineState {
    /// It is being configured.
    #[serde(rename = "Not started")]
    NotStarted,
    /// Its vCPUs run.
    Running,
    /// They stand still.
    Paused,
}

/// What a command needs the machine to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    Anything,
    NotStarted,
    Started,
    Paused,
}

/// A command came at the wrong time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Untimely {
    /// It belongs before the start.
    #[error("the machine has started: this is only possible before")]
    Started,
    /// It belongs after the start.
    #[error("the machine has not started: this is only possible afterwards")]
    NotStarted,
    /// The machine must stand still for it.
    #[error("the machine runs: pause it first")]
    Running,
}

impl Command {
    /// Whether this may be done to a machine in `state`.
    ///
    /// # Errors
    /// [`Untimely`] says what the machine would have to be.
    pub fn admit(&self, state: MachineState) -> Result<(), Untimely> {
        match (self.needs(), state) {
            (Needs::Anything, _)
            | (Needs::NotStarted, MachineState::NotStarted)
            | (Needs::Started, MachineState::Running | MachineState::Paused)
            | (Needs::Paused, MachineState::Paused) => Ok(()),
            (Needs::NotStarted, MachineState::Running | MachineState::Paused) => {
                Err(Untimely::Started)
            }
            (Needs::Started | Needs::Paused, MachineState::NotStarted) => Err(Untimely::NotStarted),
            (Needs::Paused, MachineState::Running) => Err(Untimely::Running),
        }
    }

    fn needs(&self) -> Needs {
        match self {
            Command::DescribeInstance
            | Command::DescribeVersion
            | Command::DescribeCapabilities
            | Command::DescribeMachine
            | Command::DescribeAll => Needs::Anything,
            Command::SetLogger(_)
            | Command::SetMetrics(_)
            | Command::SetMachine(_)
            | Command::ChangeMachine(_)
            | Command::SetCpu(_)
            | Command::SetBootSource(_)
            | Command::SetDrive(_)
            | Command::SetNetworkInterface(_)
            | Command::SetVsock(_)
            | Command::SetEntropy(_)
            | Command::SetSerial(_)
            | Command::Start
            | Command::LoadSnapshot(_) => Needs::NotStarted,
            // Pausing what stands still and resuming what runs are done already.
            Command::Pause
            | Command::Resume
            | Command::UpdateDrive(_)
            | Command::SendCtrlAltDel
            | Command::FlushMetrics => Needs::Started,
            Command::CreateSnapshot(_) => Needs::Paused,
        }
    }
}

/// What comes back of a command that was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// Nothing but that it was done.
    Done,
    /// To [`Command::DescribeInstance`].
    Instance(InstanceInfo),
    /// To [`Command::DescribeVersion`].
    Version(VersionInfo),
    /// To [`Command::DescribeCapabilities`].
    Capabilities(Capabilities),
    /// To [`Command::DescribeMachine`].
    Machine(MachineConfig),
    /// To [`Command::DescribeAll`].
    All(Box<Configuration>),
}

/// Who this is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InstanceInfo {
    /// What the caller named this process.
    pub id: String,
    /// How far the machine is.
    pub state: MachineState,
    /// Version of this program.
    pub vmm_version: &'static str,
    /// Name of this program.
    pub app_name: &'static str,
}

/// Which version this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct VersionInfo {
    /// Version of this program. The name of the field is what readers of Firecracker's API look for.
    pub firecracker_version: &'static str,
}

/// What this can do beyond Firecracker's API. Only ever added to: what is absent is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Capabilities {
    /// A diff snapshot writes into the last snapshot's memory file, which is loadable as a whole afterwards.
    pub diff_in_place: bool,
    /// Snapshots take and compare `disk_generation`.
    pub disk_generation: bool,
    /// The guest can power itself off by ACPI; this program then ends with status 0.
    pub power_off: bool,
    /// A snapshot that was acknowledged is on the medium, memory, state and directory entries.
    pub durable_snapshots: bool,
    /// A refusal says by `fault_kind` what it is about.
    pub fault_kinds: bool,
}

/// All that was configured, so far or for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Configuration {
    /// vCPUs and memory.
    pub machine_config: MachineConfig,
    /// How the CPU differs from the template.
    pub cpu_config: CpuConfig,
    /// What is booted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot_source: Option<BootSource>,
    /// Block devices.
    pub drives: Vec<Drive>,
    /// Network devices.
    pub network_interfaces: Vec<NetworkInterface>,
    /// The socket between host and guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vsock: Option<Vsock>,
    /// The source of randomness.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entropy: Option<Entropy>,
}

impl From<VmConfig> for Configuration {
    fn from(config: VmConfig) -> Configuration {
        Configuration {
            machine_config: config.machine_config,
            cpu_config: config.cpu_config,
            boot_source: Some(config.boot_source),
            drives: config.drives,
            network_interfaces: config.network_interfaces,
            vsock: config.vsock,
            entropy: config.entropy,
        }
    }
}
