//! A file that is being written, and has no name yet or one that nobody looks for.

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

/// Dropped before it got its name, it is gone.
pub(crate) struct Draft<'a> {
    directory: BorrowedFd<'a>,
    file: File,
    /// Its name, where files cannot be without one.
    named: Option<String>,
}

impl<'a> Draft<'a> {
    pub(crate) fn begin(directory: BorrowedFd<'a>) -> Result<Self, Errno> {
        let mode = Mode::from_raw_mode(0o600);
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let nameless = rustix::fs::openat(directory, c".", flags | OFlags::TMPFILE, mode);
        let (file, named) = match nameless {
            Ok(file) => (file, None),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
                let name = unused_name();
                let flags = flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
                let file = rustix::fs::openat(directory, &name, flags, mode)?;
                (file, Some(name))
            }
            Err(errno) => return Err(errno),
        };
        Ok(Self {
            directory,
            file: File::from(file),
            named,
        })
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Gives it its name, in place of a file or a link that has it.
    pub(crate) fn put(mut self, name: &[u8]) -> Result<(), Errno> {
        let draft = match self.named.take() {
            Some(draft) => draft,
            None => {
                let nameless = format!("/proc/self/fd/{}", self.file.as_raw_fd());
                let link = |name: &[u8]| {
                    let follow = AtFlags::SYMLINK_FOLLOW;
                    rustix::fs::linkat(CWD, &nameless, self.directory, name, follow)
                };
                match link(name) {
                    Err(Errno::EXIST) => {}
                    done => return done,
                }
                let draft = unused_name();
                link(draft.as_bytes())?;
                draft
            }
        };
        replace(self.directory, &draft, name)
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if let Some(name) = &self.named {
            // It was given up; if even that fails, what stays has a name that says what it is.
            let _ = rustix::fs::unlinkat(self.directory, name, AtFlags::empty());
        }
    }
}

/// Gives what has a name that nobody looks for its own, in place of a file or a link. What fails is gone.
pub(crate) fn replace(directory: BorrowedFd<'_>, draft: &str, name: &[u8]) -> Result<(), Errno> {
    let replaced = rustix::fs::renameat(directory, draft, directory, name);
    // Two names of one file stay two, and both are there still.
    match rustix::fs::unlinkat(directory, draft, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => replaced,
        Err(errno) => replaced.and(Err(errno)),
    }
}

/// A name that nothing else has.
pub(crate) fn unused_name() -> String {
    // Keys of maps are random, and so is what they make of nothing.
    format!(".sprite-part-{:016x}", RandomState::new().hash_one(()))
}
