//! Sprites that sleep: what they remember, what they cost, and what no crash takes from them.
//!
//! On the `microvm` driver memory goes to disk and comes back; the tests of that need it, and say so.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::time::Duration;

use harness::{Server, driver, eventually, ready};
use sprite_client::Sprite;

/// Emulated computers are slow; nothing waits for it when all is well.
const SOON: Duration = Duration::from_secs(90);

/// Whether memory can be kept on disk here; says in one line why not.
fn keeps_memory() -> bool {
    if !ready() {
        return false;
    }
    if driver() != "microvm" {
        eprintln!("skipped: only driver microvm keeps memory on disk; run cargo xtask kvm-test");
        return false;
    }
    true
}

async fn text(sprite: &Sprite, script: &str) -> String {
    let output = sprite
        .command("sh")
        .args(["-c", script])
        .output()
        .await
        .unwrap();
    assert!(
        output.status.success(),
        "{script}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout.to_vec())
        .unwrap()
        .trim()
        .to_owned()
}

async fn until(sprite: &Sprite, status: &str) {
    eventually(SOON, async || {
        let info = sprite.info().await.map_err(|error| error.to_string())?;
        match info.status.to_string() == status {
            true => Ok(()),
            false => Err(format!("{info:?}")),
        }
    })
    .await;
}

/// Starts what only memory knows: a process that counts, with its state in variables and a file open; random bytes
/// in a tmpfs. What comes back tells it again after a sleep.
async fn remember(sprite: &Sprite) -> String {
    let script = "head -c 8000000 /dev/urandom > /dev/shm/random
        setsid sh -c 'exec 3>/dev/shm/open; n=0; while sleep 0.2; do n=$((n+1)); echo $n >&3; echo $n > /dev/shm/count; done' \
            </dev/null >/dev/null 2>&1 &
        echo $! > /dev/shm/pid
        while ! test -s /dev/shm/count; do sleep 0.05; done";
    text(sprite, script).await;
    recall(sprite).await
}

/// The hash of what lies in memory, and the process that counts, which must be alive.
async fn recall(sprite: &Sprite) -> String {
    let script = "sha256sum < /dev/shm/random; cat /dev/shm/pid; kill -0 $(cat /dev/shm/pid); cat /proc/sys/kernel/random/boot_id";
    text(sprite, script).await
}

async fn count(sprite: &Sprite) -> u64 {
    text(sprite, "cat /dev/shm/count").await.parse().unwrap()
}

/// Waits until the counter has gone on.
async fn counts_on(sprite: &Sprite, from: u64) {
    eventually(SOON, async || match count(sprite).await {
        now if now > from => Ok(()),
        now => Err(format!("{now}, as before")),
    })
    .await;
}

/// Issue: memory kept over snapshot, monitor gone, load; a sprite asleep has no process on the host.
#[tokio::test]
async fn a_sprite_sleeps_without_a_process_and_wakes_as_it_was() {
    if !keeps_memory() {
        return;
    }
    let server = Server::start(&["--idle-timeout", "2s"]);
    let sprite = server.sprite("dreamer").await;
    let remembered = remember(&sprite).await;
    let mut before = count(&sprite).await;
    for _ in 0..2 {
        until(&sprite, "warm").await;
        // The sleep is recorded before the machine is ended.
        eventually(SOON, async || match server.machines() {
            none if none.is_empty() => Ok(()),
            some => Err(format!("a sprite asleep costs nothing, but: {some:?}")),
        })
        .await;
        assert_eq!(recall(&sprite).await, remembered);
        counts_on(&sprite, before).await;
        before = count(&sprite).await;
    }
    // For the guest no time has passed; its clock knows better.
    let clock: u64 = text(&sprite, "date +%s").await.parse().unwrap();
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    assert!(now.abs_diff(clock) <= 5, "guest {clock}, host {now}");
    server.finish();
}

#[tokio::test]
#[ignore = "minutes in an emulator: cargo xtask kvm-test -- NAME"]
async fn a_server_that_stops_in_order_takes_no_memory_with_it() {
    if !keeps_memory() {
        return;
    }
    let mut server = Server::start(&[]);
    let sprite = server.sprite("patient").await;
    let remembered = remember(&sprite).await;
    server.stop();
    server.restart();
    let sprite = server.client().sprite("patient");
    assert_eq!(sprite.info().await.unwrap().status.to_string(), "warm");
    assert_eq!(recall(&sprite).await, remembered);
    server.finish();
}

/// A machine monitor that dies takes its memory with it, and nothing else.
#[tokio::test]
#[ignore = "minutes in an emulator: cargo xtask kvm-test -- NAME"]
async fn a_killed_machine_is_told_and_the_next_use_boots_another() {
    if !keeps_memory() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("mortal").await;
    text(&sprite, "echo precious > kept && sync").await;
    let pid = i32::try_from(server.agent_pid()).unwrap();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    until(&sprite, "cold").await;
    assert_eq!(text(&sprite, "cat kept").await, "precious");
    server.finish();
}

#[tokio::test]
#[ignore = "minutes in an emulator: cargo xtask kvm-test -- NAME"]
async fn a_damaged_snapshot_is_set_aside_and_the_disk_boots() {
    if !keeps_memory() {
        return;
    }
    let server = Server::start(&["--idle-timeout", "2s"]);
    let sprite = server.sprite("amnesiac").await;
    text(&sprite, "echo precious > kept").await;
    let remembered = remember(&sprite).await;
    until(&sprite, "warm").await;
    for file in server.snapshot_files() {
        let whole = std::fs::metadata(&file).unwrap().len();
        let cut = std::fs::OpenOptions::new().write(true).open(&file).unwrap();
        cut.set_len(whole / 2).unwrap();
    }
    assert_eq!(text(&sprite, "cat kept").await, "precious");
    let boot = text(&sprite, "cat /proc/sys/kernel/random/boot_id").await;
    assert!(!remembered.ends_with(&boot), "it booted anew");
    assert!(
        server.log().contains("set aside"),
        "the reason is told:\n{}",
        server.log()
    );
    server.finish();
}

/// The kill falls at another moment of falling asleep and waking in every round.
#[tokio::test]
#[ignore = "minutes in an emulator: cargo xtask kvm-test -- NAME"]
async fn kills_during_sleeps_and_wakes_lose_no_byte_of_the_disk() {
    if !keeps_memory() {
        return;
    }
    let mut server = Server::start(&["--idle-timeout", "1s"]);
    server.sprite("sleeper").await;
    let mut written = 0u32;
    for round in 0u64..3 {
        let sprite = server.client().sprite("sleeper");
        written += 1;
        text(&sprite, &format!("echo {written} >> log && sync log")).await;
        tokio::time::sleep(Duration::from_millis(900 + round * 700)).await;
        server.kill();
        server.restart();
        let sprite = server.client().sprite("sleeper");
        let expected: Vec<String> = (1..=written).map(|n| n.to_string()).collect();
        assert_eq!(text(&sprite, "cat log").await, expected.join("\n"));
    }
    server.finish();
}
