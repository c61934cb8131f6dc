//! Reading and writing files of a root file system that somebody else made.
//!
//! Its links may lead anywhere: `/etc` may be a link to `/etc` of the host. So every path is resolved by the kernel
//! as if the tree were the root (`RESOLVE_IN_ROOT`), files are opened only after they are known to be regular, and
//! new files take the place of old names instead of following them.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Uid};

/// Longest file that is read, in bytes.
const LONGEST: u64 = 4 << 20;

/// A root file system below a directory.
#[derive(Debug)]
pub(super) struct Tree {
    root: OwnedFd,
}

/// Who a file belongs to and what its bits are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attributes {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Attributes {
    pub(super) const FILE: Self = Self {
        mode: 0o644,
        uid: 0,
        gid: 0,
    };
    pub(super) const PROGRAM: Self = Self {
        mode: 0o755,
        uid: 0,
        gid: 0,
    };
    pub(super) const DIRECTORY: Self = Self {
        mode: 0o755,
        uid: 0,
        gid: 0,
    };
}

impl Tree {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            root: rustix::fs::open(path, flags, Mode::empty())?,
        })
    }

    /// Something of the tree, as a place only: opening it does nothing to it.
    fn place(&self, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let flags = flags | OFlags::PATH | OFlags::CLOEXEC;
        Ok(rustix::fs::openat2(
            &self.root,
            path,
            flags,
            Mode::empty(),
            resolve,
        )?)
    }

    /// Whether the path leads to something.
    pub(super) fn exists(&self, path: &str) -> bool {
        self.place(path, OFlags::empty()).is_ok()
    }

    /// The text of a regular file; nothing if there is no such file.
    pub(super) fn read(&self, path: &str) -> io::Result<Option<String>> {
        let place = match self.place(path, OFlags::empty()) {
            Ok(place) => place,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if FileType::from_raw_mode(rustix::fs::fstat(&place)?.st_mode) != FileType::RegularFile {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "not a regular file",
            ));
        }
        let mut bytes = Vec::new();
        let file = File::open(format!("/proc/self/fd/{}", place.as_raw_fd()))?;
        file.take(LONGEST + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > LONGEST {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "longer than 4 MiB",
            ));
        }
        String::from_utf8(bytes)
            .map(Some)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not UTF-8"))
    }

    /// Writes a file in place of whatever has its name. The directory must exist.
    pub(super) fn write(&self, path: &str, text: &str, attributes: Attributes) -> io::Result<()> {
        let (directory, name) = self.parent(path)?;
        remove_at(&directory, name)?;
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(&directory, name, flags, Mode::RUSR)?);
        file.write_all(text.as_bytes())?;
        let (uid, gid) = owner(attributes);
        rustix::fs::fchown(&file, uid, gid)?;
        Ok(rustix::fs::fchmod(
            &file,
            Mode::from_raw_mode(attributes.mode),
        )?)
    }

    /// Removes a file or link if it is there.
    pub(super) fn remove(&self, path: &str) -> io::Result<()> {
        match self.parent(path) {
            Ok((directory, name)) => remove_at(&directory, name),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Makes a directory and those above it; only those that are new get the attributes.
    pub(super) fn make_directory(&self, path: &str, attributes: Attributes) -> io::Result<()> {
        for (end, _) in path.match_indices('/').filter(|(end, _)| *end > 0) {
            self.make_one_directory(&path[..end], attributes)?;
        }
        self.make_one_directory(path, attributes)
    }

    fn make_one_directory(&self, path: &str, attributes: Attributes) -> io::Result<()> {
        if self.place(path, OFlags::DIRECTORY).is_ok() {
            return Ok(());
        }
        let (directory, name) = self.parent(path)?;
        rustix::fs::mkdirat(&directory, name, Mode::RWXU)?;
        let (uid, gid) = owner(attributes);
        rustix::fs::chownat(&directory, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        let mode = Mode::from_raw_mode(attributes.mode);
        Ok(rustix::fs::chmodat(
            &directory,
            name,
            mode,
            AtFlags::empty(),
        )?)
    }

    fn parent<'a>(&self, path: &'a str) -> io::Result<(OwnedFd, &'a str)> {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("/", path));
        let directory = if directory.is_empty() { "/" } else { directory };
        Ok((self.place(directory, OFlags::DIRECTORY)?, name))
    }
}

fn owner(attributes: Attributes) -> (Option<Uid>, Option<Gid>) {
    (
        Some(Uid::from_raw(attributes.uid)),
        Some(Gid::from_raw(attributes.gid)),
    )
}

fn remove_at(directory: &OwnedFd, name: &str) -> io::Result<()> {
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    /// Attributes that this user may give.
    fn mine(directory: &Path) -> Attributes {
        let data = fs::metadata(directory).expect("metadata");
        Attributes {
            mode: 0o644,
            uid: data.uid(),
            gid: data.gid(),
        }
    }

    #[test]
    fn links_out_of_the_tree_lead_back_into_it() {
        let outside = tempfile::tempdir().expect("a directory");
        fs::write(outside.path().join("passwd"), "host").expect("a file");
        let inside = tempfile::tempdir().expect("a directory");
        symlink(outside.path(), inside.path().join("etc")).expect("a link");
        symlink("../../../../../../..", inside.path().join("up")).expect("a link");
        let tree = Tree::open(inside.path()).expect("a tree");

        assert_eq!(tree.read("/etc/passwd").expect("absent"), None);
        assert!(
            tree.write("/etc/passwd", "sprite", mine(inside.path()))
                .is_err()
        );
        tree.write("/up/file", "text", mine(inside.path()))
            .expect("in the tree's own root");
        assert_eq!(
            fs::read_to_string(inside.path().join("file")).expect("a file"),
            "text"
        );
        assert_eq!(
            fs::read_to_string(outside.path().join("passwd")).expect("a file"),
            "host"
        );
    }

    #[test]
    fn a_new_file_replaces_a_link_and_does_not_follow_it() {
        let outside = tempfile::NamedTempFile::new().expect("a file");
        let inside = tempfile::tempdir().expect("a directory");
        symlink(outside.path(), inside.path().join("hosts")).expect("a link");
        let tree = Tree::open(inside.path()).expect("a tree");
        tree.write("/hosts", "text", mine(inside.path()))
            .expect("a file");
        assert_eq!(fs::read_to_string(outside.path()).expect("a file"), "");
        assert!(
            inside
                .path()
                .join("hosts")
                .symlink_metadata()
                .expect("metadata")
                .is_file()
        );
    }

    #[test]
    fn pipes_and_giants_are_not_read() {
        let inside = tempfile::tempdir().expect("a directory");
        let tree = Tree::open(inside.path()).expect("a tree");
        let fifo = inside.path().join("passwd");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::RUSR, 0).expect("a pipe");
        assert!(tree.read("/passwd").is_err());
        let giant = File::create(inside.path().join("giant")).expect("a file");
        giant.set_len(LONGEST + 1).expect("a length");
        assert!(tree.read("/giant").is_err());
    }
}
