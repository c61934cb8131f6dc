//! A monitor that was taken over: built alone and statically, and run in a jail in the monitor's place.
//!
//! `escape HOST_PID SOCKET` tries what must not work; every attempt is one line, `refused NAME HOW`, or `BROKE NAME
//! WHAT` if it worked, and the last line is `done COUNT`. `work` does what monitors do, and ends with `done`.

use std::fmt::Display;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

unsafe extern "C" {
    fn syscall(number: i64, ...) -> i64;
}

fn call(number: i64, args: &[u64]) -> io::Result<i64> {
    let a = |i: usize| args.get(i).copied().unwrap_or(0);
    // SAFETY: this program passes what it likes, at worst it dies. Pointers that it means to be valid live over
    // the call.
    match unsafe { syscall(number, a(0), a(1), a(2), a(3), a(4), a(5)) } {
        got if got < 0 => Err(io::Error::last_os_error()),
        got => Ok(got),
    }
}

fn at<T: ?Sized>(value: &T) -> u64 {
    std::ptr::from_ref(value).cast::<u8>() as u64
}

// Source: arch/x86/entry/syscalls/syscall_64.tbl.
const IOCTL: i64 = 16;
const SHMGET: i64 = 29;
const PTRACE: i64 = 101;
const KILL: i64 = 62;
const SETUID: i64 = 105;
const SETGID: i64 = 106;
const SETGROUPS: i64 = 116;
const CAPSET: i64 = 126;
const PIVOT_ROOT: i64 = 155;
const SETRLIMIT: i64 = 160;
const CHROOT: i64 = 161;
const MOUNT: i64 = 165;
const UMOUNT: i64 = 166;
const SETHOSTNAME: i64 = 170;
const INIT_MODULE: i64 = 175;
const MKNOD: i64 = 133;
const CLONE: i64 = 56;
const UNSHARE: i64 = 272;
const SETNS: i64 = 308;
const PROCESS_VM_READV: i64 = 310;
const BPF: i64 = 321;
const PERF_EVENT_OPEN: i64 = 298;
const KEYCTL: i64 = 250;
const OPEN_BY_HANDLE: i64 = 304;
const IO_URING_SETUP: i64 = 425;
const OPEN_TREE: i64 = 428;
const FSOPEN: i64 = 430;
const CLONE3: i64 = 435;
const USERFAULTFD: i64 = 323;
const SIGXFSZ: u64 = 25;
const RT_SIGACTION: i64 = 13;

#[derive(Default)]
struct Tried {
    lines: Vec<String>,
    refused: usize,
}

impl Tried {
    /// An attempt, which must fail.
    fn try_it<T>(&mut self, name: &str, attempt: io::Result<T>) {
        match attempt {
            Ok(_) => self.lines.push(format!("BROKE {name} it worked")),
            Err(error) => self.refuse(name, error),
        }
    }

    /// A look around, which must show what is expected.
    fn look(&mut self, name: &str, found: impl Display, expected: impl Display) {
        let (found, expected) = (found.to_string(), expected.to_string());
        if found == expected {
            self.refuse(name, format!("shows {found}"));
        } else {
            self.lines
                .push(format!("BROKE {name} shows {found}, not {expected}"));
        }
    }

    fn refuse(&mut self, name: &str, how: impl Display) {
        self.refused += 1;
        let how = how.to_string().replace('\n', " ");
        self.lines.push(format!("refused {name} {how}"));
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("escape") => {
            let mut tried = Tried::default();
            privileges(&mut tried);
            kernel(&mut tried);
            files(&mut tried);
            processes(&mut tried, &args[1]);
            network(&mut tried, &args[2]);
            limits(&mut tried);
            println!("{}\ndone {}", tried.lines.join("\n"), tried.refused);
        }
        Some("work") => match work() {
            Ok(()) => println!("done"),
            Err(error) => println!("could not {error}"),
        },
        Some("wait") => loop {
            std::thread::park();
        },
        _ => std::process::exit(2),
    }
}

fn names(directory: &str) -> String {
    let mut names: Vec<String> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names.join(" ")
}

fn status(field: &str) -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let words = line.unwrap_or(" missing").split_whitespace();
    words.collect::<Vec<_>>().join(" ")
}

const ID: u32 = 0x7fff_0000;

fn privileges(tried: &mut Tried) {
    let all = [ID; 4].map(|id| id.to_string()).join(" ");
    tried.look("user", status("Uid:"), &all);
    tried.look("group", status("Gid:"), &all);
    tried.look("groups", status("Groups:"), "");
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        tried.look(set, status(set), "0000000000000000");
    }
    tried.look("no_new_privs", status("NoNewPrivs:"), "1");
    tried.look("seccomp", status("Seccomp:"), "2");
    tried.look("environment", std::env::vars_os().count(), "0");
    tried.look("session", call(124, &[0]).unwrap_or(-1), "0");
    tried.try_it("setuid", call(SETUID, &[0]));
    tried.try_it("setgid", call(SETGID, &[0]));
    tried.try_it("setgroups", call(SETGROUPS, &[1, at(&[0_u32])]));
    let header = [0x2008_0522_u32, 0];
    let data = [u32::MAX; 6];
    tried.try_it("capset", call(CAPSET, &[at(&header), at(&data)]));
}

fn kernel(tried: &mut Tried) {
    let none = c"none";
    let root = c"/";
    let mount = [at(none), at(root), at(c"tmpfs"), 0, 0];
    tried.try_it("mount", call(MOUNT, &mount));
    tried.try_it("umount", call(UMOUNT, &[at(c"/proc"), 2]));
    tried.try_it("fsopen", call(FSOPEN, &[at(c"tmpfs"), 0]));
    tried.try_it("open_tree", call(OPEN_TREE, &[0, at(root), 1]));
    tried.try_it("pivot_root", call(PIVOT_ROOT, &[at(root), at(root)]));
    tried.try_it("chroot", call(CHROOT, &[at(c"/run")]));
    // Every namespace; the first would give capabilities in itself.
    for (name, flag) in [
        ("user", 0x1000_0000),
        ("mount", 0x2_0000),
        ("network", 0x4000_0000),
        ("pid", 0x2000_0000),
    ] {
        tried.try_it(&format!("unshare-{name}"), call(UNSHARE, &[flag]));
        // With the signal of a fork; a child that is born ends at once.
        match call(CLONE, &[flag | 17, 0, 0, 0, 0]) {
            Ok(0) => std::process::exit(0),
            made => tried.try_it(&format!("clone-{name}"), made),
        }
    }
    tried.try_it("clone3", call(CLONE3, &[at(&[0x1000_0000_u64; 11]), 88]));
    let own = File::open("/proc/self/ns/mnt");
    let own = own
        .as_ref()
        .map_or(u64::MAX, |file| file.as_raw_fd() as u64);
    tried.try_it("setns", call(SETNS, &[own, 0]));
    tried.try_it("init_module", call(INIT_MODULE, &[0, 0, at(c"")]));
    tried.try_it("bpf", call(BPF, &[0, at(&[1_u32, 4, 4, 1]), 16]));
    tried.try_it(
        "perf",
        call(PERF_EVENT_OPEN, &[at(&[0_u64; 16]), 0, 0, 0, 0]),
    );
    tried.try_it("keyctl", call(KEYCTL, &[0, u64::MAX - 2, 1]));
    tried.try_it("handle", call(OPEN_BY_HANDLE, &[0, at(&[0_u64; 8]), 0]));
    tried.try_it("io_uring", call(IO_URING_SETUP, &[1, at(&[0_u64; 32])]));
    tried.try_it("userfaultfd", call(USERFAULTFD, &[0]));
    tried.try_it("sethostname", call(SETHOSTNAME, &[at(c"x"), 1]));
}

fn files(tried: &mut Tried) {
    tried.look("root", names("/"), "dev disk kernel proc run snapshot vmm");
    tried.look("dev", names("/dev"), "kvm net urandom");
    tried.look("dev-net", names("/dev/net"), "tun");
    tried.look("run", names("/run"), "");
    for path in [
        "/etc/passwd",
        "/proc/sys/kernel/hostname",
        "/proc/kallsyms",
        "/sys",
        "/..",
    ] {
        if path == "/.." {
            let (up, top) = (fs::metadata(path), fs::metadata("/"));
            let same = up
                .and_then(|up| Ok(up.ino() == top?.ino()))
                .unwrap_or(false);
            tried.look("above", same, true);
        } else {
            tried.try_it(path, fs::metadata(path));
        }
    }
    for path in ["/vmm", "/kernel"] {
        tried.try_it(path, OpenOptions::new().write(true).open(path));
        tried.try_it(&format!("remove-{path}"), fs::remove_file(path));
    }
    for path in ["/new", "/dev/new", "/proc/self/oom_score_adj"] {
        tried.try_it(path, File::create(path));
    }
    tried.try_it("replace-run", fs::rename("/run", "/snapshot/run"));
    tried.try_it("replace-disk", fs::remove_file("/disk"));
    tried.try_it("link-root", symlink("/etc", "/link"));
    // A disk of the host: 8 is sd, 254 virtblk of many hosts, 7 loop.
    for (name, device) in [
        ("sda", 0x800_u64),
        ("vda", 0xfe00),
        ("loop0", 0x700),
        ("mem", 0x101),
    ] {
        let path = format!("/run/{name}\0");
        let made = call(MKNOD, &[at(path.as_str()), 0o060_600, device]);
        tried.try_it(&format!("mknod-{name}"), made);
    }
    // A program of its own is not executed from any place that it can write.
    let program = fs::read("/vmm").unwrap_or_default();
    for directory in ["/run", "/snapshot"] {
        let path = format!("{directory}/p");
        let (written, own) = (fs::write(&path, &program[..program.len().min(4096)]), &path);
        let mode = fs::Permissions::from_mode_of(0o700);
        drop((written, fs::set_permissions(own, mode)));
        let executed = std::process::Command::new(own).spawn();
        tried.look(
            &format!("execute-{directory}"),
            executed.map_or_else(
                |error| format!("{:?}", error.kind()),
                |_| "it ran".to_owned(),
            ),
            "PermissionDenied",
        );
        drop(fs::remove_file(own));
    }
    // The place for sockets is small.
    let filled = File::create("/run/large").and_then(|mut file| file.write_all(&[0; 1 << 20]));
    tried.try_it("fill-run", filled);
    drop(fs::remove_file("/run/large"));
    let many = (0..1000).try_for_each(|n| File::create(format!("/run/{n}")).map(drop));
    tried.try_it("many-files", many);
}

trait FromMode {
    fn from_mode_of(mode: u32) -> Self;
}

impl FromMode for fs::Permissions {
    fn from_mode_of(mode: u32) -> Self {
        std::os::unix::fs::PermissionsExt::from_mode(mode)
    }
}

fn processes(tried: &mut Tried, host: &str) {
    tried.look("pid", std::process::id(), 1);
    let visible: Vec<String> = names("/proc")
        .split(' ')
        .filter(|name| name.bytes().all(|b| b.is_ascii_digit()))
        .map(str::to_owned)
        .collect();
    tried.look("processes", visible.join(" "), "1");
    let host: u64 = host.parse().unwrap_or(1);
    tried.try_it("kill-host", call(KILL, &[host, 0]));
    tried.try_it("ptrace", call(PTRACE, &[16, host]));
    let piece = [at(&[0_u64; 1]), 8];
    let read = [host, at(&piece), 1, at(&piece), 1, 0];
    tried.try_it("read-memory", call(PROCESS_VM_READV, &read));
    // A segment of shared memory that the host has would be found by any key.
    let segments = (1..4096).filter(|key| call(SHMGET, &[*key, 1, 0]).is_ok());
    tried.look("shared-memory", segments.count(), 0);
    let name = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let outside = name.lines().filter(|line| line.contains("/../"));
    tried.look("cgroup-paths", outside.count(), 0);
    let mut name = [0_u8; 390];
    drop(call(63, &[at(&mut name)]));
    let name = &name[65..];
    let end = name.iter().position(|b| *b == 0).unwrap_or(0);
    tried.look("hostname", String::from_utf8_lossy(&name[..end]), "machine");
}

fn network(tried: &mut Tried, socket: &str) {
    for address in ["1.1.1.1:53", "127.0.0.1:22", "10.0.0.2:53"] {
        tried.try_it(address, TcpStream::connect(address));
    }
    tried.try_it("udp", UdpSocket::bind("0.0.0.0:0"));
    for (name, family, kind) in [
        ("packet", 17, 3),
        ("netlink", 16, 3),
        ("vsock", 40, 1),
        ("raw", 2, 3),
    ] {
        tried.try_it(name, call(41, &[family, kind, 255]));
    }
    let address = SocketAddr::from_abstract_name(socket);
    let host = address.and_then(|address| UnixStream::connect_addr(&address));
    tried.try_it("abstract-socket", host);
    // A tap that is not the machine's.
    tried.try_it("new-tap", tap(b"evil0"));
}

fn tap(name: &[u8]) -> io::Result<File> {
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")?;
    let mut request = [0_u8; 40];
    request[..name.len()].copy_from_slice(name);
    // IFF_TAP, IFF_NO_PI, IFF_VNET_HDR.
    request[16..18].copy_from_slice(&0x5002_u16.to_ne_bytes());
    call(
        IOCTL,
        &[device.as_raw_fd() as u64, 0x4004_54ca, at(&request)],
    )?;
    Ok(device)
}

fn limits(tried: &mut Tried) {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let limit = |name: &str| {
        let line = limits.lines().find_map(|line| line.strip_prefix(name));
        let words = line.unwrap_or_default().split_whitespace().take(2);
        words.collect::<Vec<_>>().join(" ")
    };
    tried.look("core", limit("Max core file size"), "0 0");
    tried.look("open-files", limit("Max open files"), "4096 4096");
    tried.look("file-size", limit("Max file size"), "1048576 1048576");
    let raised = [u64::MAX, u64::MAX];
    tried.try_it("raise", call(SETRLIMIT, &[1, at(&raised)]));
    // Beyond the limit the kernel sends a signal first; without it, the error is seen.
    let ignore = [1_u64, 0, 0, 0];
    drop(call(RT_SIGACTION, &[SIGXFSZ, at(&ignore), 0, 8]));
    let large = OpenOptions::new().write(true).open("/disk");
    tried.try_it("large-file", large.and_then(|file| file.set_len(2 << 20)));
    let mut open: Vec<i32> = names("/proc/self/fd")
        .split(' ')
        .filter_map(|fd| fd.parse().ok())
        .collect();
    open.sort_unstable();
    // 3 is the directory that is being read.
    tried.look("descriptors", format!("{open:?}"), "[0, 1, 2, 3, 100, 101]");
    tried.try_it("write-by-lock", call(1, &[100, at("x"), 1]));
    let again = OpenOptions::new().write(true).open("/proc/self/fd/100");
    tried.try_it("open-by-lock", again);
}

fn named<T>(what: &str, result: io::Result<T>) -> io::Result<T> {
    result.map_err(|error| io::Error::new(error.kind(), format!("{what}: {error}")))
}

/// What a monitor does.
fn work() -> io::Result<()> {
    let mut kernel = String::new();
    named("open the kernel", File::open("/kernel"))?.read_to_string(&mut kernel)?;
    let read_write = || OpenOptions::new().read(true).write(true).to_owned();
    let mut disk = named("open the disk", read_write().open("/disk"))?;
    named("write the disk", disk.write_all(b"disk"))?;
    named("flush the disk", disk.sync_all())?;
    let state = named("make a snapshot", File::create("/snapshot/state.new"))?;
    named("flush a snapshot", state.sync_all())?;
    let renamed = fs::rename("/snapshot/state.new", "/snapshot/state");
    named("publish a snapshot", renamed)?;
    let directory = File::open("/snapshot").and_then(|directory| directory.sync_all());
    named("flush the directory", directory)?;
    let kvm = named("open kvm", read_write().open("/dev/kvm"))?;
    // KVM_GET_API_VERSION
    named("ask kvm", call(IOCTL, &[kvm.as_raw_fd() as u64, 0xae00]))?;
    named("open tun", read_write().open("/dev/net/tun"))?;
    named("read randomness", File::open("/dev/urandom"))?.read_exact(&mut [0; 8])?;
    named("look at pages", File::open("/proc/self/pagemap"))?.read_exact(&mut [0; 8])?;
    let listener = named("listen", UnixListener::bind("/run/api.sock"))?;
    named("connect", UnixStream::connect("/run/api.sock"))?;
    named("accept", listener.accept())?;
    let thread = std::thread::Builder::new().spawn(|| ());
    named("start a thread", thread)?
        .join()
        .map_err(|_| io::Error::other("join"))
}
