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

use sprite_agent_api::policy::EnvironmentLimits;

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
    let kept = AGENTS_BYTES.to_string();
    fs::write(Path::new(AGENT_GROUP).join("memory.min"), kept).step("keep the agent's memory")?;
    limit_environment(None).step("limit the environment")?;
    fs::write(Path::new(AGENT_GROUP).join("cgroup.procs"), "0").step("enter the agent's group")?;
    fs::write("/proc/self/oom_score_adj", "-1000").step("protect the agent")
}

/// Limits the environment to what is not kept for the agent, and to `limits` below that. May be changed while the
/// environment runs; less memory than is in use ends processes.
pub(crate) fn limit_environment(limits: Option<EnvironmentLimits>) -> std::io::Result<()> {
    let total = memory_bytes();
    let rest = total.saturating_sub(KEPT_BYTES + total / KEPT_PART);
    let memory = limits.map_or(rest, |limits| rest.min(u64::from(limits.memory_mib) << 20));
    let processes = match (most_processes(), limits) {
        (Some(most), Some(limits)) => Some(most.min(limits.pids.into())),
        (most, None) => most,
        (None, Some(limits)) => Some(limits.pids.into()),
    };
    let processes = processes.map_or("max".to_owned(), |most| most.to_string());
    for (file, value) in [("memory.max", memory.to_string()), ("pids.max", processes)] {
        fs::write(Path::new(ENVIRONMENT_GROUP).join(file), value)?;
    }
    Ok(())
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
