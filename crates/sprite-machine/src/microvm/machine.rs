//! A machine that runs: its agent, its end, and what is removed after it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sprite_agent_api::guest::AGENT_PORT;
use sprite_agent_api::link::{BoxedTransport, Connect};
use sprite_types::{Egress, Resources};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::Mutex;

use super::api::{Api, ApiError};
use super::console::Console;
use super::launch::ASK_WITHIN;
use super::request::{self, API_SOCKET, Request, VSOCK};
use super::run_dir::RunDir;
use super::{Shared, snapshot};
use crate::allowed::Allowed;
use crate::cgroup::Part;
use crate::failure::{gone, step};
use crate::process::Process;
use crate::record::Record;
use crate::{Identity, Machine, MachineError, MachineExit, Statistics};

/// The guest's kernel answers at once, if it runs at all.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// Longest answer to `CONNECT`: `OK`, a port, a line's end.
const LONGEST_ANSWER: usize = 32;

/// A virtual machine.
pub(super) struct MicrovmMachine {
    shared: Arc<Shared>,
    record: Record,
    /// The monitor. When it is gone, the machine is.
    process: Process,
    run: RunDir,
    console: Console,
    /// Marks the machine's user ids as taken, whatever the monitor does with its own mark.
    _range: OwnedFd,
    /// Whether everything of it was removed.
    removed: Mutex<bool>,
    allowed: Allowed,
}

/// A machine of an earlier server that still runs.
pub(super) struct Found {
    shared: Arc<Shared>,
    record: Record,
    process: Process,
    run: RunDir,
    console: Console,
}

impl Found {
    /// The machine. `range` is our mark on its user ids.
    pub(super) fn machine(self, range: OwnedFd) -> Arc<dyn Machine> {
        let Self {
            shared,
            record,
            process,
            run,
            console,
        } = self;
        Arc::new(MicrovmMachine::new(
            shared, record, process, run, console, range,
        ))
    }
}

impl MicrovmMachine {
    pub(super) fn new(
        shared: Arc<Shared>,
        record: Record,
        process: Process,
        run: RunDir,
        console: Console,
        range: OwnedFd,
    ) -> Self {
        Self {
            shared,
            record,
            process,
            run,
            console,
            _range: range,
            removed: Mutex::new(false),
            allowed: Allowed::new(None),
        }
    }

    /// What runs of a record's machine.
    pub(super) fn find(
        shared: &Arc<Shared>,
        record: &Record,
    ) -> Result<Option<Found>, MachineError> {
        let Some(mark) = record.process else {
            return Ok(None);
        };
        let Some(process) = Process::open(mark)? else {
            return Ok(None);
        };
        let run = match RunDir::open(mark) {
            Ok(run) => run,
            // It is about to end.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(step("look into the jail")(error)),
        };
        // What was opened is its own only if it had not ended by then.
        let ended = process.has_ended();
        if ended.map_err(step("look at the machine's process"))? {
            return Ok(None);
        }
        let console = Console::open(&shared.holdings.records.log(record.identity.machine));
        Ok(Some(Found {
            shared: shared.clone(),
            record: record.clone(),
            process,
            run,
            console: console.map_err(step("open the machine's console"))?,
        }))
    }

    /// Asks the monitor on a connection of its own.
    async fn ask(&self, request: &Request, within: Duration) -> Result<(), ApiError> {
        let stream = self.run.connect(API_SOCKET).await.map_err(ApiError::Io)?;
        Api::new(stream).ask(request, within).await.map(drop)
    }

    async fn dial(&self) -> io::Result<UnixStream> {
        let mut stream = self.run.connect(VSOCK).await?;
        stream
            .write_all(format!("CONNECT {AGENT_PORT}\n").as_bytes())
            .await?;
        let mut answer = Vec::new();
        // One byte at a time: what follows is the agent's.
        while answer.last() != Some(&b'\n') {
            if answer.len() == LONGEST_ANSWER {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the monitor's answer is none",
                ));
            }
            answer.push(stream.read_u8().await?);
        }
        if answer.starts_with(b"OK ") {
            Ok(stream)
        } else {
            Err(io::ErrorKind::ConnectionRefused.into())
        }
    }
}

#[async_trait]
impl Connect for MicrovmMachine {
    async fn connect(&self) -> io::Result<BoxedTransport> {
        let dialled = tokio::time::timeout(CONNECT_WITHIN, self.dial()).await;
        match dialled.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(stream) => Ok(Box::new(stream)),
            Err(_) if self.process.has_ended()? => Err(io::Error::new(
                io::ErrorKind::NotConnected,
                "the machine has ended",
            )),
            Err(error) => Err(error),
        }
    }
}

#[async_trait]
impl Machine for MicrovmMachine {
    fn identity(&self) -> Identity {
        self.record.identity
    }

    fn connector(self: Arc<Self>) -> Arc<dyn Connect> {
        self
    }

    async fn exited(&self) -> MachineExit {
        self.process.gone().await;
        MachineExit {
            reason: self.console.last_lines(),
        }
    }

    async fn destroy(&self) -> Result<(), MachineError> {
        let mut removed = self.removed.lock().await;
        if *removed {
            return Ok(());
        }
        self.process.kill()?;
        self.process.dies().await?;
        self.shared.holdings.remove(&self.record).await?;
        *removed = true;
        Ok(())
    }

    async fn freeze(&self) -> Result<(), MachineError> {
        let paused = self.ask(&request::pause(), ASK_WITHIN).await;
        paused.map_err(|error| error.step("pause the machine"))
    }

    async fn thaw(&self) -> Result<(), MachineError> {
        // From its next step on the disk goes on without the memory that was written.
        snapshot::forget(&self.record)?;
        let resumed = self.ask(&request::resume(), ASK_WITHIN).await;
        resumed.map_err(|error| error.step("let the machine run on"))?;
        self.shared.holdings.wake(&self.record).await
    }

    async fn leave(&self) -> Result<(), MachineError> {
        let mut removed = self.removed.lock().await;
        if *removed {
            return Ok(());
        }
        self.process.kill()?;
        self.process.dies().await?;
        self.shared.holdings.keep(&self.record).await?;
        *removed = true;
        Ok(())
    }

    async fn snapshot(&self) -> Result<(), MachineError> {
        let writing = snapshot::Writing::begin(&self.record)?;
        self.freeze().await?;
        let capabilities = self.capabilities().await?;
        let request = writing.request(capabilities);
        let written = self.ask(&request, snapshot::WRITE_WITHIN).await;
        written.map_err(|error| error.step("write the machine's memory"))?;
        writing.finish()
    }

    async fn set_egress(&self, egress: Egress) -> Result<(), MachineError> {
        // Held over it, so that the slot is not given to another machine meanwhile.
        let removed = self.removed.lock().await;
        if *removed {
            return Ok(());
        }
        self.shared.holdings.set_egress(&self.record, egress).await
    }

    async fn limit(&self, resources: &Resources) -> Result<(), MachineError> {
        let removed = self.removed.lock().await;
        if *removed {
            return Ok(());
        }
        let cgroups = &self.shared.holdings.cgroups;
        cgroups.limit_cpus(&self.record.group(), Part::Monitor, resources.cpus)?;
        self.allow(resources);
        Ok(())
    }

    fn resources(&self) -> Option<Resources> {
        self.allowed.get()
    }

    async fn statistics(&self) -> Result<Statistics, MachineError> {
        // Held over it, so that the slot is not given to another machine meanwhile.
        let removed = self.removed.lock().await;
        if *removed {
            return Err(gone());
        }
        let holdings = &self.shared.holdings;
        holdings.statistics(&self.record, Part::Monitor)
    }
}

impl MicrovmMachine {
    /// Takes down what the machine may use: never more than it was made of. Within it the agent's control groups
    /// are what limits memory and processes.
    pub(super) fn allow(&self, resources: &Resources) {
        let made = self.record.monitor.as_ref();
        let memory_mib = made.map_or(resources.memory_mib, |made| made.memory_mib);
        let vcpus = made.and_then(|made| made.vcpus).unwrap_or(resources.cpus);
        self.allowed.set(Resources {
            memory_mib: resources.memory_mib.min(memory_mib),
            cpus: resources.cpus.min(vcpus),
            ..*resources
        });
    }

    async fn capabilities(&self) -> Result<super::Capabilities, MachineError> {
        let ask = async || {
            let stream = self.run.connect(API_SOCKET).await.map_err(ApiError::Io)?;
            Api::new(stream).capabilities(ASK_WITHIN).await
        };
        let found = self.shared.capabilities.get_or_try_init(ask).await;
        found
            .copied()
            .map_err(|error| error.step("ask what the monitor can do"))
    }
}
