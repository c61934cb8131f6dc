//! Whose a socket is: /proc says which descriptors a process has.
//!
//! What is read is the kernel's word about hostile processes: they can have very many descriptors, and come and go
//! meanwhile. The search has a limit in time; what was not found by then belongs to nobody.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// Processes with a hundred thousand descriptors are looked through in this time.
const SEARCH_WITHIN: Duration = Duration::from_millis(100);

/// The processes of the environment, by their ids there, that have these sockets.
pub(super) fn of(inodes: &[u64]) -> HashMap<u64, u32> {
    let deadline = Instant::now() + SEARCH_WITHIN;
    let mut missing: HashSet<u64> = inodes.iter().copied().collect();
    let mut found = HashMap::new();
    // Without /proc nothing belongs to anybody.
    let mut processes: Vec<u32> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    // Who listens was mostly started lately. Of several that share a socket the first one had it first, and is
    // asked last.
    processes.sort_unstable_by(|a, b| b.cmp(a));
    for process in processes {
        if missing.is_empty() || Instant::now() > deadline {
            break;
        }
        search(process, &mut missing, &mut found, deadline);
    }
    found
}

fn search(
    process: u32,
    missing: &mut HashSet<u64>,
    found: &mut HashMap<u64, u32>,
    deadline: Instant,
) {
    let directory = format!("/proc/{process}");
    let mut own_id = None;
    // A process that has ended has no descriptors.
    let descriptors = fs::read_dir(Path::new(&directory).join("fd"));
    for descriptor in descriptors.into_iter().flatten().flatten() {
        let Some(inode) = fs::read_link(descriptor.path())
            .ok()
            .and_then(|target| inode(target.to_str()?))
        else {
            continue;
        };
        if !missing.contains(&inode) {
            continue;
        }
        let id = *own_id.get_or_insert_with(|| {
            let status = fs::read_to_string(format!("{directory}/status"));
            inner_id(&status.unwrap_or_default())
        });
        // Not of the environment, or gone.
        let Some(id) = id else { return };
        missing.remove(&inode);
        found.insert(inode, id);
        if Instant::now() > deadline {
            return;
        }
    }
}

/// The socket that a link of /proc names: `socket:[1234]`.
fn inode(target: &str) -> Option<u64> {
    let number = target.strip_prefix("socket:[")?.strip_suffix(']')?;
    number.parse().ok()
}

/// The id in the environment: the second of those that `NSpid` tells, from the agent's namespace inwards.
/// Source: proc_pid_status(5).
fn inner_id(status: &str) -> Option<u32> {
    let ids = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))?;
    ids.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_of_sockets_are_told_from_others() {
        assert_eq!(inode("socket:[1234]"), Some(1234));
        for other in [
            "pipe:[1234]",
            "/dev/null",
            "socket:[]",
            "socket:[x]",
            "socket:[1",
        ] {
            assert_eq!(inode(other), None, "{other}");
        }
    }

    #[test]
    fn ids_are_those_of_the_environment() {
        assert_eq!(inner_id("Name:\tx\nNSpid:\t70\t12\n"), Some(12));
        assert_eq!(
            inner_id("NSpid:\t70\t12\t1\n"),
            Some(12),
            "a container inside"
        );
        for other in ["NSpid:\t70\n", "", "NSpid:\tx y\n"] {
            assert_eq!(inner_id(other), None, "{other:?}");
        }
    }
}
