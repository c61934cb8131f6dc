//! Golden snapshots: machines that begin with one memory are not one machine.
//!
//! Needs usable KVM: `cargo xtask kvm-test` has it, on this computer or in the box.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::SystemTime;

use harness::{Server, text, virtual_machines};

const MADE: &str = "made a golden snapshot";
const DROPPED: &str = "begin with a golden snapshot, which is dropped";

/// The one that there is.
fn golden(server: &Server) -> PathBuf {
    let directory = server.data_dir().join("pool/golden");
    let mut found = std::fs::read_dir(directory).unwrap();
    let golden = found.next().expect("there is one").unwrap().path();
    assert!(
        found.next().is_none(),
        "one size of machine, one guest system"
    );
    golden
}

#[tokio::test]
async fn sprites_of_one_golden_snapshot_share_nothing_that_is_their_own() {
    if !virtual_machines() {
        return;
    }
    let server = Server::start(&[]);
    let mut own = HashSet::new();
    let mut kernels = HashSet::new();
    for name in ["first", "second", "third"] {
        let sprite = server.sprite(name).await;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.unwrap().as_secs();
        let said = text(
            &sprite,
            "hostname; date +%s; cat /proc/sys/kernel/random/boot_id; head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \\n'; \
             echo; ls /home/sprite; echo mine > /home/sprite/file; cat /proc/version; cut -d. -f1 /proc/uptime",
        )
        .await;
        let lines: Vec<&str> = said.lines().collect();
        let [hostname, date, boot, random, version, _uptime] = lines[..] else {
            panic!("a file of another sprite: {said}");
        };
        assert_eq!(hostname, name);
        let date: u64 = date.parse().unwrap();
        // It was right when it was said, and took a moment to arrive.
        assert!((now - 2..now + 60).contains(&date), "{date} at {now}");
        for value in [boot, random] {
            assert!(own.insert(value.to_owned()), "{value} again: {said}");
        }
        kernels.insert(version.to_owned());
    }
    assert_eq!(kernels.len(), 1);
    let log = server.log();
    assert!(log.matches(MADE).count() <= 1, "made once, or found: {log}");
    assert!(!log.contains(DROPPED), "{log}");
    assert!(golden(&server).join("memory").exists());
    // The first sleep of a machine that began so: all of its memory is its own from then on.
    let sprite = server.client().sprite("second");
    text(&sprite, "echo remembered > /dev/shm/word").await;
    sprite.sleep().await.unwrap();
    std::fs::remove_dir_all(golden(&server)).unwrap();
    assert_eq!(text(&sprite, "cat /dev/shm/word").await, "remembered");
    server.finish();
}

#[tokio::test]
async fn a_golden_snapshot_that_cannot_be_used_is_dropped_and_the_machine_boots() {
    if !virtual_machines() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("first").await;
    text(&sprite, "true").await;
    let golden = golden(&server);
    let state = std::fs::read(golden.join("state")).unwrap();
    std::fs::write(golden.join("state"), &state[..state.len() / 2]).unwrap();
    let sprite = server.sprite("second").await;
    assert_eq!(text(&sprite, "hostname").await, "second");
    assert!(server.log().contains(DROPPED), "{}", server.log());
    assert!(!golden.exists());
    // And the next machine makes another.
    let sprite = server.sprite("third").await;
    assert_eq!(text(&sprite, "hostname").await, "third");
    assert!(golden.join("state").exists());
    server.finish();
}
