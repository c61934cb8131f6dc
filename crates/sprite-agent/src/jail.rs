//! The jail of a virtual machine's monitor: from root of the host to a user that has nothing but one machine's files.
//!
//! The wall that guests meet is the processor's. This one is behind it, around whichever monitor is run: a guest
//! that took its monitor over is a user of its own, without a capability and without a way to one, in namespaces
//! of its own, and sees an empty root with the files that the spec names. Nothing else of the host is there to be
//! named, no device but KVM and the tap, no process but itself.
//!
//! Order matters. The lock and the mounts are made as root of the host, in a mount namespace of its own; files that
//! root owns there belong to the monitor's user in here, by mapped mounts. Then the process namespace, then
//! `pivot_root`, then the privileges go, and last the program is executed.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, chown};
use std::path::Path;

use rustix::fs::{CWD, FileType, FlockOperation, Mode};
use sprite_agent_api::launch::{JailAccess, JailFile, JailSpec, MONITOR};

use crate::confine;
use crate::filter;
use crate::launch::{attach, clone_mount, mapping_namespace, place, pseudo};
use crate::step::{Step, StepError};
use crate::sys::{self, Fork, Parent};

/// Descriptors that the monitor inherits and never looks at: the first locked file, and the mark on its range of
/// user ids. Their locks last as long as it does. Above all that it opens by itself at first.
const LOCK_FD: i32 = 100;
const RANGE_FD: i32 = 101;

/// Devices of the jail, below `/dev`: machines, their network, and randomness.
const DEVICES: [&str; 3] = ["kvm", "net/tun", "urandom"];

/// Connections of a guest to the host are one descriptor each, and few are ever open; so are disks and queues.
const OPEN_FILES: libc::rlim_t = 4096;

/// Builds the jail that the driver asks for, and becomes the monitor in it.
pub(crate) fn main() -> Result<(), StepError> {
    crate::launch::answer(|spec: JailSpec, fds| {
        let [range] = crate::launch::take(fds)?;
        place(&range, RANGE_FD)?;
        drop(range);
        jail(&spec)
    })
}

fn jail(spec: &JailSpec) -> Result<i32, StepError> {
    rustix::process::umask(Mode::from_raw_mode(0o077));
    rustix::process::setsid().step("leave the server's session")?;
    for procs in &spec.cgroups {
        fs::write(procs, "0").step("enter the machine's cgroup")?;
    }
    lock_files(&spec.files)?;
    let netns = File::open(&spec.netns).step("open the network namespace")?;
    sys::setns(&netns, libc::CLONE_NEWNET).step("enter the network namespace")?;
    sys::unshare(libc::CLONE_NEWNS).step("leave the host's mount namespace")?;
    rustix::mount::mount_change(
        "/",
        rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC,
    )
    .step("make mounts private")?;
    build_root(spec)?;
    enter(spec)
}

/// Locks what the monitor must have alone, without waiting: who has it now is another machine.
fn lock_files(files: &[JailFile]) -> Result<(), StepError> {
    let alone = files.iter().filter(|file| match file.access {
        JailAccess::WriteAlone => true,
        JailAccess::Read | JailAccess::Write => false,
    });
    for (index, file) in (0..).zip(alone) {
        if index > 0 {
            // There is one number for one lock; a machine has one disk.
            return Err(io::Error::from_raw_os_error(libc::EINVAL)).step("lock a second file");
        }
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&file.path)
            .step(&format!("open {}", file.name))?;
        rustix::fs::flock(&opened, FlockOperation::NonBlockingLockExclusive)
            .step(&format!("lock {}, which another machine has", file.name))?;
        place(&opened, LOCK_FD)?;
    }
    Ok(())
}

/// Attributes of every mount in the jail, but where the text says otherwise.
const QUIET: u64 = sys::MOUNT_ATTR_NOSUID | sys::MOUNT_ATTR_NODEV | sys::MOUNT_ATTR_NOEXEC;

fn build_root(spec: &JailSpec) -> Result<(), StepError> {
    let root = &spec.root;
    let options = [("mode", "755"), ("size", "64k"), ("nr_inodes", "64")];
    // With devices: those that are made here, and no program can make others.
    let attributes = sys::MOUNT_ATTR_NOSUID | sys::MOUNT_ATTR_NOEXEC;
    let tmpfs = pseudo("tmpfs", &options, attributes).step("make the jail's root")?;
    attach(&tmpfs, root).step("attach the jail's root")?;
    for name in ["run", "proc", "dev", "dev/net"] {
        fs::create_dir(root.join(name)).step("make the jail's directories")?;
    }
    // The mask of new files is narrow here; these are looked through by another user.
    for name in ["proc", "dev", "dev/net"] {
        set_mode(&root.join(name), 0o755)?;
    }
    for name in DEVICES {
        make_device(root, name, spec.id)?;
    }
    let id = spec.id.to_string();
    let options = [
        ("mode", "700"),
        ("uid", &id),
        ("gid", &id),
        ("size", "64k"),
        ("nr_inodes", "64"),
    ];
    let run = pseudo("tmpfs", &options, QUIET).step("make a place for sockets")?;
    attach(&run, &root.join("run")).step("attach the place for sockets")?;
    let ids = mapping_namespace(spec.id)?;
    let program = clone_mount(&spec.program).step("find the monitor's program")?;
    let readable = sys::MOUNT_ATTR_RDONLY | sys::MOUNT_ATTR_NODEV | sys::MOUNT_ATTR_NOSUID;
    sys::restrict_mount(&program, readable).step("protect the monitor's program")?;
    File::create(root.join(MONITOR)).step("make a place for the monitor")?;
    attach(&program, &root.join(MONITOR)).step("attach the monitor")?;
    for file in &spec.files {
        bring(root, file, &ids)?;
    }
    Ok(())
}

fn set_mode(path: &Path, mode: u32) -> Result<(), StepError> {
    rustix::fs::chmod(path, Mode::from_raw_mode(mode)).step("open the jail's directories")
}

/// A device of the host, for this user alone.
fn make_device(root: &Path, name: &str, id: u32) -> Result<(), StepError> {
    let of_host = Path::new("/dev").join(name);
    let found = fs::metadata(&of_host).step(&format!("find {}", of_host.display()))?;
    if !found.file_type().is_char_device() {
        return Err(io::Error::from_raw_os_error(libc::ENODEV))
            .step(&format!("find {}", of_host.display()));
    }
    let place = root.join("dev").join(name);
    rustix::fs::mknodat(
        CWD,
        &place,
        FileType::CharacterDevice,
        Mode::from_raw_mode(0o600),
        found.rdev(),
    )
    .step("make a device")?;
    chown(&place, Some(id), Some(id)).step("give away a device")
}

/// Puts a file or directory of the host into the jail.
fn bring(root: &Path, file: &JailFile, ids: &OwnedFd) -> Result<(), StepError> {
    let name = &file.name;
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if name.is_empty() || !name.bytes().all(allowed) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL)).step("name a file of the jail");
    }
    let found = fs::symlink_metadata(&file.path).step(&format!("find {name}"))?;
    let place = root.join(name);
    if found.is_dir() {
        fs::create_dir(&place).step(&format!("make a place for {name}"))?;
    } else if found.is_file() {
        File::create_new(&place).step(&format!("make a place for {name}"))?;
    } else {
        return Err(io::Error::from_raw_os_error(libc::EINVAL)).step(&format!("find {name}"));
    }
    let mount = clone_mount(&file.path).step(&format!("find {name}"))?;
    match file.access {
        JailAccess::Read => sys::restrict_mount(&mount, QUIET | sys::MOUNT_ATTR_RDONLY),
        JailAccess::Write | JailAccess::WriteAlone => {
            sys::idmap_mount(&mount, ids).and_then(|()| sys::restrict_mount(&mount, QUIET))
        }
    }
    .step(&format!("protect {name}"))?;
    attach(&mount, &place).step(&format!("attach {name}"))
}

/// Forks into the machine's namespaces; returns the monitor's process id.
fn enter(spec: &JailSpec) -> Result<i32, StepError> {
    let (mut wait_exec, tell_exec) = io::pipe().step("make a pipe")?;
    let namespaces = libc::CLONE_NEWPID
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP;
    // SAFETY: the launcher has one thread.
    match unsafe { sys::fork(namespaces, Parent::Caller) }.step("fork the monitor")? {
        Fork::Child => {
            drop(wait_exec);
            let Err(failure) = become_monitor(spec);
            let mut tell_exec = tell_exec;
            // The parent reads it if it can; there is nobody else to tell.
            let _ = write!(tell_exec, "{failure}");
            // SAFETY: ends this process without running anything of the parent's.
            unsafe { libc::_exit(1) }
        }
        Fork::Parent { pid } => {
            drop(tell_exec);
            let mut failure = String::new();
            // Ends when the monitor's program is executed, which closes the other end.
            wait_exec
                .read_to_string(&mut failure)
                .step("wait for the monitor")?;
            if failure.is_empty() {
                return Ok(pid);
            }
            Err(StepError {
                step: failure,
                source: io::Error::other("the jail was not built"),
            })
        }
    }
}

/// From here on in the machine's process namespace; ends as the monitor's program.
fn become_monitor(spec: &JailSpec) -> Result<std::convert::Infallible, StepError> {
    let root = &spec.root;
    // The monitor reads which of its pages changed; of the kernel's own settings it sees none.
    let options = [("subset", "pid")];
    let proc = pseudo("proc", &options, QUIET | sys::MOUNT_ATTR_RDONLY).step("make proc")?;
    attach(&proc, &root.join("proc")).step("attach proc")?;
    drop(proc);
    rustix::system::sethostname(b"machine").step("forget the host's name")?;
    rustix::process::chdir(root).step("enter the jail's root")?;
    sys::pivot_into_current_directory().step("leave the host's root")?;
    let top =
        rustix::fs::open("/", rustix::fs::OFlags::PATH, Mode::empty()).step("open the root")?;
    sys::restrict_one_mount(&top, sys::MOUNT_ATTR_RDONLY).step("protect the jail's root")?;
    drop(top);
    sys::limit(libc::RLIMIT_NOFILE, OPEN_FILES).step("limit open files")?;
    sys::limit(libc::RLIMIT_CORE, 0).step("forbid core files")?;
    sys::limit(libc::RLIMIT_FSIZE, spec.largest_file).step("limit the size of files")?;
    sys::limit(libc::RLIMIT_MSGQUEUE, 0).step("forbid message queues")?;
    confine::limit_to_no_capability().step("give up capabilities")?;
    sys::become_user(spec.id, spec.id, &[]).step("become the machine's user")?;
    // SAFETY: takes numbers, no memory.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(io::Error::last_os_error()).step("forbid new privileges");
    }
    close_at_exec()?;
    filter::install_for_monitor().step("filter system calls")?;
    let argument = |text: &str| {
        CString::new(text)
            .map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
            .step("read the monitor's arguments")
    };
    let path = argument(&format!("/{MONITOR}"))?;
    let arguments = spec.arguments.iter().map(|text| argument(text));
    let arguments = arguments.collect::<Result<Vec<_>, _>>()?;
    let argv: Vec<_> = std::iter::once(path.as_c_str())
        .chain(arguments.iter().map(CString::as_c_str))
        .collect();
    let error = sys::exec(&path, &argv, &[]);
    Err(error).step("execute the monitor")
}

/// The monitor inherits the standard descriptors and the locks.
fn close_at_exec() -> Result<(), StepError> {
    const _: () = assert!(LOCK_FD + 1 == RANGE_FD);
    let (lock, range) = (LOCK_FD.cast_unsigned(), RANGE_FD.cast_unsigned());
    let flags = libc::CLOSE_RANGE_CLOEXEC.cast_signed();
    for (first, last) in [(3, lock - 1), (range + 1, u32::MAX)] {
        // SAFETY: takes numbers, and closes nothing now.
        if unsafe { libc::close_range(first, last, flags) } != 0 {
            return Err(io::Error::last_os_error()).step("close descriptors");
        }
    }
    Ok(())
}
