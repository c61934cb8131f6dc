//! A machine in memory, with an agent that speaks the real protocol.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use sprite_agent_api::link::{Acceptor, BoxedTransport, Connect, Limits};
use sprite_agent_api::policy::PolicySpec;
use sprite_machine::{Identity, Machine, MachineError, MachineExit, MachineSpec, Statistics};
use sprite_types::{Egress, Resources};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::agent::FakeAgent;
use crate::cut::Cut;
use crate::driver::World;
use crate::switch::{Shared, Step};

/// Bytes under way in each direction of a transport, as in a socket's buffer.
const TRANSPORT: usize = 64 << 10;

/// The file that stands for memory that was written.
pub(crate) const MEMORY: &str = "memory";

/// What is in a machine's memory.
#[derive(Clone)]
pub(crate) struct Memory {
    acceptor: Arc<Acceptor>,
    agent: Arc<FakeAgent>,
    exit: Arc<watch::Sender<Option<String>>>,
}

/// A machine in memory.
pub struct FakeMachine {
    identity: Identity,
    world: Arc<World>,
    switches: Shared,
    acceptor: Arc<Acceptor>,
    agent: Arc<FakeAgent>,
    frozen: watch::Sender<bool>,
    freezes: AtomicU32,
    /// Where its memory is written to, if it can be.
    snapshots: Option<PathBuf>,
    /// Whether its memory was written: then its sessions do not end with it.
    kept: AtomicBool,
    exit: Arc<watch::Sender<Option<String>>>,
    /// What it may: both as the host set them.
    walls: Mutex<(Egress, Resources)>,
    /// What its counters say.
    used: Mutex<Statistics>,
    /// Cuts the transports that there are.
    transports: Mutex<CancellationToken>,
}

impl FakeMachine {
    /// A machine that runs, with fresh memory.
    pub(crate) fn new(spec: &MachineSpec, world: Arc<World>, switches: Shared) -> Arc<Self> {
        let exit = Arc::new(watch::Sender::new(None));
        let agent = FakeAgent::new(spec.identity.sprite, switches.clone(), exit.clone());
        let handler = agent.clone();
        let acceptor = Acceptor::new(Limits::default(), move |stream| {
            handler.clone().accept(stream)
        });
        let memory = Memory {
            acceptor,
            agent,
            exit,
        };
        Self::with(spec, memory, false, world, switches)
    }

    /// A machine that stands still as another one stood whose memory this was.
    pub(crate) fn loaded(
        spec: &MachineSpec,
        memory: Memory,
        world: Arc<World>,
        switches: Shared,
    ) -> Arc<Self> {
        memory.exit.send_replace(None);
        Self::with(spec, memory, true, world, switches)
    }

    fn with(
        spec: &MachineSpec,
        memory: Memory,
        frozen: bool,
        world: Arc<World>,
        switches: Shared,
    ) -> Arc<Self> {
        Arc::new(Self {
            identity: spec.identity,
            world,
            switches,
            acceptor: memory.acceptor,
            agent: memory.agent,
            frozen: watch::Sender::new(frozen),
            freezes: AtomicU32::new(0),
            snapshots: spec.snapshots.clone(),
            kept: AtomicBool::new(frozen),
            exit: memory.exit,
            walls: Mutex::new((spec.egress, spec.resources)),
            used: Mutex::default(),
            transports: Mutex::default(),
        })
    }

    /// Whose it is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Lets the machine end by itself. Its remains stay until it is destroyed.
    pub fn end(&self, reason: &str) {
        self.exit.send_if_modified(|exit| {
            let first = exit.is_none();
            if first {
                *exit = Some(reason.to_owned());
            }
            first
        });
        if !self.kept.load(Ordering::Relaxed) {
            self.agent.kill_sessions();
        }
        self.cut_transports();
    }

    /// Whether it ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.exit.borrow().is_some()
    }

    /// Whether it reaches anything, and how much of the host it may use.
    #[must_use]
    pub fn walls(&self) -> (Egress, Resources) {
        *self.walls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What its agent was told last of its policies.
    #[must_use]
    pub fn policy(&self) -> Option<PolicySpec> {
        self.agent.policy()
    }

    /// The services that run, by name, each with its process.
    #[must_use]
    pub fn services(&self) -> Vec<(String, u32)> {
        self.agent.services.running()
    }

    /// How often the agent was told what services there are to be.
    #[must_use]
    pub fn services_told(&self) -> u64 {
        self.agent.services.told()
    }

    /// What its counters say from now on. They are its own, not its memory's: those of another machine begin at 0.
    pub fn set_used(&self, used: Statistics) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = used;
    }

    /// Whether it stands still.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        *self.frozen.borrow()
    }

    /// How often it was frozen.
    #[must_use]
    pub fn freezes(&self) -> u32 {
        self.freezes.load(Ordering::Relaxed)
    }

    /// Cuts every connection to the agent; streams resume over new ones.
    pub fn cut_transports(&self) {
        let mut token = self
            .transports
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        token.cancel();
        *token = CancellationToken::new();
    }

    /// Sessions that run.
    #[must_use]
    pub fn live_sessions(&self) -> usize {
        self.agent.live_sessions()
    }

    /// Whether its agent says that something inside is in use, and what.
    pub fn set_in_use(&self, what: Option<&str>) {
        self.agent.set_in_use(what.map(str::to_owned));
    }

    /// Has a program listen on a port, beside the one that always does (7).
    pub fn open_port(&self, port: u16) {
        self.agent.listening.open(port);
    }

    /// Has it listen no more.
    pub fn close_port(&self, port: u16) {
        self.agent.listening.close(port);
    }

    /// Connects to the environment's own socket, as a process inside would.
    #[must_use]
    pub fn call(&self) -> tokio::io::DuplexStream {
        self.agent.calls.connect()
    }

    async fn pass(&self, step: Step, what: &str) -> Result<(), MachineError> {
        self.switches
            .pass(step, self.identity.sprite)
            .await
            .map_err(|source| MachineError::Step {
                step: format!("{what} a fake machine"),
                source,
            })
    }
}

#[async_trait]
impl Connect for FakeMachine {
    async fn connect(&self) -> io::Result<BoxedTransport> {
        // Nothing in a frozen machine answers.
        let mut frozen = self.frozen.subscribe();
        let mut exit = self.exit.subscribe();
        tokio::select! {
            biased;
            _ = exit.wait_for(Option::is_some) => {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            thawed = frozen.wait_for(|frozen| !frozen) => drop(thawed),
        }
        let token = self
            .transports
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let (near, far) = tokio::io::duplex(TRANSPORT);
        let far = Box::new(Cut::new(far, token.clone()));
        let acceptor = self.acceptor.clone();
        tokio::spawn(async move { acceptor.serve(far).await });
        Ok(Box::new(Cut::new(near, token)))
    }
}

#[async_trait]
impl Machine for FakeMachine {
    fn identity(&self) -> Identity {
        self.identity
    }

    fn connector(self: Arc<Self>) -> Arc<dyn Connect> {
        self
    }

    async fn exited(&self) -> MachineExit {
        let mut exit = self.exit.subscribe();
        let reason = match exit.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => "machine was dropped".to_owned(),
        };
        MachineExit { reason }
    }

    async fn destroy(&self) -> Result<(), MachineError> {
        self.pass(Step::Destroy, "destroy").await?;
        self.end("destroyed");
        self.world.remove(self.identity.machine);
        Ok(())
    }

    async fn leave(&self) -> Result<(), MachineError> {
        self.destroy().await
    }

    async fn freeze(&self) -> Result<(), MachineError> {
        self.pass(Step::Freeze, "freeze").await?;
        self.frozen.send_replace(true);
        self.freezes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn thaw(&self) -> Result<(), MachineError> {
        self.pass(Step::Thaw, "thaw").await?;
        self.kept.store(false, Ordering::Relaxed);
        self.world.run(self.identity.sprite);
        self.frozen.send_replace(false);
        Ok(())
    }

    async fn snapshot(&self) -> Result<(), MachineError> {
        self.frozen.send_replace(true);
        self.pass(Step::Snapshot, "write the memory of").await?;
        let memory = Memory {
            acceptor: self.acceptor.clone(),
            agent: self.agent.clone(),
            exit: self.exit.clone(),
        };
        let directory = self.snapshots.as_deref();
        let directory = directory.expect("a driver that keeps snapshots is told where");
        std::fs::write(directory.join(MEMORY), self.identity.machine.to_string())
            .expect("write into a directory of the test");
        self.kept.store(true, Ordering::Relaxed);
        self.world.keep(self.identity, memory);
        Ok(())
    }

    async fn set_egress(&self, egress: Egress) -> Result<(), MachineError> {
        self.pass(Step::Egress, "close or open").await?;
        let mut walls = self.walls.lock().unwrap_or_else(PoisonError::into_inner);
        walls.0 = egress;
        Ok(())
    }

    async fn limit(&self, resources: &Resources) -> Result<(), MachineError> {
        self.pass(Step::Limit, "limit").await?;
        let mut walls = self.walls.lock().unwrap_or_else(PoisonError::into_inner);
        walls.1 = *resources;
        Ok(())
    }

    fn resources(&self) -> Option<Resources> {
        Some(self.walls().1)
    }

    async fn statistics(&self) -> Result<Statistics, MachineError> {
        if !self.world.has(self.identity.machine) {
            return Err(MachineError::Step {
                step: "read what a fake machine used".to_owned(),
                source: io::ErrorKind::NotFound.into(),
            });
        }
        let used = *self.used.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Statistics {
            pids: self.agent.live_sessions() as u64 + 1,
            ..used
        })
    }
}
