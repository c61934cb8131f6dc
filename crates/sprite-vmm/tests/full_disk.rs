//! Snapshots on a file system that is too small for them.

mod harness;

use std::os::unix::fs::MetadataExt;

use harness::Program;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount,
};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use serde_json::json;

const PAGE: u64 = 4096;
const MIB: u64 = 1 << 20;

/// How large the file system is: more than what a snapshot leaves free for others, and the state.
const SIZE: u64 = 12 * MIB;

/// Gives this thread, and all that it starts, a file system of [`SIZE`] at the program's directory.
fn small_disk() -> Option<Program> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: a small file system is mounted by root alone");
        return None;
    }
    // SAFETY: no other thread of this process depends on what this one has mounted.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }.expect("a mount namespace");
    let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    mount_change("/", private).expect("mounts are private");
    let mut program = Program::start_prepared(|directory| {
        let options = std::ffi::CString::new(format!("size={SIZE}")).expect("no zero");
        mount("none", directory, "tmpfs", MountFlags::empty(), &*options).expect("it is mounted");
    });
    program.done(
        "PUT",
        "/machine-config",
        &json!({"vcpu_count": 1, "mem_size_mib": 32}),
    );
    program.done(
        "PUT",
        "/boot-source",
        &json!({"kernel_image_path": "/kernel"}),
    );
    program.done("PUT", "/actions", &json!({"action_type": "InstanceStart"}));
    program.stage.write(0, &[1; 4096]);
    program.pause();
    program.snapshot("Full");
    Some(program)
}

fn is_whole(program: &Program, name: &str) {
    let mut other = program.start_beside(name);
    other.load();
    assert_eq!(other.stage.read(0, 4096), [1; 4096]);
}

fn refused(program: &mut Program, kind: &str) -> String {
    let body = program.snapshot_body(kind);
    let (fault, message) = program.refused("PUT", "/snapshot/create", &body);
    assert_eq!(fault, "failed");
    message
}

#[test]
fn a_snapshot_without_room_leaves_the_old_one_and_the_machine() {
    let Some(mut program) = small_disk() else {
        return;
    };
    let memory = vec![2; 20 << 20];
    program.stage.write(PAGE, &memory);
    for kind in ["Full", "Diff"] {
        let message = refused(&mut program, kind);
        assert!(
            message.contains("bytes are needed for memory"),
            "{kind}: {message}"
        );
        is_whole(&program, &format!("after {kind}"));
    }
    let free = std::fs::metadata(program.path("memory")).expect("it is there");
    assert!(free.blocks() * 512 < MIB, "nothing of the attempts is left");

    // What was not saved then is saved once there is room.
    program.stage.write(PAGE, &vec![0; 20 << 20]);
    program.stage.write(9 * PAGE, b"later");
    program.snapshot("Diff");
    let mut other = program.start_beside("at last");
    other.load();
    assert_eq!(other.stage.read(9 * PAGE, 5), b"later");
    program.resume();
    unmount(program.directory.path(), UnmountFlags::DETACH).expect("it is unmounted");
}
