//! Filters of system calls. Each call that is refused is a door to a part of the kernel that is not needed.
//!
//! The container driver shares the host's kernel, so the kernel's rarely used parts are closed: new namespaces
//! and mounts (with them netfilter, file systems and more are reached), keyrings, BPF, performance counters,
//! user-space page faults. The agent builds namespaces and mounts, so it keeps those calls; a network namespace
//! of its own, in which it would be root of the whole network code, it does not get.
//!
//! The monitor of a virtual machine needs none of it, and no socket but those of Unix.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

/// Calls that answer EPERM to the agent and to the environment.
const REFUSED: [libc::c_long; 35] = [
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_fanotify_init,
    libc::SYS_finit_module,
    libc::SYS_fspick,
    libc::SYS_init_module,
    libc::SYS_ioperm,
    libc::SYS_iopl,
    libc::SYS_kcmp,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_lookup_dcookie,
    libc::SYS_migrate_pages,
    libc::SYS_mount,
    libc::SYS_move_pages,
    libc::SYS_name_to_handle_at,
    libc::SYS_nfsservctl,
    libc::SYS_open_by_handle_at,
    libc::SYS_perf_event_open,
    libc::SYS_process_madvise,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
];

/// Calls that answer EPERM to the environment, and that the agent needs (or that do not matter there).
const REFUSED_INSIDE: [libc::c_long; 12] = [
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_mbind,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_pivot_root,
    libc::SYS_setdomainname,
    libc::SYS_setns,
    libc::SYS_umount2,
    libc::SYS_unshare,
];

/// Calls that answer EPERM to a monitor, besides those of an environment: there is no other process to look into.
const REFUSED_MONITOR: [libc::c_long; 5] = [
    libc::SYS_chroot,
    libc::SYS_pidfd_getfd,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
];

/// Calls that answer ENOSYS: libraries then use the older call, whose flags can be checked.
const HIDDEN: [libc::c_long; 4] = [
    libc::SYS_clone3,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
];

/// The first call that these filters know nothing of (`open_tree_attr`): it and all after it answer ENOSYS, as
/// they did when programs learned to do without them. Call numbers of the x32 ABI, other numbers for the same
/// calls, lie above it too. Source: arch/x86/entry/syscalls/syscall_64.tbl of Linux 6.15.
const FIRST_UNKNOWN: u32 = 467;

/// Families of sockets that can be had. Source: include/linux/socket.h.
const FAMILIES: [i32; 4] = [
    libc::AF_UNIX,
    libc::AF_INET,
    libc::AF_INET6,
    libc::AF_NETLINK,
];

/// What can be talked about over netlink: routes and links, sockets, generic matters, and audit, so that
/// programs hear from the kernel that it has none. Others tell of the host's devices (the machine's network
/// namespace belongs to the host's root, so the kernel's events are sent to it too), or are for root of a
/// network. Source: include/uapi/linux/netlink.h.
const NETLINK: [i32; 4] = [
    libc::NETLINK_ROUTE,
    libc::NETLINK_SOCK_DIAG,
    libc::NETLINK_AUDIT,
    libc::NETLINK_GENERIC,
];

/// Families end before this, with room for some that are not there yet.
const FAMILIES_END: i32 = 64;

/// Protocols of netlink end here. Source: include/uapi/linux/netlink.h, MAX_LINKS.
const NETLINK_END: i32 = 32;

/// Namespaces that nobody in a machine makes; the second has no name in older headers.
const CLOSED_NAMESPACES: [i32; 2] = [libc::CLONE_NEWNET, 0x80];

/// Namespaces that a process of the environment does not make.
const NAMESPACES: [i32; 7] = [
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
];

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Installs the filters of the environment's processes.
pub(crate) fn install_for_environment() -> io::Result<()> {
    let mut rules = refused(&REFUSED_INSIDE)?;
    rules.insert(libc::SYS_clone, any_flag(&NAMESPACES)?);
    install_all(rules)
}

/// Installs the filters of the agent; whatever it starts inherits them.
pub(crate) fn install_for_agent() -> io::Result<()> {
    let mut rules = refused(&[])?;
    rules.insert(libc::SYS_clone, any_flag(&[libc::CLONE_NEWNET])?);
    rules.insert(libc::SYS_unshare, any_flag(&CLOSED_NAMESPACES)?);
    install_all(rules)
}

/// Installs the filters of a virtual machine's monitor. A monitor has tighter ones of its own; these hold for
/// whichever it is, and before it has installed them.
pub(crate) fn install_for_monitor() -> io::Result<()> {
    let mut rules = refused(&REFUSED_INSIDE)?;
    let more = REFUSED_MONITOR.map(|call| (call, Vec::new()));
    rules.extend(more);
    rules.insert(libc::SYS_clone, any_flag(&NAMESPACES)?);
    // It has no terminal, and this call runs its guest: the kernel then passes it without a look at the filter.
    rules.remove(&libc::SYS_ioctl);
    let families = (0..FAMILIES_END).filter(|family| *family != libc::AF_UNIX);
    let families = families.map(|family| all_of(vec![equals(0, family.cast_unsigned())?]));
    rules.insert(libc::SYS_socket, families.collect::<io::Result<_>>()?);
    install_all(rules)
}

fn install_all(refused: Rules) -> io::Result<()> {
    install(&known_calls())?;
    let hidden = HIDDEN.iter().map(|&call| (call, Vec::new())).collect();
    for program in [
        compile(refused, libc::EPERM)?,
        compile(hidden, libc::ENOSYS)?,
    ] {
        let program: Vec<libc::sock_filter> = program
            .iter()
            .map(|i| libc::sock_filter {
                code: i.code,
                jt: i.jt,
                jf: i.jf,
                k: i.k,
            })
            .collect();
        install(&program)?;
    }
    Ok(())
}

fn install(program: &[libc::sock_filter]) -> io::Result<()> {
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(io::Error::other)?,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: `filter` points to a program of `len` instructions; both live over the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            &raw const filter,
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The filter of calls that the others cannot know.
fn known_calls() -> [libc::sock_filter; 4] {
    let op = |code: u32, jt, jf, k| libc::sock_filter {
        code: u16::try_from(code).expect("instruction codes have 16 bits"),
        jt,
        jf,
        k,
    };
    [
        op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        op(
            libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K,
            0,
            1,
            FIRST_UNKNOWN,
        ),
        op(
            libc::BPF_RET | libc::BPF_K,
            0,
            0,
            libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned(),
        ),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]
}

fn all_of(conditions: Vec<SeccompCondition>) -> io::Result<SeccompRule> {
    SeccompRule::new(conditions).map_err(io::Error::other)
}

fn equals(argument: u8, value: u32) -> io::Result<SeccompCondition> {
    // The kernel takes 32 bits of these arguments, whatever stands above them.
    let (length, compare) = (SeccompCmpArgLen::Dword, SeccompCmpOp::Eq);
    SeccompCondition::new(argument, length, compare, u64::from(value)).map_err(io::Error::other)
}

/// Any of these flags in the first argument.
fn any_flag(flags: &[i32]) -> io::Result<Vec<SeccompRule>> {
    flags
        .iter()
        .map(|flag| {
            let flag = u64::from(flag.cast_unsigned());
            let compare = SeccompCmpOp::MaskedEq(flag);
            let condition = SeccompCondition::new(0, SeccompCmpArgLen::Qword, compare, flag);
            all_of(vec![condition.map_err(io::Error::other)?])
        })
        .collect()
}

/// What is refused to everyone in a machine, and `more`.
fn refused(more: &[libc::c_long]) -> io::Result<Rules> {
    let mut rules: Rules = REFUSED
        .iter()
        .chain(more)
        .map(|&call| (call, Vec::new()))
        .collect();
    // Typing into the terminal of whoever is attached. Source: ioctl_tty(2), TIOCSTI and TIOCLINUX.
    let typing = [0x5412, 0x541C].map(|request| all_of(vec![equals(1, request)?]));
    rules.insert(
        libc::SYS_ioctl,
        typing.into_iter().collect::<io::Result<_>>()?,
    );
    let families = (0..FAMILIES_END).filter(|family| !FAMILIES.contains(family));
    let families = families.map(|family| all_of(vec![equals(0, family.cast_unsigned())?]));
    let protocols = (0..NETLINK_END).filter(|protocol| !NETLINK.contains(protocol));
    let netlink = libc::AF_NETLINK.cast_unsigned();
    let protocols = protocols.map(|protocol| {
        all_of(vec![
            equals(0, netlink)?,
            equals(2, protocol.cast_unsigned())?,
        ])
    });
    rules.insert(
        libc::SYS_socket,
        families.chain(protocols).collect::<io::Result<_>>()?,
    );
    Ok(rules)
}

fn compile(rules: Rules, errno: i32) -> io::Result<BpfProgram> {
    let refuse = SeccompAction::Errno(errno.cast_unsigned());
    let arch = std::env::consts::ARCH
        .try_into()
        .map_err(io::Error::other)?;
    SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch)
        .and_then(BpfProgram::try_from)
        .map_err(io::Error::other)
}
