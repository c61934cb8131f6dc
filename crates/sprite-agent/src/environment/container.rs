//! The environment of a container: what hides something must not be taken away by the root inside.
//!
//! First, as root of the machine: mounts, with what is to be hidden covered, and `pivot_root` into the disk. Then a
//! user namespace of the environment's own, with a copy of the mounts: the kernel locks mounts that come from a
//! more privileged namespace, each to what it covers.

use std::fs;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::MoveMountFlags;
use sprite_agent_api::launch::ENVIRONMENT_IDS;
use sprite_agent_api::message::EnvironmentSpec;

use super::{
    attach_at, enter_disk, mount_memory, mount_point, mount_temporary, mount_terminals,
    show_dot_sprite,
};
use crate::confine;
use crate::identity;
use crate::launch::{DEVICES, clone_mount, pseudo, write_maps};
use crate::step::{Step, StepError};
use crate::sys;
use crate::walls::Walls;

/// Files of /proc that tell of the host or act on it; covered by /dev/null.
const MASKED_FILES: [&str; 7] = [
    "kcore",
    "keys",
    "timer_list",
    "sched_debug",
    "latency_stats",
    "kpagecount",
    "kmsg",
];
/// Directories of /proc and /sys that are covered by nothing at all.
const MASKED_DIRECTORIES: [&str; 12] = [
    "proc/acpi",
    "proc/asound",
    "proc/scsi",
    "sys/firmware",
    "sys/kernel",
    "sys/fs",
    "sys/module",
    "sys/devices/virtual/powercap",
    // They name the files of the host that disks are.
    "sys/block",
    "sys/class/block",
    "sys/dev",
    "sys/devices/virtual/block",
];
/// Parts of /proc that can only be read.
const READ_ONLY: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];

/// The two points at which the environment's first process and the spawner wait for each other.
pub(crate) struct Gates {
    wait_unshared: PipeReader,
    tell_unshared: PipeWriter,
    wait_mapped: PipeReader,
    tell_mapped: PipeWriter,
}

impl Gates {
    pub(crate) fn new() -> io::Result<Self> {
        let (wait_unshared, tell_unshared) = io::pipe()?;
        let (wait_mapped, tell_mapped) = io::pipe()?;
        Ok(Self {
            wait_unshared,
            tell_unshared,
            wait_mapped,
            tell_mapped,
        })
    }

    /// The spawner's side: maps the ids once the process is in its user namespace.
    pub(crate) fn release(self, walls: Walls, pid: i32) -> io::Result<()> {
        let Self {
            mut wait_unshared,
            tell_unshared,
            wait_mapped,
            mut tell_mapped,
        } = self;
        drop((tell_unshared, wait_mapped));
        if wait_unshared.read(&mut [0])? == 0 {
            return Err(io::Error::other("the environment's first process ended"));
        }
        let root = walls.environment_root();
        write_maps(pid, &format!("0 {root} {ENVIRONMENT_IDS}\n"))?;
        tell_mapped.write_all(&[1])
    }
}

/// Builds the environment around the process that calls it.
pub(crate) fn build(walls: Walls, spec: &EnvironmentSpec, gates: Gates) -> Result<(), StepError> {
    let Gates {
        wait_unshared,
        mut tell_unshared,
        mut wait_mapped,
        tell_mapped,
    } = gates;
    drop((wait_unshared, tell_mapped));
    enter_disk()?;
    mount_all(walls)?;
    sys::pivot_into_current_directory().step("leave the machine's root")?;
    let namespaces = libc::CLONE_NEWUSER
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWCGROUP;
    sys::unshare(namespaces).step("enter a user namespace")?;
    tell_unshared.write_all(&[1]).step("ask for the id map")?;
    if wait_mapped.read(&mut [0]).step("wait for the id map")? == 0 {
        return Err(io::Error::other("the spawner ended")).step("wait for the id map");
    }
    sys::become_user(0, 0, &[]).step("become root of the environment")?;
    rustix::system::sethostname(spec.hostname.as_bytes()).step("set the host name")?;
    identity::write(spec);
    confine::limit_capabilities().step("limit capabilities")?;
    confine::filter_system_calls().step("filter system calls")
}

fn mount_all(walls: Walls) -> Result<(), StepError> {
    let nosuid = sys::MOUNT_ATTR_NOSUID;
    let quiet = nosuid | sys::MOUNT_ATTR_NODEV | sys::MOUNT_ATTR_NOEXEC;
    let proc = pseudo("proc", &[], quiet).step("make /proc")?;
    attach_at(&proc, mount_point(walls, "proc")?, "proc")?;
    let sysfs = clone_mount(Path::new("/sys")).step("find sysfs")?;
    attach_at(&sysfs, mount_point(walls, "sys")?, "sys")?;
    mount_temporary(walls, "dev", "64k", "755", nosuid)?;
    fill_dev(walls)?;
    mount_memory(walls)?;
    show_dot_sprite(walls);
    mask()
}

fn fill_dev(walls: Walls) -> Result<(), StepError> {
    for name in DEVICES {
        let device = clone_mount(&Path::new("/dev").join(name)).step("find a device")?;
        let place = Path::new("dev").join(name);
        fs::File::create(&place).step("make a place for a device")?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(device.as_fd(), "", CWD, &place, flags).step("mount a device")?;
    }
    for name in ["pts", "shm", "mqueue"] {
        fs::create_dir(Path::new("dev").join(name)).step("make directories in /dev")?;
    }
    mount_terminals(walls)?;
    for (name, target) in [
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        std::os::unix::fs::symlink(target, Path::new("dev").join(name)).step("link in /dev")?;
    }
    Ok(())
}

/// Covers what the environment has no business with. Paths of /proc and /sys are the kernel's, not the disk's.
fn mask() -> Result<(), StepError> {
    let attach = |mount: &OwnedFd, path: &str| -> Result<(), StepError> {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(mount.as_fd(), "", CWD, path, flags)
            .step(&format!("cover /{path}"))
    };
    for name in READ_ONLY {
        let path = format!("proc/{name}");
        // What this kernel was built without needs no protection.
        if !fs::exists(&path).step("look into /proc")? {
            continue;
        }
        let copy = clone_mount(Path::new(&path)).step(&format!("find /{path}"))?;
        sys::restrict_mount(&copy, sys::MOUNT_ATTR_RDONLY).step(&format!("protect /{path}"))?;
        attach(&copy, &path)?;
    }
    for name in MASKED_FILES {
        let path = format!("proc/{name}");
        if fs::exists(&path).step("look into /proc")? {
            attach(
                &clone_mount(Path::new("dev/null")).step("find /dev/null")?,
                &path,
            )?;
        }
    }
    let options = [("size", "0"), ("nr_inodes", "1"), ("mode", "555")];
    for path in MASKED_DIRECTORIES {
        if fs::exists(path).step("look into /proc and /sys")? {
            let empty = pseudo("tmpfs", &options, sys::MOUNT_ATTR_RDONLY).step("make a cover")?;
            attach(&empty, path)?;
        }
    }
    Ok(())
}
