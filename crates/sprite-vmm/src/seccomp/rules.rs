//! The calls of each kind of thread.
//!
//! What all need to exist (memory, locks, signals, their own end) stands first; then each kind has what its
//! work is made of. A call that takes a command or a protection is held to the ones that are used.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{BackendError, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};

use super::Thread;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Memory, locks, the clock, the log, signals, the end.
const ANY: &[c_long] = &[
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_read,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_yield,
    libc::SYS_sigaltstack,
    libc::SYS_write,
    libc::SYS_writev,
];

/// Clients of the control socket.
const API: &[c_long] = &[
    libc::SYS_accept4,
    libc::SYS_ppoll,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
];

/// Snapshots, metrics, and a vCPU's attention.
const CONTROL: &[c_long] = &[
    libc::SYS_fallocate,
    libc::SYS_fdatasync,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_lseek,
    libc::SYS_openat,
    libc::SYS_ppoll,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_renameat,
    libc::SYS_statx,
    libc::SYS_tgkill,
    libc::SYS_timerfd_settime,
    libc::SYS_unlinkat,
];

/// A vCPU: the console's file, and devices that its guest resets.
const VCPU: &[c_long] = &[
    libc::SYS_epoll_ctl,
    libc::SYS_ftruncate,
    libc::SYS_ppoll,
    libc::SYS_pwrite64,
    libc::SYS_shutdown,
    libc::SYS_timerfd_settime,
];

/// Network, vsock, randomness.
const EVENT_LOOP: &[c_long] = &[
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_shutdown,
    libc::SYS_timerfd_settime,
];

/// A disk.
const BLOCK_WORKER: &[c_long] = &[
    libc::SYS_fallocate,
    libc::SYS_fdatasync,
    libc::SYS_ppoll,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
];

/// Calls that newer architectures have only in the form of the ones above.
#[cfg(target_arch = "x86_64")]
mod older {
    use libc::c_long;

    pub(super) const API: &[c_long] = &[libc::SYS_poll];
    pub(super) const CONTROL: &[c_long] = &[
        libc::SYS_newfstatat,
        libc::SYS_poll,
        libc::SYS_rename,
        libc::SYS_unlink,
    ];
    pub(super) const VCPU: &[c_long] = &[libc::SYS_poll];
    pub(super) const EVENT_LOOP: &[c_long] = &[libc::SYS_epoll_wait];
    pub(super) const BLOCK_WORKER: &[c_long] = &[libc::SYS_poll];
}

#[cfg(not(target_arch = "x86_64"))]
mod older {
    use libc::c_long;

    pub(super) const API: &[c_long] = &[];
    pub(super) const CONTROL: &[c_long] = &[libc::SYS_newfstatat];
    pub(super) const VCPU: &[c_long] = &[];
    pub(super) const EVENT_LOOP: &[c_long] = &[];
    pub(super) const BLOCK_WORKER: &[c_long] = &[];
}

/// Commands of `ioctl`, by type and number: the lower 16 bits. Source: `include/uapi/linux/kvm.h` and
/// `include/uapi/asm-generic/ioctls.h` of the kernel.
mod command {
    pub(super) const FIONBIO: u64 = 0x5421;
    pub(super) const KVM_GET_IRQCHIP: u64 = 0xae62;
    pub(super) const KVM_GET_CLOCK: u64 = 0xae7c;
    pub(super) const KVM_RUN: u64 = 0xae80;
    pub(super) const KVM_GET_REGS: u64 = 0xae81;
    pub(super) const KVM_GET_SREGS: u64 = 0xae83;
    pub(super) const KVM_GET_MSRS: u64 = 0xae88;
    pub(super) const KVM_GET_LAPIC: u64 = 0xae8e;
    pub(super) const KVM_GET_MP_STATE: u64 = 0xae98;
    /// Of a VM it is the timer, of a vCPU its events.
    pub(super) const KVM_GET_PIT2_OR_EVENTS: u64 = 0xae9f;
    pub(super) const KVM_GET_DEBUGREGS: u64 = 0xaea1;
    pub(super) const KVM_GET_TSC_KHZ: u64 = 0xaea3;
    pub(super) const KVM_GET_XSAVE: u64 = 0xaea4;
    pub(super) const KVM_GET_XCRS: u64 = 0xaea6;
    pub(super) const KVM_KVMCLOCK_CTRL: u64 = 0xaead;
    pub(super) const KVM_GET_DEVICE_ATTR: u64 = 0xaee2;
    pub(super) const PAGEMAP_SCAN: u64 = 0x6610;
    pub(super) const TUNSETOFFLOAD: u64 = 0x54d0;
}

/// Commands that the control needs: the state of what KVM keeps, and which pages are the guest's own.
const CONTROL_COMMANDS: &[u64] = &[
    command::PAGEMAP_SCAN,
    command::KVM_GET_IRQCHIP,
    command::KVM_GET_CLOCK,
    command::KVM_GET_PIT2_OR_EVENTS,
];

/// Commands that a vCPU needs: to run, and to tell its state.
const VCPU_COMMANDS: &[u64] = &[
    command::KVM_RUN,
    command::KVM_GET_REGS,
    command::KVM_GET_SREGS,
    command::KVM_GET_MSRS,
    command::KVM_GET_LAPIC,
    command::KVM_GET_MP_STATE,
    command::KVM_GET_PIT2_OR_EVENTS,
    command::KVM_GET_DEBUGREGS,
    command::KVM_GET_DEVICE_ATTR,
    command::KVM_GET_TSC_KHZ,
    command::KVM_GET_XSAVE,
    command::KVM_GET_XCRS,
    command::KVM_KVMCLOCK_CTRL,
];

/// Commands that the devices need: a network card that its guest has set up tells the tap.
const EVENT_LOOP_COMMANDS: &[u64] = &[command::FIONBIO, command::TUNSETOFFLOAD];

/// What a thread of this kind may call.
///
/// # Errors
/// A rule makes no sense to the compiler of filters.
pub(super) fn of(thread: Thread) -> Result<Rules, BackendError> {
    let (calls, older, commands): (&[c_long], &[c_long], &[u64]) = match thread {
        Thread::Api => (API, older::API, &[command::FIONBIO]),
        Thread::Control => (CONTROL, older::CONTROL, CONTROL_COMMANDS),
        Thread::Vcpu => (VCPU, older::VCPU, VCPU_COMMANDS),
        Thread::EventLoop => (EVENT_LOOP, older::EVENT_LOOP, EVENT_LOOP_COMMANDS),
        Thread::BlockWorker => (BLOCK_WORKER, older::BLOCK_WORKER, &[]),
    };
    let mut rules = Rules::new();
    for call in ANY.iter().chain(calls).chain(older) {
        rules.insert(*call, Vec::new());
    }
    // A build for debugging looks at descriptors before it closes them.
    rules.insert(libc::SYS_fcntl, vec![is_look_at_flags()?]);
    rules.insert(libc::SYS_mmap, vec![never_executable()?]);
    rules.insert(libc::SYS_mprotect, vec![never_executable()?]);
    if !commands.is_empty() {
        let allowed = commands.iter().map(|command| is_command(*command));
        rules.insert(libc::SYS_ioctl, allowed.collect::<Result<_, _>>()?);
    }
    if thread == Thread::EventLoop {
        // To the host's end of a connection that the guest opens.
        rules.insert(libc::SYS_socket, vec![is_unix()?]);
    }
    Ok(rules)
}

/// The third argument lacks `PROT_EXEC`.
fn never_executable() -> Result<SeccompRule, BackendError> {
    let execute = u64::from(libc::PROT_EXEC.unsigned_abs());
    rule(2, SeccompCmpOp::MaskedEq(execute), 0)
}

/// The second argument is a command with this type and number.
fn is_command(command: u64) -> Result<SeccompRule, BackendError> {
    rule(1, SeccompCmpOp::MaskedEq(0xffff), command)
}

/// The second argument is `F_GETFD`.
fn is_look_at_flags() -> Result<SeccompRule, BackendError> {
    rule(1, SeccompCmpOp::Eq, u64::from(libc::F_GETFD.unsigned_abs()))
}

/// The first argument is `AF_UNIX`.
fn is_unix() -> Result<SeccompRule, BackendError> {
    rule(0, SeccompCmpOp::Eq, u64::from(libc::AF_UNIX.unsigned_abs()))
}

fn rule(argument: u8, is: SeccompCmpOp, value: u64) -> Result<SeccompRule, BackendError> {
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, is, value)?;
    SeccompRule::new(vec![condition])
}
