//! A machine that boots: told what it is made of, started, and there when its agent says so.

use std::sync::Arc;
use std::time::Duration;

use sprite_agent_api::guest::{GuestNetwork, KERNEL_PARAMETERS, READY_PORT};
use sprite_net::{GATEWAY, GUEST_IP, GUEST_PREFIX};

use tokio::time::Instant;

use super::Shared;
use super::launch::{self, Jailed, Wanted};
use super::request::{self, Hardware, VSOCK};
use crate::failure::step;
use crate::record::Record;
use crate::{Machine, MachineError, MachineSpec};

/// What monitors take. Source: `vcpu_count` of `firecracker.yaml`. The limit of the machine's cgroup is what was
/// asked for.
pub(super) const MOST_VCPUS: u32 = 32;

/// Boots a machine by its kernel. The record says at every moment what it may have; the caller removes that if this fails.
pub(super) async fn boot(
    shared: &Arc<Shared>,
    spec: &MachineSpec,
    record: Record,
    deadline: Instant,
) -> Result<Arc<dyn Machine>, MachineError> {
    booted(shared, spec, record, deadline).await?.finish()
}

/// A machine whose agent has just answered. Nobody adopts it before it is finished.
pub(super) async fn booted(
    shared: &Arc<Shared>,
    spec: &MachineSpec,
    record: Record,
    deadline: Instant,
) -> Result<Jailed, MachineError> {
    let within = shared.boot_within;
    let wanted = Wanted {
        spec,
        guest: &shared.guest,
        memory_mib: spec.resources.memory_mib,
        vcpus: Some(spec.resources.cpus.min(MOST_VCPUS)),
        goes_on_from: None,
    };
    let jailed = launch::jail(shared, &wanted, record);
    let mut jailed = in_time(deadline, within, "start the monitor", jailed).await?;
    let started = start(spec, &mut jailed);
    let started = in_time(deadline, within, "boot until the agent answers", started).await;
    if started.is_err() {
        jailed.tell_console();
    }
    started?;
    Ok(jailed)
}

/// Does a step of a start, which has a deadline as a whole.
pub(super) async fn in_time<T>(
    deadline: Instant,
    within: Duration,
    step: &str,
    work: impl Future<Output = Result<T, MachineError>>,
) -> Result<T, MachineError> {
    match tokio::time::timeout_at(deadline, work).await {
        Ok(done) => done,
        Err(_) => Err(MachineError::Timeout {
            step: step.to_owned(),
            seconds: within.as_secs(),
        }),
    }
}

/// Tells the monitor what the machine is made of, starts it, and waits for its agent.
async fn start(spec: &MachineSpec, jailed: &mut Jailed) -> Result<(), MachineError> {
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
    tracing::debug!("the machine starts");
    let accepted = async {
        let accepted = listener.accept().await;
        accepted.map_err(step("hear of the agent"))
    };
    jailed.unless_it_ends(accepted).await?;
    tracing::debug!("the agent is there");
    drop(listener);
    jailed
        .run
        .remove(&ready)
        .map_err(step("stop listening for the agent"))
}
