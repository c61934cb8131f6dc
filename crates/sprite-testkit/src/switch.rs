//! Switches by which a test makes steps fail or wait.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sprite_types::SpriteId;
use tokio::sync::watch;

/// A step of a fake that can be made to fail or to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// The driver starts a machine.
    Start,
    /// The agent builds the environment.
    Environment,
    /// The agent writes the disk.
    Sync,
    /// The agent ends its processes and exits.
    Shutdown,
    /// The machine is ended hard.
    Destroy,
    /// The machine is frozen.
    Freeze,
    /// The machine is thawed.
    Thaw,
    /// The machine's memory is written.
    Snapshot,
    /// A machine is made from memory.
    Load,
    /// The machine's network is closed or opened.
    Egress,
    /// The machine's limits are changed.
    Limit,
    /// The agent is told the policies.
    Policy,
    /// A disk is made.
    CreateDisk,
    /// A disk is made, and the pool is full.
    CreateDiskFull,
    /// A disk is deleted.
    DeleteDisk,
    /// The state of a disk is kept.
    Checkpoint,
    /// A disk gets the state of a checkpoint.
    Restore,
    /// A checkpoint is deleted.
    DeleteCheckpoint,
    /// Memory that was written is deleted.
    ForgetMemory,
    /// Memory that cannot be used is put aside.
    SetMemoryAside,
}

/// How a step goes that chance decides on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Luck {
    /// How long it takes.
    pub takes: Duration,
    /// Whether it fails then.
    pub fails: bool,
}

/// Asked at every step, beside the switches: how it goes for that sprite.
pub type Chance = Arc<dyn Fn(Step, SpriteId) -> Luck + Send + Sync>;

#[derive(Default)]
pub(crate) struct Switches {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    chance: Option<Chance>,
    /// How often the step still fails.
    failing: HashMap<Step, u32>,
    /// Steps that wait until the first value is false, and say by the second that somebody does.
    held: HashMap<Step, (watch::Receiver<bool>, watch::Sender<bool>)>,
    /// Programs of the test that stand for programs in a machine, by port.
    programs: HashMap<u16, SocketAddr>,
}

/// While it lives, a step waits.
#[derive(Debug)]
pub struct Held {
    held: watch::Sender<bool>,
    reached: watch::Receiver<bool>,
}

impl Held {
    /// Waits until somebody waits at the step.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn reached(&mut self) {
        // An error means that another hold took this one's place: nobody will come here any more.
        let _ = self.reached.wait_for(|reached| *reached).await;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.held.send_replace(false);
    }
}

impl Switches {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn fail(&self, step: Step, times: u32) {
        self.state().failing.insert(step, times);
    }

    pub(crate) fn chance(&self, chance: Chance) {
        self.state().chance = Some(chance);
    }

    pub(crate) fn hold(&self, step: Step) -> Held {
        let (held, waiting) = watch::channel(true);
        let (arrive, reached) = watch::channel(false);
        self.state().held.insert(step, (waiting, arrive));
        Held { held, reached }
    }

    pub(crate) fn listen(&self, port: u16, program: SocketAddr) {
        self.state().programs.insert(port, program);
    }

    /// The program that listens on a port.
    pub(crate) fn program(&self, port: u16) -> Option<SocketAddr> {
        self.state().programs.get(&port).copied()
    }

    /// Whether the step fails this time.
    pub(crate) fn fails(&self, step: Step) -> bool {
        match self.state().failing.get_mut(&step) {
            Some(times) if *times > 0 => {
                *times -= 1;
                true
            }
            Some(_) | None => false,
        }
    }

    /// Waits if the step is held, and fails if it is to.
    pub(crate) async fn pass(&self, step: Step, sprite: SpriteId) -> io::Result<()> {
        let chance = self.state().chance.clone();
        let luck = chance.map_or_else(Luck::default, |chance| chance(step, sprite));
        if !luck.takes.is_zero() {
            tokio::time::sleep(luck.takes).await;
        }
        let held = self.state().held.get(&step).cloned();
        if let Some((mut held, arrive)) = held {
            arrive.send_replace(true);
            // An error means that whoever held it is gone.
            let _ = held.wait_for(|held| !held).await;
        }
        if luck.fails || self.fails(step) {
            Err(io::Error::other(format!("{step:?} was made to fail")))
        } else {
            Ok(())
        }
    }
}

pub(crate) type Shared = Arc<Switches>;
