//! Doors of the kernel that must be shut for everything that runs in an environment.

use crate::sys::*;

/// Calls that are refused whatever their arguments are.
const SHUT: [(&str, i64); 48] = [
    ("acct", 163),
    ("add_key", 248),
    ("bpf", 321),
    ("clock_adjtime", 305),
    ("clock_settime", 227),
    ("delete_module", 176),
    ("fanotify_init", 300),
    ("finit_module", 313),
    ("fsconfig", 431),
    ("fsmount", 432),
    ("fsopen", 430),
    ("fspick", 433),
    ("init_module", 175),
    ("ioperm", 173),
    ("iopl", 172),
    ("kcmp", 312),
    ("kexec_file_load", 320),
    ("kexec_load", 246),
    ("keyctl", 250),
    ("lookup_dcookie", 212),
    ("mbind", 237),
    ("migrate_pages", 256),
    ("mount", 165),
    ("mount_setattr", 442),
    ("move_mount", 429),
    ("move_pages", 279),
    ("name_to_handle_at", 303),
    ("nfsservctl", 180),
    ("open_by_handle_at", 304),
    ("open_tree", 428),
    ("perf_event_open", 298),
    ("pivot_root", 155),
    ("process_madvise", 440),
    ("quotactl", 179),
    ("quotactl_fd", 443),
    ("reboot", 169),
    ("request_key", 249),
    ("setdomainname", 171),
    ("setns", 308),
    ("settimeofday", 164),
    ("swapoff", 168),
    ("swapon", 167),
    ("syslog", 103),
    ("umount2", 166),
    ("unshare", 272),
    ("userfaultfd", 323),
    ("vhangup", 153),
    ("fsopen through x32's neighbour", 430),
];

/// Calls that are hidden: programs then use the older ones, whose flags can be checked. The last is newer than
/// the filter, whatever it does.
const HIDDEN: [(&str, i64); 7] = [
    ("clone3", 435),
    ("io_uring_setup", 425),
    ("open_tree_attr", 467),
    ("file_setattr", 469),
    ("a call of the future", 511),
    ("x32 getpid", 0x4000_0000 | 39),
    ("x32 ptrace", 0x4000_0000 | 521),
];

const CLONE_FLAGS: [(&str, u64); 7] = [
    ("clone into a user namespace", 0x1000_0000),
    ("clone into a mount namespace", 0x0002_0000),
    ("clone into a network namespace", 0x4000_0000),
    ("clone into a process namespace", 0x2000_0000),
    ("clone into an IPC namespace", 0x0800_0000),
    ("clone into a UTS namespace", 0x0400_0000),
    ("clone into a cgroup namespace", 0x0200_0000),
];

const SIGCHLD: u64 = 17;

pub fn all(tried: &mut Tried) {
    for (name, number) in SHUT {
        tried.refused(name, call(number, &[]), &[EPERM]);
    }
    for (name, number) in HIDDEN {
        tried.refused(name, call(number, &[]), &[ENOSYS]);
    }
    for (name, flag) in CLONE_FLAGS {
        let got = call(SYS_CLONE, &[flag | SIGCHLD]);
        if got == Ok(0) {
            exit(0);
        }
        tried.refused(name, got, &[EPERM]);
        // With bits above those that the kernel looks at.
        let got = call(SYS_CLONE, &[1 << 40 | flag | SIGCHLD]);
        if got == Ok(0) {
            exit(0);
        }
        tried.refused(&format!("{name}, odd bits"), got, &[EPERM, EINVAL]);
    }
    foreign_calls(tried);
    typing(tried);
    sockets(tried);
    devices(tried);
    identity(tried);
}

/// The 32-bit entry has other numbers; 20 is getpid there.
fn foreign_calls(tried: &mut Tried) {
    let Ok(child) = fork() else {
        return tried.holds("32-bit calls", false, "cannot fork");
    };
    if child == 0 {
        let answer: u64;
        // SAFETY: a system call without pointers; registers that it changes are named.
        unsafe {
            std::arch::asm!("int 0x80", inlateout("rax") 20_u64 => answer,
                out("r8") _, out("r9") _, out("r10") _, out("r11") _);
        }
        exit(if (answer as i64) > 0 { 0 } else { 1 });
    }
    let status = wait(child);
    // Ended by a signal (no such entry, or the filter's), or by an error.
    tried.holds("32-bit calls", status != 0, format!("status {status:#x}"));
}

/// Typing into somebody's terminal.
fn typing(tried: &mut Tried) {
    let letter = b'x';
    for (name, request) in [
        ("TIOCSTI", 0x5412_u64),
        ("TIOCSTI, odd bits", 1 << 33 | 0x5412),
        ("TIOCLINUX", 0x541C),
    ] {
        tried.refused(name, call(SYS_IOCTL, &[0, request, at(&letter)]), &[EPERM]);
    }
}

fn sockets(tried: &mut Tried) {
    const RAW: u64 = 3;
    const DATAGRAM: u64 = 2;
    for (name, family) in [
        ("AF_PACKET", 17_u64),
        ("AF_VSOCK", 40),
        ("AF_ALG", 38),
        ("AF_XDP", 44),
        ("AF_KEY", 15),
        ("AF_TIPC", 30),
        ("AF_RDS", 21),
        ("AF_CAN", 29),
        ("AF_BLUETOOTH", 31),
        ("AF_SMC", 43),
        ("AF_X25", 9),
        ("AF_PACKET, odd bits", 1 << 32 | 17),
    ] {
        for kind in [RAW, DATAGRAM, 1] {
            tried.refused(name, call(SYS_SOCKET, &[family, kind, 0]), &[EPERM]);
        }
    }
    // Of netlink: what tells of the host's devices, and what is configured by root alone.
    for (name, protocol) in [
        ("kernel events", 15_u64),
        ("netfilter", 12),
        ("IPsec", 6),
        ("connector", 11),
        ("SCSI transport", 18),
        ("iSCSI", 8),
        ("RDMA", 20),
        ("crypto", 21),
        ("kernel events, odd bits", 1 << 32 | 15),
    ] {
        let got = call(SYS_SOCKET, &[16, RAW, protocol]);
        tried.refused(&format!("netlink: {name}"), got, &[EPERM]);
    }
    // The namespace is not the environment's own, so its root has no say in it.
    for (name, protocol) in [("raw ICMP", 1_u64), ("raw TCP", 6), ("raw anything", 255)] {
        tried.refused(name, call(SYS_SOCKET, &[2, RAW, protocol]), &[EPERM]);
    }
}

fn devices(tried: &mut Tried) {
    const BLOCK: u64 = 0o060_600;
    const CHARACTER: u64 = 0o020_600;
    for (name, kind, major, minor) in [
        ("a disk", BLOCK, 8_u64, 0_u64),
        ("a virtual disk", BLOCK, 254, 0),
        ("a loop device", BLOCK, 7, 0),
        ("memory", CHARACTER, 1, 1),
        ("I/O ports", CHARACTER, 1, 4),
        ("kernel messages", CHARACTER, 1, 11),
        ("loop control", CHARACTER, 10, 237),
        ("kvm", CHARACTER, 10, 232),
        ("fuse", CHARACTER, 10, 229),
        ("tun", CHARACTER, 10, 200),
    ] {
        for dir in ["/tmp", "/dev", "/dev/shm", "/run", "/home/sprite"] {
            let path = format!("{dir}/attack-{major}-{minor}\0");
            let got = call(SYS_MKNOD, &[at(path.as_str()), kind, major << 8 | minor]);
            tried.refused(&format!("mknod {name} in {dir}"), got, &[EPERM, EACCES]);
        }
    }
    for path in [
        "/dev/mem",
        "/dev/kmem",
        "/dev/kmsg",
        "/dev/port",
        "/dev/loop0",
        "/dev/loop-control",
        "/dev/sda",
        "/dev/vda",
        "/dev/kvm",
        "/dev/fuse",
        "/dev/net/tun",
        "/dev/userfaultfd",
        "/dev/vsock",
        "/dev/console",
        "/dev/tty0",
        "/dev/cpu/0/msr",
        "/dev/mapper/control",
    ] {
        tried.fails(&format!("open {path}"), std::fs::File::open(path));
    }
}

/// What no identity of the environment gives.
fn identity(tried: &mut Tried) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        u64::from_str_radix(line.unwrap_or("").trim(), 16).unwrap_or(u64::MAX)
    };
    // The bounding set, which also root has no more than. Source: include/uapi/linux/capability.h.
    for (name, bit) in [
        ("LINUX_IMMUTABLE", 9),
        ("NET_ADMIN", 12),
        ("SYS_MODULE", 16),
        ("SYS_RAWIO", 17),
        ("SYS_ADMIN", 21),
        ("SYS_BOOT", 22),
        ("SYS_NICE", 23),
        ("SYS_RESOURCE", 24),
        ("SYS_TIME", 25),
        ("MKNOD", 27),
        ("SYSLOG", 34),
        ("PERFMON", 38),
        ("BPF", 39),
    ] {
        for set in ["CapBnd:", "CapEff:", "CapPrm:", "CapInh:", "CapAmb:"] {
            let held = field(set) >> bit & 1 == 1;
            tried.holds(&format!("capability {name} in {set}"), !held, "not held");
        }
    }
    tried.holds("seccomp", status.contains("Seccomp:\t2"), "filtered");
    for file in ["uid_map", "gid_map"] {
        let path = format!("/proc/self/{file}");
        tried.fails(&format!("write {path}"), std::fs::write(path, "0 0 1"));
    }
    // Ids that the environment does not have.
    tried.refused("setuid beyond the range", call(105, &[65_535]), &[EINVAL]);
}
