//! The data directory: private, locked by one server, marked with an instance id.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::FlockOperation;
use sprite_server::UrlKey;
use sprite_types::InstanceId;

use crate::failure::Failure;

/// Longer than a look at the lock takes.
const DOCTOR_LOOKS: Duration = Duration::from_millis(50);

/// A data directory.
pub(crate) struct DataDir {
    pub(crate) path: PathBuf,
    pub(crate) instance: InstanceId,
}

/// Held while a server or a purge uses the directory.
pub(crate) struct Lock {
    _file: File,
}

impl DataDir {
    /// Opens a data directory, making it if it is missing.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let failed = |error| Failure::new(format!("use data directory {}", path.display()), &error);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(failed)?;
        Self::existing(path)
    }

    /// Opens a data directory that is there.
    pub(crate) fn existing(path: &Path) -> Result<Self, Failure> {
        let failed = |error| Failure::new(format!("use data directory {}", path.display()), &error);
        let path = path.canonicalize().map_err(failed)?;
        let instance = instance(&path.join("instance")).map_err(failed)?;
        Ok(Self { path, instance })
    }

    /// Locks it for this process.
    pub(crate) fn lock(&self) -> Result<Lock, Failure> {
        let path = self.path.join("lock");
        let failed = |error: io::Error| Failure::new(format!("lock {}", path.display()), &error);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(failed)?;
        let try_lock = || rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
        let locked = match try_lock() {
            // A doctor holds it for less than a moment, to see whether somebody else does.
            Err(rustix::io::Errno::WOULDBLOCK) => {
                std::thread::sleep(DOCTOR_LOOKS);
                try_lock()
            }
            other => other,
        };
        match locked {
            Ok(()) => Ok(Lock { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(Failure::plain(format!(
                "another sprited uses {}",
                self.path.display()
            ))
            .hint("stop it first, or give this one another --data-dir")),
            Err(error) => Err(failed(error.into())),
        }
    }

    /// Whether a server or a purge uses it now. Makes nothing.
    pub(crate) fn serving(&self) -> Result<bool, Failure> {
        let path = self.path.join("lock");
        let failed = |error: io::Error| Failure::new(format!("look at {}", path.display()), &error);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(failed(error)),
        };
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(false),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
            Err(error) => Err(failed(error.into())),
        }
    }

    /// Where the kernels are that its virtual machines boot.
    pub(crate) fn guest(&self) -> PathBuf {
        self.path.join("guest")
    }

    pub(crate) fn catalog(&self) -> PathBuf {
        self.path.join("catalog.db")
    }

    /// The secret of the cookies of sprites' URLs; made at the first call. Whoever removes it logs every browser out.
    pub(crate) fn url_key(&self) -> Result<UrlKey, Failure> {
        let path = self.path.join("url-key");
        let failed = |error: io::Error| Failure::new(format!("use {}", path.display()), &error);
        let bytes = made_once(&path, || {
            let mut key = vec![0; UrlKey::LEN];
            File::open("/dev/urandom")?.read_exact(&mut key)?;
            Ok(key)
        });
        let bytes = bytes.map_err(failed)?;
        let key = bytes.try_into().map_err(|_| {
            Failure::plain(format!("{} is damaged", path.display()))
                .hint("remove it: browsers must then log in to sprites' URLs again")
        })?;
        Ok(UrlKey::new(key))
    }
}

fn instance(path: &Path) -> io::Result<InstanceId> {
    let id = made_once(path, || Ok(format!("{}\n", InstanceId::random()).into()))?;
    let id = String::from_utf8(id).map_err(io::Error::other)?;
    id.trim().parse().map_err(io::Error::other)
}

/// What is in the file, which nobody else can read; if there is none, it is made with what `make` gives. Several
/// processes may come here at once: the first wins.
fn made_once(path: &Path, make: impl FnOnce() -> io::Result<Vec<u8>>) -> io::Result<Vec<u8>> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        known => return known,
    }
    let fresh = path.with_extension(format!("new-{}", std::process::id()));
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&fresh)?;
    file.write_all(&make()?)?;
    file.sync_all()?;
    let linked = match fs::hard_link(&fresh, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) => Ok(()),
    };
    fs::remove_file(&fresh)?;
    linked?;
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()?;
    fs::read(path)
}
