//! The environment: the inner walls around the sprite's own processes.
//!
//! Built in two steps, so that what hides something cannot be taken away by the root inside. First, as root of
//! the machine: mounts, with what is to be hidden covered, and `pivot_root` into the disk. Then a user
//! namespace of the environment's own, with a copy of the mounts: the kernel locks mounts that come from a more
//! privileged namespace, each to what it covers.
//!
//! The disk is hostile: a mount point on it may be a link or a file. Nothing else runs on it yet, so it is
//! looked at and mended without a race, and no link is followed.

use std::fs;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags};
use rustix::mount::MoveMountFlags;
use sprite_agent_api::launch::ENVIRONMENT_IDS;
use sprite_agent_api::message::EnvironmentSpec;

use crate::confine;
use crate::identity;
use crate::launch::{DEVICES, clone_mount, pseudo, write_maps};
use crate::step::{Step, StepError};
use crate::sys;

/// The environment's root user as the machine's user namespace names it: ids there begin with the agent's own.
pub(crate) const ROOT_IN_MACHINE: u32 = 1;

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

/// How much memory the environment has.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Memory {
    /// All of this kernel's.
    Whole,
    /// A part of it.
    Mib(u32),
}

impl Memory {
    pub(crate) fn of_mib(mib: i32) -> Self {
        match u32::try_from(mib) {
            Ok(0) | Err(_) => Self::Whole,
            Ok(mib) => Self::Mib(mib),
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
    pub(crate) fn release(self, pid: i32) -> io::Result<()> {
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
        write_maps(pid, &format!("0 {ROOT_IN_MACHINE} {ENVIRONMENT_IDS}\n"))?;
        tell_mapped.write_all(&[1])
    }
}

/// Becomes the environment's first process. Reports the empty text when all is built, or what failed.
pub(crate) fn become_first(
    spec: &EnvironmentSpec,
    memory: Memory,
    gates: Gates,
    report: OwnedFd,
) -> ! {
    let mut report = fs::File::from(report);
    let Gates {
        wait_unshared,
        tell_unshared,
        wait_mapped,
        tell_mapped,
    } = gates;
    drop((wait_unshared, tell_mapped));
    if let Err(failure) = build(spec, memory, tell_unshared, wait_mapped) {
        // The reader takes the end of the process for a failure too.
        let _ = write!(report, "{failure}");
        // SAFETY: ends this process without running anything of the spawner's.
        unsafe { libc::_exit(1) }
    }
    let _ = report.write_all(b"ready");
    drop(report);
    reap()
}

fn build(
    spec: &EnvironmentSpec,
    memory: Memory,
    mut tell_unshared: PipeWriter,
    mut wait_mapped: PipeReader,
) -> Result<(), StepError> {
    rustix::process::setsid().step("begin a session")?;
    let disk = clone_mount(Path::new("/env")).step("find the disk")?;
    rustix::mount::move_mount(
        disk.as_fd(),
        "",
        CWD,
        "/env",
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
    .step("attach the disk as a root")?;
    rustix::process::chdir("/env").step("enter the disk")?;
    mount_all(memory)?;
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

/// A directory of the disk to mount on; made if something else is in its place.
fn mount_point(name: &str) -> Result<OwnedFd, StepError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let open = || rustix::fs::openat2(CWD, name, flags, Mode::empty(), resolve);
    match open() {
        Ok(place) => Ok(place),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => {
            // The disk knows only the environment's ids, so it is mended as its root.
            sys::file_identity(ROOT_IN_MACHINE, ROOT_IN_MACHINE);
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

fn mount_all(memory: Memory) -> Result<(), StepError> {
    let nosuid = sys::MOUNT_ATTR_NOSUID;
    let quiet = nosuid | sys::MOUNT_ATTR_NODEV | sys::MOUNT_ATTR_NOEXEC;
    let proc = pseudo("proc", &[], quiet).step("make /proc")?;
    attach_at(&proc, mount_point("proc")?, "proc")?;
    let sysfs = clone_mount(Path::new("/sys")).step("find sysfs")?;
    attach_at(&sysfs, mount_point("sys")?, "sys")?;
    let root = ROOT_IN_MACHINE.to_string();
    let files = memory.files();
    let tmpfs = |size: &str, mode, attributes| {
        let options = [
            ("size", size),
            ("nr_inodes", &files),
            ("mode", mode),
            ("uid", &root),
            ("gid", &root),
        ];
        pseudo("tmpfs", &options, attributes)
    };
    let dev = tmpfs("64k", "755", nosuid).step("make /dev")?;
    attach_at(&dev, mount_point("dev")?, "dev")?;
    fill_dev()?;
    let shm = tmpfs(&memory.percent(50), "1777", nosuid | sys::MOUNT_ATTR_NODEV);
    let shm = shm.step("make /dev/shm")?;
    attach_at(&shm, mount_point("dev/shm")?, "dev/shm")?;
    let run = tmpfs(&memory.percent(10), "755", nosuid | sys::MOUNT_ATTR_NODEV);
    let run = run.step("make /run")?;
    attach_at(&run, mount_point("run")?, "run")?;
    mask()
}

fn fill_dev() -> Result<(), StepError> {
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
    let terminals = clone_mount(Path::new("/dev/pts")).step("find the terminals")?;
    attach_at(&terminals, mount_point("dev/pts")?, "dev/pts")?;
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
