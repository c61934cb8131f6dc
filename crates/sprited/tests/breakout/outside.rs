//! A server's machines as the host sees them.

use std::fs;
use std::path::PathBuf;

use crate::harness::{Server, driver};

/// The directory of an instance's machines.
fn machines(server: &Server) -> PathBuf {
    PathBuf::from("/run/sprited")
        .join(server.instance())
        .join("m")
}

/// Directories of the machines that run, the only one first.
pub(crate) fn directories(server: &Server) -> Vec<PathBuf> {
    let entries = fs::read_dir(machines(server))
        .into_iter()
        .flatten()
        .flatten();
    let mut all: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    all.sort();
    all
}

/// One file of a control group of every machine: `part` is `agent` or `env`. Version 1 and 2.
pub(crate) fn group_files(
    server: &Server,
    part: &str,
    controller: &str,
    file: &str,
) -> Vec<PathBuf> {
    let parent = format!("sprited-{}", server.instance());
    let root = PathBuf::from("/sys/fs/cgroup");
    let hierarchy = if root.join("cgroup.controllers").exists() {
        root
    } else {
        root.join(controller)
    };
    let groups = fs::read_dir(hierarchy.join(parent))
        .into_iter()
        .flatten()
        .flatten();
    groups
        .map(|group| group.path().join(part).join(file))
        .filter(|path| path.exists())
        .collect()
}

/// A number in a file of a control group of the only machine.
pub(crate) fn group_number(server: &Server, part: &str, controller: &str, file: &str) -> u64 {
    let files = group_files(server, part, controller, file);
    let [path] = files.as_slice() else {
        panic!("not one machine: {files:?}");
    };
    fs::read_to_string(path).unwrap().trim().parse().unwrap()
}

/// Processes of all machines' parts.
pub(crate) fn processes(server: &Server, part: &str) -> Vec<u32> {
    let files = group_files(server, part, "pids", "cgroup.procs");
    let texts = files
        .iter()
        .map(|file| fs::read_to_string(file).unwrap_or_default());
    texts
        .flat_map(|text| {
            text.lines()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<_>>()
        })
        .collect()
}

/// The processes by which machines live: their agents on the host, or the monitors in whose guests agents are.
pub(crate) fn holders(server: &Server) -> Vec<u32> {
    if driver() == "container" {
        return processes(server, "agent");
    }
    let records = directories(server)
        .into_iter()
        .filter_map(|machine| fs::read(machine.join("machine.json")).ok());
    records
        .map(|record| {
            let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
            u32::try_from(record["process"]["pid"].as_u64().unwrap()).unwrap()
        })
        .collect()
}

/// A line of a process's status, without its name.
pub(crate) fn status(pid: u32, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_default().trim().to_owned()
}

/// Real, effective, saved and file system user ids of a process.
pub(crate) fn uids(pid: u32) -> Vec<u32> {
    status(pid, "Uid:")
        .split_whitespace()
        .filter_map(|id| id.parse().ok())
        .collect()
}
