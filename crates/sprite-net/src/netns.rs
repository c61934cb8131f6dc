//! Network namespaces: made by a thread that leaves its own, pinned by a bind mount, entered by threads.
//!
//! Only threads made for it stand in a namespace of a slot ([`in_thread`], and the one of `inward`). The threads of
//! the runtime never leave the host's.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{
    MountPropagationFlags, UnmountFlags, mount_bind, mount_bind_recursive, mount_change, unmount,
};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};
use tokio::sync::oneshot;

use crate::error::NetError;
use crate::name::NETNS_DIR;

/// The namespace of the calling thread. (`/proc/self` would be the one of the process's first thread.)
const CURRENT: &str = "/proc/thread-self/ns/net";
/// Type of the file system that namespaces' files are on. Source: `NSFS_MAGIC` in `linux/magic.h`.
const NSFS_MAGIC: i64 = 0x6e73_6673;

/// Runs blocking work on a thread of its own, which may go to other namespaces.
///
/// # Cancel safety
/// The work goes on when the future is dropped; its result is lost, so callers keep the future.
pub(crate) async fn in_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, NetError> + Send + 'static,
) -> Result<T, NetError> {
    let (sender, receiver) = oneshot::channel();
    std::thread::Builder::new()
        .name("sprite-net".to_owned())
        .spawn(move || {
            // The receiver is gone only when the process is on its way out.
            let _ = sender.send(work());
        })
        .map_err(NetError::step("start a thread"))?;
    receiver.await.map_err(|_| NetError::Closed)?
}

/// A file that stands for the calling thread's namespace.
pub(crate) fn current() -> io::Result<OwnedFd> {
    Ok(fs::File::open(CURRENT)?.into())
}

/// Moves the calling thread to a new, empty namespace.
pub(crate) fn create() -> io::Result<()> {
    // SAFETY: `unshare` is unsafe for shared file descriptor tables only; NEWNET leaves the table shared.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.map_err(io::Error::from)
}

/// Moves the calling thread to a namespace.
pub(crate) fn enter(namespace: impl AsFd) -> io::Result<()> {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(io::Error::from)
}

/// Pins the calling thread's namespace at `path`, and returns a file that stands for it.
///
/// # Crash safety
/// A crash between the two steps leaves an empty file, which [`unpin`] removes and [`open`] refuses.
pub(crate) fn pin(path: &Path) -> io::Result<OwnedFd> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o444)
        .open(path)?;
    mount_bind(CURRENT, path)?;
    current()
}

/// Takes the pin away; the namespace goes when nothing else is in it. Idempotent.
pub(crate) fn unpin(path: &Path) -> io::Result<()> {
    match unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        // Not there, or a file without a mount.
        Ok(()) | Err(Errno::NOENT | Errno::INVAL) => {}
        Err(errno) => return Err(errno.into()),
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _removed_or_absent => Ok(()),
    }
}

/// Opens a pinned namespace; nothing if there is none at `path`.
pub(crate) fn open(path: &Path) -> io::Result<Option<OwnedFd>> {
    let file = match fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let pinned = rustix::fs::fstatfs(&file)?.f_type == NSFS_MAGIC;
    Ok(pinned.then(|| file.into()))
}

/// Makes [`NETNS_DIR`] what `ip netns` makes of it: a shared mount of its own, so that a pin taken away here
/// goes in every copy of the mount tree too (a machine's, a service's), and does not live on there unseen.
/// It stays when we go, as it does after `ip netns`: others may use it. Under the host's lock.
pub(crate) fn prepare_directory() -> io::Result<()> {
    fs::create_dir_all(NETNS_DIR)?;
    // The thread's own: threads may stand in mount namespaces of their own.
    let mounted = fs::read_to_string("/proc/thread-self/mountinfo")?
        .lines()
        .any(|line| line.split(' ').nth(4) == Some(NETNS_DIR));
    if !mounted {
        mount_bind_recursive(NETNS_DIR, NETNS_DIR)?;
        mount_change(NETNS_DIR, MountPropagationFlags::SHARED)?;
    }
    Ok(())
}

/// The names in [`NETNS_DIR`].
pub(crate) fn names() -> io::Result<Vec<String>> {
    match fs::read_dir(NETNS_DIR) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect(),
    }
}
