//! The agent's own file system, and the disks below it.
//!
//! ```text
//! /              in memory: what follows, and nothing of the sprite's
//! /.sprite       what the environment is told about itself
//! /agent         this program; /sbin/modprobe leads to it
//! /env           the sprite's disk, as soon as its environment is built
//! /lib/modules   all modules of this kernel, read-only
//! ```
//! A root of its own, because the kernel's first one cannot be left by `pivot_root`, which environments need.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, mount_move};
use sprite_agent_api::guest::{DISK_DEVICE, MODULES_DEVICE};

use super::devices::Devices;
use crate::end::DISK;
use crate::launch::{attach, clone_mount, pseudo};
use crate::modules;
use crate::step::{Step, StepError};
use crate::sys;

/// Where the new root is made; a directory of the archive.
const MACHINE: &str = "/machine";

/// What fits into `/dev`, which is memory too. Nodes take nothing of it, and files that somebody leaves there little:
/// otherwise it is half of all memory, beside the half that `/dev/shm` may take.
const DEVICES_SIZE: &str = "4m";

/// Makes the agent's root, and this process's and the kernel's root with it.
pub(super) fn leave_initramfs() -> Result<(), StepError> {
    let nosuid = sys::MOUNT_ATTR_NOSUID;
    let quiet = nosuid | sys::MOUNT_ATTR_NODEV | sys::MOUNT_ATTR_NOEXEC;
    let root = Path::new(MACHINE);
    let options = [("mode", "755"), ("size", "1m"), ("nr_inodes", "256")];
    let tmpfs = pseudo("tmpfs", &options, nosuid).step("make the agent's root")?;
    attach(&tmpfs, root).step("attach the agent's root")?;
    for name in [
        ".sprite",
        "env",
        "proc",
        "sys",
        "dev",
        "sbin",
        "lib",
        "lib/modules",
    ] {
        fs::create_dir(root.join(name)).step("make the agent's directories")?;
    }
    File::create(root.join("agent")).step("make a place for the agent")?;
    let program = clone_mount(Path::new("/init")).step("find the agent's program")?;
    sys::restrict_mount(&program, sys::MOUNT_ATTR_RDONLY | nosuid)
        .step("protect the agent's program")?;
    attach(&program, &root.join("agent")).step("attach the agent's program")?;
    // The kernel asks for modules by this name.
    std::os::unix::fs::symlink("/agent", root.join("sbin/modprobe"))
        .step("name the loader of modules")?;
    let proc = pseudo("proc", &[], quiet).step("make /proc")?;
    attach(&proc, &root.join("proc")).step("attach /proc")?;
    let sysfs = pseudo("sysfs", &[], quiet).step("make /sys")?;
    attach(&sysfs, &root.join("sys")).step("attach /sys")?;
    let groups = pseudo("cgroup2", &[("nsdelegate", "")], quiet);
    let groups = groups.step("make the control groups")?;
    attach(&groups, &root.join("sys/fs/cgroup")).step("attach the control groups")?;
    let devices = pseudo(
        "devtmpfs",
        &[("mode", "0755"), ("size", DEVICES_SIZE)],
        nosuid | sys::MOUNT_ATTR_NOEXEC,
    );
    attach(&devices.step("make /dev")?, &root.join("dev")).step("attach /dev")?;
    for name in ["pts", "shm", "mqueue"] {
        fs::create_dir_all(root.join("dev").join(name)).step("make directories in /dev")?;
    }
    let options = [("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")];
    let terminals = pseudo("devpts", &options, nosuid | sys::MOUNT_ATTR_NOEXEC);
    attach(&terminals.step("make terminals")?, &root.join("dev/pts")).step("attach terminals")?;
    rustix::process::chdir(root).step("enter the agent's root")?;
    mount_move(".", "/").step("move the agent's root")?;
    // The kernel's own threads, which start the loader of modules, have this process's root.
    rustix::process::chroot(".").step("leave the kernel's first root")?;
    rustix::process::chdir("/").step("enter the agent's root")
}

/// Waits for the disks, and mounts the one with the modules.
pub(super) fn find_disks(devices: &Devices) -> Result<(), StepError> {
    let quiet = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    devices.wait_for(&format!("/dev/{MODULES_DEVICE}"))?;
    mount_ext4(
        MODULES_DEVICE,
        &["ro"],
        modules::ALL,
        quiet | MountAttrFlags::MOUNT_ATTR_RDONLY,
    )?;
    devices.wait_for(&format!("/dev/{DISK_DEVICE}"))
}

/// Mounts the sprite's disk, which is another than when the kernel found it if this memory began as a copy.
pub(crate) fn mount_disk() -> Result<(), StepError> {
    forget_read(Path::new("/dev").join(DISK_DEVICE)).step("forget what was read of the disk")?;
    mount_ext4(
        DISK_DEVICE,
        &["discard", "noinit_itable"],
        DISK,
        MountAttrFlags::MOUNT_ATTR_RELATIME,
    )
}

/// The kernel looked for partitions when it found the disk.
fn forget_read(device: impl AsRef<Path>) -> io::Result<()> {
    // Source: include/uapi/linux/fs.h.
    const BLKFLSBUF: libc::Ioctl = 0x1261;
    let device = File::open(device)?;
    // SAFETY: the request takes no argument.
    match unsafe { libc::ioctl(device.as_raw_fd(), BLKFLSBUF, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn mount_ext4(
    device: &str,
    flags: &[&str],
    at: &str,
    attributes: MountAttrFlags,
) -> Result<(), StepError> {
    let step = format!("mount /dev/{device} at {at}");
    let mount = || {
        let fs = rustix::mount::fsopen("ext4", FsOpenFlags::FSOPEN_CLOEXEC)?;
        rustix::mount::fsconfig_set_string(fs.as_fd(), "source", format!("/dev/{device}"))?;
        for flag in flags {
            rustix::mount::fsconfig_set_flag(fs.as_fd(), *flag)?;
        }
        rustix::mount::fsconfig_set_string(fs.as_fd(), "errors", "remount-ro")?;
        rustix::mount::fsconfig_create(fs.as_fd())?;
        rustix::mount::fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    };
    let mount = mount().step(&step)?;
    attach(mount, Path::new(at)).step(&step)
}
