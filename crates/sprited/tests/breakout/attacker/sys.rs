//! The little of the system that the attacker needs; it is built alone, without any crate.

use std::fmt::Display;

unsafe extern "C" {
    fn syscall(number: i64, ...) -> i64;
}

// Source: include/uapi/asm-generic/errno-base.h, errno.h.
pub const EPERM: i32 = 1;
pub const ENOENT: i32 = 2;
pub const ESRCH: i32 = 3;
pub const EACCES: i32 = 13;
pub const EROFS: i32 = 30;
pub const ENOSYS: i32 = 38;
pub const EINVAL: i32 = 22;
pub const ENODEV: i32 = 19;
pub const ENXIO: i32 = 6;
pub const EIO: i32 = 5;
pub const EBUSY: i32 = 16;

/// A raw system call of up to six arguments.
pub fn call(number: i64, args: &[u64]) -> Result<i64, i32> {
    let a = |i: usize| args.get(i).copied().unwrap_or(0);
    // SAFETY: this program is an attacker: it passes what it likes, at worst it dies. Pointers that it means to
    // be valid live over the call.
    let got = unsafe { syscall(number, a(0), a(1), a(2), a(3), a(4), a(5)) };
    if got < 0 {
        Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(-1))
    } else {
        Ok(got)
    }
}

/// Address of a terminated string or of a structure.
pub fn at<T: ?Sized>(value: &T) -> u64 {
    std::ptr::from_ref(value).cast::<u8>() as u64
}

/// A plain fork; 0 in the child.
pub fn fork() -> Result<i64, i32> {
    call(SYS_FORK, &[])
}

/// Waits for a child and returns its raw status.
pub fn wait(pid: i64) -> i32 {
    let status = 0_i32;
    let _ = call(SYS_WAIT4, &[pid as u64, at(&status), 0, 0]);
    // The kernel wrote behind the compiler's back.
    // SAFETY: reads an initialised integer.
    unsafe { std::ptr::read_volatile(&raw const status) }
}

pub fn exit(code: u64) -> ! {
    let _ = call(SYS_EXIT_GROUP, &[code]);
    std::process::abort()
}

pub fn kill(pid: i64, signal: u64) -> Result<i64, i32> {
    call(SYS_KILL, &[pid as u64, signal])
}

/// Collects what was tried and how it went, one line each.
#[derive(Default)]
pub struct Tried {
    pub lines: Vec<String>,
}

impl Tried {
    /// An attempt that must fail with one of `expected`.
    pub fn refused<T: Display>(&mut self, name: &str, got: Result<T, i32>, expected: &[i32]) {
        self.lines.push(match got {
            Ok(value) => format!("BROKE {name}: it worked ({value})"),
            Err(errno) if expected.contains(&errno) => format!("refused {name} {errno}"),
            Err(errno) => format!("BROKE {name}: error {errno}, not one of {expected:?}"),
        });
    }

    /// An attempt that must fail, in whatever way.
    pub fn fails<T>(&mut self, name: &str, got: Result<T, std::io::Error>) {
        self.lines.push(match got {
            Ok(_) => format!("BROKE {name}: it worked"),
            Err(error) => format!("refused {name} {error}"),
        });
    }

    /// Something that must be so.
    pub fn holds(&mut self, name: &str, so: bool, what: impl Display) {
        let verdict = if so { "refused" } else { "BROKE" };
        self.lines.push(format!("{verdict} {name} {what}"));
    }

    /// The whole report; the last line says that nothing is missing.
    pub fn report(&self) -> String {
        format!("{}\ndone {}\n", self.lines.join("\n"), self.lines.len())
    }
}

// Source: arch/x86/entry/syscalls/syscall_64.tbl.
pub const SYS_OPEN: i64 = 2;
pub const SYS_CLOSE: i64 = 3;
pub const SYS_IOCTL: i64 = 16;
pub const SYS_SOCKET: i64 = 41;
pub const SYS_CLONE: i64 = 56;
pub const SYS_FORK: i64 = 57;
pub const SYS_WAIT4: i64 = 61;
pub const SYS_KILL: i64 = 62;
pub const SYS_FLOCK: i64 = 73;
pub const SYS_PTRACE: i64 = 101;
pub const SYS_MKNOD: i64 = 133;
pub const SYS_CHROOT: i64 = 161;
pub const SYS_MOUNT: i64 = 165;
pub const SYS_EXIT_GROUP: i64 = 231;
pub const SYS_UNSHARE: i64 = 272;
pub const SYS_SETNS: i64 = 308;
pub const SYS_PIDFD_GETFD: i64 = 438;
pub const SYS_PIDFD_OPEN: i64 = 434;
