//! The pool when processes die, come back, or meet: needs root.

mod support;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use sprite_disk::{Backing, OpenPoolError, Pool, PurgeError};
use sprite_types::SpriteId;
use support::{Home, eventually, image_id, is_root, loops_of, open, pool_with_image, read};

const GB: u64 = 1 << 30;

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
