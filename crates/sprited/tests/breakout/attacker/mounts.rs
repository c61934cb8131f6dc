//! In the agent's place: what it could mount, and what it finds there.

use std::fs;

use crate::agent::FIRST_CGROUP;
use crate::sys::*;

pub fn all(tried: &mut Tried) {
    file_systems(tried);
    groups(tried);
}

fn file_systems(tried: &mut Tried) {
    const SET_STRING: u64 = 1;
    const CREATE: u64 = 6;
    for (kind, source) in [
        ("ext4", "/dev/loop0"),
        ("xfs", "/dev/loop0"),
        ("btrfs", "/dev/loop0"),
        ("devtmpfs", "none"),
        ("debugfs", "none"),
        ("tracefs", "none"),
        ("securityfs", "none"),
        ("configfs", "none"),
        ("bpf", "none"),
        ("binfmt_misc", "none"),
        ("nfs", "127.0.0.1:/"),
        ("9p", "host"),
        ("virtiofs", "host"),
    ] {
        let name = format!("{kind}\0");
        let source_text = format!("{source}\0");
        let mounted = call(430, &[at(name.as_str()), 0]).and_then(|fs| {
            call(
                431,
                &[
                    fs as u64,
                    SET_STRING,
                    at("source\0"),
                    at(source_text.as_str()),
                    0,
                ],
            )?;
            call(431, &[fs as u64, CREATE, 0, 0, 0])?;
            call(432, &[fs as u64, 0, 0])
        });
        // `bpf` and `binfmt_misc` may be mounted in a user namespace, each its own; what they do is closed
        // otherwise: no call of bpf, and no interpreter outside of the namespace.
        if !matches!(kind, "bpf" | "binfmt_misc") {
            tried.holds(
                &format!("mount {kind}"),
                mounted.is_err(),
                format!("{mounted:?}"),
            );
        }
    }
    // The attributes under which the walls were handed over stay.
    for path in ["/agent\0", "/sys\0"] {
        let attributes = [0_u64, 1, 0, 0];
        let got = call(442, &[(-100_i64) as u64, at(path), 0, at(&attributes), 32]);
        tried.refused(
            &format!("make {} writable", path.trim_end_matches('\0')),
            got,
            &[EPERM],
        );
    }
    tried.refused(
        "unmount the disk's cover",
        call(166, &[at("/agent\0"), 0]),
        &[EINVAL, EPERM, EBUSY],
    );
}

/// Control groups: a hierarchy can be looked at, not changed.
fn groups(tried: &mut Tried) {
    const SET_STRING: u64 = 1;
    const SET_FLAG: u64 = 0;
    const CREATE: u64 = 6;
    for option in [
        "v2", "memory", "pids", "devices", "cpu", "freezer", "cpuset", "blkio", "systemd",
    ] {
        let kind = if option == "v2" {
            "cgroup2\0"
        } else {
            "cgroup\0"
        };
        let text = format!("{option}\0");
        let mounted = call(430, &[at(kind), 0]).and_then(|fs| {
            match option {
                "v2" => 0,
                "systemd" => call(
                    431,
                    &[fs as u64, SET_STRING, at("name\0"), at("systemd\0"), 0],
                )?,
                _ => call(431, &[fs as u64, SET_FLAG, at(text.as_str()), 0, 0])?,
            };
            call(431, &[fs as u64, CREATE, 0, 0, 0])?;
            call(432, &[fs as u64, 0, 0])
        });
        let Ok(mount) = mounted else {
            tried.holds(&format!("cgroup {option}"), true, format!("{mounted:?}"));
            continue;
        };
        for file in [
            "cgroup.procs",
            "tasks",
            "release_agent",
            "notify_on_release",
            "memory.limit_in_bytes",
            "memory.max",
            "pids.max",
            "devices.allow",
            "cgroup.subtree_control",
            "freezer.state",
            "../cgroup.procs",
            "cgroup.clone_children",
        ] {
            let path = format!("/proc/self/fd/{mount}/{file}");
            let opened = fs::OpenOptions::new().write(true).open(path);
            tried.fails(&format!("write {file} of {option}"), opened);
        }
        let made = fs::create_dir(format!("/proc/self/fd/{mount}/attack"));
        tried.fails(&format!("make a group in {option}"), made);
        let _ = call(SYS_CLOSE, &[mount as u64]);
    }
    // The descriptors through which the spawner enters the environment's groups take no process of the host.
    for fd in FIRST_CGROUP..FIRST_CGROUP + 8 {
        for pid in ["2", "1000", "-1"] {
            let got = call(1, &[fd, at(pid), pid.len() as u64]);
            tried.refused("move a process of the host", got, &[ESRCH, EINVAL, 9]);
        }
        let above = call(257, &[fd, at("../../cgroup.procs\0"), 1]);
        tried.refused("open a group above", above, &[20, 9]);
    }
}
