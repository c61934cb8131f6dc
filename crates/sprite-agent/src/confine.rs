//! What a process of the environment may not do although its namespaces would let it.
//!
//! The container driver shares the host's kernel, so the kernel's rarely used parts are closed: new user
//! namespaces and mounts (with them netfilter, file systems and more are reached), keyrings, BPF, performance
//! counters, user-space page faults. `no_new_privs` stays off: `sudo` works inside.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

/// Capabilities that the environment's root keeps, all of them over its own ids alone.
/// Source: include/uapi/linux/capability.h.
const KEPT: [u32; 15] = [
    0,  // CHOWN
    1,  // DAC_OVERRIDE
    2,  // DAC_READ_SEARCH
    3,  // FOWNER
    4,  // FSETID
    5,  // KILL
    6,  // SETGID
    7,  // SETUID
    8,  // SETPCAP
    10, // NET_BIND_SERVICE
    13, // NET_RAW
    18, // SYS_CHROOT
    19, // SYS_PTRACE
    29, // AUDIT_WRITE
    31, // SETFCAP
];

/// The last capability that any kernel we know has; dropping one that it lacks is refused, and that is fine.
const LAST: u32 = 63;

/// Takes every other capability out of the bounding set: no program, set-uid or not, gets it back.
pub(crate) fn limit_capabilities() -> io::Result<()> {
    for capability in (0..=LAST).filter(|capability| !KEPT.contains(capability)) {
        // SAFETY: takes numbers, no memory.
        let done = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        if done != 0 {
            let error = io::Error::last_os_error();
            if error.raw_os_error() != Some(libc::EINVAL) {
                return Err(error);
            }
        }
    }
    set_capabilities(1 << SYS_ADMIN)
}

const SYS_ADMIN: u32 = 21;

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `_LINUX_CAPABILITY_VERSION_3`. Source: include/uapi/linux/capability.h.
const CAP_VERSION: u32 = 0x2008_0522;

/// This process itself has only the kept ones from here on, and `also`.
fn set_capabilities(also: u32) -> io::Result<()> {
    let low = KEPT
        .iter()
        .fold(also, |set: u32, capability| set | 1 << capability);
    let data = [
        CapData {
            effective: low,
            permitted: low,
            inheritable: 0,
        },
        CapData {
            effective: 0,
            permitted: 0,
            inheritable: 0,
        },
    ];
    let header = CapHeader {
        version: CAP_VERSION,
        pid: 0,
    };
    // SAFETY: header and the two data words are what version 3 of the call reads; both live over the call.
    let done = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Calls that answer EPERM. Each is a door to a part of the kernel that the environment does not need.
const REFUSED: [libc::c_long; 47] = [
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_fanotify_init,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_init_module,
    libc::SYS_ioperm,
    libc::SYS_iopl,
    libc::SYS_kcmp,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_lookup_dcookie,
    libc::SYS_mbind,
    libc::SYS_migrate_pages,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_move_pages,
    libc::SYS_name_to_handle_at,
    libc::SYS_nfsservctl,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pivot_root,
    libc::SYS_process_madvise,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setdomainname,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
];

/// Installs the filters for this process and all that it starts, and gives up what was needed for that.
///
/// Without `no_new_privs` the kernel asks for `SYS_ADMIN`, which [`limit_capabilities`] left in force for this
/// very call; it is out of the bounding set, so no later program has it.
pub(crate) fn filter_system_calls() -> io::Result<()> {
    install(&foreign_abi())?;
    for program in [refusing()?, hiding()?] {
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
    set_capabilities(0)
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

/// Call numbers of the x32 ABI are other numbers for the same calls, and would pass the filters below.
fn foreign_abi() -> [libc::sock_filter; 4] {
    const X32_BIT: u32 = 0x4000_0000;
    let op = |code: u32, jt, jf, k| libc::sock_filter {
        code: u16::try_from(code).expect("instruction codes have 16 bits"),
        jt,
        jf,
        k,
    };
    [
        op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        op(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 0, 1, X32_BIT),
        op(
            libc::BPF_RET | libc::BPF_K,
            0,
            0,
            libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned(),
        ),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]
}

fn masked(argument: u8, mask: u64, value: u64) -> io::Result<SeccompRule> {
    let compare = SeccompCmpOp::MaskedEq(mask);
    SeccompCondition::new(argument, SeccompCmpArgLen::Qword, compare, value)
        .and_then(|condition| SeccompRule::new(vec![condition]))
        .map_err(io::Error::other)
}

fn equals(argument: u8, value: u64) -> io::Result<SeccompRule> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
        .and_then(|condition| SeccompRule::new(vec![condition]))
        .map_err(io::Error::other)
}

/// The filter whose calls answer EPERM.
fn refusing() -> io::Result<BpfProgram> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        REFUSED.iter().map(|&call| (call, Vec::new())).collect();
    // A fork into any new namespace.
    let namespaces = [
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWNS,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWCGROUP,
    ];
    let clone = namespaces
        .iter()
        .map(|&flag| {
            let flag = u64::from(flag.cast_unsigned());
            masked(0, flag, flag)
        })
        .collect::<io::Result<_>>()?;
    rules.insert(libc::SYS_clone, clone);
    // Typing into the terminal of whoever is attached. Source: ioctl_tty(2), TIOCSTI and TIOCLINUX.
    rules.insert(
        libc::SYS_ioctl,
        vec![equals(1, 0x5412)?, equals(1, 0x541C)?],
    );
    // Sockets of families beyond Unix, IPv4, IPv6 and routing information.
    let allowed = [
        libc::AF_UNIX,
        libc::AF_INET,
        libc::AF_INET6,
        libc::AF_NETLINK,
    ];
    let families = (0..64).filter(|family| !allowed.contains(family));
    let socket = families
        .map(|family: i32| equals(0, u64::from(family.cast_unsigned())))
        .collect::<io::Result<_>>()?;
    rules.insert(libc::SYS_socket, socket);
    compile(rules, libc::EPERM)
}

/// The filter whose calls answer ENOSYS: libraries then use the older call, whose flags can be checked.
fn hiding() -> io::Result<BpfProgram> {
    let calls = [libc::SYS_clone3, libc::SYS_io_uring_setup];
    compile(calls.map(|call| (call, Vec::new())).into(), libc::ENOSYS)
}

fn compile(rules: BTreeMap<i64, Vec<SeccompRule>>, errno: i32) -> io::Result<BpfProgram> {
    let refuse = SeccompAction::Errno(errno.cast_unsigned());
    let arch = std::env::consts::ARCH
        .try_into()
        .map_err(io::Error::other)?;
    SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch)
        .and_then(BpfProgram::try_from)
        .map_err(io::Error::other)
}
