//! Checkpoints on a real XFS file: needs root.

mod support;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use sprite_types::{CheckpointId, SpriteId};
use support::{Home, is_root, pool_with_image, write};

const V1: CheckpointId = CheckpointId::Asked(1);
const V2: CheckpointId = CheckpointId::Asked(2);
const BLOCK: u64 = 4096;

#[test]
fn a_disk_is_replaced_whole_or_not_at_all() {
    if !is_root() {
        return;
    }
    let home = Home::new();
    let (pool, image) = pool_with_image(&home);
    let sprite = SpriteId::random();
    let failed = pool.create_checkpoint(sprite, V1);
    assert!(failed.is_err(), "there is no disk");
    let directory = pool.root().join("checkpoints").join(sprite.to_string());
    assert!(!directory.exists(), "nothing is made for it");
    let disk = pool.create_disk(sprite, &image, 100).expect("a disk");
    write(&disk, 1 << 30, b"one");
    let as_it_was = |path: &Path| {
        let mut said = [0; 3];
        let file = File::open(path).expect("open");
        file.read_exact_at(&mut said, 1 << 30).expect("read");
        String::from_utf8(said.to_vec()).expect("text")
    };
    pool.create_checkpoint(sprite, V1).expect("keep");
    write(&disk, 1 << 30, b"two");
    // One of that name stays as it is.
    pool.create_checkpoint(sprite, V1).expect("keep");
    assert_eq!(as_it_was(&pool.checkpoint_path(sprite, V1)), "one");

    let failed = pool.restore_checkpoint(sprite, V2);
    assert!(failed.is_err(), "there is no such checkpoint");
    assert_eq!(as_it_was(&disk), "two");
    // What a process left that died in between.
    let left = disk.with_extension("ext4.new");
    fs::write(&left, "half").expect("write");
    assert_eq!(pool.disks().expect("list"), [sprite]);
    pool.restore_checkpoint(sprite, V1).expect("restore");
    assert_eq!(as_it_was(&disk), "one");
    assert!(!left.exists());
    // They share nothing that is written to.
    write(&disk, 1 << 30, b"six");
    assert_eq!(as_it_was(&pool.checkpoint_path(sprite, V1)), "one");

    pool.create_checkpoint(sprite, V2).expect("keep");
    pool.delete_checkpoint(sprite, V1).expect("delete");
    pool.delete_checkpoint(sprite, V1).expect("delete again");
    assert_eq!(as_it_was(&pool.checkpoint_path(sprite, V2)), "six");
    fs::write(&left, "half").expect("write");
    pool.delete_checkpoints(sprite).expect("delete");
    pool.delete_disk(sprite).expect("delete");
    assert!(!left.exists() && !pool.checkpoint_path(sprite, V2).exists());
    pool.close().expect("close");
}

/// A writer fills blocks one after the other, here and there: whichever a clone has, it has all before it.
#[test]
fn a_clone_beside_a_writer_is_a_prefix() {
    const BLOCKS: u64 = 20_000;
    if !is_root() {
        return;
    }
    let home = Home::new();
    let (pool, image) = pool_with_image(&home);
    let sprite = SpriteId::random();
    let disk = pool.create_disk(sprite, &image, 100).expect("a disk");
    // 7919 is a prime: each block once, none beside the one before.
    let place = |index: u64| (2 << 30) + (index * 7919 % BLOCKS) * 2 * BLOCK;
    let (written, over) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let file = File::options().write(true).open(&disk).expect("open");
            for index in 0..BLOCKS {
                let block = vec![1; usize::try_from(BLOCK).expect("small")];
                file.write_all_at(&block, place(index)).expect("write");
                if index % 50 == 0 {
                    file.sync_data().expect("sync");
                }
                written.store(index + 1, Ordering::Release);
            }
            over.store(true, Ordering::Release);
        });
        let mut number = 0;
        while !over.load(Ordering::Acquire) {
            number += 1;
            let id = CheckpointId::Asked(number);
            let before = written.load(Ordering::Acquire);
            pool.create_checkpoint(sprite, id).expect("keep");
            let after = written.load(Ordering::Acquire);
            let clone = File::open(pool.checkpoint_path(sprite, id)).expect("open");
            let has = |index: u64| {
                let mut byte = [0];
                clone.read_exact_at(&mut byte, place(index)).expect("read");
                byte == [1]
            };
            let first_missing = (0..BLOCKS).find(|&index| !has(index)).unwrap_or(BLOCKS);
            let later = (first_missing..BLOCKS).find(|&index| has(index));
            assert_eq!(later, None, "clone {number} lacks block {first_missing}");
            assert!(
                (before..=after + 1).contains(&first_missing),
                "clone {number}: {first_missing} of {before}..={after}"
            );
            drop(clone);
            pool.delete_checkpoint(sprite, id).expect("delete");
        }
        assert!(number > 2, "only {number} clones beside the writer");
    });
    pool.close().expect("close");
}
