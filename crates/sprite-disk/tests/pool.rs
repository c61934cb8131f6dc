//! The pool on a real XFS file: needs root.

mod support;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

use sprite_disk::{
    Backing, CreateDiskError, ImageId, Layout, OpenPoolError, Pool, PoolOptions, PurgeError,
    Silent, SizedImageError,
};
use sprite_types::SpriteId;
use support::{Home, eventually, image_id, is_root, loops_of};

const GB: u64 = 1 << 30;

/// Opened as it would be on a host whose file system has no reflink.
fn open(data_dir: &Path) -> Result<Pool, OpenPoolError> {
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
fn pool_with_image(home: &Home) -> (Pool, ImageId) {
    let pool = open(home.path()).expect("open the pool");
    let id = image_id('a');
    pool.import_image(&id, &home.image(), &Silent)
        .expect("import the image");
    (pool, id)
}

fn write(path: &Path, at: u64, bytes: &[u8]) {
    let file = File::options().write(true).open(path).expect("open a disk");
    file.write_all_at(bytes, at).expect("write to a disk");
    file.sync_all().expect("sync a disk");
}

fn read(path: &Path, at: u64, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    File::open(path)
        .and_then(|file| file.read_exact_at(&mut bytes, at))
        .expect("read a disk");
    bytes
}

#[test]
fn clones_do_not_see_each_other() {
    if !is_root() {
        return;
    }
    let home = Home::new();
    let (pool, image) = pool_with_image(&home);
    let (one, two) = (SpriteId::random(), SpriteId::random());
    let one = pool.create_disk(one, &image, 100).expect("create a disk");
    let two = pool.create_disk(two, &image, 100).expect("create a disk");
    assert_eq!(fs::metadata(&one).expect("metadata").len(), 100 * GB);
    let before = read(&two, 1024, 1024);
    write(&one, 1024, &[9; 1024]);
    assert_eq!(read(&two, 1024, 1024), before);
    assert_eq!(read(&one, 1024, 1024), [9; 1024]);
    let three = pool
        .create_disk(SpriteId::random(), &image, 100)
        .expect("create a disk");
    assert_eq!(read(&three, 1024, 1024), before, "the image is as it was");
}

#[test]
fn creating_and_deleting_again_changes_nothing() {
    if !is_root() {
        return;
    }
    let home = Home::new();
    let (pool, image) = pool_with_image(&home);
    let sprite = SpriteId::random();
    let path = pool
        .create_disk(sprite, &image, 100)
        .expect("create a disk");
    assert_eq!(path, pool.disk_path(sprite));
    write(&path, 5 << 20, b"kept");
    assert_eq!(
        pool.create_disk(sprite, &image, 100)
            .expect("create it again"),
        path
    );
    assert_eq!(read(&path, 5 << 20, 4), b"kept");
    assert_eq!(pool.disks().expect("list"), [sprite]);
    pool.delete_disk(sprite).expect("delete the disk");
    pool.delete_disk(sprite).expect("delete it again");
    assert!(pool.disks().expect("list").is_empty());
    pool.import_image(&image, Path::new("/nowhere"), &Silent)
        .expect("it is there already");
    let images = pool.images().expect("list");
    assert_eq!(images.len(), 1);
    assert_eq!((&images[0].id, images[0].nominal_bytes), (&image, 100 * GB));
}

#[test]
fn other_sizes_are_made_once_and_are_sound() {
    if !is_root() {
        return;
    }
    let home = Home::new();
    let (pool, image) = pool_with_image(&home);
    for storage_gb in [1, 10, 101] {
        for _ in 0..2 {
            let disk = pool
                .create_disk(SpriteId::random(), &image, storage_gb)
                .expect("create");
            assert_eq!(
                fs::metadata(&disk).expect("metadata").len(),
                u64::from(storage_gb) * GB
            );
            support::assert_sound(&disk);
        }
    }
    // Whoever asks for many sizes does not fill the pool with them.
    for storage_gb in 11..21 {
        pool.create_disk(SpriteId::random(), &image, storage_gb)
            .expect("create");
    }
    let files = fs::read_dir(pool.root().join("images"))
        .expect("list")
        .count();
    assert!(files <= 10, "{files} files");
    assert_eq!(pool.images().expect("list").len(), 1);
}

#[test]
fn a_disk_too_small_for_the_image_is_refused_with_the_least_size() {
    if !is_root() {
        return;
    }
    let home = Home::new();
    let pool = open(home.path()).expect("open the pool");
    let id = image_id('b');
    pool.import_image(&id, &home.image_with(1200), &Silent)
        .expect("import the image");
    let error = pool
        .create_disk(SpriteId::random(), &id, 1)
        .expect_err("it cannot fit");
    let CreateDiskError::Image {
        source: SizedImageError::TooSmall { smallest_gb, .. },
        ..
    } = error
    else {
        panic!("{error:?}");
    };
    pool.create_disk(SpriteId::random(), &id, smallest_gb)
        .expect("the least size");
    assert!(
        pool.disks().expect("list").len() == 1,
        "nothing is left of the refused one"
    );
}

#[test]
fn what_is_no_image_is_refused() {
    if !is_root() {
        return;
    }
    let home = Home::new();
    let pool = open(home.path()).expect("open the pool");
    let error = pool
        .create_disk(SpriteId::random(), &image_id('c'), 100)
        .expect_err("no image");
    assert!(
        matches!(
            error,
            CreateDiskError::Image {
                source: SizedImageError::Missing { .. },
                ..
            }
        ),
        "{error:?}"
    );
    let odd = home.path().join("odd");
    for length in [0, 10, GB] {
        File::create(&odd)
            .and_then(|file| file.set_len(length))
            .expect("a file");
        assert!(
            pool.import_image(&image_id('c'), &odd, &Silent).is_err(),
            "{length}"
        );
    }
    assert!(!pool.has_image(&image_id('c')));
}

#[test]
fn a_second_user_of_the_same_pool_is_refused() {
    if !is_root() {
        return;
    }
    let home = Home::new();
    let pool = open(home.path()).expect("open the pool");
    assert!(matches!(open(home.path()), Err(OpenPoolError::Busy { .. })));
    assert!(matches!(
        Pool::purge(home.path()),
        Err(PurgeError::Busy { .. })
    ));
    pool.close().expect("close");
    assert_eq!(loops_of(home.path()), 0);
}

#[test]
fn two_pools_live_side_by_side() {
    if !is_root() {
        return;
    }
    let (a, b) = (Home::new(), Home::new());
    let (pool_a, image) = pool_with_image(&a);
    let (pool_b, _) = pool_with_image(&b);
    let sprite = SpriteId::random();
    pool_a
        .create_disk(sprite, &image, 100)
        .expect("create a disk");
    assert!(pool_b.disks().expect("list").is_empty());
    pool_b.close().expect("close");
    Pool::purge(b.path()).expect("purge");
    assert_eq!((loops_of(a.path()), loops_of(b.path())), (1, 0));
    assert_eq!(pool_a.disks().expect("list"), [sprite]);
}

#[test]
fn the_mount_of_a_killed_process_is_found_again() {
    if !is_root() {
        return;
    }
    let home = Home::new();
    let (pool, image) = pool_with_image(&home);
    let sprite = SpriteId::random();
    pool.create_disk(sprite, &image, 100)
        .expect("create a disk");
    // As kill -9 does: nothing is unmounted.
    drop(pool);
    assert_eq!(loops_of(home.path()), 1);
    let pool = open(home.path()).expect("open it again");
    assert_eq!(pool.backing(), Backing::File);
    assert_eq!(
        loops_of(home.path()),
        1,
        "no second device over the same file"
    );
    assert_eq!(pool.disks().expect("list"), [sprite]);
    pool.close().expect("close");
    assert_eq!(loops_of(home.path()), 0);
    let pool = open(home.path()).expect("open it closed");
    assert_eq!(pool.disks().expect("list"), [sprite]);
}

#[test]
fn a_loop_device_without_its_mount_is_used_again() {
    if !is_root() {
        return;
    }
    let home = Home::new();
    open(home.path()).expect("open").close().expect("close");
    let file = home.path().join("pool.xfs");
    // Somebody attached it by hand, through another name of the directory.
    let status = Command::new("losetup")
        .args(["--find", "--nooverlap"])
        .arg(&file)
        .status();
    assert!(status.expect("losetup").success());
    let pool = open(home.path()).expect("open");
    assert_eq!(loops_of(home.path()), 1);
    drop(pool);
    Pool::purge(home.path()).expect("purge");
    eventually("the device is detached", || loops_of(home.path()) == 0);
    Pool::purge(home.path()).expect("purge again");
    assert!(
        home.path().join("pool.xfs").exists(),
        "files are not deleted"
    );
}

#[test]
fn a_pool_in_use_is_not_closed() {
    if !is_root() {
        return;
    }
    let home = Home::new();
    let pool = open(home.path()).expect("open");
    let other = pool.clone();
    assert!(pool.close().is_err(), "another value uses it");
    let held = File::create(other.root().join("held")).expect("a file");
    assert!(other.close().is_err(), "a file is open");
    assert!(Pool::purge(home.path()).is_err());
    drop(held);
    Pool::purge(home.path()).expect("purge");
    assert_eq!(loops_of(home.path()), 0);
    assert!(Pool::purge(Path::new("/nonexistent/data")).is_ok());
}

#[test]
fn a_full_pool_refuses_disks_and_says_what_to_do() {
    if !is_root() {
        return;
    }
    let home = Home::new();
    let (pool, image) = pool_with_image(&home);
    let filler = File::create(pool.root().join("filler")).expect("a file");
    let free = pool.space().expect("space").pool_free;
    rustix::fs::fallocate(
        &filler,
        rustix::fs::FallocateFlags::empty(),
        0,
        free - (100 << 20),
    )
    .expect("fill the pool");
    let error = pool
        .create_disk(SpriteId::random(), &image, 100)
        .expect_err("it is full");
    assert!(matches!(error, CreateDiskError::Full(_)), "{error:?}");
    assert!(pool.disks().expect("list").is_empty());
    drop(filler);
    fs::remove_file(pool.root().join("filler")).expect("remove");
    eventually("there is room again", || {
        pool.create_disk(SpriteId::random(), &image, 100).is_ok()
    });
}

/// Not a test of its own: the process that [`killed_creates_leave_whole_disks_only`] kills.
#[test]
fn worker_that_is_killed() {
    let Some(home) = std::env::var_os("SPRITE_DISK_TEST_WORKER") else {
        return;
    };
    let pool = open(Path::new(&home)).expect("open");
    loop {
        let sprite = SpriteId::random();
        pool.create_disk(sprite, &image_id('a'), 100)
            .expect("create");
        // Acknowledged: the other process may count on it from here.
        println!("created {sprite}");
    }
}

#[test]
fn killed_creates_leave_whole_disks_only() {
    if !is_root() {
        return;
    }
    let home = Home::new();
    let (pool, image) = pool_with_image(&home);
    let expected = read(
        &pool
            .create_disk(SpriteId::random(), &image, 100)
            .expect("create"),
        0,
        1 << 20,
    );
    drop(pool);
    let mut acknowledged = BTreeSet::new();
    for round in 1..6 {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args([
                "--exact",
                "worker_that_is_killed",
                "--nocapture",
                "--test-threads=1",
            ])
            .env("SPRITE_DISK_TEST_WORKER", home.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start the worker");
        let output = child.stdout.take().expect("it is piped");
        let created = support::lines(output).filter_map(|line| {
            line.rsplit_once("created ")
                .and_then(|(_, id)| id.parse::<SpriteId>().ok())
        });
        for (count, sprite) in created.enumerate() {
            acknowledged.insert(sprite);
            // In the middle of one of the next, somewhere else in every round.
            if count == round * 3 {
                child.kill().expect("kill");
            }
        }
        child.wait().expect("wait");
        assert_eq!(loops_of(home.path()), 1);
    }
    let pool = open(home.path()).expect("open");
    let disks: BTreeSet<SpriteId> = pool.disks().expect("list").into_iter().collect();
    assert!(disks.is_superset(&acknowledged));
    assert!(acknowledged.len() > 30);
    for disk in &disks {
        assert_eq!(
            fs::metadata(pool.disk_path(*disk)).expect("metadata").len(),
            100 * GB
        );
        assert_eq!(read(&pool.disk_path(*disk), 0, 1 << 20), expected);
    }
    let files = fs::read_dir(pool.root().join("disks"))
        .expect("list")
        .count();
    assert_eq!(files, disks.len(), "nothing but disks");
}

#[test]
fn an_acknowledged_disk_survives_a_power_cut() {
    if !is_root() {
        return;
    }
    let (home, after) = (Home::new(), Home::new());
    let (pool, image) = pool_with_image(&home);
    let sprites: Vec<SpriteId> = (0..5).map(|_| SpriteId::random()).collect();
    let gone = SpriteId::random();
    pool.create_disk(gone, &image, 100).expect("create");
    for sprite in &sprites {
        pool.create_disk(*sprite, &image, 100).expect("create");
    }
    pool.delete_disk(gone).expect("delete");
    let expected = read(&pool.disk_path(sprites[0]), 0, 1 << 20);
    // What reached the file by now is what a power cut would leave; what XFS keeps in memory is lost.
    let copy = Command::new("cp")
        .arg("--sparse=always")
        .args([home.path().join("pool.xfs"), after.path().join("pool.xfs")])
        .status();
    assert!(copy.expect("cp").success());
    pool.close()
        .expect("close, because two mounts of one file system exclude each other");
    let pool = open(after.path()).expect("open what is left");
    let disks: BTreeSet<SpriteId> = pool.disks().expect("list").into_iter().collect();
    assert_eq!(disks, sprites.iter().copied().collect());
    for sprite in sprites {
        assert_eq!(read(&pool.disk_path(sprite), 0, 1 << 20), expected);
    }
}

#[test]
fn many_creates_at_once_all_succeed() {
    if !is_root() {
        return;
    }
    let home = Home::new();
    let (pool, image) = pool_with_image(&home);
    let started = std::time::Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|| {
                pool.create_disk(SpriteId::random(), &image, 100)
                    .expect("create")
            });
        }
    });
    println!("50 disks in {:?}", started.elapsed());
    assert_eq!(pool.disks().expect("list").len(), 50);
}

/// Not a test of its own: the process of [`without_root_and_reflink_the_remedy_is_named`].
#[test]
fn opener_without_root() {
    let Some(home) = std::env::var_os("SPRITE_DISK_TEST_OPENER") else {
        return;
    };
    match Pool::open(&PoolOptions::new(home), &Silent) {
        Ok(pool) => println!("opened a {:?}", pool.backing()),
        Err(error) => println!("refused: {error}"),
    }
}

#[test]
fn without_root_and_reflink_the_remedy_is_named() {
    if !is_root() {
        return;
    }
    let home = Home::new();
    let program = home.path().join("program");
    fs::copy(std::env::current_exe().expect("this program"), &program).expect("copy");
    let data_dir = home.path().join("data");
    fs::create_dir(&data_dir).expect("a directory");
    for path in [home.path(), &data_dir] {
        std::os::unix::fs::chown(path, Some(65534), Some(65534)).expect("chown");
    }
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&program)
        .args(["--exact", "opener_without_root", "--nocapture"])
        .env("SPRITE_DISK_TEST_OPENER", &data_dir)
        .output()
        .expect("setpriv");
    let text = String::from_utf8_lossy(&output.stdout);
    let remedy = text.contains("refused: ")
        && text.contains("start as root, or put the data directory on XFS");
    assert!(remedy || text.contains("opened a Directory"), "{output:?}");
    assert!(!data_dir.join("pool.xfs").exists());
}

#[test]
fn a_directory_without_reflink_gets_a_file_of_its_own() {
    if !is_root() {
        return;
    }
    let home = Home::new();
    // ext4 and tmpfs have no reflink; where the temporary directory is XFS or btrfs, there is nothing to show.
    let pool = Pool::open(&PoolOptions::new(home.path()), &Silent).expect("open");
    let made = home.path().join("pool.xfs").exists();
    assert_eq!(pool.backing() == Backing::File, made);
    let space = pool.space().expect("space");
    assert!(space.shortage().is_none(), "{space:?}");
    if made {
        let inner = open_inner(pool.root());
        assert_eq!(
            inner.backing(),
            Backing::Directory,
            "a pool inside of a pool needs no file"
        );
    }
}

fn open_inner(root: &Path) -> Pool {
    Pool::open(&PoolOptions::new(root.join("inner")), &Silent).expect("open")
}
