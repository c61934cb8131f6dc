//! What the control of a machine needs of the machine. KVM is one such, a fake in tests the other.

use std::error::Error;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::config::VmConfig;
use crate::end::EndSignal;
use crate::memory::GuestMemory;
use crate::snapshot::CpuIdentity;

/// A step that the machine did not manage. What it was is told by the error around it.
pub type Failure = Box<dyn Error + Send + Sync>;

/// No machine was made of a state.
#[derive(Debug)]
pub enum NotLoaded {
    /// The guest cannot run on this host, now or later.
    Unfit(Failure),
    /// Something that might work another time.
    Failed(Failure),
}

/// Makes machines.
pub trait Hypervisor {
    /// What it makes.
    type Machine: Machine;

    /// The CPU that its guests see.
    fn cpu(&self) -> CpuIdentity;

    /// Makes a machine and lets it run from its kernel's first instruction.
    ///
    /// # Errors
    /// Whatever went wrong; nothing of the machine is left then.
    fn boot(&self, config: &VmConfig) -> Result<Self::Machine, Failure>;

    /// Makes a machine that stands where `state` was saved. It is paused.
    ///
    /// # Errors
    /// [`NotLoaded`]; nothing of the machine is left then.
    fn load(
        &self,
        config: &VmConfig,
        state: <Self::Machine as Machine>::State,
        memory: GuestMemory,
    ) -> Result<Self::Machine, NotLoaded>;
}

/// A machine that was made.
pub trait Machine {
    /// All that it is but its memory.
    type State: Serialize + DeserializeOwned;

    /// Stops it: when this returns neither a vCPU nor a device touches memory or files.
    ///
    /// # Errors
    /// Whatever went wrong; it may be tried again, and so may [`Machine::resume`].
    fn pause(&mut self) -> Result<(), Failure>;

    /// Lets it go on.
    ///
    /// # Errors
    /// Whatever went wrong; it may be tried again.
    fn resume(&mut self) -> Result<(), Failure>;

    /// Its state, while it is paused. It can go on afterwards.
    ///
    /// # Errors
    /// Whatever went wrong; the machine is as it was.
    fn save(&mut self) -> Result<Self::State, Failure>;

    /// Its memory.
    fn memory(&self) -> &GuestMemory;

    /// Tells when the guest ends by itself.
    fn end(&self) -> Arc<EndSignal>;

    /// What was counted since this was last called, by device.
    fn take_counts(&self) -> Map<String, Value>;
}
