//! What a sprite leaves on its disk for the next start, and for the processes that we start.

use std::fs;
use std::time::Duration;

use sprite_client::Sprite;

use crate::attack::shell;
use crate::harness::{Server, ready};

/// A file of the host that nothing may touch, at a path that links on disks point to.
pub(crate) const BAIT: &str = "untouched";

/// A start with the traps, and a command. Emulated machines are slow; nothing waits for it when all is well.
const ALIVE_WITHIN: Duration = Duration::from_secs(240);

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
    // Traps for both kinds of files at once: a start of an emulated machine takes half a minute.
    for (one, other) in [
        ("mkfifo $f".to_owned(), "mkfifo $f"),
        ("mkdir $f; touch $f/x".to_owned(), "mkdir $f"),
        ("ln -s /dev/zero $f".to_owned(), "ln -s /dev/zero $f"),
        ("ln -s /proc/self/fd/0 $f".to_owned(), "ln -s /dev/tty $f"),
        (format!("ln -s {bait_path} $f"), "ln -s /proc/self/fd/0 $f"),
        (
            format!("ln -s /proc/1/root{bait_path} $f"),
            "head -c 3000000 /dev/zero > $f",
        ),
        (
            "ln -s $f $f".to_owned(),
            "echo sprite:x:4294967295:4294967295::/:/x > $f",
        ),
    ] {
        let trap = format!(
            "for f in {identity}; do rm -rf $f; {one}; done; for f in {users}; do rm -rf $f; {other}; done"
        );
        eprintln!("{trap}");
        root(&sprite, &trap).await;
        let alive = async {
            sprite
                .restart()
                .await
                .unwrap_or_else(|error| panic!("{trap}: {error}"));
            server.boots(&sprite).await;
            let ran = sprite.command("/bin/echo").arg("alive").output().await;
            let ran = ran.unwrap_or_else(|error| panic!("{trap}: {error}"));
            assert_eq!(ran.stdout, b"alive\n", "{trap}: {ran:?}");
        };
        let within = tokio::time::timeout(ALIVE_WITHIN, alive).await;
        within.unwrap_or_else(|_| panic!("{trap} held it up"));
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
        format!(
            "rm -rf /etc; ln -s {directory} /etc; rm -rf /home/sprite; ln -s /proc/1/cwd /home/sprite"
        ),
        "rm -rf /etc; ln -s /proc/1/root/etc /etc; rm -rf /home; mkfifo /home".to_owned(),
        "rm -rf /etc; ln -s /etc /etc; rm -rf /tmp /home; ln -s / /tmp; ln -s / /home".to_owned(),
        "rm -rf /etc; echo no > /etc".to_owned(),
        "rm -rf /etc; mkfifo /etc".to_owned(),
    ] {
        eprintln!("{trap}");
        root(&sprite, &trap).await;
        sprite
            .restart()
            .await
            .unwrap_or_else(|error| panic!("{trap}: {error}"));
        server.boots(&sprite).await;
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
