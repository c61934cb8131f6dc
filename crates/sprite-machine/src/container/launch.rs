//! Starts a machine: makes what it needs, one thing after the other, and the launcher in it.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::process::Stdio;
use std::sync::Arc;

use sprite_agent_api::launch::LaunchSpec;
use sprite_types::Resources;

use super::Shared;
use super::machine::ContainerMachine;
use crate::cgroup::{Limits, Part};
use crate::failure::{network, step};
use crate::launcher::Launcher;
use crate::log::AgentLog;
use crate::range;
use crate::record::Record;
use crate::{Machine, MachineError, MachineSpec};

/// What an agent may use, taken over or not: its streams' windows, and its few threads and forks.
const AGENT: Limits = Limits {
    memory: 768 << 20,
    pids: 128,
    cpus: None,
};

/// What an environment may use.
pub(super) fn environment_limits(resources: &Resources) -> Limits {
    Limits {
        memory: u64::from(resources.memory_mib) << 20,
        pids: resources.pids,
        cpus: Some(resources.cpus),
    }
}

/// Starts a machine. The record says at every moment what the machine may have; the caller removes that if this
/// fails.
pub(super) async fn launch(
    shared: &Arc<Shared>,
    spec: &MachineSpec,
    mut record: Record,
) -> Result<Arc<dyn Machine>, MachineError> {
    let machine = spec.identity.machine;
    let group = record.group();
    let holdings = &shared.holdings;
    let slot = holdings
        .network
        .acquire()
        .await
        .map_err(network("take a network slot"))?;
    record.slot = Some(slot.id);
    holdings.records.write(&record)?;
    // Before anything of the sprite runs there.
    holdings
        .network
        .set_egress(slot.id, spec.egress)
        .await
        .map_err(network("close or open the network"))?;
    let environment = environment_limits(&spec.resources);
    let parts = [(Part::Environment, environment), (Part::Agent, AGENT)];
    holdings.cgroups.create(&group, &parts)?;
    let range = range::take(&holdings.ranges_dir)?;
    record.id_base = Some(range.base);
    let socket = holdings.records.socket(machine);
    let listener =
        UnixListener::bind(&socket).map_err(step(format!("listen on {}", socket.display())))?;
    let launch = LaunchSpec {
        disk: spec.disk.clone(),
        id_base: range.base,
        netns: slot.guest_netns.clone(),
        agent_cgroups: holdings.cgroups.procs(&group, Part::Agent),
        environment_cgroups: holdings.cgroups.procs(&group, Part::Environment),
        root: holdings.records.root(machine),
        agent: shared.agent.clone(),
        memory_mib: spec.resources.memory_mib,
    };
    let log = holdings.records.log(machine);
    let (log, agents_log) = AgentLog::make(&log).map_err(step("make the agent's log"))?;
    let fds = [listener.as_fd(), range.agents.as_fd()];
    let launcher = Launcher {
        program: &shared.agent,
        role: "launch",
        stdout: Stdio::null(),
        stderr: agents_log.into(),
    };
    let mark = launcher.run(&launch, &fds, || log.last_lines()).await?;
    record.process = Some(mark);
    holdings.records.write(&record)?;
    match ContainerMachine::open(shared, &record, range.ours, Some(spec.resources))? {
        Some(machine) => Ok(machine),
        None => Err(step("start the agent")(io::Error::other(log.last_lines()))),
    }
}
