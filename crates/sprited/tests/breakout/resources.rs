//! Using up processes, memory, inodes and space: the sprite's own, never the host's or the agent's.

use std::time::Duration;

use sprite_client::Sprite;

use crate::attack::{As, begin, bring, line, shell, withstand};
use crate::harness::{Server, driver, eventually, ready};
use crate::outside;

/// Emulated computers are slow; nothing waits for it when all is well.
const SOON: Duration = Duration::from_secs(60);

async fn small(server: &Server, name: &str) -> Sprite {
    let client = server.client();
    let create = client.create(name).memory_mib(256).storage_gb(1);
    create.send().await.unwrap();
    let sprite = client.sprite(name);
    server.boots(&sprite).await;
    sprite
}

/// The bomb fills what the sprite may have; the agent answers all the while, and a kill makes room again.
#[tokio::test]
async fn a_fork_bomb_stays_inside() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("bomb").await;
    bring(&sprite).await;
    let agent = outside::holders(&server);
    let mut bomb = begin(&sprite, As::User, &["fork-bomb"]).await;
    line(&mut bomb, "full").await;
    if driver() == "container" {
        let most = outside::group_number(&server, "env", "pids", "pids.max");
        let now = outside::group_number(&server, "env", "pids", "pids.current");
        assert!(now <= most, "{now} of {most}");
    }
    assert_eq!(sprite.sessions().await.unwrap().len(), 1);
    // No process is left for another exec: a clear answer, not a wait.
    let refused = tokio::time::timeout(SOON, sprite.command("true").status()).await;
    let refused = refused.expect("an answer");
    assert!(refused.is_err(), "{refused:?}");
    let session = bomb.session().unwrap().id;
    sprite
        .kill(session, &sprite_client::Signal::kill(), SOON)
        .await
        .unwrap();
    eventually(SOON, async || match sprite.command("true").status().await {
        Ok(status) if status.success() => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert_eq!(
        outside::holders(&server),
        agent,
        "the machine was started anew"
    );
    server.finish();
}

/// A process that takes all memory is ended; whoever else runs in the sprite goes on.
#[tokio::test]
async fn a_memory_bomb_ends_itself_alone() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = small(&server, "hog").await;
    bring(&sprite).await;
    let agent = outside::holders(&server);
    let bystander = sprite
        .command("sh")
        .args(["-c", "read line; echo still $line"]);
    let mut bystander = bystander
        .stdin(sprite_client::Stdio::Piped)
        .spawn()
        .await
        .unwrap();
    for by in [As::User, As::Root] {
        let mut hog = begin(&sprite, by, &["hog"]).await;
        let status = hog.wait().await.unwrap();
        assert_eq!(status.code(), 137, "ended by the kernel");
    }
    let mut stdin = bystander.stdin.take().unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stdin, b"here\n")
        .await
        .unwrap();
    let output = bystander.wait_with_output().await.unwrap();
    assert_eq!(output.stdout, b"still here\n");
    assert_eq!(
        outside::holders(&server),
        agent,
        "the machine was started anew"
    );
    server.finish();
}

/// Memory in files that nobody holds is bounded before it is all of the sprite's, so that nothing of it has to
/// be ended for it.
#[tokio::test]
async fn memory_in_files_leaves_room_for_processes() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = small(&server, "shm").await;
    assert_eq!(shell(&sprite, "echo up").await, "up\n");
    let agent = outside::holders(&server);
    let fill = "for d in /dev/shm /run /dev; do sudo -n dd if=/dev/zero of=$d/fill bs=1M count=100000 2>&1 | \
        grep -c 'No space left'; done";
    assert_eq!(shell(&sprite, fill).await, "1\n1\n1\n");
    for _ in 0..5 {
        assert_eq!(shell(&sprite, "echo alive").await, "alive\n");
    }
    assert_eq!(
        outside::holders(&server),
        agent,
        "the machine was started anew"
    );
    server.finish();
}

/// Inodes and space end inside with their own errors, and the sprite can be mended.
#[tokio::test]
async fn a_full_disk_is_full_inside() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = small(&server, "full").await;
    bring(&sprite).await;
    withstand(&sprite, As::User, &["files-bomb", "/home/sprite/bomb"]).await;
    shell(&sprite, "rm -rf bomb").await;
    let fill = "sudo -n dd if=/dev/zero of=/fill bs=1M count=3000 2>&1 | grep -c 'No space left'";
    assert_eq!(shell(&sprite, fill).await, "1\n");
    // A full disk is one that can still be started.
    sprite.restart().await.unwrap();
    assert_eq!(
        shell(
            &sprite,
            "sudo -n rm /fill && echo mended > note && cat note"
        )
        .await,
        "mended\n"
    );
    server.finish();
}
