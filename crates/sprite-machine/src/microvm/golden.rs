//! Golden snapshots: what a machine is that has just booted, written once, and begun with ever after.
//!
//! The first machine of a new sprite begins so; whatever boots later has a disk with a history, and boots its kernel.
//! A machine that is the first of its shape has another one boot before it, which belongs to no sprite: its disk is
//! empty, its network closed, and it is stopped when its agent answers, before there is an environment. What is
//! written of its memory is cloned for every first machine of that shape from then on. Whatever makes a sprite what
//! it is comes after that: its disk is mounted, its clock set, its randomness renewed, its environment built.
//!
//! # Crash safety
//! The machine that only lends its memory is never finished: whatever is left of it is removed at the next start of
//! the server. What it wrote counts only under its name, and gets that when it is complete.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use sprite_types::{DriverKind, Egress, Generation, Incarnation, MachineId, SpriteId};
use tokio::time::Instant;

use super::boot::{self, MOST_VCPUS, in_time};
use super::launch::{self, Wanted};
use super::request::{self, Extent};
use super::{Shared, snapshot};
use crate::failure::step;
use crate::record::Record;
use crate::{Beginning, Identity, Machine, MachineError, MachineSpec};

/// After one could not be made: whatever was wrong is not tried with every boot.
const AGAIN: Duration = Duration::from_secs(600);

/// The first run of a sprite.
const FIRST: Incarnation = Incarnation(1);

/// The files of a memory, in the directory of the golden snapshot and in a sprite's own.
const FILES: [&str; 2] = ["state", "memory"];

/// Where golden snapshots are kept. All methods block.
pub trait Goldens: Send + Sync {
    /// The directory of a golden snapshot: files in the pool, of which clones can be made.
    ///
    /// # Errors
    /// It cannot be looked for.
    fn find(&self, name: &str) -> io::Result<Option<PathBuf>>;

    /// A new directory in the pool to make one in; `None` if somebody makes it already.
    ///
    /// # Errors
    /// There is no place for it.
    fn begin(&self, name: &str) -> io::Result<Option<GoldenPlace>>;

    /// What is in the place is the golden snapshot of that name from now on.
    ///
    /// # Errors
    /// It is not.
    fn finish(&self, name: &str, place: GoldenPlace) -> io::Result<()>;

    /// There is none of that name any more.
    ///
    /// # Errors
    /// It may still be there.
    fn forget(&self, name: &str) -> io::Result<()>;
}

/// A place that one server of the host has to make a golden snapshot in.
#[derive(Debug)]
pub struct GoldenPlace {
    /// An empty directory.
    pub directory: PathBuf,
    /// Nobody else makes it as long as this is open.
    pub lock: OwnedFd,
}

/// What machines have in common that can begin with the same memory.
struct Shape(String);

impl Shape {
    fn of(shared: &Shared, spec: &MachineSpec) -> Result<Self, MachineError> {
        let length = |path: &Path| {
            let found = fs::metadata(path);
            let found = found.map_err(step(format!("look at {}", path.display())))?;
            Ok::<_, MachineError>(found.len())
        };
        Ok(Self(format!(
            "{}-{}-{}-{}-{}",
            shared.guest.id,
            spec.resources.memory_mib,
            spec.resources.cpus.min(MOST_VCPUS),
            length(&spec.disk)?,
            // Another monitor writes other files. Should two be as long, each refuses what the other wrote.
            length(&shared.monitor)?,
        )))
    }
}

/// A machine that has just booted, by the golden snapshot of its shape if that can be had, and by its kernel
/// otherwise. The record says at every moment what it may have; the caller removes that if this fails.
pub(super) async fn begin(
    shared: &Arc<Shared>,
    spec: &MachineSpec,
    record: Record,
) -> Result<Arc<dyn Machine>, MachineError> {
    let within = shared.boot_within;
    let deadline = Instant::now() + within;
    if spec.identity.incarnation > FIRST {
        return boot::boot(shared, spec, record, deadline).await;
    }
    let golden = async {
        let shape = Shape::of(shared, spec)?;
        let found = found_or_made(shared, spec, &shape, Instant::now() + within / 2).await?;
        Ok::<_, MachineError>(found.map(|found| (shape, found)))
    };
    let golden = golden.await.unwrap_or_else(|error| {
        tell("make a golden snapshot", &error);
        None
    });
    let Some((shape, files)) = golden else {
        return boot::boot(shared, spec, record, deadline).await;
    };
    match load(shared, spec, files, record.clone(), deadline).await {
        Ok(machine) => Ok(machine),
        Err(error) => {
            tell("begin with a golden snapshot, which is dropped", &error);
            let goldens = shared.goldens.clone();
            let forgotten = blocking("forget", move || goldens.forget(&shape.0)).await;
            forgotten.unwrap_or_else(|error| tell("forget a golden snapshot", &error));
            shared.holdings.undo(spec.identity.machine).await;
            shared.holdings.records.write(&record)?;
            boot::boot(shared, spec, record, deadline).await
        }
    }
}

fn tell(what: &str, error: &MachineError) {
    let error: &dyn std::error::Error = error;
    tracing::warn!(error, "{what}");
}

async fn blocking<T: Send + 'static>(
    what: &str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, MachineError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)
        .flatten()
        .map_err(step(format!("{what} a golden snapshot")))
}

/// The directory of the golden snapshot; `None` if another server makes it right now, or it could not be made lately.
async fn found_or_made(
    shared: &Arc<Shared>,
    spec: &MachineSpec,
    shape: &Shape,
    deadline: Instant,
) -> Result<Option<PathBuf>, MachineError> {
    // One at a time: who comes meanwhile finds what was made.
    let mut turn = shared.golden_turn.lock().await;
    let find = async || {
        let (goldens, name) = (shared.goldens.clone(), shape.0.clone());
        blocking("find", move || goldens.find(&name)).await
    };
    if let Some(found) = find().await? {
        return Ok(Some(found));
    }
    if turn.is_some_and(|again| Instant::now() < again) {
        return Ok(None);
    }
    *turn = Some(Instant::now() + AGAIN);
    make(shared, spec, shape, deadline).await?;
    *turn = None;
    find().await
}

/// Makes the golden snapshot, unless another server does.
async fn make(
    shared: &Arc<Shared>,
    spec: &MachineSpec,
    shape: &Shape,
    deadline: Instant,
) -> Result<(), MachineError> {
    let (goldens, name) = (shared.goldens.clone(), shape.0.clone());
    let Some(place) = blocking("begin", move || goldens.begin(&name)).await? else {
        return Ok(());
    };
    let began = Instant::now();
    write(shared, spec, &place.directory, deadline).await?;
    let (goldens, name) = (shared.goldens.clone(), shape.0.clone());
    blocking("keep", move || goldens.finish(&name, place)).await?;
    tracing::info!(took = ?began.elapsed(), "made a golden snapshot: new machines of this size begin with it");
    Ok(())
}

/// Boots a machine of nobody, and writes its memory.
async fn write(
    shared: &Arc<Shared>,
    of: &MachineSpec,
    directory: &Path,
    deadline: Instant,
) -> Result<(), MachineError> {
    let disk = directory.join("disk");
    let made = fs::metadata(&of.disk).and_then(|of| File::create_new(&disk)?.set_len(of.len()));
    made.map_err(step("make an empty disk"))?;
    let identity = Identity {
        sprite: SpriteId::random(),
        machine: MachineId::random(),
        incarnation: Incarnation::default(),
        generation: Generation::default(),
    };
    let spec = MachineSpec {
        identity,
        disk: disk.clone(),
        resources: of.resources,
        egress: Egress::Closed,
        snapshots: Some(directory.to_owned()),
        beginning: Beginning::Boot,
    };
    let record = Record::new(identity, DriverKind::Microvm);
    shared.holdings.records.write(&record)?;
    let written = async {
        let mut machine = boot::booted(shared, &spec, record, deadline).await?;
        machine.ask(&request::pause()).await?;
        let request = request::create_snapshot(Extent::Full, None);
        let asked = machine.ask_within(&request, snapshot::WRITE_WITHIN).await;
        asked.map_err(|error| error.step("write the machine's memory"))
    };
    let within = deadline.saturating_duration_since(Instant::now());
    let written = in_time(deadline, within, "boot and write its memory", written).await;
    shared.holdings.undo(identity.machine).await;
    written?;
    let place = snapshot::place(directory)?;
    let put = || {
        snapshot::sync_monitors(&place)?;
        for name in FILES {
            fs::rename(place.join(name), directory.join(name))?;
        }
        fs::remove_dir(&place)?;
        fs::remove_file(disk)
    };
    put().map_err(step("put a golden snapshot together"))
}

/// Makes the machine of a golden snapshot, and lets it run.
async fn load(
    shared: &Arc<Shared>,
    spec: &MachineSpec,
    files: PathBuf,
    record: Record,
    deadline: Instant,
) -> Result<Arc<dyn Machine>, MachineError> {
    let within = shared.boot_within;
    let directory = spec.snapshots.clone().ok_or_else(|| {
        let missing = io::Error::new(io::ErrorKind::NotFound, "there is no place for memory");
        step("begin with a golden snapshot")(missing)
    })?;
    let clone = move || clone(&files, &directory);
    blocking("clone", clone).await?;
    let wanted = Wanted {
        spec,
        guest: &shared.guest,
        memory_mib: spec.resources.memory_mib,
        vcpus: Some(spec.resources.cpus.min(MOST_VCPUS)),
        goes_on_from: None,
    };
    let jailed = launch::jail(shared, &wanted, record);
    let mut jailed = in_time(deadline, within, "start the monitor", jailed).await?;
    let started = async {
        jailed.ask(&request::load_snapshot(None)).await?;
        jailed.ask(&request::resume()).await
    };
    in_time(deadline, within, "load the golden snapshot", started).await?;
    jailed.finish()
}

/// Puts clones of the files where the sprite's machine finds its memory. What is there is no memory of the sprite
/// any more, and is a monitor's: nothing in it is followed.
fn clone(files: &Path, directory: &Path) -> io::Result<()> {
    snapshot::remove_kept(directory)?;
    let place = snapshot::place(directory).map_err(io::Error::other)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let place = rustix::fs::open(&place, flags, Mode::empty())?;
    for name in FILES {
        match rustix::fs::unlinkat(&place, name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let mode = Mode::RUSR | Mode::WUSR;
        let to = rustix::fs::openat2(&place, name, flags, mode, resolve)?;
        rustix::fs::ioctl_ficlone(to, File::open(files.join(name))?)?;
    }
    Ok(())
}
