//! System calls that no crate of ours wraps, each as small as it can be.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::fd::AsFd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The kernel's `struct mount_attr`. Source: include/uapi/linux/mount.h.
#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;
pub(crate) const MOUNT_ATTR_RDONLY: u64 = 0x1;
pub(crate) const MOUNT_ATTR_NOSUID: u64 = 0x2;
pub(crate) const MOUNT_ATTR_NODEV: u64 = 0x4;
pub(crate) const MOUNT_ATTR_NOEXEC: u64 = 0x8;

/// Which process returned from [`fork`].
pub(crate) enum Fork {
    Child,
    Parent { pid: i32 },
}

/// Who the parent of a fork is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parent {
    /// The caller.
    Caller,
    /// The caller's own parent: the fork is a sibling.
    Grandparent,
}

/// Forks into new namespaces (`CLONE_NEW*`), with its own memory.
///
/// # Safety
/// The caller must have a single thread: the child may then use all of Rust.
pub(crate) unsafe fn fork(namespaces: libc::c_int, parent: Parent) -> io::Result<Fork> {
    let (parent_flag, exit_signal) = match parent {
        Parent::Caller => (0, libc::SIGCHLD),
        // The kernel takes the signal of the caller then, and refuses another one.
        Parent::Grandparent => (libc::CLONE_PARENT, 0),
    };
    let flags = namespaces | parent_flag | exit_signal;
    // `clone3` would do as well, but its flags cannot be checked by a filter, so a machine has no use of it.
    // SAFETY: without CLONE_VM and a stack the child goes on with a copy of this memory, which is whole because
    // there is no other thread (caller's promise). The other arguments are unused without their flags.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone,
            libc::c_ulong::from(flags.cast_unsigned()),
            0_usize,
            0_usize,
            0_usize,
            0_usize,
        )
    };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent {
            pid: i32::try_from(pid).expect("process ids fit in 22 bits"),
        }),
    }
}

fn set_mount_attr(mount: BorrowedFd<'_>, attr: &MountAttr, recursive: bool) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a terminated string, and `attr` lives over the call and has the size that is passed.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Gives a detached mount the id mapping of a user namespace.
pub(crate) fn idmap_mount(mount: impl AsFd, userns: impl AsFd) -> io::Result<()> {
    let attr = MountAttr {
        attr_set: MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: u64::from(userns.as_fd().as_raw_fd().cast_unsigned()),
    };
    set_mount_attr(mount.as_fd(), &attr, false)
}

/// Sets attributes of a mount alone, not of those below it.
pub(crate) fn restrict_one_mount(mount: impl AsFd, attributes: u64) -> io::Result<()> {
    let attr = MountAttr {
        attr_set: attributes,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    set_mount_attr(mount.as_fd(), &attr, false)
}

/// Sets attributes of a mount and of those below it.
pub(crate) fn restrict_mount(mount: impl AsFd, attributes: u64) -> io::Result<()> {
    let attr = MountAttr {
        attr_set: attributes,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    set_mount_attr(mount.as_fd(), &attr, true)
}

/// Enters namespaces: `target` is a namespace file, or a pidfd whose namespaces are meant.
pub(crate) fn setns(target: impl AsFd, kinds: libc::c_int) -> io::Result<()> {
    // SAFETY: takes a descriptor and flags, no memory.
    let done = unsafe { libc::setns(target.as_fd().as_raw_fd(), kinds) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Leaves namespaces for new ones.
pub(crate) fn unshare(kinds: libc::c_int) -> io::Result<()> {
    // SAFETY: takes flags, no memory; the processes that call it have one thread.
    let done = unsafe { libc::unshare(kinds) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// A descriptor of a process.
pub(crate) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes numbers, no memory; returns a new descriptor that nobody else owns.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = i32::try_from(fd).expect("descriptors fit in i32");
    // SAFETY: just returned by the kernel, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Watches a descriptor without blocking.
pub(crate) fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned by what is returned, so it stays open and its own for as long as that.
    Ok(unsafe { AsyncFd::register_with_interest(fd, interest) }?)
}

/// Becomes user and group, with these supplementary groups.
pub(crate) fn become_user(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    // SAFETY: the pointer and the length are of the same slice; the other calls take numbers.
    let done = unsafe {
        libc::setgroups(groups.len(), groups.as_ptr()) == 0
            && libc::setresgid(gid, gid, gid) == 0
            && libc::setresuid(uid, uid, uid) == 0
    };
    if done {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Acts on files as this user and group (of this namespace) until called again.
pub(crate) fn file_identity(uid: u32, gid: u32) {
    // SAFETY: takes numbers; both calls return the former value and cannot fail otherwise.
    unsafe {
        libc::setfsgid(gid);
        libc::setfsuid(uid);
    }
}

/// This thread alone acts on files as this user, with these groups, for the rest of its life.
///
/// By the kernel's own calls: those of a C library change all threads. The kernel takes the capabilities over files
/// away with user 0, and no other right: for signals and for tracing the thread is whose process it is.
pub(crate) fn thread_file_identity(uid: u32, gid: u32, groups: &[u32]) {
    // SAFETY: the pointer and the length are of the same slice; the other calls take numbers.
    unsafe {
        libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr());
        libc::syscall(libc::SYS_setfsgid, gid);
        libc::syscall(libc::SYS_setfsuid, uid);
    }
}

/// Bounds this process and what it starts: the soft limit and the hard one.
pub(crate) fn limit(which: libc::__rlimit_resource_t, most: libc::rlim_t) -> io::Result<()> {
    let limit = libc::rlimit {
        rlim_cur: most,
        rlim_max: most,
    };
    // SAFETY: `limit` lives over the call.
    match unsafe { libc::setrlimit(which, &raw const limit) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The new root of this mount namespace becomes the current directory, and nothing of the old one stays.
pub(crate) fn pivot_into_current_directory() -> io::Result<()> {
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", rustix::mount::UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    Ok(())
}

/// Replaces this program.
pub(crate) fn exec(path: &CStr, argv: &[&CStr], envp: &[&CStr]) -> io::Error {
    let terminated = |list: &[&CStr]| -> Vec<*const libc::c_char> {
        list.iter()
            .map(|s| s.as_ptr())
            .chain([std::ptr::null()])
            .collect()
    };
    let (argv, envp) = (terminated(argv), terminated(envp));
    // SAFETY: all three are terminated, and live over the call.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    io::Error::last_os_error()
}
