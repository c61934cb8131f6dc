//! What a machine has on the host, written down so that another process finds it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sprite_net::{SlotId, Traffic};
use sprite_types::{DriverKind, MachineId};

use crate::failure::step;
use crate::process::ProcessMark;
use crate::{Identity, MachineError};

/// A machine's record. Fields are filled in as the machine is made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) identity: Identity,
    /// Whose it is: another driver's machine can only be ended.
    #[serde(default = "first_driver")]
    pub(crate) driver: DriverKind,
    #[serde(default)]
    pub(crate) slot: Option<SlotId>,
    /// What had gone through the slot before it was this machine's: one that is kept over a sleep goes on counting.
    #[serde(default)]
    pub(crate) traffic_before: Traffic,
    /// First id of its range of user ids.
    #[serde(default)]
    pub(crate) id_base: Option<u32>,
    #[serde(default)]
    pub(crate) process: Option<ProcessMark>,
    /// What it runs of ours, kernel or agent: compared with what machines get later. Records that do not say were
    /// written before there was anything to compare.
    #[serde(default)]
    pub(crate) system: Option<String>,
    /// Its memory was written and its process ended; only its network is left, for the machine that goes on.
    #[serde(default)]
    pub(crate) asleep: bool,
    /// Of virtual machines.
    #[serde(default)]
    pub(crate) monitor: Option<MonitorRecord>,
}

/// What is to be known of a virtual machine to write its memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MonitorRecord {
    /// The guest system that it booted.
    pub(crate) guest: String,
    pub(crate) memory_mib: u32,
    /// Its vCPUs; `None` for those that were started before that was written down.
    #[serde(default)]
    pub(crate) vcpus: Option<u32>,
    /// Where its memory is to be written.
    pub(crate) snapshots: Option<PathBuf>,
}

/// Records that do not say were written when there was but one.
fn first_driver() -> DriverKind {
    DriverKind::Container
}

impl Record {
    pub(crate) fn new(identity: Identity, driver: DriverKind) -> Self {
        Self {
            identity,
            driver,
            slot: None,
            traffic_before: Traffic::default(),
            id_base: None,
            process: None,
            system: None,
            asleep: false,
            monitor: None,
        }
    }

    /// The same, with what it runs of ours.
    pub(crate) fn with_system(self, system: &str) -> Self {
        Self {
            system: Some(system.to_owned()),
            ..self
        }
    }

    /// Name of its directory and of its cgroup.
    pub(crate) fn group(&self) -> String {
        self.identity.machine.uuid().to_string()
    }
}

/// The directory in which every machine has its own.
#[derive(Debug)]
pub(crate) struct RecordDirectory {
    path: PathBuf,
}

/// Names are short: a Unix socket's path has at most 107 bytes. Source: unix(7).
const MACHINES: &str = "m";
const RECORD: &str = "machine.json";
const SOCKET: &str = "agent.sock";
const LOG: &str = "agent.log";
const ROOT: &str = "root";

impl RecordDirectory {
    pub(crate) fn open(run_dir: &Path) -> Result<Self, MachineError> {
        let path = run_dir.join(MACHINES);
        fs::create_dir_all(&path).map_err(step(format!("make {}", path.display())))?;
        Ok(Self { path })
    }

    pub(crate) fn directory(&self, machine: MachineId) -> PathBuf {
        self.path.join(machine.uuid().to_string())
    }

    pub(crate) fn socket(&self, machine: MachineId) -> PathBuf {
        self.directory(machine).join(SOCKET)
    }

    pub(crate) fn log(&self, machine: MachineId) -> PathBuf {
        self.directory(machine).join(LOG)
    }

    pub(crate) fn root(&self, machine: MachineId) -> PathBuf {
        self.directory(machine).join(ROOT)
    }

    /// Writes a record in one step. It need not survive the host: nothing of a machine does.
    pub(crate) fn write(&self, record: &Record) -> Result<(), MachineError> {
        let directory = self.directory(record.identity.machine);
        let temporary = directory.join("machine.json.new");
        let json = serde_json::to_vec(record).map_err(io::Error::from);
        fs::create_dir_all(directory.join(ROOT))
            .and(json)
            .and_then(|json| fs::write(&temporary, json))
            .and_then(|()| fs::rename(&temporary, directory.join(RECORD)))
            .map_err(step(format!(
                "write the record of {}",
                record.identity.machine
            )))
    }

    /// A machine's record as it was written last; `None` if it has none that can be read.
    pub(crate) fn read(&self, machine: MachineId) -> Result<Option<Record>, MachineError> {
        let path = self.directory(machine).join(RECORD);
        match fs::read(&path) {
            Ok(json) => Ok(serde_json::from_slice(&json).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(step(format!("read {}", path.display()))(error)),
        }
    }

    /// All records; a directory without one is removed: its machine was never begun.
    pub(crate) fn all(&self) -> Result<Vec<Record>, MachineError> {
        let list = || -> io::Result<Vec<(PathBuf, Option<MachineId>)>> {
            fs::read_dir(&self.path)?
                .map(|entry| {
                    let entry = entry?;
                    let name = entry.file_name();
                    let id = name
                        .to_str()
                        .and_then(|uuid| format!("machine-{uuid}").parse().ok());
                    Ok((entry.path(), id))
                })
                .collect()
        };
        let mut records = Vec::new();
        for (path, id) in list().map_err(step(format!("list {}", self.path.display())))? {
            let record = match id {
                Some(id) => self.read(id)?,
                None => None,
            };
            match record {
                Some(record) => records.push(record),
                None => {
                    fs::remove_dir_all(&path).map_err(step(format!("remove {}", path.display())))?
                }
            }
        }
        Ok(records)
    }

    /// Removes a machine's directory. Idempotent.
    pub(crate) fn remove(&self, machine: MachineId) -> Result<(), MachineError> {
        remove_tree(&self.directory(machine))
    }

    pub(crate) fn remove_all(&self) -> Result<(), MachineError> {
        remove_tree(&self.path)
    }
}

fn remove_tree(path: &Path) -> Result<(), MachineError> {
    match fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(step(format!("remove {}", path.display()))(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sprite_types::{Generation, Incarnation, SpriteId};

    fn identity() -> Identity {
        Identity {
            sprite: SpriteId::random(),
            machine: MachineId::random(),
            incarnation: Incarnation(1),
            generation: Generation(0),
        }
    }

    #[test]
    fn records_are_found_again_and_what_is_none_goes() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let records = RecordDirectory::open(dir.path()).expect("opens");
        let record = Record::new(identity(), DriverKind::Microvm);
        records.write(&record).expect("writes");
        let begun = records.directory(MachineId::random());
        fs::create_dir(&begun).expect("makes a directory without a record");
        let all = records.all().expect("lists");
        assert_eq!(
            all.iter().map(|r| r.identity).collect::<Vec<_>>(),
            [record.identity]
        );
        assert!(!begun.exists());
        records.remove(record.identity.machine).expect("removes");
        records
            .remove(record.identity.machine)
            .expect("removes again");
        assert!(records.all().expect("lists").is_empty());
    }
}
