//! Ways to files and processes of the host.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::sys::*;

/// `secrets`: absolute paths of files and directories of the host.
pub fn all(tried: &mut Tried, secrets: &[String]) {
    named(tried, "", secrets);
    by_proc(tried, secrets);
    by_chroot(tried, secrets);
    first_process(tried);
    kernel_files(tried);
    mounts(tried, secrets);
    descriptors(tried);
}

/// Ways by names alone, whoever's the kernel is.
pub fn names(tried: &mut Tried, secrets: &[String]) {
    named(tried, "", secrets);
    for pid in processes() {
        for link in ["root", "cwd"] {
            let path = format!("/proc/{pid}/{link}");
            named(tried, &path, secrets);
            named(tried, &format!("{path}/../../../.."), secrets);
        }
    }
    by_chroot(tried, secrets);
    descriptors(tried);
}

fn named(tried: &mut Tried, prefix: &str, secrets: &[String]) {
    for secret in secrets {
        let path = format!("{prefix}{secret}");
        tried.fails(&format!("look at {path}"), fs::metadata(&path));
    }
}

fn processes() -> Vec<i64> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// The root, working directory and descriptors of every process that can be seen.
fn by_proc(tried: &mut Tried, secrets: &[String]) {
    let own = fs::metadata("/").map(|root| (root.dev(), root.ino())).ok();
    for pid in processes() {
        for link in ["root", "cwd"] {
            let path = format!("/proc/{pid}/{link}");
            named(tried, &path, secrets);
            named(tried, &format!("{path}/../../../.."), secrets);
        }
        if let Ok(root) = fs::metadata(format!("/proc/{pid}/root/")) {
            let same = Some((root.dev(), root.ino())) == own;
            tried.holds(&format!("root of process {pid}"), same, "is our own");
        }
        let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        let ours = program.to_string_lossy().contains("agent");
        tried.holds(
            &format!("program of process {pid}"),
            !ours,
            program.display(),
        );
        let variables = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let told = String::from_utf8_lossy(&variables).contains("SPRITED");
        tried.holds(
            &format!("variables of process {pid}"),
            !told,
            "are not the server's",
        );
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let outside = ["sprited", "cargo", "sprite-agent"].contains(&name.trim());
        tried.holds(&format!("process {pid}"), !outside, name.trim());
    }
    for path in ["/tmp/attack-link", "/home/sprite/attack-link"] {
        for secret in secrets {
            let _ = fs::remove_file(path);
            let target = format!("/proc/1/root{secret}");
            let _ = std::os::unix::fs::symlink(target, path);
            tried.fails(&format!("{secret} by a link"), fs::File::open(path));
        }
        let _ = fs::remove_file(path);
    }
}

/// The old way out of a chroot: a working directory outside of the root.
fn by_chroot(tried: &mut Tried, secrets: &[String]) {
    let Ok(child) = fork() else {
        return tried.holds("chroot", false, "cannot fork");
    };
    if child == 0 {
        let _ = fs::create_dir("/tmp/jail");
        let _ = call(SYS_CHROOT, &[at("/tmp/jail\0")]);
        for _ in 0..64 {
            let _ = std::env::set_current_dir("..");
        }
        let _ = call(SYS_CHROOT, &[at(".\0")]);
        let out = secrets.iter().any(|secret| Path::new(secret).exists());
        exit(u64::from(out));
    }
    tried.holds("chroot", wait(child) == 0, "leads nowhere");
}

/// The environment's first process is ours: it cannot be looked into, traced or ended.
fn first_process(tried: &mut Tried) {
    for file in ["root", "cwd", "exe"] {
        let path = format!("/proc/1/{file}");
        tried.fails(&format!("follow {path}"), fs::read_link(&path));
    }
    for file in [
        "environ", "mem", "maps", "io", "stack", "syscall", "auxv", "smaps", "pagemap",
    ] {
        let path = format!("/proc/1/{file}");
        let got = fs::File::open(&path).and_then(|mut file| {
            let mut byte = [0_u8];
            std::io::Read::read_exact(&mut file, &mut byte)
        });
        tried.fails(&format!("read {path}"), got);
    }
    tried.fails("list /proc/1/fd", fs::read_dir("/proc/1/fd"));
    tried.fails("list /proc/1/map_files", fs::read_dir("/proc/1/map_files"));
    for name in ["mnt", "pid", "user", "net", "ipc", "uts", "cgroup"] {
        let path = format!("/proc/1/ns/{name}");
        tried.fails(&format!("open {path}"), fs::File::open(&path));
    }
    const ATTACH: u64 = 16;
    const SEIZE: u64 = 0x4206;
    tried.refused(
        "attach to process 1",
        call(SYS_PTRACE, &[ATTACH, 1]),
        &[EPERM],
    );
    tried.refused("seize process 1", call(SYS_PTRACE, &[SEIZE, 1]), &[EPERM]);
    let word = 0_u64;
    let local = [at(&word), 8];
    let remote = [0x40_0000_u64, 8];
    for (name, number) in [("read", 310), ("write", 311)] {
        let got = call(number, &[1, at(&local), 1, at(&remote), 1, 0]);
        tried.refused(&format!("{name} the memory of process 1"), got, &[EPERM]);
    }
    if let Ok(pidfd) = call(SYS_PIDFD_OPEN, &[1, 0]) {
        for fd in 0..8 {
            let got = call(SYS_PIDFD_GETFD, &[pidfd as u64, fd, 0]);
            tried.refused("take a descriptor of process 1", got, &[EPERM]);
        }
        let _ = call(SYS_CLOSE, &[pidfd as u64]);
    }
    for signal in 1..=64 {
        // It may be sent; a first process does not hear it.
        let _ = kill(1, signal);
    }
    tried.holds("process 1", kill(1, 0) != Err(ESRCH), "lives");
    tried.refused("signal a process outside", kill(-1_000_000, 9), &[ESRCH]);
}

/// Files with which one configures a host, or makes it run something.
fn kernel_files(tried: &mut Tried) {
    for path in [
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/modprobe",
        "/proc/sys/kernel/hostname",
        "/proc/sys/kernel/panic",
        "/proc/sys/kernel/ns_last_pid",
        "/proc/sys/kernel/sysrq",
        "/proc/sys/kernel/yama/ptrace_scope",
        "/proc/sys/vm/drop_caches",
        "/proc/sys/vm/overcommit_memory",
        "/proc/sys/fs/binfmt_misc/register",
        "/proc/sys/fs/binfmt_misc/status",
        "/proc/sys/fs/suid_dumpable",
        "/proc/sys/net/ipv4/ip_forward",
        "/proc/sys/user/max_user_namespaces",
        "/proc/sysrq-trigger",
        "/proc/irq/default_smp_affinity",
        "/proc/bus/pci/devices",
        "/proc/mtrr",
        "/proc/1/oom_score_adj",
        "/proc/1/loginuid",
        "/proc/self/setgroups",
        "/proc/dynamic_debug/control",
        "/sys/kernel/uevent_helper",
        "/sys/kernel/uevent_seqnum",
        "/sys/kernel/mm/ksm/run",
        "/sys/power/state",
        "/sys/power/disk",
        "/sys/module/kernel/parameters/panic",
        "/sys/class/net/lo/ifalias",
        "/sys/class/net/eth0/mtu",
        "/sys/devices/system/cpu/cpu0/online",
        "/sys/devices/system/memory/soft_offline_page",
        "/sys/bus/pci/rescan",
        "/sys/fs/cgroup/release_agent",
        "/sys/fs/cgroup/cgroup.procs",
        "/sys/fs/cgroup/notify_on_release",
    ] {
        let written = fs::OpenOptions::new()
            .write(true)
            .open(path)
            .and_then(|mut file| file.write_all(b"0"));
        tried.fails(&format!("write {path}"), written);
    }
    for path in [
        "/proc/kcore",
        "/proc/kmsg",
        "/proc/keys",
        "/proc/kpagecount",
        "/proc/kpageflags",
        "/proc/slabinfo",
    ] {
        let bytes = fs::File::open(path).and_then(|mut file| {
            let mut byte = [0_u8];
            std::io::Read::read_exact(&mut file, &mut byte)
        });
        tried.fails(&format!("read {path}"), bytes);
    }
    for path in [
        "/sys/kernel",
        "/sys/fs",
        "/sys/module",
        "/sys/firmware",
        "/sys/block",
        "/sys/class/block",
    ] {
        let entries = fs::read_dir(path).map_or(0, Iterator::count);
        tried.holds(&format!("list {path}"), entries == 0, entries);
    }
    let symbols = fs::read_to_string("/proc/kallsyms").unwrap_or_default();
    let shown = symbols
        .lines()
        .any(|line| !line.starts_with("0000000000000000"));
    tried.holds("addresses of the kernel", !shown, "hidden");
}

fn mounts(tried: &mut Tried, secrets: &[String]) {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    tried.holds("mount table", !table.is_empty(), "is there");
    for line in table.lines() {
        let (before, after) = line.split_once(" - ").unwrap_or((line, ""));
        let kind = after.split(' ').next().unwrap_or("");
        let known = [
            "ext4", "proc", "sysfs", "tmpfs", "devtmpfs", "devpts", "mqueue",
        ];
        tried.holds("kind of a mount", known.contains(&kind), line);
        let path = before.split(' ').nth(4).unwrap_or("");
        let told = secrets.iter().any(|secret| line.contains(secret.as_str()));
        tried.holds(&format!("mount {path}"), !told, "tells nothing of the host");
        let writable = before
            .split(' ')
            .nth(5)
            .is_some_and(|o| o.split(',').any(|o| o == "rw"));
        let ours = path.starts_with("/sys") || path.starts_with("/proc/");
        let null = before.split(' ').nth(3) == Some("/null");
        tried.holds(
            &format!("mount {path}"),
            !(writable && ours) || null,
            "is read-only",
        );
    }
}

/// Nothing of ours is open in a new process.
fn descriptors(tried: &mut Tried) {
    for entry in fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .flatten()
    {
        let number: i32 = entry.file_name().to_string_lossy().parse().unwrap_or(-1);
        let target = fs::read_link(entry.path()).unwrap_or_default();
        let own = number <= 2 || target.starts_with("/proc");
        tried.holds(&format!("descriptor {number}"), own, target.display());
    }
}
