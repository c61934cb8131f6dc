//! The walls of the container driver: from root of the host to root of a machine that can name nothing outside.
//!
//! Order matters. What only the host's root may do comes first (cgroups, loop device, mounts, network
//! namespace), all of it in a mount namespace of its own, so that nothing shows in the host's table and all of
//! it goes when the last process of the machine does. Then the process namespace, then `pivot_root`, then the
//! user namespace, in which the program is executed anew: from there on it holds no descriptor and no
//! privilege of the host.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, Mode};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
};
use serde::de::DeserializeOwned;
use sprite_agent_api::launch::{ENVIRONMENT_IDS, LaunchReport, LaunchSpec};
use sprite_agent_api::wire;

use crate::confine;
use crate::environment::Memory;
use crate::loop_device;
use crate::step::{Step, StepError};
use crate::sys::{self, Fork, Parent};
use crate::walls::{self, Walls};

/// The launcher ends itself after this: it must not hang on a disk that another machine does not let go.
const DEADLINE_SECONDS: u32 = 60;

/// First descriptor that the agent gets for the environment's cgroups; one for each hierarchy follows.
pub(crate) const FIRST_CGROUP_FD: i32 = 110;

/// The devices that an environment has; none of them reaches hardware.
pub(crate) const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Where the agent finds the socket on which it listens.
pub(crate) const LISTENER_FD: i32 = 100;
/// An open file whose lock marks the range of user ids as taken; the agent only keeps it open.
pub(crate) const RANGE_FD: i32 = 101;

/// Builds the machine that the driver asks for, and becomes its agent.
pub(crate) fn main() -> Result<(), StepError> {
    answer(|spec: LaunchSpec, fds| {
        let [listener, range] = take(fds)?;
        place(&listener, LISTENER_FD)?;
        place(&range, RANGE_FD)?;
        drop((listener, range));
        launch(&spec)
    })
}

/// Reads the spec, builds what it says, reports, and waits until the driver has seen the report.
pub(crate) fn answer<S: DeserializeOwned>(
    build: impl FnOnce(S, Vec<OwnedFd>) -> Result<i32, StepError>,
) -> Result<(), StepError> {
    // SAFETY: takes a number; the default action of the signal is the wanted one.
    unsafe { libc::alarm(DEADLINE_SECONDS) };
    // SAFETY: the driver gave us a socket as stdin; the number stays open over the call.
    let stdin = unsafe { BorrowedFd::borrow_raw(0) };
    let socket = UnixStream::from(
        stdin
            .try_clone_to_owned()
            .step("keep the driver's socket")?,
    );
    let null = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")
        .step("open /dev/null")?;
    place(&null, 0)?;
    drop(null);
    // Whatever else the server was started with is not for a machine.
    close_all_but(&socket)?;
    let received = wire::receive(&socket)
        .and_then(|got| got.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof)))
        .step("read the spec");
    let built = received.and_then(|(spec, fds)| build(spec, fds));
    let report = match &built {
        Ok(pid) => LaunchReport::Started {
            pid: pid.cast_unsigned(),
        },
        Err(failure) => LaunchReport::Failed {
            step: failure.step.clone(),
            errno: failure.source.raw_os_error(),
        },
    };
    wire::send(&socket, &report, &[]).step("report to the driver")?;
    // Until the driver closes its end, the process id cannot be used again: it is our child.
    let _ = (&socket).read(&mut [0]);
    built.map(|_| ())
}

/// The descriptors that came with a spec.
pub(crate) fn take<const COUNT: usize>(fds: Vec<OwnedFd>) -> Result<[OwnedFd; COUNT], StepError> {
    <[OwnedFd; COUNT]>::try_from(fds)
        .map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
        .step("take descriptors")
}

/// Closes every descriptor but the standard ones and `kept`.
fn close_all_but(kept: impl AsFd) -> Result<(), StepError> {
    let kept = kept.as_fd().as_raw_fd().cast_unsigned();
    for (first, last) in [(3, kept - 1), (kept + 1, u32::MAX)] {
        // SAFETY: closes numbers; what this process opened so far is `kept` alone.
        if first <= last && unsafe { libc::close_range(first, last, 0) } != 0 {
            return Err(io::Error::last_os_error()).step("close descriptors");
        }
    }
    Ok(())
}

/// Puts a copy of a descriptor at a number, from where the next program inherits it.
pub(crate) fn place(fd: impl AsFd, number: i32) -> Result<(), StepError> {
    // SAFETY: takes numbers. Apart from stdin, they are above all that this process ever opens by itself.
    let done = unsafe { libc::dup2(fd.as_fd().as_raw_fd(), number) };
    if done < 0 {
        return Err(io::Error::last_os_error()).step("place a descriptor");
    }
    Ok(())
}

fn launch(spec: &LaunchSpec) -> Result<i32, StepError> {
    rustix::process::umask(Mode::from_raw_mode(0o022));
    rustix::process::setsid().step("leave the server's session")?;
    for procs in &spec.agent_cgroups {
        fs::write(procs, "0").step("enter the agent's cgroup")?;
    }
    open_environment_cgroups(&spec.environment_cgroups)?;
    let disk = mount_disk(&spec.disk, spec.id_base)?;
    let netns = File::open(&spec.netns).step("open the network namespace")?;
    sys::setns(&netns, libc::CLONE_NEWNET).step("enter the network namespace")?;
    sys::unshare(libc::CLONE_NEWNS).step("leave the host's mount namespace")?;
    rustix::mount::mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .step("make mounts private")?;
    build_root(&spec.root, &spec.agent, disk)?;
    enter(spec)
}

/// Opens the environment's `cgroup.procs` while we may; the kernel checks who opened them, not who writes.
/// A writer can move only processes that it sees, and only into this sprite's own group.
fn open_environment_cgroups(procs: &[PathBuf]) -> Result<(), StepError> {
    for (fd, path) in (FIRST_CGROUP_FD..).zip(procs) {
        let file = OpenOptions::new()
            .write(true)
            .open(path)
            .step("open the environment's cgroup")?;
        // SAFETY: takes numbers; the driver passed us no descriptor of this range.
        let done = unsafe { libc::dup2(file.as_raw_fd(), fd) };
        if done < 0 {
            return Err(io::Error::last_os_error()).step("keep the environment's cgroup");
        }
    }
    Ok(())
}

/// A detached mount of the disk in which the environment's ids are the sprite's own range.
///
/// The lock on the image is held by the loop device for as long as it lives: a second machine on the same disk
/// waits for the first one's file system to be gone, whatever happened to the first one.
fn mount_disk(image: &Path, id_base: u32) -> Result<OwnedFd, StepError> {
    let image = OpenOptions::new()
        .read(true)
        .write(true)
        .open(image)
        .step("open the disk")?;
    rustix::fs::flock(&image, FlockOperation::LockExclusive).step("wait for the disk")?;
    let (device, path) = loop_device::attach(&image).step("attach a loop device")?;
    let fs = rustix::mount::fsopen("ext4", FsOpenFlags::FSOPEN_CLOEXEC).step("open ext4")?;
    rustix::mount::fsconfig_set_string(fs.as_fd(), "source", &path)
        .step("set the disk's device")?;
    for flag in ["discard", "noinit_itable"] {
        rustix::mount::fsconfig_set_flag(fs.as_fd(), flag).step("set the disk's options")?;
    }
    rustix::mount::fsconfig_set_string(fs.as_fd(), "errors", "remount-ro")
        .step("set the disk's options")?;
    rustix::mount::fsconfig_create(fs.as_fd()).step("mount the disk")?;
    let mount = rustix::mount::fsmount(
        fs.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_RELATIME,
    )
    .step("mount the disk")?;
    // The device detaches itself when the mount, now its last user, goes.
    drop(device);
    let ids = mapping_namespace(id_base)?;
    sys::idmap_mount(&mount, &ids).step("map the disk's ids")?;
    Ok(mount)
}

/// A user namespace that exists only as the mapping for an id-mapped mount: 0… on disk is `id_base`… outside.
pub(crate) fn mapping_namespace(id_base: u32) -> Result<OwnedFd, StepError> {
    let (wait, go) = io::pipe().step("make a pipe")?;
    // SAFETY: the launcher has one thread.
    match unsafe { sys::fork(libc::CLONE_NEWUSER, Parent::Caller) }.step("fork the id mapping")? {
        Fork::Child => {
            drop(go);
            let mut wait = wait;
            let _ = wait.read(&mut [0]);
            // SAFETY: ends this process without running anything of the parent's.
            unsafe { libc::_exit(0) }
        }
        Fork::Parent { pid } => {
            let map = format!("0 {id_base} {ENVIRONMENT_IDS}\n");
            let namespace = write_maps(pid, &map)
                .and_then(|()| File::open(format!("/proc/{pid}/ns/user")))
                .step("make the id mapping");
            drop(go);
            // SAFETY: waits for our own child; no memory is written.
            unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
            namespace.map(OwnedFd::from)
        }
    }
}

/// Writes the same map for users and groups of a process.
pub(crate) fn write_maps(pid: i32, map: &str) -> io::Result<()> {
    fs::write(format!("/proc/{pid}/uid_map"), map)?;
    fs::write(format!("/proc/{pid}/gid_map"), map)
}

/// A mount of a pseudo file system. An option without a value is a flag.
pub(crate) fn pseudo(kind: &str, options: &[(&str, &str)], attributes: u64) -> io::Result<OwnedFd> {
    let fs = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        if value.is_empty() {
            rustix::mount::fsconfig_set_flag(fs.as_fd(), *key)?;
        } else {
            rustix::mount::fsconfig_set_string(fs.as_fd(), *key, *value)?;
        }
    }
    rustix::mount::fsconfig_create(fs.as_fd())?;
    let attributes = u32::try_from(attributes).expect("mount attributes are the low bits");
    let attributes = MountAttrFlags::from_bits_retain(attributes);
    Ok(rustix::mount::fsmount(
        fs.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        attributes,
    )?)
}

/// Attaches a detached mount to a directory or file.
pub(crate) fn attach(mount: impl AsFd, at: &Path) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(rustix::mount::move_mount(
        mount.as_fd(),
        "",
        CWD,
        at,
        flags,
    )?)
}

/// A detached copy of the mount of `path`, and of those below it.
pub(crate) fn clone_mount(path: &Path) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    Ok(rustix::mount::open_tree(CWD, path, flags)?)
}

/// The root that the agent sees: the disk, its own program, devices, and nothing of the host.
fn build_root(root: &Path, agent: &Path, disk: OwnedFd) -> Result<(), StepError> {
    let quiet = sys::MOUNT_ATTR_NOSUID | sys::MOUNT_ATTR_NODEV | sys::MOUNT_ATTR_NOEXEC;
    let options = [("mode", "755"), ("size", "256k"), ("nr_inodes", "128")];
    let tmpfs =
        pseudo("tmpfs", &options, sys::MOUNT_ATTR_NOSUID).step("make the machine's root")?;
    attach(&tmpfs, root).step("attach the machine's root")?;
    for name in [".sprite", "env", "proc", "sys", "dev", "dev/pts"] {
        fs::create_dir(root.join(name)).step("make the machine's directories")?;
    }
    attach(&disk, &root.join("env")).step("attach the disk")?;
    File::create(root.join("agent")).step("make a place for the agent")?;
    let program = clone_mount(agent).step("find the agent's program")?;
    sys::restrict_mount(&program, sys::MOUNT_ATTR_RDONLY | sys::MOUNT_ATTR_NODEV)
        .step("protect the agent's program")?;
    attach(&program, &root.join("agent")).step("attach the agent's program")?;
    for name in DEVICES {
        let device = clone_mount(&Path::new("/dev").join(name)).step("find a device")?;
        let place = root.join("dev").join(name);
        File::create(&place).step("make a place for a device")?;
        attach(&device, &place).step("attach a device")?;
    }
    // Made while we are in the machine's network namespace: this is the one that it shows.
    let sysfs = pseudo("sysfs", &[], quiet | sys::MOUNT_ATTR_RDONLY).step("make sysfs")?;
    attach(&sysfs, &root.join("sys")).step("attach sysfs")
}

/// Forks into the machine's namespaces; returns the agent's process id.
fn enter(spec: &LaunchSpec) -> Result<i32, StepError> {
    let (mut wait_map, tell_map) = io::pipe().step("make a pipe")?;
    let (mut wait_exec, tell_exec) = io::pipe().step("make a pipe")?;
    let (mut wait_unshared, tell_unshared) = io::pipe().step("make a pipe")?;
    // A mount namespace of its own as well: `pivot_root` moves the root of all who share one.
    let namespaces = libc::CLONE_NEWPID | libc::CLONE_NEWNS;
    // SAFETY: the launcher has one thread.
    match unsafe { sys::fork(namespaces, Parent::Caller) }.step("fork the agent")? {
        Fork::Child => {
            drop((tell_map, wait_exec, wait_unshared));
            let Err(failure) = become_agent(spec, &mut wait_map, tell_unshared);
            let mut tell_exec = tell_exec;
            // The parent reads it if it can; there is nobody else to tell.
            let _ = write!(tell_exec, "{failure}");
            // SAFETY: ends this process without running anything of the parent's.
            unsafe { libc::_exit(1) }
        }
        Fork::Parent { pid } => {
            drop((tell_exec, wait_map, tell_unshared));
            let _ = wait_unshared.read(&mut [0]);
            let base = spec.id_base;
            let map = format!(
                "0 {} 1\n1 {base} {ENVIRONMENT_IDS}\n",
                base + ENVIRONMENT_IDS
            );
            let mapped = write_maps(pid, &map).step("map the machine's ids");
            let mut tell_map = tell_map;
            mapped.and_then(|()| tell_map.write_all(&[1]).step("release the agent"))?;
            drop(tell_map);
            let mut failure = String::new();
            // Ends when the agent's program is executed, which closes the other end.
            wait_exec
                .read_to_string(&mut failure)
                .step("wait for the agent")?;
            if failure.is_empty() {
                return Ok(pid);
            }
            Err(StepError {
                step: failure,
                source: io::Error::other("the machine was not built"),
            })
        }
    }
}

/// From here on in the machine's process namespace; ends as the agent's program.
fn become_agent(
    spec: &LaunchSpec,
    wait_map: &mut io::PipeReader,
    tell_unshared: io::PipeWriter,
) -> Result<std::convert::Infallible, StepError> {
    let root = &spec.root;
    let quiet = sys::MOUNT_ATTR_NOSUID | sys::MOUNT_ATTR_NODEV | sys::MOUNT_ATTR_NOEXEC;
    let proc = pseudo("proc", &[], quiet).step("make proc")?;
    attach(&proc, &root.join("proc")).step("attach proc")?;
    rustix::process::chdir(root).step("enter the machine's root")?;
    sys::pivot_into_current_directory().step("leave the host's root")?;
    let namespaces = libc::CLONE_NEWUSER
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP;
    sys::unshare(namespaces).step("leave the host's namespaces")?;
    drop(tell_unshared);
    if wait_map.read(&mut [0]).step("wait for the id map")? == 0 {
        return Err(io::Error::other("the launcher failed")).step("wait for the id map");
    }
    sys::become_user(0, 0, &[]).step("become root of the machine")?;
    let options = [("ptmxmode", "0666"), ("mode", "0620")];
    let pts = pseudo(
        "devpts",
        &options,
        sys::MOUNT_ATTR_NOSUID | sys::MOUNT_ATTR_NOEXEC,
    )
    .step("make terminals")?;
    attach(&pts, Path::new("/dev/pts")).step("attach terminals")?;
    raise_open_files();
    confine::confine_agent().step("confine the agent")?;
    let cgroups = i32::try_from(spec.environment_cgroups.len()).expect("hierarchies are few");
    let memory = Memory::of_mib(spec.memory_mib.cast_signed());
    Err(walls::execute_run(Walls::Container { cgroups, memory })).step("execute the agent")
}

/// Descriptors are bounded by the agent's own limits on streams and sessions, not by a low default; what runs
/// in the environment gets the usual soft limit again.
pub(crate) fn raise_open_files() {
    let limit = libc::rlimit {
        rlim_cur: 1 << 16,
        rlim_max: 1 << 20,
    };
    // SAFETY: `limit` lives over the call. Where the host allows less, less it is.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
}
