//! A disk that the host mounts.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use sprite_client::Status;

use crate::attack::shell;
use crate::disk::BAIT;
use crate::harness::{Server, eventually, ready};

/// The places of our mounts, on a disk that was written from outside: links, pipes, files, devices, and directories
/// that are full. Each is mended or covered, and nothing behind a link is touched.
#[tokio::test]
async fn places_of_mounts_are_mended() {
    if !ready() {
        return;
    }
    let server = Server::start(&["--idle-timeout", "100ms", "--cold-after", "100ms"]);
    let sprite = server.sprite("places").await;
    let bait = tempfile::tempdir().unwrap();
    fs::write(bait.path().join("bait"), BAIT).unwrap();
    let directory = bait.path().to_str().unwrap();
    for trap in [
        format!("ln -s {directory} $p"),
        "ln -s /agent $p".to_owned(),
        "ln -s ../../../../../../tmp $p".to_owned(),
        "ln -s . $p".to_owned(),
        "mkfifo $p".to_owned(),
        "mknod $p b 7 0".to_owned(),
        "mknod $p c 1 1".to_owned(),
        "echo x > $p".to_owned(),
        "mkdir $p; mkdir -p $p/pts $p/shm $p/sys $p/self; mkfifo $p/null; ln -s /etc $p/fd; chmod 0 $p".to_owned(),
    ] {
        eventually(Duration::from_secs(20), async || match sprite.info().await {
            Ok(info) if info.status == Status::Cold => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        let script = format!("set -e; mount -o loop \"$0\" \"$1\"; cd \"$1\"; \
            for p in proc sys dev run; do rm -rf ./$p; {trap}; done; cd /; umount \"$1\"");
        let place = tempfile::tempdir().unwrap();
        let disk = only_disk(&server);
        let set = Command::new("unshare").args(["-m", "sh", "-c", &script]).arg(&disk).arg(place.path()).output().unwrap();
        assert!(set.status.success(), "{trap}: {}", String::from_utf8_lossy(&set.stderr));
        let look = "test -d /proc/self && test -c /dev/null && test -d /sys/class && touch /dev/shm/x && stat -f -c %T /run";
        assert_eq!(shell(&sprite, look).await, "tmpfs\n", "{trap}");
        let left: Vec<_> = fs::read_dir(bait.path()).unwrap().flatten().map(|e| e.file_name()).collect();
        assert_eq!(left, ["bait"], "{trap}");
    }
    server.finish();
}

/// The only sprite's disk.
fn only_disk(server: &Server) -> PathBuf {
    let mut places = vec![server.data_dir()];
    while let Some(place) = places.pop() {
        for entry in fs::read_dir(place).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                places.push(path);
            } else if path.parent().is_some_and(|p| p.ends_with("disks"))
                && path.extension().is_some_and(|e| e == "ext4")
            {
                return path;
            }
        }
    }
    panic!("no disk in {}", server.data_dir().display());
}
