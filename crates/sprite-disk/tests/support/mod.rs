//! What the tests of this crate share.
#![allow(dead_code, reason = "every test program uses a part of it")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use sprite_disk::{ImageId, Layout, OpenPoolError, Pool, PoolOptions, Silent};

/// Whether this test can run; if not, says why.
pub fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: only root can mount; run it with sudo");
    }
    root
}

/// An image id of one letter.
pub fn image_id(letter: char) -> ImageId {
    std::iter::repeat_n(letter, ImageId::LEN)
        .collect::<String>()
        .parse()
        .expect("hexadecimal digits")
}

const GB: u64 = 1 << 30;

/// A data directory that leaves nothing on the host.
pub struct Home(tempfile::TempDir);

impl Home {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// A base image with hardly anything in it.
    pub fn image(&self) -> PathBuf {
        self.image_with(1)
    }

    /// A base image with a file of so many MiB.
    pub fn image_with(&self, mib: usize) -> PathBuf {
        let (tree, path) = (self.path().join("tree"), self.path().join("image.ext4"));
        fs::create_dir_all(&tree).expect("a directory");
        fs::write(tree.join("file"), vec![b'x'; mib << 20]).expect("a file");
        File::create(&path)
            .and_then(|file| file.set_len(100 << 30))
            .expect("a file");
        let status = Command::new("mkfs.ext4")
            .args([
                "-q",
                "-F",
                "-J",
                "size=64",
                "-m",
                "0",
                "-E",
                "assume_storage_prezeroed=1,lazy_itable_init=0",
                "-d",
            ])
            .args([&tree, &path])
            .status();
        assert!(status.expect("mkfs.ext4").success());
        path
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Err(error) = Pool::purge(self.path()) {
            // In an unwinding test the pool may still be locked; the mount itself must go in any case.
            let unmounted = Command::new("umount")
                .arg(self.path().join("pool"))
                .status();
            println!("purge: {error}; umount: {unmounted:?}");
        }
    }
}

/// Loop devices whose file is below the directory.
pub fn loops_of(directory: &Path) -> usize {
    let directory = directory.canonicalize().expect("a directory");
    let blocks = fs::read_dir("/sys/block").expect("block devices");
    blocks
        .filter_map(|block| fs::read_to_string(block.ok()?.path().join("loop/backing_file")).ok())
        .filter(|file| Path::new(file.trim_end()).starts_with(&directory))
        .count()
}

/// Checks the file system in an image with the tool of its makers.
pub fn assert_sound(image: &Path) {
    let output = Command::new("e2fsck")
        .args(["-fn"])
        .arg(image)
        .output()
        .expect("e2fsck");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

/// The lines of a stream, until its end.
pub fn lines(from: impl Read) -> impl Iterator<Item = String> {
    BufReader::new(from).lines().map_while(Result::ok)
}

/// Waits for a state that the kernel reaches by itself.
pub fn eventually(what: &str, mut state: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !state() {
        assert!(Instant::now() < deadline, "not within 20 s: {what}");
        std::thread::yield_now();
    }
}

/// Opened as it would be on a host whose file system has no reflink.
pub fn open(data_dir: &Path) -> Result<Pool, OpenPoolError> {
    let layout = Layout::File { bytes: 2 * GB };
    Pool::open(
        &PoolOptions {
            data_dir: data_dir.to_owned(),
            layout,
        },
        &Silent,
    )
}

/// A pool with an image in it.
pub fn pool_with_image(home: &Home) -> (Pool, ImageId) {
    let pool = open(home.path()).expect("open the pool");
    let id = image_id('a');
    pool.import_image(&id, &home.image(), &Silent)
        .expect("import the image");
    (pool, id)
}

pub fn write(path: &Path, at: u64, bytes: &[u8]) {
    let file = File::options().write(true).open(path).expect("open a disk");
    file.write_all_at(bytes, at).expect("write to a disk");
    file.sync_all().expect("sync a disk");
}

pub fn read(path: &Path, at: u64, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    File::open(path)
        .and_then(|file| file.read_exact_at(&mut bytes, at))
        .expect("read a disk");
    bytes
}
