//! What the monitor of a virtual machine can do in its jail, and what it cannot: a program that tries the opposite
//! of every promise stands in its place.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod jail;

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use jail::{Jail, ready};
use sprite_agent_api::launch::{JailAccess, LaunchReport};

/// Whoever runs the others may have no compiler: root by sudo, or a computer that they are carried to.
#[test]
fn builds_the_probe() {
    assert!(jail::probe().is_file());
}

#[test]
fn a_monitor_that_was_taken_over_gets_nowhere() {
    if !ready() {
        return;
    }
    let mut jail = Jail::new();
    // What is to be found only from outside.
    let name = format!("sprite-jail-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let _listener = UnixListener::bind_addr(&address).unwrap();
    let host = std::process::id().to_string();
    jail.spec.arguments = ["escape", &host, &name].map(str::to_owned).to_vec();
    let report = jail.run();
    let broke: Vec<&str> = report.lines().filter(|l| l.starts_with("BROKE")).collect();
    assert!(broke.is_empty(), "{}\n{report}", broke.join("\n"));
    let refused = report.lines().filter(|l| l.starts_with("refused")).count();
    let done = report.lines().last().and_then(|l| l.strip_prefix("done "));
    assert_eq!(
        done.and_then(|n| n.parse().ok()),
        Some(refused),
        "cut off:\n{report}"
    );
}

#[test]
fn a_monitor_has_what_it_needs() {
    if !ready() {
        return;
    }
    let mut jail = Jail::new();
    jail.spec.arguments = ["work".to_owned()].to_vec();
    let report = jail.run();
    assert_eq!(report.lines().last(), Some("done"), "{report}");
    assert_eq!(fs::read(jail.path("disk")).unwrap()[..4], *b"disk");
    let written = jail.path("snapshot").join("state");
    let owner = fs::metadata(&written).unwrap();
    assert_eq!(
        (owner.uid(), owner.gid()),
        (0, 0),
        "what it leaves on the host belongs to root there"
    );
    assert_eq!(
        fs::read_to_string(jail.path("cgroup.procs")).unwrap(),
        "0",
        "it entered its cgroup by itself"
    );
    assert_eq!(
        fs::metadata(jail.path("disk")).unwrap().mode() & 0o777,
        0o600
    );
}

#[test]
fn a_second_machine_on_the_same_disk_does_not_start() {
    if !ready() {
        return;
    }
    let mut first = Jail::new();
    first.spec.arguments = ["wait".to_owned()].to_vec();
    let running = first.start();
    assert!(matches!(running.report, LaunchReport::Started { .. }));
    let mut second = Jail::new();
    for file in &mut second.spec.files {
        if file.access == JailAccess::WriteAlone {
            file.path = first.path("disk");
        }
    }
    let refused = second.start();
    match &refused.report {
        LaunchReport::Failed { step, errno } => {
            assert_eq!(*errno, Some(11), "it would have to wait: {step}");
            assert!(step.contains("lock disk"), "{step}");
        }
        LaunchReport::Started { .. } => panic!("two machines on one disk"),
    }
    // Whoever started the first one is gone; the disk is free when its monitor is.
    running.end();
    second.spec.arguments = ["work".to_owned()].to_vec();
    assert_eq!(second.run().lines().last(), Some("done"));
}

#[test]
fn a_jail_that_cannot_be_built_says_which_step_failed() {
    if !ready() {
        return;
    }
    let mut missing = Jail::new();
    missing.spec.program = "/nonexistent/monitor".into();
    let mut strange = Jail::new();
    strange.spec.files[0].name = "../etc".to_owned();
    let mut device = Jail::new();
    device.spec.files[0].path = "/dev/null".into();
    for (jail, expected) in [
        (missing, "find the monitor's program"),
        (strange, "name a file of the jail"),
        (device, "find kernel"),
    ] {
        match jail.start().report {
            LaunchReport::Failed { step, .. } => assert_eq!(step, expected),
            LaunchReport::Started { .. } => panic!("{expected}: it was built"),
        }
    }
}
