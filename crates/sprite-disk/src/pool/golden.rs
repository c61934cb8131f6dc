//! Golden snapshots: memories that machines begin with, each a directory of files. What the files are is the driver's.
//!
//! ```text
//! DIR/pool/golden/NAME/         where they are cloned from
//! DIR/pool/golden/NAME.build/   where one is made, or copied to; a dead process's is removed by the next
//! CACHE/golden/NAME/            the same for all servers of this host
//! CACHE/golden/NAME.lock        held by who makes NAME
//! ```

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::FlockOperation;

use super::Pool;
use crate::cache::{self, WorkDirectory};
use crate::{durable, sparse};

/// How many are kept, the newest. Each is what one guest system, with one size of machine, has used of its memory
/// when it has booted.
const MOST: usize = 8;

const BUILD: &str = "build";

/// The golden snapshots of a pool, and of the host's cache behind it.
#[derive(Debug, Clone)]
pub struct Goldens {
    pool: PathBuf,
    cache: PathBuf,
}

impl Pool {
    /// The golden snapshots of this pool. What other servers of the host have made is found in `cache_dir`.
    ///
    /// # Errors
    /// Their directories cannot be made.
    pub fn goldens(&self, cache_dir: &Path) -> io::Result<Goldens> {
        Ok(Goldens {
            pool: cache::open(&self.inner.root.join("golden"))?,
            cache: cache::open(&cache_dir.join("golden"))?,
        })
    }
}

impl Goldens {
    /// The directory of a golden snapshot, whose files can be cloned into the pool; taken over from the cache if it
    /// is there alone.
    ///
    /// # Errors
    /// It cannot be looked for or copied.
    ///
    /// # Crash safety
    /// It is there with all its files or not at all.
    pub fn find(&self, name: &str) -> io::Result<Option<PathBuf>> {
        let here = self.pool.join(name);
        if here.try_exists()? {
            return Ok(Some(here));
        }
        let cached = self.cache.join(name);
        if !cached.try_exists()? {
            return Ok(None);
        }
        copy(&cached, &self.pool, name)?;
        tidy(&self.pool)?;
        Ok(Some(here))
    }

    /// A new directory in the pool to make one in; `None` if another process makes one of that name. The lock is to
    /// be held until it is finished or given up.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn begin(&self, name: &str) -> io::Result<Option<(PathBuf, File)>> {
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(cache::lock_path(&self.cache, name))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let place = self.pool.join(name).with_extension(BUILD);
        // One that is there is a dead process's.
        cache::remove_tree(&place)?;
        DirBuilder::new().mode(0o700).create(&place)?;
        Ok(Some((place, lock)))
    }

    /// What is in the directory that [`Goldens::begin`] made is the golden snapshot from now on, for all servers of
    /// the host. Its files are durable already.
    ///
    /// # Errors
    /// It may be one for this server alone, or none.
    pub fn finish(&self, name: &str) -> io::Result<()> {
        let here = self.pool.join(name);
        let place = here.with_extension(BUILD);
        File::open(&place)?.sync_all()?;
        fs::rename(&place, &here)?;
        durable::sync_parent(&here)?;
        tidy(&self.pool)?;
        copy(&here, &self.cache, name)?;
        tidy(&self.cache)
    }

    /// Removes a golden snapshot that cannot be used, here and from the cache.
    ///
    /// # Errors
    /// It may still be there.
    pub fn forget(&self, name: &str) -> io::Result<()> {
        for directory in [&self.cache, &self.pool] {
            remove(&directory.join(name))?;
        }
        Ok(())
    }
}

/// Removes a directory, which is no golden snapshot from the first step on.
fn remove(path: &Path) -> io::Result<()> {
    let build = path.with_extension(BUILD);
    cache::remove_tree(&build)?;
    match fs::rename(path, &build) {
        Ok(()) => cache::remove_tree(&build),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Copies a directory of files into another, under a name; somebody else may have been first.
fn copy(from: &Path, directory: &Path, name: &str) -> io::Result<()> {
    let build = WorkDirectory::make(directory, name)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let copied = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(build.path().join(entry.file_name()))?;
        sparse::copy(&File::open(entry.path())?, &copied, &mut |_| {})?;
        copied.sync_all()?;
    }
    File::open(build.path())?.sync_all()?;
    let to = directory.join(name);
    match fs::rename(build.path(), &to) {
        Ok(()) => durable::sync_parent(&to),
        // Source: rename(2), the new name is a directory that is not empty.
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes all but the newest.
fn tidy(directory: &Path) -> io::Result<()> {
    let mut found: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() && path.extension().is_none() {
            found.push((entry.metadata()?.modified()?, path));
        }
    }
    found.sort();
    let old = found.len().saturating_sub(MOST);
    found[..old].iter().try_for_each(|(_, path)| remove(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goldens(directory: &Path, server: &str) -> Goldens {
        let [pool, cache] =
            [server, "cache"].map(|name| cache::open(&directory.join(name)).expect("a directory"));
        Goldens { pool, cache }
    }

    fn write(goldens: &Goldens, name: &str) {
        let (place, _lock) = goldens.begin(name).expect("a place").expect("it is free");
        fs::write(place.join("memory"), name).expect("writes");
        goldens.finish(name).expect("finishes");
    }

    #[test]
    fn what_one_server_made_is_there_for_all() {
        let directory = tempfile::tempdir().expect("a directory");
        let [one, other] = ["one", "other"].map(|name| goldens(directory.path(), name));
        assert_eq!(one.find("a").expect("looks"), None);
        write(&one, "a");
        for server in [&one, &other] {
            let found = server.find("a").expect("looks").expect("is there");
            assert!(found.starts_with(&server.pool));
            assert_eq!(fs::read(found.join("memory")).expect("reads"), b"a");
        }
        one.forget("a").expect("forgets");
        assert_eq!(one.find("a").expect("looks"), None);
        assert!(other.find("a").expect("looks").is_some(), "its own copy");
    }

    #[test]
    fn it_is_made_by_one_and_is_none_before_it_is_finished() {
        let directory = tempfile::tempdir().expect("a directory");
        let [one, other] = ["one", "other"].map(|name| goldens(directory.path(), name));
        let (place, lock) = one.begin("a").expect("a place").expect("it is free");
        fs::write(place.join("memory"), "half").expect("writes");
        assert!(other.begin("a").expect("looks").is_none(), "one makes it");
        assert_eq!(one.find("a").expect("looks"), None);
        // Its process dies.
        drop(lock);
        let (place, _lock) = one.begin("a").expect("a place").expect("it is free");
        assert_eq!(fs::read_dir(place).expect("reads").count(), 0);
    }

    #[test]
    fn the_newest_are_kept() {
        let directory = tempfile::tempdir().expect("a directory");
        let goldens = goldens(directory.path(), "one");
        let names: Vec<String> = (0..MOST + 2).map(|n| format!("n{n}")).collect();
        for name in &names {
            write(&goldens, name);
            // The clock of a file system is coarse.
            let old = SystemTime::now() - std::time::Duration::from_secs(100);
            for (age, earlier) in (0..).zip(&names) {
                for directory in [&goldens.pool, &goldens.cache] {
                    if let Ok(file) = File::open(directory.join(earlier)) {
                        let at = old + std::time::Duration::from_secs(age);
                        file.set_modified(at).expect("sets");
                    }
                }
            }
        }
        let kept = |name: &String| goldens.find(name).expect("looks").is_some();
        let kept: Vec<bool> = names.iter().map(kept).collect();
        assert_eq!(kept.iter().filter(|kept| **kept).count(), MOST);
        assert!(!kept[0] && !kept[1], "the oldest went: {kept:?}");
    }
}
