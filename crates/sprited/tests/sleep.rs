//! Sprites that sleep: what they remember, what they cost, and what no crash takes from them.
//!
//! On the `microvm` driver memory goes to disk and comes back; the tests of that need it, and say so.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use harness::{Server, eventually, text, virtual_machines};
use rustix::process::{Pid, Signal, kill_process};
use sprite_client::Sprite;

/// Emulated computers are slow; nothing waits for it when all is well.
const SOON: Duration = Duration::from_secs(90);

/// A pool with room for a sprite's disk and memory, besides what a server keeps for sprites that exist.
const SMALL_POOL: u64 = 3 << 30;

/// What a full pool has left: enough for what a sprite at rest writes, and far less than any machine's memory.
const LEFT_IN_A_FULL_POOL: u64 = 16 << 20;

/// With what a snapshot leaves free for others, more than [`LEFT_IN_A_FULL_POOL`]; a large number takes an emulated
/// processor minutes to make and to add up.
const MORE_MEMORY: u64 = 12 << 20;

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
        setsid sh -c 'exec 3>/dev/shm/open; n=0; while sleep 0.2; do n=$((n+1)); echo $n >&3; echo $n >> /dev/shm/count; done' \
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
    text(sprite, "tail -n 1 /dev/shm/count")
        .await
        .parse()
        .unwrap()
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
    if !virtual_machines() {
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
async fn a_server_that_stops_in_order_takes_no_memory_with_it() {
    if !virtual_machines() {
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
async fn a_killed_machine_is_told_and_the_next_use_boots_another() {
    if !virtual_machines() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("mortal").await;
    text(&sprite, "echo precious > kept && sync").await;
    assert!(kill_monitor(&server));
    until(&sprite, "cold").await;
    assert_eq!(text(&sprite, "cat kept").await, "precious");
    server.finish();
}

#[tokio::test]
async fn a_damaged_snapshot_is_set_aside_and_the_disk_boots() {
    if !virtual_machines() {
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

/// Takes all room of the pool but what a sprite needs to go on, and too little for its memory; the file that takes it.
fn fill(server: &Server) -> PathBuf {
    let file = server.data_dir().join("pool/filler");
    let filler = std::fs::File::create_new(&file).unwrap();
    let left = rustix::fs::fstatvfs(&filler).unwrap();
    let taken = left.f_bavail * left.f_frsize - LEFT_IN_A_FULL_POOL;
    let flags = rustix::fs::FallocateFlags::empty();
    rustix::fs::fallocate(&filler, flags, 0, taken).unwrap();
    file
}

/// How often the log says that there was no room for a sprite's memory.
fn refusals(server: &Server) -> usize {
    let told = |line: &&str| {
        line.contains("falling asleep failed") && line.contains("bytes are needed for memory")
    };
    server.log().lines().filter(told).count()
}

/// Issue: a full disk during a snapshot leaves the old state usable: the sprite runs on, with nothing lost, and
/// sleeps when there is room. In the second round it has slept before, and only what changed is to be written.
#[tokio::test]
async fn a_sprite_that_finds_no_room_to_sleep_runs_on_and_sleeps_when_there_is_some() {
    if !virtual_machines() {
        return;
    }
    let server = Server::start_with_pool_of(SMALL_POOL, &["--idle-timeout", "2s"]);
    let sprite = server.sprite("crowded").await;
    let remembered = remember(&sprite).await;
    text(&sprite, "echo precious > kept && sync kept").await;
    for round in 1..=2 {
        eprintln!("round {round}");
        let filler = fill(&server);
        // More than is left, and nothing that a page of zeroes could stand for.
        let more = format!("head -c {MORE_MEMORY} /dev/urandom | tee /dev/shm/{round} | sha256sum");
        let more = text(&sprite, &more).await;
        let mut before = count(&sprite).await;
        let earlier = refusals(&server);
        eventually(SOON, async || match refusals(&server) {
            now if now > earlier => Ok(()),
            _ => Err(server.log()),
        })
        .await;
        assert_eq!(sprite.info().await.unwrap().status.to_string(), "running");
        assert_eq!(recall(&sprite).await, remembered);
        counts_on(&sprite, before).await;
        assert_eq!(text(&sprite, "cat kept").await, "precious");

        eprintln!("refused, told, and alive");
        std::fs::remove_file(filler).unwrap();
        until(&sprite, "warm").await;
        assert_eq!(recall(&sprite).await, remembered);
        assert_eq!(
            text(&sprite, &format!("sha256sum < /dev/shm/{round}")).await,
            more
        );
        before = count(&sprite).await;
        counts_on(&sprite, before).await;
    }
    server.finish();
}

/// The kill falls at another moment of falling asleep and waking in every round.
#[tokio::test]
async fn kills_during_sleeps_and_wakes_lose_no_byte_of_the_disk() {
    if !virtual_machines() {
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

/// Kills the only machine's monitor, if there is one at the moment.
fn kill_monitor(server: &Server) -> bool {
    let monitor = || {
        let machine = server.machines().pop()?;
        let record = std::fs::read(Path::new(&machine).join("machine.json")).ok()?;
        let record: serde_json::Value = serde_json::from_slice(&record).ok()?;
        Pid::from_raw(i32::try_from(record["process"]["pid"].as_u64()?).ok()?)
    };
    monitor().is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok())
}

/// The kill falls at another moment of falling asleep, and of waking, in every round. Whoever waited for either is told
/// something, and whoever asks next finds all that was flushed.
async fn kill_on_the_way(parts: &[f64]) {
    if !virtual_machines() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("fragile").await;
    let begun = Instant::now();
    sprite.sleep().await.unwrap();
    let falling = begun.elapsed();
    let begun = Instant::now();
    text(&sprite, "true").await;
    let waking = begun.elapsed();
    let (mut written, mut killed) = (Vec::new(), 0);
    for (number, &part) in parts.iter().enumerate() {
        for wakes in [false, true] {
            written.push(format!("{number} {wakes}"));
            let line = written.last().unwrap();
            text(&sprite, &format!("echo {line} >> log && sync log")).await;
            let span = if wakes { waking } else { falling };
            let kill = async {
                tokio::time::sleep(span.mul_f64(part)).await;
                kill_monitor(&server)
            };
            killed += usize::from(if wakes {
                sprite.sleep().await.unwrap();
                let woken = sprite.command("true");
                tokio::join!(kill, woken.status()).0
            } else {
                tokio::join!(kill, sprite.sleep()).0
            });
            eventually(SOON, async || {
                let said = sprite.command("cat").arg("log").output().await;
                let said = said.map_err(|error| error.to_string())?;
                let log = String::from_utf8_lossy(&said.stdout).into_owned();
                match log.lines().eq(&written) {
                    true => Ok(()),
                    false => Err(format!("{:?}: {log:?}", said.status)),
                }
            })
            .await;
        }
    }
    assert!(killed >= parts.len(), "{killed} of the kills met a monitor");
    server.finish();
}

#[tokio::test]
async fn a_monitor_killed_half_way_to_sleep_and_back_loses_no_byte_of_the_disk() {
    kill_on_the_way(&[0.5]).await;
}

#[tokio::test]
#[ignore = "minutes in an emulator: cargo xtask kvm-test -- NAME"]
async fn monitors_killed_on_the_way_to_sleep_and_back_lose_no_byte_of_the_disk() {
    kill_on_the_way(&[0.1, 0.3, 0.5, 0.7, 0.9]).await;
}

/// Work that goes on through every sleep: files are written, flushed and only then listed with their hashes, and
/// names are asked for over the network, whose answers are counted.
const LOAD: &str = "mkdir -p load /dev/shm/load && cd load || exit
    echo 0 | tee /dev/shm/load/written > /dev/shm/load/asked
    setsid sh -c 'n=0; while :; do
        n=$((n+1)); head -c $((n % 7 * 100000 + 1)) /dev/urandom > new && sync new && mv new $n && sync . || exit
        sha256sum $n >> list && sync list || exit
        echo $n >> /dev/shm/load/written; rm -f -- $((n - 40)); done' </dev/null >/dev/null 2>error &
    setsid sh -c 'n=0; while :; do
        getent hosts n$n.example; n=$((n+1)); echo $n >> /dev/shm/load/asked; done' </dev/null >/dev/null 2>&1 &";

/// What the load has done so far, files written and names asked for, as soon as both are more than before. The
/// sprite itself waits for it: each question from outside would be load too.
async fn goes_on(sprite: &Sprite, [files, names]: [u64; 2]) -> [u64; 2] {
    let script = format!(
        "for turn in $(seq 400); do
            cat load/error >&2; test -s load/error && exit 1
            files=$(tail -n 1 /dev/shm/load/written); names=$(tail -n 1 /dev/shm/load/asked)
            test $files -gt {files} && test $names -gt {names} && echo $files $names && exit
            sleep 0.5
        done
        echo still $files $names >&2; exit 1"
    );
    let counts = text(sprite, &script).await;
    let counts: Vec<u64> = counts
        .split_whitespace()
        .map(|word| word.parse().unwrap())
        .collect();
    counts.try_into().unwrap()
}

/// Sleeps and wakes `cycles` times under load; then the machine is killed, and its disk must be in order: for
/// `fsck`, and for the hashes of everything that was flushed before it was listed.
async fn cycles_under_load(cycles: usize) {
    if !virtual_machines() {
        return;
    }
    let server = Server::start(&["--idle-timeout", "2s"]);
    let sprite = server.sprite("restless").await;
    let remembered = remember(&sprite).await;
    text(&sprite, LOAD).await;
    let mut before = goes_on(&sprite, [0, 0]).await;
    let begun = Instant::now();
    for cycle in 0..cycles {
        until(&sprite, "warm").await;
        assert_eq!(recall(&sprite).await, remembered, "cycle {cycle}");
        before = goes_on(&sprite, before).await;
        eprintln!(
            "cycle {cycle}: {before:?} files and names, {} s",
            begun.elapsed().as_secs()
        );
    }
    // As if the power had failed: nothing of it is flushed, and the next boot has the disk alone.
    assert!(kill_monitor(&server));
    until(&sprite, "cold").await;
    let copy = server.data_dir().join("pool/disk-to-look-at");
    std::fs::copy(server.disk(), &copy).unwrap();
    // The journal is applied, as a mount would; after that there is nothing to mend.
    let journal = fsck(&copy, "-p");
    assert!(matches!(journal, 0 | 1), "e2fsck -p ended with {journal}");
    assert_eq!(fsck(&copy, "-fn"), 0);
    std::fs::remove_file(&copy).unwrap();
    // The newest line may not have reached the disk whole; files that are 40 older are gone.
    let listed = "cd load && tail -n 35 list | head -n -1 > /tmp/listed
        sha256sum -c --quiet /tmp/listed && wc -l < /tmp/listed";
    let checked: u64 = text(&sprite, listed).await.parse().unwrap();
    assert!(checked > 0, "nothing was written");
    server.finish();
}

fn fsck(disk: &std::path::Path, how: &str) -> i32 {
    let checked = std::process::Command::new("e2fsck")
        .arg(how)
        .arg(disk)
        .output()
        .unwrap();
    let status = checked.status.code().unwrap();
    if status != 0 {
        eprintln!(
            "e2fsck {how}: {}{}",
            String::from_utf8_lossy(&checked.stdout),
            String::from_utf8_lossy(&checked.stderr)
        );
    }
    status
}

/// Issue: sleep and wake cycles under load of disk and network; the seeded part of it in every run.
#[tokio::test]
async fn two_sleeps_under_load_harm_neither_memory_nor_disk() {
    cycles_under_load(2).await;
}

#[tokio::test]
#[ignore = "minutes in an emulator: cargo xtask kvm-test -- NAME"]
async fn fifty_sleeps_under_load_harm_neither_memory_nor_disk() {
    cycles_under_load(50).await;
}
