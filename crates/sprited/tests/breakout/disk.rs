//! What a sprite leaves on its disk for the next start, and for the processes that we start.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use sprite_client::{Sprite, Status};

use crate::attack::shell;
use crate::harness::{Server, eventually, ready};

/// A file of the host that nothing may touch, at a path that links on disks point to.
const BAIT: &str = "untouched";

/// A shell of root that needs no users, so that it can mend what the traps break.
const ROOT_SHELL: &str = "/root-shell";

async fn prepare(sprite: &Sprite) {
    let script = format!(
        "sudo -n sh -c 'cp -a /etc /etc.good; cp /bin/bash {ROOT_SHELL}; chmod 4755 {ROOT_SHELL}'"
    );
    shell(sprite, &script).await;
}

async fn root(sprite: &Sprite, script: &str) {
    let output = sprite
        .command(ROOT_SHELL)
        .args(["-p", "-c", script])
        .output()
        .await;
    let output = output.unwrap_or_else(|error| panic!("{script}: {error}"));
    assert!(output.status.success(), "{script}: {output:?}");
}

/// Files that we read or write at a start or an exec, replaced by everything else that a path can be.
#[tokio::test]
async fn files_that_are_not_files_hold_up_nothing() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("traps").await;
    let bait = tempfile::tempdir().unwrap();
    let file = bait.path().join("bait");
    fs::write(&file, BAIT).unwrap();
    let bait_path = file.to_str().unwrap();
    let identity = "/etc/hostname /etc/hosts /etc/resolv.conf";
    let users = "/etc/passwd /etc/group";
    prepare(&sprite).await;
    for (files, trap) in [
        (identity, "mkfifo $f".to_owned()),
        (identity, "mkdir $f; touch $f/x".to_owned()),
        (identity, "ln -s /dev/zero $f".to_owned()),
        (identity, "ln -s /proc/self/fd/0 $f".to_owned()),
        (identity, format!("ln -s {bait_path} $f")),
        (identity, format!("ln -s /proc/1/root{bait_path} $f")),
        (identity, "ln -s $f $f".to_owned()),
        (users, "mkfifo $f".to_owned()),
        (users, "mkdir $f".to_owned()),
        (users, "ln -s /dev/zero $f".to_owned()),
        (users, "ln -s /dev/tty $f".to_owned()),
        (users, "ln -s /proc/self/fd/0 $f".to_owned()),
        (users, "head -c 3000000 /dev/zero > $f".to_owned()),
        (
            users,
            "echo sprite:x:4294967295:4294967295::/:/x > $f".to_owned(),
        ),
    ] {
        let set = format!("for f in {files}; do rm -rf $f; {trap}; done");
        root(&sprite, &set).await;
        let alive = async {
            sprite
                .restart()
                .await
                .unwrap_or_else(|error| panic!("{trap}: {error}"));
            let ran = sprite.command("/bin/echo").arg("alive").output().await;
            let ran = ran.unwrap_or_else(|error| panic!("{trap}: {error}"));
            assert_eq!(ran.stdout, b"alive\n", "{trap}: {ran:?}");
        };
        let within = tokio::time::timeout(Duration::from_secs(10), alive).await;
        within.unwrap_or_else(|_| panic!("{trap} of {files} held it up"));
        root(&sprite, "rm -rf /etc && cp -a /etc.good /etc").await;
        assert_eq!(fs::read_to_string(&file).unwrap(), BAIT);
    }
    server.finish();
}

/// Whole directories that lead elsewhere, and a shell that is something else: the sprite's own matter.
#[tokio::test]
async fn directories_that_lead_elsewhere_stay_inside() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("elsewhere").await;
    let bait = tempfile::tempdir().unwrap();
    let file = bait.path().join("hostname");
    fs::write(&file, BAIT).unwrap();
    let directory = bait.path().to_str().unwrap();
    prepare(&sprite).await;
    for trap in [
        format!("rm -rf /etc; ln -s {directory} /etc"),
        "rm -rf /etc; ln -s /proc/1/root/etc /etc".to_owned(),
        "rm -rf /etc; ln -s /etc /etc".to_owned(),
        "rm -rf /etc; echo no > /etc".to_owned(),
        "rm -rf /etc; mkfifo /etc".to_owned(),
        "rm -rf /home/sprite; ln -s /proc/1/cwd /home/sprite".to_owned(),
        "rm -rf /home; mkfifo /home".to_owned(),
        "rm -rf /tmp /home; ln -s / /tmp; ln -s / /home".to_owned(),
    ] {
        root(&sprite, &trap).await;
        sprite
            .restart()
            .await
            .unwrap_or_else(|error| panic!("{trap}: {error}"));
        let ran = sprite
            .command("/bin/echo")
            .arg("alive")
            .output()
            .await
            .unwrap();
        assert_eq!(ran.stdout, b"alive\n", "{trap}: {ran:?}");
        let mend = "rm -rf /etc /home /tmp; cp -a /etc.good /etc; mkdir -p /home/sprite /tmp; chmod 1777 /tmp";
        root(&sprite, mend).await;
        assert_eq!(fs::read_to_string(&file).unwrap(), BAIT);
    }
    server.finish();
}

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
