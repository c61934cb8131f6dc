//! What a machine has on the host, written down so that another process finds it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sprite_net::SlotId;
use sprite_types::MachineId;

use super::step;
use crate::{Identity, MachineError};

/// A machine's record. Fields are filled in as the machine is made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) identity: Identity,
    #[serde(default)]
    pub(super) slot: Option<SlotId>,
    /// First id of its range of user ids.
    #[serde(default)]
    pub(super) id_base: Option<u32>,
    #[serde(default)]
    pub(super) process: Option<ProcessMark>,
}

/// A process of the host, told apart from a later one with the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ProcessMark {
    pub(super) pid: u32,
    /// Start time in clock ticks since boot. Source: proc(5), stat field 22.
    pub(super) started: u64,
}

impl ProcessMark {
    /// The mark of a process that exists.
    pub(super) fn of(pid: u32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The second field may hold anything, blanks and parentheses too; it ends at the last parenthesis.
        let started = stat
            .rsplit_once(')')
            .and_then(|(_, rest)| rest.split_ascii_whitespace().nth(19))
            .and_then(|field| field.parse().ok())
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no start time"))?;
        Ok(Self { pid, started })
    }
}

impl Record {
    pub(super) fn new(identity: Identity) -> Self {
        Self {
            identity,
            slot: None,
            id_base: None,
            process: None,
        }
    }

    /// Name of its directory and of its cgroup.
    pub(super) fn group(&self) -> String {
        self.identity.machine.uuid().to_string()
    }
}

/// The directory in which every machine has its own.
#[derive(Debug)]
pub(super) struct RecordDirectory {
    path: PathBuf,
}

/// Names are short: a Unix socket's path has at most 107 bytes. Source: unix(7).
const MACHINES: &str = "m";
const RECORD: &str = "machine.json";
const SOCKET: &str = "agent.sock";
const LOG: &str = "agent.log";
const ROOT: &str = "root";

impl RecordDirectory {
    pub(super) fn open(run_dir: &Path) -> Result<Self, MachineError> {
        let path = run_dir.join(MACHINES);
        fs::create_dir_all(&path).map_err(step(format!("make {}", path.display())))?;
        Ok(Self { path })
    }

    pub(super) fn directory(&self, machine: MachineId) -> PathBuf {
        self.path.join(machine.uuid().to_string())
    }

    pub(super) fn socket(&self, machine: MachineId) -> PathBuf {
        self.directory(machine).join(SOCKET)
    }

    pub(super) fn log(&self, machine: MachineId) -> PathBuf {
        self.directory(machine).join(LOG)
    }

    pub(super) fn root(&self, machine: MachineId) -> PathBuf {
        self.directory(machine).join(ROOT)
    }

    /// Writes a record in one step. It need not survive the host: nothing of a machine does.
    pub(super) fn write(&self, record: &Record) -> Result<(), MachineError> {
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
    pub(super) fn read(&self, machine: MachineId) -> Result<Option<Record>, MachineError> {
        let path = self.directory(machine).join(RECORD);
        match fs::read(&path) {
            Ok(json) => Ok(serde_json::from_slice(&json).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(step(format!("read {}", path.display()))(error)),
        }
    }

    /// All records; a directory without one is removed: its machine was never begun.
    pub(super) fn all(&self) -> Result<Vec<Record>, MachineError> {
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
    pub(super) fn remove(&self, machine: MachineId) -> Result<(), MachineError> {
        remove_tree(&self.directory(machine))
    }

    pub(super) fn remove_all(&self) -> Result<(), MachineError> {
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
        let record = Record::new(identity());
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

    #[test]
    fn a_process_has_one_mark() {
        let own = ProcessMark::of(std::process::id()).expect("we exist");
        assert_eq!(own, ProcessMark::of(std::process::id()).expect("we exist"));
        assert!(own.started > 0);
    }
}
