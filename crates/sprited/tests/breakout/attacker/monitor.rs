//! In a monitor's place: with the files, the devices and the privileges that the driver gives to monitors.

use std::fs;

use crate::network;
use crate::sys::*;

/// What a monitor answers when it is asked who it is. The driver starts no program that it does not know.
pub fn say_version() {
    println!("Firecracker v1.12.0");
}

pub fn all(tried: &mut Tried) {
    files(tried);
    privileges(tried);
    processes(tried);
    let hosts = ["127.0.0.1:22", "10.0.0.1:53", "169.254.169.254:80", "1.1.1.1:53"];
    network::all(tried, &hosts.map(str::to_owned));
}

fn files(tried: &mut Tried) {
    let entries = fs::read_dir("/").into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    let names = names.join(" ");
    let only = names == "dev disk initramfs kernel modules proc run snapshot vmm";
    tried.holds("the root", only, names);
    for path in [
        "/etc/passwd",
        "/../etc/passwd",
        "/proc/1/root/etc/passwd",
        "/proc/self/cwd/../etc/passwd",
        "/proc/self/fd/100/../../etc/passwd",
        "/run/sprited",
        "/sys",
        "/proc/sys",
        "/dev/mem",
        "/dev/vda",
        "/dev/loop0",
    ] {
        tried.fails(&format!("look at {path}"), fs::metadata(path));
    }
    for path in ["/kernel", "/initramfs", "/modules", "/vmm", "/dev/mine", "/mine"] {
        let opened = fs::OpenOptions::new().write(true).create(true).open(path);
        tried.fails(&format!("write {path}"), opened);
    }
}

fn privileges(tried: &mut Tried) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    for line in [
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
    ] {
        tried.holds("privileges", status.contains(line), line);
    }
    let variables = std::env::vars_os().count();
    tried.holds("variables", variables == 0, variables);
    for (name, number) in [("setuid", 105), ("setgid", 106)] {
        tried.holds(name, call(number, &[0]).is_err(), "to root's");
    }
    tried.holds("chroot", call(SYS_CHROOT, &[at("/run\0")]).is_err(), "to /run");
    let node = [at("/run/node\0"), 0o020_600, 1 << 8 | 1];
    tried.holds("mknod", call(SYS_MKNOD, &node).is_err(), "of memory");
    let none = at("none\0");
    let mounted = call(SYS_MOUNT, &[none, at("/run\0"), at("tmpfs\0"), 0, 0]);
    tried.holds("mount", mounted.is_err(), "over /run");
    for (name, flag) in [("user", 0x1000_0000), ("network", 0x4000_0000)] {
        let left = call(SYS_UNSHARE, &[flag]);
        tried.holds("unshare", left.is_err(), name);
    }
}

fn processes(tried: &mut Tried) {
    tried.holds("own id", std::process::id() == 1, std::process::id());
    for pid in [2, 100, 1000] {
        tried.refused("kill a process of the host", kill(pid, 9), &[ESRCH]);
        let traced = call(SYS_PTRACE, &[0x4206, pid as u64]);
        tried.holds("trace a process of the host", traced.is_err(), pid);
    }
    tried.refused("kill everyone", kill(-1, 9), &[ESRCH]);
}
