//! A driver whose machines live in memory. It outlives hosts, as a kernel does, so that a test can drop a host and
//! open another one on what is left.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use sprite_machine::{Beginning, Identity, Machine, MachineDriver, MachineError, MachineSpec};
use sprite_types::{DriverKind, MachineId, SpriteId};
use tokio::sync::{Notify, watch};

use crate::machine::{FakeMachine, MEMORY, Memory};
use crate::switch::{Chance, Held, Shared, Step};

/// A driver of [`FakeMachine`]s.
#[derive(Default)]
pub struct FakeDriver {
    world: Arc<World>,
    /// For whom something has come from outside.
    calls: watch::Sender<BTreeSet<SpriteId>>,
    /// The host is short of memory.
    presses: Notify,
    switches: Shared,
}

/// The machines there are.
#[derive(Default)]
pub(crate) struct World {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// In the order in which they were started.
    machines: Vec<Arc<FakeMachine>>,
    started: usize,
    kind: Option<DriverKind>,
    /// Memory that was written, and how far its sprite had run.
    memories: HashMap<SpriteId, (Identity, u64, Memory)>,
    /// How often something ran that may have written to the sprite's disk.
    runs: HashMap<SpriteId, u64>,
    unsound: Vec<String>,
    /// Machines that were started before the newest system.
    outdated: BTreeSet<MachineId>,
}

impl World {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on what was written of the sprite's memory is old.
    pub(crate) fn run(&self, sprite: SpriteId) {
        *self.state().runs.entry(sprite).or_default() += 1;
    }

    pub(crate) fn keep(&self, of: Identity, memory: Memory) {
        let mut state = self.state();
        let run = state.runs.get(&of.sprite).copied().unwrap_or_default();
        state.memories.insert(of.sprite, (of, run, memory));
    }

    /// The memory of a machine, if that was written and its file is there.
    fn kept(&self, spec: &MachineSpec, of: Identity) -> Result<Memory, MachineError> {
        let unfit = |reason: &str| MachineError::Unfit {
            reason: reason.to_owned(),
        };
        let directory = spec
            .snapshots
            .as_deref()
            .ok_or_else(|| unfit("no directory"))?;
        if !directory.join(MEMORY).exists() {
            return Err(unfit("there is none"));
        }
        let mut state = self.state();
        let sprite = spec.identity.sprite;
        let (whose, run, memory) = state
            .memories
            .get(&sprite)
            .cloned()
            .ok_or_else(|| unfit("it was never written"))?;
        if whose != of {
            return Err(unfit("it is of another machine"));
        }
        if state.runs.get(&sprite) != Some(&run) {
            let text = format!("the memory of {sprite} is loaded beside a disk that went on");
            state.unsound.push(text);
        }
        Ok(memory)
    }

    pub(crate) fn has(&self, machine: MachineId) -> bool {
        let state = self.state();
        let mut machines = state.machines.iter();
        machines.any(|known| known.identity().machine == machine)
    }

    pub(crate) fn remove(&self, machine: MachineId) {
        self.state()
            .machines
            .retain(|other| other.identity().machine != machine);
    }
}

impl FakeDriver {
    /// Makes a step fail the next `times` times.
    pub fn fail(&self, step: Step, times: u32) {
        self.switches.fail(step, times);
    }

    /// Lets chance decide on every step from now on.
    pub fn chance(&self, chance: Chance) {
        self.switches.chance(chance);
    }

    /// Whose memory is kept that can still be used: nothing of the sprite ran since it was written. Its file is the
    /// disks' business.
    #[must_use]
    pub fn memory_of(&self, sprite: SpriteId) -> Option<Identity> {
        let state = self.world.state();
        let (of, run, _) = state.memories.get(&sprite)?;
        (state.runs.get(&sprite) == Some(run)).then_some(*of)
    }

    /// What must never happen and did.
    #[must_use]
    pub fn unsound(&self) -> Vec<String> {
        self.world.state().unsound.clone()
    }

    /// Says to be another driver from now on.
    pub fn pretend(&self, kind: DriverKind) {
        self.world.state().kind = Some(kind);
    }

    /// Makes a step wait as long as what comes back lives.
    #[must_use]
    pub fn hold(&self, step: Step) -> Held {
        self.switches.hold(step)
    }

    /// From now on `program`, which the test serves, listens on that port of every machine.
    pub fn listen(&self, port: u16, program: SocketAddr) {
        self.switches.listen(port, program);
    }

    /// Something comes from outside for a sprite, on a connection that it opened.
    pub fn call(&self, sprite: SpriteId) {
        self.calls.send_modify(|calls| {
            calls.insert(sprite);
        });
    }

    /// The host is short of memory.
    pub fn press(&self) {
        self.presses.notify_one();
    }

    /// From now on machines get another system than those that there are, or were.
    pub fn renew(&self) {
        let mut state = self.world.state();
        let machines = state.machines.iter().map(|machine| machine.identity());
        let kept = state.memories.values().map(|(of, _, _)| *of);
        let all: Vec<_> = machines.chain(kept).map(|of| of.machine).collect();
        state.outdated.extend(all);
    }

    /// How many machines were ever started.
    #[must_use]
    pub fn started(&self) -> usize {
        self.world.state().started
    }

    /// The machines of which something is left, running or not.
    #[must_use]
    pub fn machines(&self) -> Vec<Arc<FakeMachine>> {
        self.world.state().machines.clone()
    }

    /// The machine of a sprite.
    #[must_use]
    pub fn machine_of(&self, sprite: SpriteId) -> Option<Arc<FakeMachine>> {
        self.machines()
            .into_iter()
            .find(|machine| machine.identity().sprite == sprite)
    }

    /// Starts a machine behind the host's back, whatever else runs.
    ///
    /// # Panics
    /// The start was made to fail.
    pub async fn start_unchecked(&self, spec: MachineSpec) {
        let before = self.world.state().unsound.len();
        self.start(spec).await.expect("start a machine");
        self.world.state().unsound.truncate(before);
    }

    /// # Panics
    /// Something happened that must never happen: two machines of one sprite, or a machine without its disk.
    pub fn assert_sound(&self) {
        let unsound = self.unsound();
        assert!(unsound.is_empty(), "{unsound:?}");
    }
}

#[async_trait]
impl MachineDriver for FakeDriver {
    fn kind(&self) -> DriverKind {
        self.world.state().kind.unwrap_or(DriverKind::Container)
    }

    fn keeps_snapshots(&self) -> bool {
        match self.kind() {
            DriverKind::Microvm => true,
            DriverKind::Container => false,
        }
    }

    async fn start(&self, spec: MachineSpec) -> Result<Arc<dyn Machine>, MachineError> {
        let identity = spec.identity;
        let (world, switches) = (self.world.clone(), self.switches.clone());
        let (machine, step) = match spec.beginning {
            Beginning::Boot => {
                world.run(identity.sprite);
                let machine = FakeMachine::new(&spec, world.clone(), switches.clone());
                (machine, Step::Start)
            }
            Beginning::Snapshot { of } => {
                let memory = world.kept(&spec, of)?;
                let machine = FakeMachine::loaded(&spec, memory, world.clone(), switches.clone());
                (machine, Step::Load)
            }
        };
        {
            let mut state = world.state();
            state.started += 1;
            if !spec.disk.exists() {
                let text = format!("{} is started without a disk", identity.sprite);
                state.unsound.push(text);
            }
            let others = state.machines.iter().map(|machine| machine.identity());
            let others: Vec<_> = others
                .filter(|other| other.sprite == identity.sprite)
                .collect();
            if !others.is_empty() {
                state
                    .unsound
                    .push(format!("{identity:?} is started beside {others:?}"));
            }
            // What is cut off from here on leaves a machine behind.
            state.machines.push(machine.clone());
        }
        tokio::task::yield_now().await;
        if let Err(source) = switches.pass(step, identity.sprite).await {
            machine.end("could not be started");
            world.remove(identity.machine);
            return Err(MachineError::Step {
                step: "start a fake machine".to_owned(),
                source,
            });
        }
        Ok(machine)
    }

    async fn adopt(&self) -> Result<Vec<Arc<dyn Machine>>, MachineError> {
        let mut state = self.world.state();
        state.machines.retain(|machine| !machine.has_ended());
        Ok(state
            .machines
            .iter()
            .map(|machine| machine.clone() as Arc<dyn Machine>)
            .collect())
    }

    async fn pressed(&self) {
        self.presses.notified().await;
    }

    async fn called(&self) -> Result<Vec<SpriteId>, MachineError> {
        let mut calls = self.calls.subscribe();
        loop {
            let called: Vec<SpriteId> = calls.borrow_and_update().iter().copied().collect();
            if !called.is_empty() {
                self.calls.send_modify(BTreeSet::clear);
                return Ok(called);
            }
            // The sender is ours.
            let _ = calls.changed().await;
        }
    }

    async fn forget(&self, _sprite: SpriteId) -> Result<(), MachineError> {
        Ok(())
    }

    async fn is_outdated(
        &self,
        of: Identity,
        _snapshots: Option<&Path>,
    ) -> Result<bool, MachineError> {
        Ok(self.world.state().outdated.contains(&of.machine))
    }

    fn sleepers(&self) -> Vec<Identity> {
        Vec::new()
    }
}
