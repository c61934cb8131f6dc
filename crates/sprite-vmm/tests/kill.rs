//! A process killed at every system call of a snapshot, on its way in and on its way out.
//!
//! The steps are not listed here: the process that makes the snapshot is traced, and killed at the first stop,
//! then at the second, and so on until it gets through.

mod harness;

use std::path::Path;
use std::process::{Command as Process, Stdio};

use harness::{FakeHypervisor, Stage};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sprite_vmm::command::{Answer, Command};
use sprite_vmm::control::{CommandError, Controller, FaultKind};
use tempfile::TempDir;

/// Tells the process that makes the snapshot where, and of which kind.
const TASK: &str = "SPRITE_VMM_KILL";

const PAGE: u64 = 4096;

/// How many pages are written in a row, with gaps between the rows: several writes, and holes.
const ROWS: u64 = 4;

fn create(directory: &Path, kind: &str) -> Command {
    Command::CreateSnapshot(parsed(json!({
        "snapshot_type": kind,
        "snapshot_path": directory.join("state"),
        "mem_file_path": directory.join("memory"),
    })))
}

fn load(directory: &Path) -> Command {
    Command::LoadSnapshot(parsed(json!({
        "snapshot_path": directory.join("state"),
        "mem_backend": {"backend_type": "File", "backend_path": directory.join("memory")},
    })))
}

fn parsed<T: DeserializeOwned>(body: Value) -> T {
    serde_json::from_value(body).expect("a body")
}

fn controller() -> (Stage, Controller<FakeHypervisor>) {
    let stage = Stage::default();
    let hypervisor = FakeHypervisor(stage.clone());
    (stage, Controller::new(hypervisor, "test".to_owned()))
}

/// Makes memory and register tell of `age` everywhere.
fn write(stage: &Stage, age: u8) {
    for row in 0..ROWS {
        stage.write(row * 40 * PAGE, &[age; 3 * 4096]);
    }
    // What has content in one age is empty in the other.
    stage.write(200 * PAGE, &vec![age - 1; 20 * 4096]);
    stage.see(|seen| seen.register = age.into());
}

/// Which age memory and register tell of, if they agree.
fn read(stage: &Stage) -> Option<u8> {
    let age = u8::try_from(stage.see(|seen| seen.register)).ok()?;
    let rows = (0..ROWS).all(|row| stage.read(row * 40 * PAGE, 3 * 4096) == [age; 3 * 4096]);
    let rest = stage.read(200 * PAGE, 20 * 4096) == vec![age - 1; 20 * 4096];
    (rows && rest).then_some(age)
}

/// A snapshot of age 1.
fn first_snapshot() -> TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (stage, mut controller) = controller();
    for command in [
        Command::SetMachine(parsed(json!({"vcpu_count": 1, "mem_size_mib": 1}))),
        Command::SetBootSource(parsed(json!({"kernel_image_path": "/kernel"}))),
        Command::Start,
        Command::Pause,
    ] {
        controller.handle(command).expect("it is done");
    }
    write(&stage, 1);
    controller
        .handle(create(directory.path(), "Full"))
        .expect("a snapshot");
    directory
}

#[test]
fn a_killed_full_snapshot_leaves_the_old_one_the_new_one_or_one_that_is_refused() {
    kill_everywhere(
        "a_killed_full_snapshot_leaves_the_old_one_the_new_one_or_one_that_is_refused",
        "Full",
    );
}

#[test]
fn a_killed_diff_snapshot_leaves_the_old_one_the_new_one_or_one_that_is_refused() {
    kill_everywhere(
        "a_killed_diff_snapshot_leaves_the_old_one_the_new_one_or_one_that_is_refused",
        "Diff",
    );
}

fn kill_everywhere(test: &str, kind: &str) {
    if let Ok(directory) = std::env::var(TASK) {
        second_snapshot(Path::new(&directory), kind);
    }
    let mut seen = [0_u32; 3];
    for stop in 0.. {
        let directory = first_snapshot();
        let ended = killed_at(stop, test, directory.path());
        let (stage, mut controller) = controller();
        match controller.handle(load(directory.path())) {
            Ok(Answer::Done) => {
                let age = read(&stage).expect("memory and register are of one snapshot");
                seen[usize::from(age - 1)] += 1;
                // And the next snapshot of it works.
                controller
                    .handle(create(directory.path(), "Diff"))
                    .expect("a snapshot");
            }
            Err(error @ CommandError::Load(_)) => {
                assert_eq!(error.kind(), FaultKind::SnapshotDamaged, "{error:?}");
                seen[2] += 1;
            }
            other => panic!("{other:?}"),
        }
        if ended == Some(0) {
            break;
        }
        assert_eq!(ended, None, "it is killed or it ends well");
        assert!(stop < 2000, "the snapshot comes to an end");
    }
    let [old, new, refused] = seen;
    eprintln!("{kind}: {old} times the old one, {new} the new one, {refused} refused");
    assert!(old > 0 && new > 0 && refused > 0, "each kind was met");
}

/// Makes a snapshot of age 2 of what was loaded, traced from here on, and ends the process.
fn second_snapshot(directory: &Path, kind: &str) -> ! {
    let (stage, mut controller) = controller();
    controller.handle(load(directory)).expect("it loads");
    write(&stage, 2);
    let command = create(directory, kind);
    // SAFETY: neither call has to do with memory.
    unsafe {
        libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
        libc::raise(libc::SIGSTOP);
    }
    controller.handle(command).expect("a snapshot");
    std::process::exit(0);
}

/// Starts this program to make the second snapshot and kills it at the given stop. Returns the status it
/// ended with, or none if it was killed.
#[expect(
    clippy::zombie_processes,
    reason = "it is waited for together with the threads that are traced"
)]
fn killed_at(stop: u32, test: &str, directory: &Path) -> Option<i32> {
    let child = Process::new(std::env::current_exe().expect("this program has a path"))
        .args(["--exact", test])
        .env(TASK, directory)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("this program starts");
    let leader = i32::try_from(child.id()).expect("ids are small");
    let mut stops = 0;
    loop {
        let (thread, status) = wait();
        if libc::WIFSTOPPED(status) {
            // The first one is the process's own, before it begins.
            match stops == stop + 1 {
                // SAFETY: a signal for a child that has not been waited for.
                true => unsafe { libc::kill(leader, libc::SIGKILL) },
                // SAFETY: the thread is stopped and traced by this one.
                false => unsafe {
                    i32::try_from(libc::ptrace(libc::PTRACE_SYSCALL, thread, 0, 0)).unwrap_or(-1)
                },
            };
            stops += 1;
        } else if thread == leader {
            return libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status));
        }
    }
}

/// The next thing that happens to a child of this thread, or to a thread that it traces.
fn wait() -> (i32, i32) {
    let mut status = 0;
    // SAFETY: the status lives until the call is over.
    let thread = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
    assert!(
        thread > 0,
        "there is a child: {}",
        std::io::Error::last_os_error()
    );
    (thread, status)
}
