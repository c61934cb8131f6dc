//! The environment: the inner walls around the sprite's own processes.
//!
//! What it is built of depends on the machine's [`Walls`]: confined in a container, everything that there is in a
//! virtual machine. In both the first process mounts, then leaves the machine's root for the disk.
//!
//! The disk is hostile: a mount point on it may be a link or a file. Nothing else runs on it yet, so it is
//! looked at and mended without a race, and no link is followed.

pub(crate) mod container;
pub(crate) mod guest;

use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags};
use rustix::mount::MoveMountFlags;

use crate::dot_sprite;
use crate::end::DISK;
use crate::launch::{clone_mount, pseudo};
use crate::log::say;
use crate::step::{Step, StepError};
use crate::sys;
use crate::walls::Walls;

/// How much memory the environment has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Memory {
    /// All of this kernel's.
    Whole,
    /// A part of it.
    Mib(u32),
}

impl Memory {
    /// All that this kernel has, as a number.
    pub(crate) fn of_kernel() -> Self {
        let info = rustix::system::sysinfo();
        let mib = (info.totalram * u64::from(info.mem_unit)) >> 20;
        u32::try_from(mib).map_or(Self::Whole, Self::Mib)
    }

    pub(crate) fn of_mib(mib: i32) -> Self {
        match u32::try_from(mib) {
            Ok(0) | Err(_) => Self::Whole,
            Ok(mib) => Self::Mib(mib),
        }
    }

    /// What [`Memory::of_mib`] reads.
    pub(crate) fn to_mib(self) -> u32 {
        match self {
            Self::Whole => 0,
            Self::Mib(mib) => mib,
        }
    }

    /// A part of it, as tmpfs takes it. What lies there is held by no process, so that ending processes gives no
    /// room: together these parts leave enough for all that runs.
    fn percent(self, percent: u32) -> String {
        match self {
            Self::Whole => format!("{percent}%"),
            Self::Mib(mib) => format!("{}k", u64::from(mib) * 1024 * u64::from(percent) / 100),
        }
    }

    /// Most files on a tmpfs. Each takes about 1 KiB that no size counts: one for each 16 KiB of memory.
    fn files(self) -> String {
        const OF_WHOLE: u32 = 1 << 18;
        match self {
            Self::Whole => OF_WHOLE,
            Self::Mib(mib) => mib.saturating_mul(64),
        }
        .to_string()
    }
}

/// Becomes the environment's first process, once `build` is done. Reports that all is built, or what failed.
pub(crate) fn become_first(report: OwnedFd, build: impl FnOnce() -> Result<(), StepError>) -> ! {
    let mut report = fs::File::from(report);
    if let Err(failure) = build() {
        // The reader takes the end of the process for a failure too.
        let _ = write!(report, "{failure}");
        // SAFETY: ends this process without running anything of the spawner's.
        unsafe { libc::_exit(1) }
    }
    let _ = report.write_all(b"ready");
    drop(report);
    reap()
}

/// Makes the disk a mount that can become a root, and goes there.
fn enter_disk() -> Result<(), StepError> {
    rustix::process::setsid().step("begin a session")?;
    let disk = clone_mount(Path::new(DISK)).step("find the disk")?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(disk.as_fd(), "", CWD, DISK, flags)
        .step("attach the disk as a root")?;
    rustix::process::chdir(DISK).step("enter the disk")
}

/// A directory of the disk to mount on; made if something else is in its place.
fn mount_point(walls: Walls, name: &str) -> Result<OwnedFd, StepError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let open = || rustix::fs::openat2(CWD, name, flags, Mode::empty(), resolve);
    match open() {
        Ok(place) => Ok(place),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => {
            // The disk knows only the environment's ids, so it is mended as its root.
            let root = walls.environment_root();
            sys::file_identity(root, root);
            let removed = rustix::fs::unlinkat(CWD, name, AtFlags::empty());
            let made = rustix::fs::mkdirat(CWD, name, Mode::from_raw_mode(0o755));
            sys::file_identity(0, 0);
            if let Err(error) = removed
                && error != rustix::io::Errno::NOENT
            {
                return Err(error).step(&format!("clear the place for /{name}"));
            }
            made.step(&format!("make /{name}"))?;
            open().step(&format!("open /{name}"))
        }
        Err(error) => Err(error).step(&format!("open /{name}")),
    }
}

fn attach_at(mount: impl AsFd, place: impl AsFd, name: &str) -> Result<(), StepError> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount.as_fd(), "", place.as_fd(), "", flags)
        .step(&format!("mount /{name}"))
}

/// Mounts a file system in memory, a part of the environment's.
fn mount_temporary(
    walls: Walls,
    name: &str,
    size: &str,
    mode: &str,
    attributes: u64,
) -> Result<(), StepError> {
    let root = walls.environment_root().to_string();
    let options = [
        ("size", size),
        ("nr_inodes", &walls.memory().files()),
        ("mode", mode),
        ("uid", &root),
        ("gid", &root),
    ];
    let mount = pseudo("tmpfs", &options, attributes).step(&format!("make /{name}"))?;
    attach_at(&mount, mount_point(walls, name)?, name)
}

/// Mounts what both kinds of environments have of their own in memory, beside `/dev`.
fn mount_memory(walls: Walls) -> Result<(), StepError> {
    let attributes = sys::MOUNT_ATTR_NOSUID | sys::MOUNT_ATTR_NODEV;
    let memory = walls.memory();
    mount_temporary(walls, "dev/shm", &memory.percent(50), "1777", attributes)?;
    mount_temporary(walls, "run", &memory.percent(10), "755", attributes)
}

/// Mounts the agent's terminals, which are the environment's too.
fn mount_terminals(walls: Walls) -> Result<(), StepError> {
    let terminals = clone_mount(Path::new("/dev/pts")).step("find the terminals")?;
    attach_at(&terminals, mount_point(walls, "dev/pts")?, "dev/pts")
}

/// Shows the environment what it is told about itself. A start does not fail for it: on a disk that is full there
/// may be no place, and only a sprite that starts can be mended from inside.
fn show_dot_sprite(walls: Walls) {
    if let Err(failure) = mount_dot_sprite(walls) {
        say(failure);
    }
}

fn mount_dot_sprite(walls: Walls) -> Result<(), StepError> {
    let name = dot_sprite::PATH.trim_start_matches('/');
    let logs = format!("{name}/logs");
    // What is written there is on the disk, below the mount that covers it.
    let place = mount_point(walls, name)?;
    drop(mount_point(walls, &logs)?);
    let kept = clone_mount(Path::new(&logs)).step("find the logs")?;
    let shown = clone_mount(Path::new(dot_sprite::PATH)).step("find /.sprite")?;
    let attributes = sys::MOUNT_ATTR_RDONLY | sys::MOUNT_ATTR_NOSUID | sys::MOUNT_ATTR_NODEV;
    sys::restrict_mount(&shown, attributes).step("protect /.sprite")?;
    attach_at(&shown, place, name)?;
    attach_at(&kept, mount_point(walls, &logs)?, &logs)
}

/// Waits for the processes that lost their parent; the first process of a namespace does nothing else here.
fn reap() -> ! {
    // Nothing of the spawner's stays open here.
    // SAFETY: closes descriptors that this process does not use any more.
    unsafe { libc::close_range(0, u32::MAX, 0) };
    let mut children: libc::sigset_t = no_signals();
    // SAFETY: `children` is a signal set of ours.
    unsafe {
        libc::sigaddset(&raw mut children, libc::SIGCHLD);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const children, std::ptr::null_mut());
    }
    loop {
        // SAFETY: waits for any child and for the signal; no memory of ours is written.
        unsafe {
            while libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) > 0 {}
            libc::sigwaitinfo(&raw const children, std::ptr::null_mut());
        }
    }
}

fn no_signals() -> libc::sigset_t {
    let mut set = std::mem::MaybeUninit::uninit();
    // SAFETY: `sigemptyset` initialises the whole set.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        set.assume_init()
    }
}
