//! A machine that boots: told what it is made of, started, and there when its agent says so.

use std::sync::Arc;
use std::time::Duration;

use sprite_agent_api::guest::{GuestNetwork, KERNEL_PARAMETERS, READY_PORT};
use sprite_net::{GATEWAY, GUEST_IP, GUEST_PREFIX};

use super::Shared;
use super::launch::{self, Wanted};
use super::request::{self, Hardware, VSOCK};
use crate::failure::step;
use crate::record::Record;
use crate::{Machine, MachineError, MachineSpec};

/// What monitors take. Source: `vcpu_count` of `firecracker.yaml`. The limit of the machine's cgroup is what was
/// asked for.
const MOST_VCPUS: u32 = 32;

/// Boots a machine. The record says at every moment what it may have; the caller removes that if this fails.
pub(super) async fn boot(
    shared: &Arc<Shared>,
    spec: &MachineSpec,
    record: Record,
) -> Result<Arc<dyn Machine>, MachineError> {
    let within = shared.boot_within;
    let booted = tokio::time::timeout(within, boot_unbounded(shared, spec, record)).await;
    booted.unwrap_or_else(|_| Err(too_long(within)))
}

pub(super) fn too_long(within: Duration) -> MachineError {
    MachineError::Timeout {
        step: "boot until the agent answers".to_owned(),
        seconds: within.as_secs(),
    }
}

async fn boot_unbounded(
    shared: &Arc<Shared>,
    spec: &MachineSpec,
    record: Record,
) -> Result<Arc<dyn Machine>, MachineError> {
    let wanted = Wanted {
        spec,
        guest: &shared.guest,
        memory_mib: spec.resources.memory_mib,
    };
    let mut jailed = launch::jail(shared, &wanted, record).await?;
    let network = GuestNetwork {
        address: GUEST_IP,
        prefix: GUEST_PREFIX,
        gateway: GATEWAY,
    };
    let hardware = Hardware {
        vcpus: spec.resources.cpus.min(MOST_VCPUS),
        memory_mib: spec.resources.memory_mib,
        kernel_parameters: format!("{KERNEL_PARAMETERS} {network}"),
        mac: jailed.mac,
    };
    // The guest's connections to the host are the monitor's to this socket; there is but the one.
    let ready = format!("{VSOCK}_{READY_PORT}");
    let listener = jailed
        .run
        .listen(&ready, jailed.id)
        .map_err(step("listen for the agent"))?;
    for request in request::boot(&hardware) {
        jailed.ask(&request).await?;
    }
    let accepted = async {
        let accepted = listener.accept().await;
        accepted.map_err(step("hear of the agent"))
    };
    jailed.unless_it_ends(accepted).await?;
    drop(listener);
    jailed
        .run
        .remove(&ready)
        .map_err(step("stop listening for the agent"))?;
    jailed.finish()
}
