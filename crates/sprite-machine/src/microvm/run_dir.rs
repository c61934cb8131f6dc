//! The place in a jail where its sockets are, seen from the host.
//!
//! The monitor may put there what it likes, a link to a socket of the host's too. So the host looks through the
//! very directory, follows no link in it, and speaks only with what is a socket there.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Uid};
use tokio::net::{UnixListener, UnixStream};

use crate::process::ProcessMark;

/// What the directory is called in every jail.
const DIRECTORY: &str = "run";

/// An open directory of sockets.
#[derive(Debug)]
pub(super) struct RunDir {
    directory: OwnedFd,
}

impl RunDir {
    /// The directory of a process's root. The caller makes sure that it is the process that it means, and that
    /// it still runs afterwards.
    pub(super) fn open(mark: ProcessMark) -> io::Result<Self> {
        let root = format!("/proc/{}/root", mark.pid);
        let root = rustix::fs::open(
            &root,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // The root belongs to the host's root, and what is in it cannot be replaced.
        let directory = rustix::fs::openat2(
            &root,
            DIRECTORY,
            flags,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
        )?;
        Ok(Self { directory })
    }

    /// Where it is found by this process, for calls that take a path.
    pub(super) fn path(&self) -> PathBuf {
        path_of(&self.directory)
    }

    /// Whether there is a socket of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.socket(name).is_ok()
    }

    fn socket(&self, name: &str) -> io::Result<OwnedFd> {
        let found = rustix::fs::openat2(
            &self.directory,
            name,
            OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV,
        )?;
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode);
        if kind == FileType::Socket {
            Ok(found)
        } else {
            Err(io::Error::new(io::ErrorKind::NotFound, "it is no socket"))
        }
    }

    /// Connects to a socket that the monitor made.
    pub(super) async fn connect(&self, name: &str) -> io::Result<UnixStream> {
        let socket = self.socket(name)?;
        UnixStream::connect(path_of(&socket)).await
    }

    /// Makes a socket to which the monitor, as this user, connects.
    pub(super) fn listen(&self, name: &str, id: u32) -> io::Result<UnixListener> {
        let listener = UnixListener::bind(self.path().join(name))?;
        let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
        rustix::fs::chownat(
            &self.directory,
            name,
            Some(uid),
            Some(gid),
            AtFlags::SYMLINK_NOFOLLOW,
        )?;
        Ok(listener)
    }

    /// Removes a socket that [`RunDir::listen`] made.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(
            &self.directory,
            name,
            AtFlags::empty(),
        )?)
    }
}

fn path_of(fd: impl AsFd) -> PathBuf {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()).into()
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::symlink;

    use super::*;

    fn at(path: &std::path::Path) -> RunDir {
        RunDir {
            directory: File::open(path).expect("a directory").into(),
        }
    }

    #[tokio::test]
    async fn sockets_are_spoken_with_and_nothing_else_is() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let run = at(dir.path());
        assert!(!run.has("api"));
        let own = std::os::unix::fs::MetadataExt::uid(&dir.path().metadata().expect("it is there"));
        let listener = run.listen("api", own).expect("listens");
        assert!(run.has("api"));
        let (connected, accepted) = tokio::join!(run.connect("api"), listener.accept());
        connected.expect("connects");
        accepted.expect("accepts");
        // A way out to a socket elsewhere, as a monitor that was taken over would make.
        let outside = tempfile::tempdir().expect("a temporary directory");
        let victim = outside.path().join("victim");
        let _victim = UnixListener::bind(&victim).expect("listens");
        symlink(&victim, dir.path().join("link")).expect("links");
        std::fs::write(dir.path().join("file"), "").expect("writes");
        for name in ["link", "file", "../victim", "/run/victim", "nothing"] {
            assert!(!run.has(name), "{name}");
            assert!(run.connect(name).await.is_err(), "{name}");
        }
        run.remove("api").expect("removes");
        assert!(!run.has("api"));
    }
}
