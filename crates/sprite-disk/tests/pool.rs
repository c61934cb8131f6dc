//! The pool on a real XFS file: needs root.

mod support;

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use sprite_disk::{Backing, CreateDiskError, Pool, PoolOptions, Silent, SizedImageError};
use sprite_types::SpriteId;
use support::{Home, eventually, image_id, is_root, open, pool_with_image, read, write};

const GB: u64 = 1 << 30;

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
