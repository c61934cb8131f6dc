//! The control of one machine: every command against every state.
//!
//! ```text
//! not started ── Start ──▶ running ◀── Resume ── paused
//!      │                      └────── Pause ──────▶ ▲
//!      └── LoadSnapshot ────────────────────────────┘
//! ```
//! A command that fails leaves the state as it was, so that it may be sent again. The machine ends with this
//! program; there is no way back to *not started*.

mod desk;
mod hypervisor;
mod pending;

use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;

use crate::command::{
    Answer, Capabilities, Command, Configuration, InstanceInfo, MachineState, Untimely, VersionInfo,
};
use crate::config::VmConfig;
use crate::end::EndSignal;
use crate::log::{self, LogError};
use crate::metrics::{MetricsError, MetricsFile};
use crate::snapshot::{self, CreateError, Lineage, LoadError, LoadSnapshot};

pub use desk::{Desk, DeskClosed, Outcome, Sender, desk};
pub use hypervisor::{Failure, Hypervisor, Machine, NotLoaded};
pub use pending::Mismatch;

use pending::Pending;

/// Version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What this can do beyond Firecracker's API.
const CAPABILITIES: Capabilities = Capabilities {
    diff_in_place: true,
    disk_generation: true,
    power_off: true,
    durable_snapshots: true,
    fault_kinds: true,
};

/// A command that was not done. The machine is as it was before.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It came at the wrong time.
    #[error(transparent)]
    Untimely(#[from] Untimely),
    /// It does not go with what was said before.
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    /// A snapshot brings a machine with it.
    #[error("load a snapshot: a machine is configured already")]
    Configured,
    /// This program does not do that.
    #[error("{what} is not supported: {instead}")]
    NotSupported {
        /// What was asked.
        what: &'static str,
        /// What to do instead.
        instead: &'static str,
    },
    /// The machine did not start.
    #[error("start the machine")]
    Start(#[source] Failure),
    /// The machine did not stand still.
    #[error("pause the machine")]
    Pause(#[source] Failure),
    /// The machine did not go on.
    #[error("resume the machine")]
    Resume(#[source] Failure),
    /// No snapshot was made.
    #[error("create a snapshot")]
    Create(#[source] CreateError),
    /// No machine was made of a snapshot.
    #[error("load a snapshot")]
    Load(#[source] LoadError),
    /// The log's file does not open.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Counts are written to one place, once and for all.
    #[error("metrics have their file already")]
    MetricsTwice,
    /// Nobody said where counts go.
    #[error("metrics have no file: PUT /metrics before the machine starts")]
    NoMetrics,
    /// Counts could not be written.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
}

/// What a failure is about, for programs: what to do next depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// The request is not one, or says something impossible.
    Invalid,
    /// Not in this state of the machine.
    Untimely,
    /// Not by this program.
    NotSupported,
    /// The snapshot is for another CPU, or of a version that is not known: no machine here will ever load it.
    SnapshotUnfit,
    /// The snapshot is damaged, or not whole, or its parts or its disk do not belong together.
    SnapshotDamaged,
    /// Something that might work another time.
    Failed,
}

impl CommandError {
    /// What this failure is about.
    #[must_use]
    pub fn kind(&self) -> FaultKind {
        match self {
            CommandError::Untimely(_) | CommandError::Configured | CommandError::MetricsTwice => {
                FaultKind::Untimely
            }
            CommandError::Mismatch(_) | CommandError::NoMetrics => FaultKind::Invalid,
            CommandError::NotSupported { .. } => FaultKind::NotSupported,
            CommandError::Load(error) => error.kind(),
            CommandError::Start(_)
            | CommandError::Pause(_)
            | CommandError::Resume(_)
            | CommandError::Create(_)
            | CommandError::Log(_)
            | CommandError::Metrics(_) => FaultKind::Failed,
        }
    }
}

/// The control of one machine.
pub struct Controller<H: Hypervisor> {
    hypervisor: H,
    id: String,
    metrics: Option<MetricsFile>,
    state: State<H::Machine>,
}

enum State<M> {
    NotStarted(Pending),
    Started(Started<M>),
}

struct Started<M> {
    phase: Phase,
    config: VmConfig,
    machine: M,
    lineage: Lineage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    Paused,
}

impl<H: Hypervisor> Controller<H> {
    /// The control of a machine that is yet to be configured; `id` is what the caller calls this process.
    pub fn new(hypervisor: H, id: String) -> Controller<H> {
        Controller {
            hypervisor,
            id,
            metrics: None,
            state: State::NotStarted(Pending::default()),
        }
    }

    /// How far the machine is.
    pub fn machine_state(&self) -> MachineState {
        match &self.state {
            State::NotStarted(_) => MachineState::NotStarted,
            State::Started(started) => match started.phase {
                Phase::Running => MachineState::Running,
                Phase::Paused => MachineState::Paused,
            },
        }
    }

    /// Tells when the guest ends, once there is one.
    pub fn end(&self) -> Option<Arc<EndSignal>> {
        match &self.state {
            State::NotStarted(_) => None,
            State::Started(started) => Some(started.machine.end()),
        }
    }

    /// Does one command.
    ///
    /// # Errors
    /// [`CommandError`] says why it was not done; the machine is as it was before.
    pub fn handle(&mut self, command: Command) -> Result<Answer, CommandError> {
        command.admit(self.machine_state())?;
        match &mut self.state {
            State::NotStarted(pending) => match configure(pending, command)? {
                Step::Answered(answer) => Ok(answer),
                Step::Left(command) => self.perform(command),
            },
            State::Started(_) => self.perform(command),
        }
    }

    /// Writes a line of counts if there is a file for it, and says on the log if that fails.
    pub fn flush_at_end(&mut self) {
        if self.metrics.is_some()
            && let Err(error) = self.flush_metrics()
        {
            log::warn(format_args!("{}", crate::failure::chain(&error)));
        }
    }

    /// All commands but those that only change what is configured.
    fn perform(&mut self, command: Command) -> Result<Answer, CommandError> {
        match command {
            Command::DescribeInstance => Ok(Answer::Instance(InstanceInfo {
                id: self.id.clone(),
                state: self.machine_state(),
                vmm_version: VERSION,
                app_name: "sprite-vmm",
            })),
            Command::DescribeVersion => Ok(Answer::Version(VersionInfo {
                firecracker_version: VERSION,
            })),
            Command::DescribeCapabilities => Ok(Answer::Capabilities(CAPABILITIES)),
            Command::DescribeMachine => Ok(Answer::Machine(self.configuration().machine_config)),
            Command::DescribeAll => Ok(Answer::All(Box::new(self.configuration()))),
            Command::SetLogger(target) => {
                log::configure(&target)?;
                Ok(Answer::Done)
            }
            Command::SetMetrics(target) => {
                if self.metrics.is_some() {
                    return Err(CommandError::MetricsTwice);
                }
                self.metrics = Some(MetricsFile::open(&target.metrics_path)?);
                Ok(Answer::Done)
            }
            Command::Start => self.start(),
            Command::LoadSnapshot(params) => self.load(&params),
            Command::Pause => self.turn(Phase::Paused),
            Command::Resume => self.turn(Phase::Running),
            Command::CreateSnapshot(params) => {
                let cpu = self.hypervisor.cpu();
                let started = self.started()?;
                let made = snapshot::create(
                    &params,
                    &started.config,
                    cpu,
                    &mut started.machine,
                    &mut started.lineage,
                );
                made.map_err(CommandError::Create)?;
                Ok(Answer::Done)
            }
            Command::FlushMetrics => {
                self.flush_metrics()?;
                Ok(Answer::Done)
            }
            Command::UpdateDrive(_) => Err(CommandError::NotSupported {
                what: "another file for a drive of a started machine",
                instead: "start a machine with the other file",
            }),
            Command::SendCtrlAltDel => Err(CommandError::NotSupported {
                what: "SendCtrlAltDel",
                instead: "the guest has no keyboard; ask a program inside it to shut down",
            }),
            // `configure` has done them, and `admit` lets them through to nobody else.
            Command::SetMachine(_)
            | Command::ChangeMachine(_)
            | Command::SetCpu(_)
            | Command::SetBootSource(_)
            | Command::SetDrive(_)
            | Command::SetNetworkInterface(_)
            | Command::SetVsock(_)
            | Command::SetEntropy(_)
            | Command::SetSerial(_) => Err(Untimely::Started.into()),
        }
    }

    fn configuration(&self) -> Configuration {
        match &self.state {
            State::NotStarted(pending) => pending.describe(),
            State::Started(started) => started.config.clone().into(),
        }
    }

    fn started(&mut self) -> Result<&mut Started<H::Machine>, CommandError> {
        match &mut self.state {
            State::NotStarted(_) => Err(Untimely::NotStarted.into()),
            State::Started(started) => Ok(started),
        }
    }

    fn start(&mut self) -> Result<Answer, CommandError> {
        let State::NotStarted(pending) = &self.state else {
            return Err(Untimely::Started.into());
        };
        let config = pending.complete()?;
        let machine = self.hypervisor.boot(&config).map_err(CommandError::Start)?;
        let lineage = Lineage::booted().map_err(|error| CommandError::Start(error.into()))?;
        self.state = State::Started(Started {
            phase: Phase::Running,
            config,
            machine,
            lineage,
        });
        Ok(Answer::Done)
    }

    fn load(&mut self, params: &LoadSnapshot) -> Result<Answer, CommandError> {
        let State::NotStarted(pending) = &self.state else {
            return Err(Untimely::Started.into());
        };
        if !pending.is_untouched() {
            return Err(CommandError::Configured);
        }
        let loaded = snapshot::load(params, &self.hypervisor, &pending.serial)
            .map_err(CommandError::Load)?;
        self.state = State::Started(Started {
            phase: Phase::Paused,
            config: loaded.config,
            machine: loaded.machine,
            lineage: loaded.lineage,
        });
        if params.resume_vm {
            self.turn(Phase::Running)?;
        }
        Ok(Answer::Done)
    }

    fn turn(&mut self, to: Phase) -> Result<Answer, CommandError> {
        let started = self.started()?;
        match (started.phase, to) {
            (Phase::Running, Phase::Running) | (Phase::Paused, Phase::Paused) => {}
            (Phase::Running, Phase::Paused) => {
                started.machine.pause().map_err(CommandError::Pause)?;
            }
            (Phase::Paused, Phase::Running) => {
                started.machine.resume().map_err(CommandError::Resume)?;
            }
        }
        started.phase = to;
        Ok(Answer::Done)
    }

    fn flush_metrics(&mut self) -> Result<(), CommandError> {
        let counts = match &self.state {
            State::NotStarted(_) => serde_json::Map::new(),
            State::Started(started) => started.machine.take_counts(),
        };
        let file = self.metrics.as_mut().ok_or(CommandError::NoMetrics)?;
        Ok(file.write(SystemTime::now(), counts)?)
    }
}

/// What became of a command while the machine is configured.
enum Step {
    Answered(Answer),
    /// It is not about what is configured.
    Left(Command),
}

fn configure(pending: &mut Pending, command: Command) -> Result<Step, Mismatch> {
    match command {
        Command::SetMachine(machine) => pending.machine = machine,
        Command::ChangeMachine(change) => pending.machine = change.applied_to(pending.machine),
        Command::SetCpu(cpu) => pending.cpu = cpu,
        Command::SetBootSource(source) => pending.boot_source = Some(source),
        Command::SetDrive(drive) => pending.set_drive(drive)?,
        Command::SetNetworkInterface(interface) => pending.set_network_interface(interface)?,
        Command::SetVsock(vsock) => pending.vsock = Some(vsock),
        Command::SetEntropy(entropy) => pending.entropy = Some(entropy),
        Command::SetSerial(serial) => pending.serial = serial,
        Command::DescribeInstance
        | Command::DescribeVersion
        | Command::DescribeCapabilities
        | Command::DescribeMachine
        | Command::DescribeAll
        | Command::SetLogger(_)
        | Command::SetMetrics(_)
        | Command::Start
        | Command::Pause
        | Command::Resume
        | Command::UpdateDrive(_)
        | Command::SendCtrlAltDel
        | Command::FlushMetrics
        | Command::CreateSnapshot(_)
        | Command::LoadSnapshot(_) => return Ok(Step::Left(command)),
    }
    Ok(Step::Answered(Answer::Done))
}
