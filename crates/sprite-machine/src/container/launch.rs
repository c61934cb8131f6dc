//! Starts a machine: makes what it needs, one thing after the other, and the launcher in it.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use sprite_agent_api::launch::{LaunchReport, LaunchSpec};
use sprite_agent_api::wire;

use super::Shared;
use super::machine::ContainerMachine;
use crate::cgroup::{Limits, Part};
use crate::failure::{network, step};
use crate::log::AgentLog;
use crate::process::ProcessMark;
use crate::range;
use crate::record::Record;
use crate::{Machine, MachineError, MachineSpec};

/// What an agent may use, taken over or not: its streams' windows, and its few threads and forks.
const AGENT: Limits = Limits {
    memory: 768 << 20,
    pids: 128,
    cpus: None,
};

/// Longer than the launcher's own deadline: it ends by itself, and tells what it was doing.
const LAUNCH_WITHIN: Duration = Duration::from_secs(75);

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
    let environment = Limits {
        memory: u64::from(spec.resources.memory_mib) << 20,
        pids: spec.resources.pids,
        cpus: Some(spec.resources.cpus),
    };
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
    let mark = run_launcher(shared, &launch, (&log, agents_log), &fds).await?;
    record.process = Some(mark);
    holdings.records.write(&record)?;
    match ContainerMachine::open(shared, &record, range.ours)? {
        Some(machine) => Ok(machine),
        None => Err(step("start the agent")(io::Error::other(log.last_lines()))),
    }
}

async fn run_launcher(
    shared: &Shared,
    launch: &LaunchSpec,
    (log, agents_log): (&AgentLog, File),
    fds: &[std::os::fd::BorrowedFd<'_>],
) -> Result<ProcessMark, MachineError> {
    let (ours, theirs) = UnixStream::pair().map_err(step("make a socket pair"))?;
    let mut launcher = Command::new(&shared.agent)
        .arg("launch")
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(agents_log)
        .spawn()
        .map_err(step("start the launcher"))?;
    // Small enough for the socket's buffer, which is empty: this does not block.
    wire::send(&ours, launch, fds).map_err(step("tell the launcher"))?;
    let report = report(
        ours.try_clone()
            .map_err(step("keep the launcher's socket"))?,
    );
    let report = tokio::time::timeout(LAUNCH_WITHIN, report).await;
    let mark = match report {
        Ok(Ok(Some(LaunchReport::Started { pid }))) => {
            ProcessMark::of(pid).map_err(step("look at the agent"))
        }
        Ok(Ok(Some(LaunchReport::Failed {
            step: failed,
            errno,
        }))) => {
            let source = errno.map_or_else(
                || io::Error::other(log.last_lines()),
                io::Error::from_raw_os_error,
            );
            Err(MachineError::Step {
                step: failed,
                source,
            })
        }
        Ok(Ok(None)) => Err(step("build the machine")(io::Error::other(
            log.last_lines(),
        ))),
        Ok(Err(error)) => Err(step("hear of the launcher")(error)),
        Err(_) => Err(MachineError::Timeout {
            step: "build the machine".to_owned(),
            seconds: LAUNCH_WITHIN.as_secs(),
        }),
    };
    // The launcher keeps the agent's process id from being used again until now.
    drop(ours);
    if mark.is_err() {
        // It may hang in the kernel; its group is killed by the caller's undoing too.
        let _ = launcher.kill();
    }
    let reaped = tokio::task::spawn_blocking(move || launcher.wait()).await;
    reaped
        .map_err(io::Error::other)
        .flatten()
        .map_err(step("wait for the launcher"))?;
    mark
}

/// The launcher's one report; `None` if it ended without.
async fn report(socket: UnixStream) -> io::Result<Option<LaunchReport>> {
    tokio::task::spawn_blocking(move || {
        let got = wire::receive::<LaunchReport>(&socket);
        got.map(|got| got.map(|(report, _)| report))
    })
    .await
    .map_err(io::Error::other)?
}
