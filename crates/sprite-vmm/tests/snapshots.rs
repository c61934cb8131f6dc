//! Snapshots over the control socket: what is loaded is what was saved, or it is refused.

mod harness;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};

use harness::Program;
use serde_json::json;

const PAGE: u64 = 4096;
const MIB: u64 = 1 << 20;

/// What marks the pages of one round: not zero.
fn mark(round: usize) -> u8 {
    u8::try_from(round + 1).expect("few rounds")
}

/// A program whose machine of one MiB is paused, with something in its memory and its register.
fn paused() -> Program {
    let mut program = Program::start();
    program.boot();
    program.stage.write(5 * PAGE, b"from the boot");
    program.stage.see(|seen| seen.register = 7);
    program.pause();
    program
}

fn refusal(program: &mut Program) -> (String, String) {
    let body = program.load_body();
    program.refused("PUT", "/snapshot/load", &body)
}

#[test]
fn a_loaded_machine_is_the_saved_one() {
    let mut program = paused();
    program.snapshot("Full");
    let mut other = program.start_beside("other");
    other.load();
    assert_eq!(other.state(), "Paused");
    assert_eq!(other.stage.read(5 * PAGE, 13), b"from the boot");
    assert_eq!(other.stage.see(|seen| seen.register), 7);
    other.resume();
    assert_eq!(other.stage.log(), ["fit", "load", "resume"]);
    // The saved one can go on as well.
    program.resume();
}

#[test]
fn a_load_may_resume_at_once() {
    let mut program = paused();
    program.snapshot("Full");
    let mut other = program.start_beside("other");
    let mut body = program.load_body();
    body["resume_vm"] = json!(true);
    other.done("PUT", "/snapshot/load", &body);
    assert_eq!(other.state(), "Running");
}

#[test]
fn changes_are_written_into_the_memory_file_and_nothing_else_is() {
    let mut program = paused();
    program.stage.write(100 * PAGE, &[1; 4096]);
    program.snapshot("Full");
    let mut second = program.start_beside("second");
    second.load();
    let file = File::open(second.path("memory")).expect("it is there");
    let inode = file.metadata().expect("it has metadata").ino();
    second.resume();
    second.stage.write(9 * PAGE, b"from the second");
    second.stage.write(100 * PAGE, &[0; 4096]);
    second.pause();
    second.snapshot("Diff");
    let now = std::fs::metadata(second.path("memory")).expect("it is there");
    assert_eq!(now.ino(), inode, "it is the same file");

    let mut third = program.start_beside("third");
    third.load();
    assert_eq!(third.stage.read(5 * PAGE, 13), b"from the boot");
    assert_eq!(third.stage.read(9 * PAGE, 15), b"from the second");
    assert_eq!(third.stage.read(100 * PAGE, 4096), [0; 4096]);
    // And what the second one sees of the file that it is mapped from is what it was.
    assert_eq!(second.stage.read(5 * PAGE, 13), b"from the boot");
}

#[test]
fn memory_that_became_zero_is_given_back_to_the_file_system() {
    let mut program = Program::start();
    program.boot();
    program.stage.write(64 * PAGE, &vec![1; 64 * 4096]);
    program.pause();
    program.snapshot("Full");
    let full = std::fs::metadata(program.path("memory")).expect("it is there");
    assert!(full.blocks() * 512 < MIB / 2, "what is zero has no blocks");
    program.stage.write(64 * PAGE, &vec![0; 64 * 4096]);
    program.snapshot("Diff");
    let diff = std::fs::metadata(program.path("memory")).expect("it is there");
    assert_eq!(diff.len(), full.len());
    assert!(diff.blocks() * 512 < full.blocks() * 512 - 60 * PAGE);
}

#[test]
fn snapshot_after_snapshot_of_one_machine_is_loadable() {
    let mut program = paused();
    for (number, kind) in ["Diff", "Diff", "Full", "Diff"].into_iter().enumerate() {
        program
            .stage
            .write(PAGE * number as u64, &[mark(number); 16]);
        program.snapshot(kind);
        let mut other = program.start_beside(&format!("other{number}"));
        other.load();
        for page in 0..=number {
            assert_eq!(other.stage.read(PAGE * page as u64, 16), [mark(page); 16]);
        }
        assert_eq!(other.stage.read(5 * PAGE, 13), b"from the boot");
    }
}

#[test]
fn changes_may_go_into_a_clone_of_the_memory_file() {
    let mut program = paused();
    program.snapshot("Full");
    let mut second = program.start_beside("second");
    second.load();
    std::fs::copy(second.path("memory"), second.path("clone")).expect("the file is copied");
    second.stage.write(9 * PAGE, b"from the second");
    let mut body = second.snapshot_body("Diff");
    body["mem_file_path"] = json!(second.path("clone"));
    second.done("PUT", "/snapshot/create", &body);
    let mut third = program.start_beside("third");
    let mut body = third.load_body();
    let (kind, message) = third.refused("PUT", "/snapshot/load", &body);
    assert_eq!(kind, "snapshot_damaged");
    assert!(
        message.ends_with("is not the memory of this snapshot"),
        "{message}"
    );
    body["mem_backend"]["backend_path"] = json!(third.path("clone"));
    third.done("PUT", "/snapshot/load", &body);
    assert_eq!(third.stage.read(9 * PAGE, 15), b"from the second");
}

#[test]
fn changes_are_not_written_into_a_file_that_they_are_not_changes_of() {
    let mut program = paused();
    program.snapshot("Full");
    let mut second = program.start_beside("second");
    second.load();
    program.snapshot("Full");
    let body = second.snapshot_body("Diff");
    let before = std::fs::read(second.path("memory")).expect("it is there");
    let (kind, message) = second.refused("PUT", "/snapshot/create", &body);
    assert_eq!(kind, "failed");
    assert!(
        message.contains("it is not the memory of the snapshot"),
        "{message}"
    );
    assert_eq!(
        std::fs::read(second.path("memory")).expect("it is there"),
        before
    );
    // And the other snapshot is still whole.
    program.start_beside("third").load();
}

#[test]
fn a_snapshot_whose_last_step_failed_may_be_tried_again() {
    let mut program = paused();
    program.snapshot("Full");
    // With a directory in its way the state file cannot get its name.
    std::fs::remove_file(program.path("state")).expect("it is there");
    std::fs::create_dir(program.path("state")).expect("a directory is made");
    program.stage.write(9 * PAGE, b"later");
    let body = program.snapshot_body("Diff");
    let (kind, _) = program.refused("PUT", "/snapshot/create", &body);
    assert_eq!(kind, "failed");
    std::fs::remove_dir(program.path("state")).expect("it is empty");
    program.snapshot("Diff");
    let mut other = program.start_beside("other");
    other.load();
    assert_eq!(other.stage.read(9 * PAGE, 5), b"later");
}

#[test]
fn a_state_and_a_memory_that_do_not_belong_together_are_refused() {
    let mut program = paused();
    program.snapshot("Full");
    std::fs::copy(program.path("state"), program.path("old state")).expect("the file is copied");
    program.snapshot("Diff");
    std::fs::rename(program.path("old state"), program.path("state")).expect("it is renamed");
    let mut other = program.start_beside("other");
    let (kind, _) = refusal(&mut other);
    assert_eq!(kind, "snapshot_damaged");
    assert_eq!(
        other.stage.log(),
        Vec::<String>::new(),
        "no machine was made"
    );
}

#[test]
fn a_snapshot_beside_another_disk_is_refused() {
    let mut program = paused();
    let mut create = program.snapshot_body("Full");
    create["disk_generation"] = json!("12");
    program.done("PUT", "/snapshot/create", &create);
    let mut other = program.start_beside("other");
    let mut load = other.load_body();
    for generation in [json!("13"), json!(null)] {
        load["disk_generation"] = generation;
        let (kind, message) = other.refused("PUT", "/snapshot/load", &load);
        assert_eq!(kind, "snapshot_damaged");
        assert!(message.contains("disk generation 12"), "{message}");
    }
    load["disk_generation"] = json!("12");
    other.done("PUT", "/snapshot/load", &load);
}

#[test]
fn a_snapshot_for_another_cpu_is_unfit() {
    let mut program = paused();
    program.snapshot("Full");
    let mut other = program.start_beside("other");
    other.stage.see(|seen| seen.cpu_template = Some("test v2"));
    let (kind, message) = refusal(&mut other);
    assert_eq!(kind, "snapshot_unfit");
    assert!(message.contains("template test v1"), "{message}");
    assert_eq!(other.state(), "Not started");
}

#[test]
fn a_machine_that_cannot_run_on_this_host_is_unfit() {
    let mut program = paused();
    program.snapshot("Full");
    let mut other = program.start_beside("other");
    other.stage.see(|seen| seen.failing.push("fit"));
    let (kind, message) = refusal(&mut other);
    assert_eq!(kind, "snapshot_unfit");
    assert_eq!(
        message,
        "load a snapshot: the snapshot does not fit this host: fit was made to fail"
    );
}

#[test]
fn a_load_into_a_machine_that_is_configured_is_refused() {
    let mut program = paused();
    program.snapshot("Full");
    let mut other = program.start_beside("other");
    other.done("PUT", "/entropy", &json!({}));
    let (kind, _) = refusal(&mut other);
    assert_eq!(kind, "untimely");
}

#[test]
fn a_load_that_fails_may_be_tried_again() {
    let mut program = paused();
    program.snapshot("Full");
    let mut other = program.start_beside("other");
    other.stage.see(|seen| seen.failing.push("load"));
    let (kind, _) = refusal(&mut other);
    assert_eq!(kind, "failed");
    other.stage.see(|seen| seen.failing.clear());
    other.load();
}

#[test]
fn devices_get_what_they_have_on_this_host() {
    let mut program = Program::start();
    program.done(
        "PUT",
        "/network-interfaces/eth0",
        &json!({"iface_id": "eth0", "host_dev_name": "tap0"}),
    );
    program.done(
        "PUT",
        "/vsock",
        &json!({"guest_cid": 3, "uds_path": "/old"}),
    );
    program.boot();
    program.pause();
    program.snapshot("Full");
    let mut other = program.start_beside("other");
    other.done("PUT", "/serial", &json!({"serial_out_path": "/console"}));
    let mut load = other.load_body();
    load["network_overrides"] = json!([{"iface_id": "eth1", "host_dev_name": "tap1"}]);
    let (_, message) = other.refused("PUT", "/snapshot/load", &load);
    assert_eq!(
        message,
        "load a snapshot: the snapshot has no network interface eth1"
    );
    load["network_overrides"][0]["iface_id"] = json!("eth0");
    load["vsock_override"] = json!({"uds_path": "/new"});
    other.done("PUT", "/snapshot/load", &load);
    let config = other
        .stage
        .see(|seen| seen.config.clone())
        .expect("a machine");
    assert_eq!(config.network_interfaces[0].host_dev_name.as_str(), "tap1");
    assert_eq!(
        config.vsock.expect("there is one").uds_path.to_str(),
        Some("/new")
    );
    assert_eq!(
        config
            .serial
            .serial_out_path
            .as_deref()
            .and_then(|path| path.to_str()),
        Some("/console")
    );
}

#[test]
fn a_failed_snapshot_leaves_the_old_one_and_the_machine() {
    let mut program = paused();
    program.snapshot("Full");
    program.stage.see(|seen| seen.failing.push("save"));
    for kind in ["Full", "Diff"] {
        let body = program.snapshot_body(kind);
        let (kind, _) = program.refused("PUT", "/snapshot/create", &body);
        assert_eq!(kind, "failed");
    }
    let mut body = program.snapshot_body("Full");
    body["mem_file_path"] = json!(program.path("no such directory/memory"));
    program.stage.see(|seen| seen.failing.clear());
    program.refused("PUT", "/snapshot/create", &body);
    let names: Vec<_> = std::fs::read_dir(program.directory.path())
        .expect("it is there")
        .map(|entry| entry.expect("it reads").file_name())
        .filter(|name| name.to_string_lossy().starts_with('.'))
        .collect();
    assert!(names.is_empty(), "{names:?}");
    program.start_beside("other").load();
    program.resume();
}

#[test]
fn a_state_file_with_any_byte_changed_or_missing_is_refused() {
    let mut program = paused();
    program.snapshot("Full");
    let whole = std::fs::read(program.path("state")).expect("it is there");
    let mut other = program.start_beside("other");
    for position in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[position] ^= 1;
        std::fs::write(program.path("state"), &bytes).expect("it is written");
        let (kind, _) = refusal(&mut other);
        assert!(kind.starts_with("snapshot_"), "byte {position}: {kind}");
        std::fs::write(program.path("state"), &whole[..position]).expect("it is written");
        let (kind, _) = refusal(&mut other);
        assert_eq!(kind, "snapshot_damaged", "{position} bytes");
    }
    assert_eq!(
        other.stage.log(),
        Vec::<String>::new(),
        "no machine was made"
    );
    std::fs::write(program.path("state"), &whole).expect("it is written");
    other.load();
}

#[test]
fn a_memory_file_of_another_length_or_without_its_seal_is_refused() {
    let mut program = paused();
    program.snapshot("Full");
    let file = OpenOptions::new()
        .write(true)
        .open(program.path("memory"))
        .expect("it is there");
    let mut other = program.start_beside("other");
    for length in [0, PAGE, MIB, MIB + PAGE - 1, MIB + PAGE + 1, MIB + 2 * PAGE] {
        file.set_len(length).expect("it is cut");
        let (kind, _) = refusal(&mut other);
        assert_eq!(kind, "snapshot_damaged", "{length} bytes");
    }
    file.set_len(MIB + PAGE).expect("it is cut");
    file.write_all_at(&[0; 4096], MIB).expect("it is written");
    let (kind, message) = refusal(&mut other);
    assert_eq!(kind, "snapshot_damaged");
    assert!(message.ends_with("no valid seal"), "{message}");
}
