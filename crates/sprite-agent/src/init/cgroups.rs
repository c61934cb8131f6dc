//! The guest's control groups: what the environment does must leave the agent memory and processes to work with.
//!
//! ```text
//! /sys/fs/cgroup/agent                  this program
//! /sys/fs/cgroup/environment            root of the environment's own hierarchy
//! /sys/fs/cgroup/environment/sprite     its processes, until they make groups of their own
//! ```
//! Processes are in a leaf, so that programs inside (container engines) can divide the rest as they like.
//! Source: Linux Documentation/admin-guide/cgroup-v2.rst.

use std::fs;
use std::path::Path;

use crate::log::say;
use crate::step::{Step, StepError};

const ROOT: &str = "/sys/fs/cgroup";
const AGENT_GROUP: &str = "/sys/fs/cgroup/agent";
pub(crate) const ENVIRONMENT_GROUP: &str = "/sys/fs/cgroup/environment";
pub(crate) const SESSIONS_GROUP: &str = "/sys/fs/cgroup/environment/sprite";

/// Memory that is the agent's and the kernel's alone: so much, and one part in so many of the whole.
const KEPT_BYTES: u64 = 24 << 20;
const KEPT_PART: u64 = 64;

/// Memory of the agent that is not taken from it for others. It has a few MiB, and the output that it keeps.
const AGENTS_BYTES: u64 = 16 << 20;

const _: () = assert!(AGENTS_BYTES < KEPT_BYTES, "what is not taken must be there");

/// One process in so many is kept for the agent.
const KEPT_PROCESSES: u64 = 32;

/// Makes the groups and enters the agent's.
pub(super) fn divide() -> Result<(), StepError> {
    for group in [AGENT_GROUP, ENVIRONMENT_GROUP, SESSIONS_GROUP] {
        fs::create_dir(group).step("make control groups")?;
    }
    enable_all(Path::new(ROOT)).step("enable control groups")?;
    let total = memory_bytes();
    let most = total.saturating_sub(KEPT_BYTES + total / KEPT_PART);
    let processes = most_processes().map_or("max".to_owned(), |most| most.to_string());
    for (group, file, value) in [
        (AGENT_GROUP, "memory.min", AGENTS_BYTES.to_string()),
        (ENVIRONMENT_GROUP, "memory.max", most.to_string()),
        (ENVIRONMENT_GROUP, "pids.max", processes),
        (AGENT_GROUP, "cgroup.procs", "0".to_owned()),
    ] {
        fs::write(Path::new(group).join(file), value).step(&format!("set {file} of {group}"))?;
    }
    fs::write("/proc/self/oom_score_adj", "-1000").step("protect the agent")
}

/// Makes every controller of a group available to those below it. Controllers that are in the way of others are
/// left out.
pub(crate) fn enable_all(group: &Path) -> std::io::Result<()> {
    let controllers = fs::read_to_string(group.join("cgroup.controllers"))?;
    for controller in controllers.split_ascii_whitespace() {
        let enabled = fs::write(
            group.join("cgroup.subtree_control"),
            format!("+{controller}"),
        );
        if let Err(error) = enabled {
            say(format_args!("enable controller {controller}: {error}"));
        }
    }
    Ok(())
}

fn memory_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram * u64::from(info.mem_unit)
}

/// Most processes and threads of the environment, below what the kernel itself takes.
fn most_processes() -> Option<u64> {
    let read = |name: &str| -> Option<u64> {
        let text = fs::read_to_string(Path::new("/proc/sys/kernel").join(name)).ok()?;
        text.trim().parse().ok()
    };
    let most = read("pid_max")?.min(read("threads-max")?);
    Some(most - most / KEPT_PROCESSES)
}
