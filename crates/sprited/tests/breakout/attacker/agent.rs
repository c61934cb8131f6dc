//! In the agent's place: with its privileges, its descriptors, its filter, and its way to the host.
//!
//! The driver starts this program as it starts the agent. As the launcher it hands over to the real one, which
//! lies beside it and builds the real walls; these are then around this program.

use std::fs;
use std::io::Write;
use std::os::fd::FromRawFd;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::mounts;
use crate::sys::*;

const LISTENER: i32 = 100;
const RANGE: u64 = 101;
pub const FIRST_CGROUP: u64 = 110;

/// Becomes the real launcher.
pub fn launch() {
    let own = fs::read_link("/proc/self/exe").expect("we run");
    let error = Command::new(own.with_extension("real"))
        .arg("launch")
        .exec();
    eprintln!("attacker: {error}");
}

/// Attacks, then tells whoever connects what came of it.
pub fn run() {
    let listener = {
        // SAFETY: the launcher left it open for the agent, in whose place this is.
        unsafe { UnixListener::from_raw_fd(LISTENER) }
    };
    let mut tried = Tried::default();
    descriptors(&mut tried);
    calls(&mut tried);
    namespaces(&mut tried);
    host_files(&mut tried);
    processes(&mut tried);
    mounts::all(&mut tried);
    let report = tried.report();
    for stream in listener.incoming().flatten() {
        let mut stream = stream;
        // The server hangs up when it hears nonsense.
        let _ = stream.write_all(report.as_bytes());
    }
}

/// What an agent has no use for.
fn calls(tried: &mut Tried) {
    for (name, number) in [
        ("acct", 163),
        ("add_key", 248),
        ("bpf", 321),
        ("clock_settime", 227),
        ("delete_module", 176),
        ("fanotify_init", 300),
        ("finit_module", 313),
        ("fspick", 433),
        ("init_module", 175),
        ("ioperm", 173),
        ("iopl", 172),
        ("kcmp", 312),
        ("kexec_file_load", 320),
        ("kexec_load", 246),
        ("keyctl", 250),
        ("mount", 165),
        ("name_to_handle_at", 303),
        ("open_by_handle_at", 304),
        ("perf_event_open", 298),
        ("quotactl", 179),
        ("reboot", 169),
        ("request_key", 249),
        ("settimeofday", 164),
        ("swapoff", 168),
        ("swapon", 167),
        ("syslog", 103),
        ("userfaultfd", 323),
        ("vhangup", 153),
    ] {
        tried.refused(name, call(number, &[]), &[EPERM]);
    }
    for (name, number) in [
        ("clone3", 435),
        ("io_uring_setup", 425),
        ("open_tree_attr", 467),
        ("x32 getpid", 0x4000_0000 | 39),
    ] {
        tried.refused(name, call(number, &[]), &[ENOSYS]);
    }
    for (name, family, protocol) in [
        ("packets", 17_u64, 0_u64),
        ("vsock", 40, 0),
        ("alg", 38, 0),
        ("kernel events", 16, 15),
        ("netfilter", 16, 12),
    ] {
        let got = call(SYS_SOCKET, &[family, 3, protocol]);
        tried.refused(&format!("socket: {name}"), got, &[EPERM]);
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let held = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    let held = u64::from_str_radix(held.unwrap_or("").trim(), 16).unwrap_or(u64::MAX);
    for (name, bit) in [
        ("NET_ADMIN", 12),
        ("SYS_MODULE", 16),
        ("SYS_RAWIO", 17),
        ("SYS_BOOT", 22),
        ("SYS_RESOURCE", 24),
        ("SYS_TIME", 25),
        ("MKNOD", 27),
        ("SYSLOG", 34),
        ("BPF", 39),
    ] {
        tried.holds(
            &format!("capability {name}"),
            held >> bit & 1 == 0,
            "not held",
        );
    }
    tried.holds("seccomp", status.contains("Seccomp:\t2"), "filtered");
}

fn namespaces(tried: &mut Tried) {
    const NEW_NETWORK: u64 = 0x4000_0000;
    const NEW_USER: u64 = 0x1000_0000;
    const NEW_TIME: u64 = 0x80;
    for (name, flags) in [
        ("a network namespace", NEW_NETWORK),
        ("a time namespace", NEW_TIME),
        ("user and network namespaces", NEW_USER | NEW_NETWORK),
    ] {
        tried.refused(
            &format!("unshare {name}"),
            call(SYS_UNSHARE, &[flags]),
            &[EPERM],
        );
        if flags == NEW_TIME {
            continue;
        }
        let got = call(SYS_CLONE, &[flags | 17]);
        if got == Ok(0) {
            exit(0);
        }
        tried.refused(&format!("clone into {name}"), got, &[EPERM]);
    }
    // A user namespace below is allowed, and gives nothing outside of it: not the network that is ours.
    let Ok(child) = fork() else {
        return tried.holds("user namespace", false, "cannot fork");
    };
    if child == 0 {
        let _ = call(SYS_UNSHARE, &[NEW_USER]);
        let made = call(SYS_UNSHARE, &[NEW_NETWORK]).is_ok();
        let module = call(175, &[]) != Err(EPERM);
        let raw = call(SYS_SOCKET, &[2, 3, 1]).is_ok();
        exit(u64::from(made) | u64::from(module) << 1 | u64::from(raw) << 2);
    }
    let status = wait(child);
    tried.holds(
        "full capabilities below",
        status == 0,
        format!("status {status:#x}"),
    );
    // The parents of our namespaces. Source: ioctl_ns(2), NS_GET_USERNS, NS_GET_PARENT.
    for (file, request) in [
        ("user", 0xb701_u64),
        ("user", 0xb702),
        ("pid", 0xb702),
        ("net", 0xb701),
        ("mnt", 0xb701),
    ] {
        let path = format!("/proc/self/ns/{file}\0");
        let Ok(namespace) = call(SYS_OPEN, &[at(path.as_str()), 0, 0]) else {
            tried.holds(&format!("own {file} namespace"), false, "cannot be opened");
            continue;
        };
        let above = call(SYS_IOCTL, &[namespace as u64, request]);
        // The owner of our own mounts is our own namespace.
        match above {
            Ok(above) => {
                let entered = call(SYS_SETNS, &[above as u64, 0]);
                tried.refused(
                    &format!("enter what is above {file}"),
                    entered,
                    &[EPERM, EINVAL],
                );
            }
            Err(errno) => {
                tried.refused::<i64>(&format!("find what is above {file}"), Err(errno), &[EPERM])
            }
        }
        let _ = call(SYS_CLOSE, &[namespace as u64]);
    }
}

fn host_files(tried: &mut Tried) {
    let root: Vec<String> = fs::read_dir("/")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    let known = [".sprite", "env", "proc", "sys", "dev", "agent"];
    let only = root.iter().all(|name| known.contains(&name.as_str()));
    tried.holds("the root", only && !root.is_empty(), root.join(" "));
    for path in [
        "/etc/shadow",
        "/root",
        "/run",
        "/var",
        "/proc/1/root/etc",
        "/proc/self/cwd/etc",
        "/../etc",
    ] {
        tried.fails(&format!("look at {path}"), fs::metadata(path));
    }
    for link in fs::read_dir("/proc").into_iter().flatten().flatten() {
        for fd in ["root", "cwd"] {
            let path = link.path().join(fd).join("etc/passwd");
            if link.file_name().to_string_lossy().parse::<u32>().is_ok() {
                tried.fails(&format!("look at {}", path.display()), fs::metadata(&path));
            }
        }
    }
    for path in [
        "/agent",
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/modprobe",
        "/proc/sys/net/ipv4/ip_forward",
        "/proc/sysrq-trigger",
        "/proc/sys/fs/binfmt_misc/register",
        "/sys/kernel/uevent_helper",
        "/sys/power/state",
        "/sys/devices/system/cpu/cpu0/online",
        "/sys/class/net/eth0/mtu",
        "/dev/sda",
        "/dev/loop0",
        "/dev/loop-control",
        "/dev/mem",
        "/dev/kmsg",
    ] {
        let opened = fs::OpenOptions::new().write(true).open(path);
        tried.fails(&format!("write {path}"), opened);
    }
    for path in [
        "/proc/kcore",
        "/proc/kmsg",
        "/proc/slabinfo",
        "/proc/vmallocinfo",
    ] {
        tried.fails(&format!("read {path}"), fs::File::open(path));
    }
    for dir in ["/", "/dev", "/env", "/env/tmp", "/env/dev"] {
        for (kind, major, minor) in [
            (0o060_600_u64, 8_u64, 0_u64),
            (0o060_600, 7, 0),
            (0o020_600, 1, 1),
            (0o020_600, 10, 237),
        ] {
            let path = format!("{dir}/attack-{major}-{minor}\0");
            let got = call(SYS_MKNOD, &[at(path.as_str()), kind, major << 8 | minor]);
            tried.refused(
                &format!("mknod {major}:{minor} in {dir}"),
                got,
                &[EPERM, EACCES, ENOENT, 75],
            );
        }
    }
}

fn processes(tried: &mut Tried) {
    tried.holds("own id", std::process::id() == 1, std::process::id());
    let others = fs::read_dir("/proc").into_iter().flatten().flatten();
    let others: Vec<String> = others
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.parse::<u32>().is_ok_and(|pid| pid != 1))
        .collect();
    tried.holds("other processes", others.is_empty(), others.join(" "));
    for pid in [2_i64, 100, 1000, i64::from(u16::MAX)] {
        tried.refused("kill a process of the host", kill(pid, 9), &[ESRCH]);
        tried.refused(
            "trace a process of the host",
            call(SYS_PTRACE, &[0x4206, pid as u64]),
            &[ESRCH, EPERM],
        );
        tried.refused(
            "open a process of the host",
            call(SYS_PIDFD_OPEN, &[pid as u64, 0]),
            &[ESRCH, EINVAL],
        );
    }
    // Everyone whom we may signal; we do not count.
    tried.refused("kill everyone", kill(-1, 9), &[ESRCH]);
    // Source: setpriority(2); PRIO_USER of the host's root, which has no id here.
    tried.refused("setuid beyond the map", call(105, &[70_000]), &[EINVAL]);
}

/// What was handed over: the listener, the mark of the range of ids, null, and the log.
fn descriptors(tried: &mut Tried) {
    for entry in fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .flatten()
    {
        let number: u64 = entry.file_name().to_string_lossy().parse().unwrap_or(0);
        let target = fs::read_link(entry.path()).unwrap_or_default();
        let target = target.to_string_lossy().into_owned();
        let known = number <= 2
            || number == LISTENER as u64
            || number == RANGE
            || (FIRST_CGROUP..FIRST_CGROUP + 8).contains(&number)
            || target.starts_with("/proc");
        tried.holds(&format!("descriptor {number}"), known, &target);
        for file in ["", "..", "../..", "../../../etc/passwd"] {
            let path = entry.path().join(file).join("..");
            let reached = fs::metadata(&path);
            let out = reached.is_ok() && !target.starts_with("/proc");
            tried.holds(
                &format!("from descriptor {number} by {file:?}"),
                !out,
                &target,
            );
        }
    }
    // The mark can be given up; whether somebody else gets the range then is seen outside.
    const UNLOCK: u64 = 8;
    let _ = call(SYS_FLOCK, &[RANGE, UNLOCK]);
    let opened = fs::OpenOptions::new().write(true).open("/proc/self/fd/101");
    tried.fails("write the mark of the range", opened);
    // The log takes what it takes, and no more: a host's memory is not ours to fill.
    let flood = vec![b'x'; 64 << 10];
    let mut written = 0_u64;
    for _ in 0..1024 {
        match call(1, &[2, at(flood.as_slice()), flood.len() as u64]) {
            Ok(n) if n > 0 => written += n as u64,
            Ok(_) | Err(_) => break,
        }
    }
    tried.holds(
        "the log",
        written <= 2 << 20,
        format!("took {written} bytes"),
    );
    let grown = call(285, &[2, 0, 0, 16 << 20]);
    tried.refused("grow the log", grown, &[29, 19, 9, 95, 22, 1]);
}
