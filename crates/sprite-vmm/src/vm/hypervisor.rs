//! KVM as what the control of a machine works with.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{Vm, VmState};
use crate::arch::native;
use crate::config::VmConfig;
use crate::control::{Failure, Hypervisor, Machine, NotLoaded};
use crate::end::EndSignal;
use crate::memory::GuestMemory;
use crate::snapshot::CpuIdentity;
use crate::virtio::ThreadSetup;

/// Makes machines on KVM.
pub struct KvmHypervisor {
    setup: ThreadSetup,
}

impl KvmHypervisor {
    /// One whose threads begin with `setup`. KVM is opened with the first machine.
    #[must_use]
    pub fn new(setup: ThreadSetup) -> KvmHypervisor {
        KvmHypervisor { setup }
    }
}

impl Hypervisor for KvmHypervisor {
    type Machine = Vm;

    fn cpu(&self) -> CpuIdentity {
        CpuIdentity {
            architecture: std::env::consts::ARCH.to_owned(),
            vendor: native::host_vendor(),
            template: native::cpuid::TEMPLATE.to_owned(),
        }
    }

    fn boot(&self, config: &VmConfig) -> Result<Vm, Failure> {
        Ok(Vm::boot(config, &self.setup)?)
    }

    fn load(
        &self,
        config: &VmConfig,
        state: VmState,
        memory: GuestMemory,
    ) -> Result<Vm, NotLoaded> {
        Vm::load(config, &state, memory, &self.setup).map_err(|error| match error.is_unfit() {
            true => NotLoaded::Unfit(error.into()),
            false => NotLoaded::Failed(error.into()),
        })
    }
}

impl Machine for Vm {
    type State = VmState;

    fn pause(&mut self) -> Result<(), Failure> {
        Ok(Vm::pause(self)?)
    }

    fn resume(&mut self) -> Result<(), Failure> {
        Ok(Vm::resume(self)?)
    }

    fn save(&mut self) -> Result<VmState, Failure> {
        Ok(Vm::save(self)?)
    }

    fn memory(&self) -> &GuestMemory {
        Vm::memory(self)
    }

    fn end(&self) -> Arc<EndSignal> {
        Vm::end(self)
    }

    fn take_counts(&self) -> Map<String, Value> {
        Vm::take_counts(self)
    }
}
