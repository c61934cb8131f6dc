//! Virtual machines as their host sees them: what is around a monitor, what is told of its end, and what is left.
//!
//! Needs usable KVM: `cargo xtask kvm-test` has it, on this computer or in the box.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use harness::{Server, eventually, text, virtual_machines};

/// Emulated computers are slow; nothing waits for it when all is well.
const SOON: Duration = Duration::from_secs(90);

/// A line of a process's `/proc/PID/status`.
fn status(pid: u64, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let words = line.unwrap_or_default().split_whitespace();
    words.collect::<Vec<_>>().join(" ")
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// The process of the first machine, and what stands around it.
fn look_at_the_jail(pid: u64) {
    let uid = status(pid, "Uid:");
    let own = uid.split(' ').next().unwrap().to_owned();
    assert!(own.parse::<u32>().unwrap() >= 0x7000_0000, "{uid}");
    let four = [own.as_str(); 4].join(" ");
    assert_eq!((uid, status(pid, "Gid:")), (four.clone(), four));
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(status(pid, set), "0000000000000000", "{set}");
    }
    assert_eq!(status(pid, "Groups:"), "");
    assert_eq!(status(pid, "NoNewPrivs:"), "1");
    // Every thread, and not only those that were there first.
    for thread in names(&PathBuf::from(format!("/proc/{pid}/task"))) {
        let text = fs::read_to_string(format!("/proc/{pid}/task/{thread}/status")).unwrap();
        assert!(text.contains("\nSeccomp:\t2\n"), "{text}");
    }
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    assert_eq!(
        names(&root),
        [
            "dev",
            "disk",
            "initramfs",
            "kernel",
            "modules",
            "proc",
            "run",
            "snapshot",
            "vmm"
        ]
    );
    for namespace in ["mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let of = |process: &str| fs::read_link(format!("/proc/{process}/ns/{namespace}")).unwrap();
        assert_ne!(of(&pid.to_string()), of("self"), "{namespace}");
    }
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
    assert_eq!(environment, b"", "nothing of the server's environment");
}

#[tokio::test]
async fn a_monitor_stands_in_its_jail_and_the_host_mounts_nothing_of_the_sprite() {
    if !virtual_machines() {
        return;
    }
    let server = Server::start(&[]);
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let sprite = server.sprite("jailed").await;
    let shown = sprite.info().await.unwrap();
    assert_eq!(shown.isolation.as_deref(), Some("hardware"));
    let kernel = text(&sprite, "uname -r; cat /proc/1/comm").await;
    let host = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let boot = text(&sprite, "cat /proc/sys/kernel/random/boot_id").await;
    let hosts = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert_ne!(boot, hosts.trim(), "{kernel} beside {host}");
    look_at_the_jail(server.agent_pid());
    // Slots come and go; nothing else does.
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let new: Vec<&str> = mounts
        .lines()
        .filter(|line| !before.contains(*line) && !line.contains("/netns/"))
        .collect();
    assert_eq!(new, Vec::<&str>::new());
    let disks = fs::read_dir("/sys/block").unwrap().flatten();
    let disks = disks.filter_map(|entry| {
        let backing = fs::read_to_string(entry.path().join("loop/backing_file")).ok()?;
        backing.contains("sprite-").then_some(backing)
    });
    assert_eq!(disks.collect::<Vec<_>>(), Vec::<String>::new());
    server.finish();
}

/// The last thing that a guest says is why it ended.
#[tokio::test]
async fn a_guest_that_panics_is_noticed_at_once_and_told_with_its_last_lines() {
    if !virtual_machines() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("panicky").await;
    text(&sprite, "echo precious > kept && sync").await;
    let crash = "sudo -n sh -c 'echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger'";
    // The connection goes with the machine.
    let broken = sprite.command("sh").args(["-c", crash]).output().await;
    assert!(broken.is_err(), "{broken:?}");
    eventually(SOON, async || {
        let log = server.log();
        match log.contains("machine ended by itself") && log.contains("Kernel panic") {
            true => Ok(()),
            false => Err(log),
        }
    })
    .await;
    assert_eq!(text(&sprite, "cat kept").await, "precious");
    server.finish();
}

#[tokio::test]
async fn two_virtual_machines_side_by_side_do_not_see_each_other() {
    if !virtual_machines() {
        return;
    }
    let server = Server::start(&[]);
    let (one, two) = (server.sprite("one").await, server.sprite("two").await);
    let secret = "echo secret > /dev/shm/secret; echo secret > ~/secret; ip -4 -o addr show eth0";
    assert_eq!(
        text(&one, secret).await,
        text(&two, "ip -4 -o addr show eth0").await
    );
    let looked = "ls /dev/shm ~; ls /dev/vd* /dev/sd* 2>/dev/null | tr '\\n' ' '; hostname";
    let seen = text(&two, looked).await;
    assert!(!seen.contains("secret"), "{seen}");
    assert!(
        seen.contains("/dev/vda /dev/vdb"),
        "two disks of its own: {seen}"
    );
    assert!(seen.ends_with("two"), "{seen}");
    let boots = "cat /proc/sys/kernel/random/boot_id";
    assert_ne!(text(&one, boots).await, text(&two, boots).await);
    server.finish();
}
