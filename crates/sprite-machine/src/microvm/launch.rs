//! Starts a monitor in its jail: makes what the machine needs on the host, one thing after the other.

use std::fs;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use sprite_agent_api::launch::{JailAccess, JailFile, JailSpec};
use sprite_net::TapOwner;
use sprite_types::{MachineId, Resources};

use super::api::{Api, ApiError, Capabilities};
use super::console::Console;
use super::machine::MicrovmMachine;
use super::request::{API_SOCKET, DISK, INITRAMFS, KERNEL, MODULES, Request, SNAPSHOT};
use super::run_dir::RunDir;
use super::{GuestFiles, Shared, snapshot};
use crate::cgroup::{Limits, Part};
use crate::failure::{network, step};
use crate::launcher::Launcher;
use crate::process::{Process, ProcessMark};
use crate::record::{MonitorRecord, Record};
use crate::{Machine, MachineError, MachineSpec, range};

/// Memory of a monitor besides that of its guest: queues, buffers, KVM's own tables (at most one page of them for
/// each 512 of the guest's), and some room for the pages of the disk's file that it reads and writes.
const OVERHEAD: u64 = 96 << 20;
const OVERHEAD_SHARE: u64 = 64;

/// Threads of a monitor besides one for each vCPU.
const THREADS: u32 = 64;

/// A request that only configures; the deadline of the whole start is another one.
pub(super) const ASK_WITHIN: Duration = Duration::from_secs(20);

/// Between the moment when a process lets go of what it had and the moment when it is gone.
const ENDING: Duration = Duration::from_secs(1);

/// Between the moment when a socket has its name and the moment when it is listened to.
const ALMOST_THERE: Duration = Duration::from_millis(1);

/// A monitor in its jail.
pub(super) struct Jailed {
    shared: Arc<Shared>,
    record: Record,
    mark: ProcessMark,
    process: Process,
    console: Console,
    range: OwnedFd,
    pub(super) run: RunDir,
    /// The machine's user.
    pub(super) id: u32,
    pub(super) mac: [u8; 6],
    api: Api,
    resources: Resources,
    goes_on_from: Option<MachineId>,
}

/// What a machine is to have, whichever way it begins.
pub(super) struct Wanted<'a> {
    pub(super) spec: &'a MachineSpec,
    pub(super) guest: &'a GuestFiles,
    pub(super) memory_mib: u32,
    /// As far as that is known.
    pub(super) vcpus: Option<u32>,
    /// Whose memory it begins with, and whose connections.
    pub(super) goes_on_from: Option<MachineId>,
}

/// Starts a monitor. The record says at every moment what the machine may have; the caller removes that if this
/// fails.
pub(super) async fn jail(
    shared: &Arc<Shared>,
    wanted: &Wanted<'_>,
    mut record: Record,
) -> Result<Jailed, MachineError> {
    let Wanted { spec, guest, .. } = wanted;
    let holdings = &shared.holdings;
    let machine = spec.identity.machine;
    let slot = match wanted.goes_on_from.and_then(|of| holdings.kept(of)) {
        Some(kept) => holdings.network.slot(kept),
        None => {
            let slot = holdings.network.acquire().await;
            slot.map_err(network("take a network slot"))?
        }
    };
    record.slot = Some(slot.id);
    let before = holdings.network.traffic(slot.id);
    record.traffic_before = before.map_err(network("count what went through the network"))?;
    let range = range::take(&holdings.ranges_dir)?;
    let id = range.base;
    record.id_base = Some(id);
    record.monitor = Some(MonitorRecord {
        guest: guest.id.clone(),
        memory_mib: wanted.memory_mib,
        vcpus: wanted.vcpus,
        snapshots: spec.snapshots.clone(),
    });
    holdings.records.write(&record)?;
    // Before anything of the sprite runs there.
    holdings.set_egress(&record, spec.egress).await?;
    let owner = TapOwner { uid: id, gid: id };
    holdings
        .network
        .assign_tap(slot.id, owner)
        .await
        .map_err(network("give away the tap"))?;
    let parts = [(Part::Monitor, limits(wanted))];
    holdings.cgroups.create(&record.group(), &parts)?;
    let (console, monitors) = Console::make(&holdings.records.log(machine))
        .map_err(step("make the machine's console"))?;
    let jail = jail_spec(shared, wanted, &record, id, slot.guest_netns.clone())?;
    let launcher = Launcher {
        program: &shared.agent,
        role: "jail",
        stdout: monitors
            .try_clone()
            .map_err(step("share the machine's console"))?
            .into(),
        stderr: Stdio::from(monitors),
    };
    let mark = launcher
        .run(&jail, &[range.agents.as_fd()], || console.last_lines())
        .await?;
    let ended = || told_at_its_end(&console);
    let process = Process::open(mark)?.ok_or_else(ended)?;
    let run = match RunDir::open(mark) {
        Ok(run) => run,
        // A process that ends lets go of its root a moment before it is seen to have ended.
        Err(error) => match tokio::time::timeout(ENDING, process.gone()).await {
            Ok(()) => return Err(ended()),
            Err(_) => return Err(step("look into the jail")(error)),
        },
    };
    let api = until_end(&process, &console, async {
        let connected = connect(shared, &run).await;
        connected.map_err(step("connect to the monitor"))
    })
    .await?;
    Ok(Jailed {
        shared: shared.clone(),
        record,
        mark,
        process,
        console,
        range: range.ours,
        run,
        id,
        mac: slot.guest_mac,
        api: Api::new(api),
        resources: spec.resources,
        goes_on_from: wanted.goes_on_from,
    })
}

fn limits(wanted: &Wanted<'_>) -> Limits {
    let memory = u64::from(wanted.memory_mib) << 20;
    let cpus = wanted.spec.resources.cpus;
    Limits {
        memory: memory + memory / OVERHEAD_SHARE + OVERHEAD,
        pids: cpus + THREADS,
        cpus: Some(cpus),
    }
}

fn jail_spec(
    shared: &Shared,
    wanted: &Wanted<'_>,
    record: &Record,
    id: u32,
    netns: std::path::PathBuf,
) -> Result<JailSpec, MachineError> {
    let Wanted { spec, guest, .. } = wanted;
    let file = |path: &Path, name: &str, access| JailFile {
        path: path.to_owned(),
        name: name.to_owned(),
        access,
    };
    let mut files = vec![
        file(&guest.kernel, KERNEL, JailAccess::Read),
        file(&guest.initramfs, INITRAMFS, JailAccess::Read),
        file(&guest.modules, MODULES, JailAccess::Read),
        file(&spec.disk, DISK, JailAccess::WriteAlone),
    ];
    if let Some(snapshots) = &spec.snapshots {
        let place = snapshot::place(snapshots)?;
        files.push(file(&place, SNAPSHOT, JailAccess::Write));
    }
    let disk = fs::metadata(&spec.disk).map_err(step("look at the disk"))?;
    // Guest memory, and the little that a monitor puts around it in its file.
    let memory = (u64::from(wanted.memory_mib) + 64) << 20;
    let uuid = spec.identity.machine.uuid().to_string();
    let arguments = ["--api-sock", &format!("/run/{API_SOCKET}"), "--id", &uuid];
    Ok(JailSpec {
        program: shared.monitor.clone(),
        arguments: arguments.map(str::to_owned).to_vec(),
        id,
        netns,
        cgroups: shared
            .holdings
            .cgroups
            .procs(&record.group(), Part::Monitor),
        root: shared.holdings.records.root(spec.identity.machine),
        files,
        largest_file: disk.len().max(memory),
    })
}

/// Connects to the control socket, as soon as it is there.
async fn connect(shared: &Shared, run: &RunDir) -> io::Result<tokio::net::UnixStream> {
    let watch = shared.arrivals.watch(&run.path())?;
    while !run.has(API_SOCKET) {
        watch.news().await;
    }
    loop {
        match run.connect(API_SOCKET).await {
            // It has its name and is not listened to yet: the monitor's next system call.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                tokio::time::sleep(ALMOST_THERE).await;
            }
            connected => return connected,
        }
    }
}

fn told_at_its_end(console: &Console) -> MachineError {
    let words = console.last_lines();
    step("start the monitor")(io::Error::other(format!("the monitor ended: {words}")))
}

/// Does something with a monitor, unless it ends first.
async fn until_end<T>(
    process: &Process,
    console: &Console,
    work: impl Future<Output = Result<T, MachineError>>,
) -> Result<T, MachineError> {
    tokio::select! {
        biased;
        done = work => match done {
            Err(error) if process.has_ended().unwrap_or(false) => Err(MachineError::Step {
                step: error.to_string(),
                source: io::Error::other(format!("the monitor ended: {}", console.last_lines())),
            }),
            done => done,
        },
        () = process.gone() => Err(told_at_its_end(console)),
    }
}

impl Jailed {
    /// Asks the monitor, which must do it.
    pub(super) async fn ask(&mut self, request: &Request) -> Result<(), MachineError> {
        let asked = self.ask_within(request, ASK_WITHIN).await;
        asked.map_err(|error| error.step(&format!("{} {}", request.method, request.path)))
    }

    /// As [`Jailed::ask`]; the refusal is the caller's to judge.
    pub(super) async fn ask_within(
        &mut self,
        request: &Request,
        within: Duration,
    ) -> Result<(), ApiError> {
        self.api.ask(request, within).await.map(drop)
    }

    /// What the monitor can do besides.
    pub(super) async fn capabilities(&mut self) -> Result<Capabilities, MachineError> {
        let Self { shared, api, .. } = self;
        let asked = shared
            .capabilities
            .get_or_try_init(|| api.capabilities(ASK_WITHIN));
        let found = asked.await;
        found
            .copied()
            .map_err(|error| error.step("ask what the monitor can do"))
    }

    /// Does something with the monitor, unless it ends first.
    pub(super) async fn unless_it_ends<T>(
        &self,
        work: impl Future<Output = Result<T, MachineError>>,
    ) -> Result<T, MachineError> {
        until_end(&self.process, &self.console, work).await
    }

    /// Whether the monitor ended, and what it said last.
    pub(super) fn last_words(&self) -> Option<String> {
        let ended = self.process.has_ended().unwrap_or(false);
        ended.then(|| self.console.last_lines())
    }

    /// For whoever looks why a machine did not start.
    pub(super) fn tell_console(&self) {
        let machine = self.record.identity.machine;
        let console = self.console.last_lines();
        tracing::warn!(%machine, console, "a machine did not start");
    }

    /// The machine is made: from here on it is adopted by the next server.
    pub(super) fn finish(mut self) -> Result<Arc<dyn Machine>, MachineError> {
        self.record.process = Some(self.mark);
        self.shared.holdings.records.write(&self.record)?;
        if let Some(before) = self.goes_on_from {
            self.shared.holdings.take_over(before)?;
        }
        let machine = MicrovmMachine::new(
            self.shared,
            self.record,
            self.process,
            self.run,
            self.console,
            self.range,
        );
        machine.allow(&self.resources);
        Ok(Arc::new(machine))
    }
}
