//! A machine's memory on the host's disk: written by its monitor, and what a later machine begins with.
//!
//! ```text
//! SNAPSHOTS/            root of the host alone
//!   snapshot.json       whose memory it is; written last, and removed before anything is written
//!   vm/                 the monitor's: state, memory
//! ```
//!
//! Nothing in `vm/` is believed, or read by anything but a monitor in its jail. What the driver says of it is
//! beside it, where no monitor writes.
//!
//! # Crash safety
//! There is a snapshot if, and only if, there is a `snapshot.json`, and then all of it is durable. A crash while
//! one is written leaves none.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::api::{ApiError, Capabilities, FaultKind};
use super::boot::in_time;
use super::launch::{self, Jailed, Wanted};
use super::request::{self, Extent, Request};
use super::{GuestFiles, Shared};
use crate::failure::step;
use crate::record::{MonitorRecord, Record};
use crate::{Identity, Machine, MachineError, MachineSpec};

/// Memory of the largest machines, on a slow disk.
pub(super) const WRITE_WITHIN: Duration = Duration::from_secs(600);

const MONITORS: &str = "vm";
const KEPT: &str = "snapshot.json";
const FORMAT: u32 = 1;

/// Longest description that is read.
const LONGEST: u64 = 64 << 10;

/// What is written beside a snapshot. Fields are only ever added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    of: Identity,
    /// The guest system whose modules the machine has.
    guest: String,
    memory_mib: u32,
    #[serde(default)]
    vcpus: Option<u32>,
}

/// The version stands outside of what it is the version of.
#[derive(Debug, Serialize, Deserialize)]
struct Envelope<T> {
    format: u32,
    snapshot: T,
}

/// Where a monitor writes its snapshots, made if it is missing. Its content is the monitor's.
pub(super) fn place(snapshots: &Path) -> Result<PathBuf, MachineError> {
    let place = snapshots.join(MONITORS);
    match DirBuilder::new().mode(0o700).create(&place) {
        Ok(()) => Ok(place),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(place),
        Err(error) => Err(step(format!("make {}", place.display()))(error)),
    }
}

/// Names the state of the disk when a machine stopped: whoever ran it, and how often it had been run.
fn generation_of(identity: Identity) -> String {
    let Identity {
        machine,
        incarnation,
        generation,
        ..
    } = identity;
    format!("{}.{}.{}", machine.uuid(), incarnation.0, generation.0)
}

fn generation_for(capabilities: Capabilities, of: Identity) -> Option<String> {
    capabilities.disk_generation.then(|| generation_of(of))
}

/// A snapshot that is being written.
pub(super) struct Writing {
    directory: PathBuf,
    kept: Kept,
}

impl Writing {
    /// From here on what was in the directory is no snapshot any more.
    pub(super) fn begin(record: &Record) -> Result<Self, MachineError> {
        let monitor = record.monitor.as_ref();
        let Some((monitor, directory)) = monitor.and_then(|m| Some((m, m.snapshots.clone()?)))
        else {
            return Err(step("write the machine's memory")(io::Error::new(
                io::ErrorKind::NotFound,
                "the machine was given no place for it",
            )));
        };
        let MonitorRecord {
            guest,
            memory_mib,
            vcpus,
            ..
        } = monitor;
        let kept = Kept {
            of: record.identity,
            guest: guest.clone(),
            memory_mib: *memory_mib,
            vcpus: *vcpus,
        };
        remove_kept(&directory).map_err(step(format!("forget {}", directory.display())))?;
        Ok(Self { directory, kept })
    }

    /// What the monitor is asked for.
    pub(super) fn request(&self, capabilities: Capabilities) -> Request {
        let extent = if capabilities.diff_in_place {
            Extent::Changes
        } else {
            Extent::Full
        };
        let generation = generation_for(capabilities, self.kept.of);
        request::create_snapshot(extent, generation.as_deref())
    }

    /// The monitor has written: now it is a snapshot.
    pub(super) fn finish(self) -> Result<(), MachineError> {
        let failed = |what: &str| step(format!("{what} {}", self.directory.display()));
        sync_monitors(&self.directory.join(MONITORS)).map_err(failed("flush the snapshot in"))?;
        write_kept(&self.directory, &self.kept).map_err(failed("describe the snapshot in"))
    }
}

/// What a machine has written, or was made from, is no snapshot any more.
///
/// # Crash safety
/// Durable when this returns.
pub(super) fn forget(record: &Record) -> Result<(), MachineError> {
    let monitor = record.monitor.as_ref();
    match monitor.and_then(|monitor| monitor.snapshots.as_ref()) {
        Some(directory) => {
            remove_kept(directory).map_err(step(format!("forget {}", directory.display())))
        }
        None => Ok(()),
    }
}

pub(super) fn remove_kept(directory: &Path) -> io::Result<()> {
    match fs::remove_file(directory.join(KEPT)) {
        Ok(()) => File::open(directory)?.sync_all(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Makes durable what the monitor wrote, whether or not it did so itself. The directory is the monitor's: what is
/// in it may be anything.
pub(super) fn sync_monitors(directory: &Path) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::open(directory, flags, Mode::empty())?;
    for name in ["memory", "state"] {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let file = rustix::fs::openat2(&opened, name, flags, Mode::empty(), resolve)?;
        if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::RegularFile {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{name} is no file"),
            ));
        }
        rustix::fs::fsync(&file)?;
    }
    Ok(rustix::fs::fsync(&opened)?)
}

fn write_kept(directory: &Path, kept: &Kept) -> io::Result<()> {
    let envelope = Envelope {
        format: FORMAT,
        snapshot: kept,
    };
    let json = serde_json::to_vec(&envelope)?;
    let fresh = directory.join("snapshot.json.new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)?;
    file.write_all(&json)?;
    file.sync_all()?;
    fs::rename(&fresh, directory.join(KEPT))?;
    File::open(directory)?.sync_all()
}

fn unfit(reason: impl Into<String>) -> MachineError {
    MachineError::Unfit {
        reason: reason.into(),
    }
}

/// What is kept in a directory, if it is the memory of this machine.
fn read_kept(directory: &Path, of: Identity) -> Result<Kept, MachineError> {
    #[derive(Deserialize)]
    struct Version {
        format: u32,
    }
    let path = directory.join(KEPT);
    let length = match fs::metadata(&path) {
        Ok(found) => found.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(unfit("there is none"));
        }
        Err(error) => return Err(step(format!("look at {}", path.display()))(error)),
    };
    if length > LONGEST {
        return Err(unfit("its description is damaged"));
    }
    let json = fs::read(&path).map_err(step(format!("read {}", path.display())))?;
    let version: Version =
        serde_json::from_slice(&json).map_err(|_| unfit("its description is damaged"))?;
    if version.format != FORMAT {
        return Err(unfit(format!(
            "its format is {}, this version of sprited reads {FORMAT}",
            version.format
        )));
    }
    let envelope: Envelope<Kept> =
        serde_json::from_slice(&json).map_err(|_| unfit("its description is damaged"))?;
    let kept = envelope.snapshot;
    if kept.of != of {
        return Err(unfit(format!(
            "it is of {}, and not of {}",
            generation_of(kept.of),
            generation_of(of)
        )));
    }
    Ok(kept)
}

/// The guest system of the machine whose memory is kept there; `None` if there is no memory of it.
pub(super) fn guest_of(directory: &Path, of: Identity) -> Option<String> {
    Some(read_kept(directory, of).ok()?.guest)
}

/// Makes the machine of a snapshot, standing still. The record says at every moment what it may have; the caller
/// removes that if this fails.
pub(super) async fn load(
    shared: &Arc<Shared>,
    spec: &MachineSpec,
    of: Identity,
    record: Record,
) -> Result<Arc<dyn Machine>, MachineError> {
    let within = shared.boot_within;
    let deadline = Instant::now() + within;
    let Some(directory) = &spec.snapshots else {
        return Err(unfit("there is no place for one"));
    };
    let kept = read_kept(directory, of)?;
    let guest = find_guest(shared, &kept.guest).await?;
    let wanted = Wanted {
        spec,
        guest: &guest,
        memory_mib: kept.memory_mib,
        vcpus: kept.vcpus,
        goes_on_from: Some(of.machine),
    };
    let jailed = launch::jail(shared, &wanted, record);
    let mut jailed = in_time(deadline, within, "start the monitor", jailed).await?;
    let capabilities = jailed.capabilities().await?;
    let generation = generation_for(capabilities, of);
    let request = request::load_snapshot(generation.as_deref());
    match jailed.ask_within(&request, within).await {
        Ok(()) => jailed.finish(),
        Err(error) => Err(failed_load(&jailed, error)),
    }
}

fn failed_load(jailed: &Jailed, error: ApiError) -> MachineError {
    const STEP: &str = "load the snapshot";
    match (error, jailed.last_words()) {
        (
            ApiError::Refused {
                message,
                kind: Some(FaultKind::SnapshotUnfit | FaultKind::SnapshotDamaged),
            },
            _,
        ) => unfit(message),
        (_, Some(words)) => step(STEP)(io::Error::other(format!("the monitor ended: {words}"))),
        (error, None) => error.step(STEP),
    }
}

async fn find_guest(shared: &Shared, id: &str) -> Result<GuestFiles, MachineError> {
    if id == shared.guest.id {
        return Ok(shared.guest.clone());
    }
    let (find, wanted) = (shared.earlier_guests.clone(), id.to_owned());
    let found = tokio::task::spawn_blocking(move || find(&wanted)).await;
    found
        .map_err(io::Error::other)
        .and_then(|found| found.ok_or_else(|| io::ErrorKind::NotFound.into()))
        .map_err(step(format!("find the guest system {id} of the snapshot")))
}

#[cfg(test)]
mod tests {
    use sprite_types::{Generation, Incarnation, MachineId, SpriteId};

    use super::*;

    fn kept() -> Kept {
        Kept {
            of: Identity {
                sprite: SpriteId::random(),
                machine: MachineId::random(),
                incarnation: Incarnation(7),
                generation: Generation(2),
            },
            guest: "0123".to_owned(),
            memory_mib: 512,
            vcpus: Some(2),
        }
    }

    fn record(kept: &Kept, directory: &Path) -> Record {
        let mut record = Record::new(kept.of, sprite_types::DriverKind::Microvm);
        record.monitor = Some(MonitorRecord {
            guest: kept.guest.clone(),
            memory_mib: kept.memory_mib,
            vcpus: kept.vcpus,
            snapshots: Some(directory.to_owned()),
        });
        record
    }

    #[test]
    fn a_snapshot_is_one_when_it_is_finished_and_none_while_it_is_written() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let kept = kept();
        let record = record(&kept, dir.path());
        let monitors = place(dir.path()).expect("a place");
        assert_eq!(place(dir.path()).expect("the same"), monitors);
        let unfinished = Writing::begin(&record).expect("begins");
        assert!(matches!(
            read_kept(dir.path(), kept.of),
            Err(MachineError::Unfit { .. })
        ));
        // The monitor said that it had written, and had not.
        assert!(unfinished.finish().is_err());
        for name in ["state", "memory"] {
            fs::write(monitors.join(name), name).expect("writes");
        }
        let writing = Writing::begin(&record).expect("begins");
        writing.finish().expect("finishes");
        assert_eq!(read_kept(dir.path(), kept.of).expect("is kept"), kept);
        drop(Writing::begin(&record).expect("begins"));
        assert!(
            read_kept(dir.path(), kept.of).is_err(),
            "the old one is gone"
        );
    }

    #[test]
    fn another_machines_memory_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let kept = kept();
        write_kept(dir.path(), &kept).expect("writes");
        for other in [
            Identity {
                incarnation: Incarnation(8),
                ..kept.of
            },
            Identity {
                machine: MachineId::random(),
                ..kept.of
            },
            Identity {
                generation: Generation(3),
                ..kept.of
            },
            Identity {
                sprite: SpriteId::random(),
                ..kept.of
            },
        ] {
            let refused = read_kept(dir.path(), other);
            assert!(matches!(refused, Err(MachineError::Unfit { .. })));
        }
    }

    #[test]
    fn a_description_that_is_damaged_or_of_another_version_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let kept = kept();
        write_kept(dir.path(), &kept).expect("writes");
        let path = dir.path().join(KEPT);
        let whole = fs::read(&path).expect("reads");
        for end in 0..whole.len() {
            fs::write(&path, &whole[..end]).expect("writes");
            let refused = read_kept(dir.path(), kept.of);
            assert!(matches!(refused, Err(MachineError::Unfit { .. })), "{end}");
        }
        let later = String::from_utf8_lossy(&whole).replace("\"format\":1", "\"format\":2");
        fs::write(&path, later).expect("writes");
        let refused = read_kept(dir.path(), kept.of).expect_err("a later version");
        assert!(refused.to_string().contains("format is 2"), "{refused}");
        fs::write(&path, vec![b' '; 1 << 20]).expect("writes");
        assert!(read_kept(dir.path(), kept.of).is_err());
    }

    #[test]
    fn what_a_monitor_left_is_flushed_only_if_it_is_a_file() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::write(dir.path().join("state"), "").expect("writes");
        let memory = dir.path().join("memory");
        std::os::unix::fs::symlink("/etc/passwd", &memory).expect("links");
        assert!(sync_monitors(dir.path()).is_err(), "a link");
        fs::remove_file(&memory).expect("removes");
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &memory, FileType::Fifo, mode, 0).expect("a pipe");
        assert!(sync_monitors(dir.path()).is_err(), "a pipe");
        fs::remove_file(&memory).expect("removes");
        fs::write(&memory, "").expect("writes");
        sync_monitors(dir.path()).expect("files");
    }
}
