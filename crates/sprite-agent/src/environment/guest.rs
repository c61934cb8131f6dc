//! The environment of a virtual machine: a whole Linux, with any tools.
//!
//! Its root is the root of this kernel, with every capability, and sees all that the kernel shows: devices, control
//! groups, modules. Namespaces of its own keep the agent's processes and mounts out of sight, no more: a root that
//! wants to can harm the agent, and so its own machine.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::mount::MountPropagationFlags;
use sprite_agent_api::message::EnvironmentSpec;

use super::{attach_at, enter_disk, mount_memory, mount_point, mount_terminals, show_dot_sprite};
use crate::identity;
use crate::init::{ENVIRONMENT_GROUP, SESSIONS_GROUP, enable_all};
use crate::launch::{attach, clone_mount, pseudo};
use crate::log::say;
use crate::modules;
use crate::step::{Step, StepError};
use crate::sys;
use crate::walls::Walls;

/// File systems of the kernel that some programs look for, each with its place. A kernel need not have them.
const OPTIONAL: [(&str, &str); 4] = [
    ("mqueue", "dev/mqueue"),
    ("bpf", "sys/fs/bpf"),
    ("debugfs", "sys/kernel/debug"),
    ("tracefs", "sys/kernel/tracing"),
];

/// Builds the environment around the process that calls it.
pub(crate) fn build(spec: &EnvironmentSpec) -> Result<(), StepError> {
    be_ordinary().step("be as any other process")?;
    enter_groups()?;
    sys::unshare(libc::CLONE_NEWUTS | libc::CLONE_NEWIPC).step("leave the agent's namespaces")?;
    enter_disk()?;
    mount_all()?;
    let modules = clone_mount(&modules::directory());
    sys::pivot_into_current_directory().step("leave the agent's root")?;
    if let Err(error) = modules.and_then(show_modules) {
        // Only a sprite that starts can be mended from inside.
        say(format_args!("show the kernel's modules: {error}"));
    }
    // As on any Linux: what is mounted in one namespace made from this one shows in the others.
    let shared = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", shared).step("share mounts")?;
    rustix::system::sethostname(spec.hostname.as_bytes()).step("set the host name")?;
    identity::write(spec);
    Ok(())
}

/// The agent is never chosen to end when memory is short; whatever it starts is.
pub(crate) fn be_ordinary() -> io::Result<()> {
    fs::write("/proc/self/oom_score_adj", "0")
}

/// Makes the environment's group the root of its hierarchy, and divides it: a namespace's root is the group of the
/// process that makes the namespace, and a group with processes cannot be divided.
fn enter_groups() -> Result<(), StepError> {
    let enter = |group: &str| fs::write(Path::new(group).join("cgroup.procs"), "0");
    enter(ENVIRONMENT_GROUP).step("enter the environment's control group")?;
    sys::unshare(libc::CLONE_NEWCGROUP).step("make the control groups' root")?;
    enter(SESSIONS_GROUP).step("enter the sessions' control group")?;
    enable_all(Path::new(ENVIRONMENT_GROUP)).step("divide the environment's control group")
}

fn mount_all() -> Result<(), StepError> {
    let nosuid = sys::MOUNT_ATTR_NOSUID;
    let quiet = nosuid | sys::MOUNT_ATTR_NODEV | sys::MOUNT_ATTR_NOEXEC;
    let mount = |kind: &str, options: &[(&str, &str)], name: &str, attributes| {
        let mount = pseudo(kind, options, attributes).step(&format!("make /{name}"))?;
        attach_at(&mount, mount_point(Walls::Guest, name)?, name)
    };
    mount("proc", &[], "proc", quiet)?;
    mount("sysfs", &[], "sys", quiet)?;
    mount("cgroup2", &[], "sys/fs/cgroup", quiet)?;
    mount("devtmpfs", &[], "dev", nosuid)?;
    mount_terminals(Walls::Guest)?;
    mount_memory(Walls::Guest)?;
    show_dot_sprite(Walls::Guest);
    for (kind, name) in OPTIONAL {
        if Path::new(name).is_dir()
            && let Err(failure) = mount(kind, &[], name, quiet)
        {
            say(failure);
        }
    }
    Ok(())
}

/// Shows this kernel's modules where programs look for them, whatever links lead there: only the disk is left to
/// lead to. Other versions' directories stay the disk's.
fn show_modules(modules: OwnedFd) -> io::Result<()> {
    let place = modules::directory();
    fs::create_dir_all(&place)?;
    attach(&modules, &place)
}
