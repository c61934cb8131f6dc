//! What a sprite takes of the pool, on a real XFS file: needs root.

mod support;

use std::fs;

use sprite_disk::SpriteSpace;
use sprite_types::SpriteId;
use support::{Home, is_root, pool_with_image, write};

const MIB: u64 = 1 << 20;

#[test]
fn a_disk_takes_what_it_does_not_share() {
    if !is_root() {
        return;
    }
    let home = Home::new();
    let (pool, image) = pool_with_image(&home);
    let sprite = SpriteId::random();
    let nothing = pool.sprite_space(sprite).expect("measure");
    assert_eq!(nothing, SpriteSpace::default());
    let disk = pool
        .create_disk(sprite, &image, 100)
        .expect("create a disk");
    let fresh = pool.sprite_space(sprite).expect("measure");
    assert!(fresh.unique_bytes < MIB, "{fresh:?}: all is the image's");
    // More pieces than are asked for at once, each apart from the others.
    let piece = vec![7; 4096];
    for index in 0..1500 {
        write(&disk, (1 << 30) + index * 2 * 4096, &piece);
    }
    let sync = fs::File::open(&disk).and_then(|file| file.sync_all());
    sync.expect("written");
    let written = pool.sprite_space(sprite).expect("measure");
    let more = written.unique_bytes - fresh.unique_bytes;
    assert!((1500 * 4096..64 * MIB).contains(&more), "{more}");
    // A clone of it shares all of it.
    let clone = disk.with_extension("clone");
    let from = fs::File::open(&disk).expect("open");
    let to = fs::File::create(&clone).expect("create");
    rustix::fs::ioctl_ficlone(&to, &from).expect("clone");
    let shared = pool.sprite_space(sprite).expect("measure");
    assert!(shared.unique_bytes < MIB, "{shared:?}");
    fs::remove_file(&clone).expect("remove");
    let snapshots = pool.make_snapshots(sprite).expect("make");
    fs::create_dir(snapshots.join("vm")).expect("make");
    fs::write(snapshots.join("vm/memory"), vec![1; 3 << 20]).expect("write");
    let asleep = pool.sprite_space(sprite).expect("measure");
    assert!(
        (3 * MIB..8 * MIB).contains(&asleep.snapshot_bytes),
        "{asleep:?}"
    );
}
