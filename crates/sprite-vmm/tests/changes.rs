//! How much a diff snapshot writes.

mod harness;

use std::collections::BTreeSet;

use harness::{FakeHypervisor, Stage};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sprite_vmm::command::Command;
use sprite_vmm::control::Controller;

const PAGE: u64 = 4096;
const MEMORY_MIB: u64 = 32;

/// What this thread has written to files, in bytes.
fn written() -> u64 {
    let counts = std::fs::read_to_string("/proc/thread-self/io").expect("the kernel counts");
    counts
        .lines()
        .find_map(|line| line.strip_prefix("wchar: "))
        .expect("it counts writes")
        .parse()
        .expect("a number")
}

fn parsed<T: DeserializeOwned>(body: Value) -> T {
    serde_json::from_value(body).expect("a body")
}

#[test]
fn a_diff_snapshot_writes_at_most_a_fifth_more_than_what_changed() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let stage = Stage::default();
    let create = |kind: &str| {
        Command::CreateSnapshot(parsed(json!({
            "snapshot_type": kind,
            "snapshot_path": directory.path().join("state"),
            "mem_file_path": directory.path().join("memory"),
        })))
    };
    let mut first = Controller::new(FakeHypervisor(stage.clone()), "first".to_owned());
    for command in [
        Command::SetMachine(parsed(json!({"vcpu_count": 1, "mem_size_mib": MEMORY_MIB}))),
        Command::SetBootSource(parsed(json!({"kernel_image_path": "/kernel"}))),
        Command::Start,
        Command::Pause,
    ] {
        first.handle(command).expect("it is done");
    }
    stage.write(0, &vec![1; 32 << 20]);
    first.handle(create("Full")).expect("a snapshot");
    let mut second = Controller::new(FakeHypervisor(stage.clone()), "second".to_owned());
    let load = Command::LoadSnapshot(parsed(json!({
        "snapshot_path": directory.path().join("state"),
        "mem_backend": {"backend_type": "File", "backend_path": directory.path().join("memory")},
    })));
    second.handle(load).expect("it loads");

    // Here and there, as guests do: single pages, some beside each other, one in eight of zeroes.
    let mut pages = BTreeSet::new();
    let mut number = 1_u64;
    while pages.len() < 1000 {
        number = number
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        pages.insert((number >> 33) % (MEMORY_MIB << 8));
    }
    for page in &pages {
        let content = if page % 8 == 0 { [0; 4096] } else { [2; 4096] };
        stage.write(page * PAGE, &content);
    }
    let dirtied = pages.len() as u64 * PAGE;
    let before = written();
    second.handle(create("Diff")).expect("a snapshot");
    let written = written() - before;
    assert!(
        written * 10 <= dirtied * 12,
        "{written} bytes were written for {dirtied} that changed"
    );
}
