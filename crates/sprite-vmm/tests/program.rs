//! The program as it is started by others, with its filters on, and guests of a few instructions in it.

mod guests;
mod harness;

use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use guests::{COUNTER, Program as Guest, SIGNAL, Setting, kvm_opens};
use harness::vmm::Vmm;
use serde_json::{Value, json};
use tempfile::TempDir;

impl Vmm {
    fn boot(&mut self, guest: Guest, directory: &TempDir) {
        let kernel = directory.path().join("kernel");
        std::fs::copy(Setting::of(guest).path("kernel"), &kernel).expect("a kernel is written");
        self.configure_devices(directory);
        self.done(
            "PUT",
            "/machine-config",
            &json!({"vcpu_count": 2, "mem_size_mib": 4}),
        );
        self.done("PUT", "/boot-source", &json!({"kernel_image_path": kernel}));
        self.done("PUT", "/actions", &json!({"action_type": "InstanceStart"}));
    }

    /// All devices that need nothing of the host but files.
    fn configure_devices(&mut self, directory: &TempDir) {
        let disk = directory.path().join("disk");
        std::fs::write(&disk, vec![0; 1 << 20]).expect("a disk is written");
        self.done(
            "PUT",
            "/drives/disk",
            &json!({"drive_id": "disk", "path_on_host": disk, "is_root_device": false,
                "cache_type": "Writeback"}),
        );
        self.done("PUT", "/entropy", &json!({}));
        self.done(
            "PUT",
            "/vsock",
            &json!({"guest_cid": 3, "uds_path": directory.path().join("vsock")}),
        );
    }

    fn snapshot(&mut self, kind: &str, directory: &TempDir) {
        self.done("PUT", "/snapshot/create", &create(kind, directory));
    }
}

fn create(kind: &str, directory: &TempDir) -> Value {
    json!({
        "snapshot_type": kind,
        "snapshot_path": directory.path().join("state"),
        "mem_file_path": memory_file(directory),
    })
}

fn load(directory: &TempDir) -> Value {
    json!({
        "snapshot_path": directory.path().join("state"),
        "mem_backend": {"backend_type": "File", "backend_path": memory_file(directory)},
        "vsock_override": {"uds_path": directory.path().join("vsock again")},
    })
}

fn memory_file(directory: &TempDir) -> PathBuf {
    directory.path().join("memory")
}

/// How far the guest of a snapshot had counted.
fn counted(directory: &TempDir) -> u32 {
    let mut bytes = [0; 4];
    std::fs::File::open(memory_file(directory))
        .and_then(|file| file.read_exact_at(&mut bytes, COUNTER.0))
        .expect("the file is as long as the memory");
    u32::from_le_bytes(bytes)
}

fn directory() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

#[test]
fn the_program_says_its_version_and_what_is_wrong_with_a_command_line() {
    let run = |words: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_sprite-vmm"))
            .args(words)
            .output()
            .expect("the program starts");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (status, said, _) = run(&["--version"]);
    assert_eq!(status, Some(0));
    assert_eq!(
        said.trim_end(),
        concat!("sprite-vmm ", env!("CARGO_PKG_VERSION"))
    );
    let (status, _, complaint) = run(&["--api-sock"]);
    assert_eq!(status, Some(2));
    assert_eq!(complaint, "--api-sock needs a value\n");
    let (status, _, complaint) = run(&["--api-sock", "/nowhere/at/all"]);
    assert_eq!(status, Some(1));
    assert!(
        complaint.contains("make control socket /nowhere/at/all"),
        "{complaint}"
    );
}

#[test]
fn the_program_ends_as_its_guest_does() {
    if !kvm_opens() {
        return;
    }
    for (guest, status, word) in [
        (Guest::Hello, 0, "restarted"),
        (Guest::PowerOff, 0, "switched itself off"),
        (Guest::TripleFault, 1, "triple fault"),
    ] {
        let directory = directory();
        let mut vmm = Vmm::start(directory.path(), "api");
        vmm.boot(guest, &directory);
        let (ended, said) = vmm.end();
        assert_eq!(ended, Some(status), "{guest:?}: {said}");
        assert!(said.contains(word), "{said}");
        for socket in ["api", "vsock"] {
            assert!(
                !directory.path().join(socket).exists(),
                "{socket} went with the program"
            );
        }
    }
}

#[test]
fn a_start_that_failed_leaves_nothing_in_the_way_of_the_next() {
    if !kvm_opens() {
        return;
    }
    let directory = directory();
    let mut vmm = Vmm::start(directory.path(), "api");
    vmm.configure_devices(&directory);
    let start = json!({"action_type": "InstanceStart"});
    for kernel in ["/nowhere", "/dev/null"] {
        vmm.done("PUT", "/boot-source", &json!({"kernel_image_path": kernel}));
        let (status, answer) = vmm.ask("PUT", "/actions", &start).expect("an answer");
        assert_eq!(status, 400, "{answer}");
        assert!(!directory.path().join("vsock").exists());
    }
    vmm.boot(Guest::PowerOff, &directory);
    assert_eq!(vmm.end().0, Some(0));
}

#[test]
fn a_guest_goes_on_in_one_program_after_the_other() {
    if !kvm_opens() {
        return;
    }
    let directory = directory();
    let mut first = Vmm::start(directory.path(), "first");
    first.done(
        "PUT",
        "/metrics",
        &json!({"metrics_path": directory.path().join("metrics")}),
    );
    first.boot(Guest::Count, &directory);
    // The guest counts, or it does not: both snapshots are of the same one.
    first.pause();
    first.snapshot("Full", &directory);
    first.resume();
    first.pause();
    first.snapshot("Diff", &directory);
    first.done("PUT", "/actions", &json!({"action_type": "FlushMetrics"}));
    drop(first);
    let mut before = counted(&directory);
    for round in 0..5 {
        let mut next = Vmm::start(directory.path(), &format!("next{round}"));
        let mut body = load(&directory);
        body["resume_vm"] = json!(true);
        // A socket of a program that was killed is its caller's to remove.
        body["vsock_override"]["uds_path"] = json!(directory.path().join(format!("vsock{round}")));
        next.done("PUT", "/snapshot/load", &body);
        let limit = Instant::now() + Duration::from_secs(30);
        let now = loop {
            next.pause();
            next.snapshot("Diff", &directory);
            let now = counted(&directory);
            if now > before {
                break now;
            }
            assert!(Instant::now() < limit, "the guest counts on from {before}");
            next.resume();
        };
        before = now;
    }
}

#[test]
fn the_program_ends_as_a_loaded_guest_does() {
    if !kvm_opens() {
        return;
    }
    let directory = directory();
    let mut first = Vmm::start(directory.path(), "first");
    first.boot(Guest::Registers, &directory);
    let limit = Instant::now() + Duration::from_secs(30);
    loop {
        first.pause();
        first.snapshot("Diff", &directory);
        if counted(&directory) == 1 {
            break;
        }
        assert!(Instant::now() < limit, "the guest gets ready");
        first.resume();
    }
    drop(first);
    // Who was killed leaves the name of its socket.
    std::fs::remove_file(directory.path().join("vsock")).expect("it is there");
    // What the guest waits for.
    let memory = std::fs::OpenOptions::new()
        .write(true)
        .open(memory_file(&directory));
    memory
        .and_then(|file| file.write_all_at(&1_u32.to_le_bytes(), SIGNAL.0))
        .expect("it is written");
    let mut next = Vmm::start(directory.path(), "next");
    let mut body = load(&directory);
    body["vsock_override"] = json!(null);
    next.done("PUT", "/snapshot/load", &body);
    assert!(directory.path().join("vsock").exists());
    next.resume();
    let (ended, said) = next.end();
    assert_eq!(ended, Some(0), "{said}");
    assert!(
        !directory.path().join("vsock").exists(),
        "it went with the program"
    );
}

#[test]
fn every_thread_has_its_filter_once_the_guest_runs() {
    if !kvm_opens() {
        return;
    }
    let directory = directory();
    let mut vmm = Vmm::start(directory.path(), "api");
    vmm.boot(Guest::Count, &directory);
    let tasks = std::fs::read_dir(format!("/proc/{}/task", vmm.child.id())).expect("it runs");
    let mut names = Vec::new();
    for task in tasks {
        let status = task.expect("it runs").path().join("status");
        let status = std::fs::read_to_string(status).expect("no thread has ended");
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_ascii_whitespace().nth(1))
                .expect("the kernel tells it")
                .to_owned()
        };
        assert_eq!(field("Seccomp:"), "2", "{status}");
        assert_eq!(field("NoNewPrivs:"), "1", "{status}");
        names.push(field("Name:"));
    }
    for name in ["sprite-vmm", "api", "vcpu0", "vcpu1", "devices"] {
        assert!(names.iter().any(|found| found == name), "{names:?}");
    }
}

#[test]
fn a_client_of_a_guest_that_does_not_answer_keeps_nothing_from_happening() {
    if !kvm_opens() {
        return;
    }
    let directory = directory();
    let mut vmm = Vmm::start(directory.path(), "api");
    vmm.boot(Guest::Count, &directory);
    let mut client = std::os::unix::net::UnixStream::connect(directory.path().join("vsock"))
        .expect("the socket listens");
    client.write_all(b"CONNECT 1024\n").expect("it is taken");
    vmm.pause();
    vmm.snapshot("Full", &directory);
    vmm.resume();
}
