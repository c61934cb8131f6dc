//! What a process may not do although its namespaces would let it: capabilities here, calls in [`crate::filter`].
//!
//! Two kinds of processes are confined: those of the environment, and in the container driver the agent itself,
//! which faces hostile code and shares the host's kernel. `no_new_privs` stays off: `sudo` works inside.

use std::io;

use sprite_types::Confinement;

use crate::filter;

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

/// Capabilities of the agent, over the machine's ids and namespaces alone. It is the owner of the environment's
/// user namespace and so has all of them there.
const AGENTS: [u32; 8] = [
    1,  // DAC_OVERRIDE: directories that belong to the environment's root
    5,  // KILL
    6,  // SETGID: maps of ids, files made as the environment's root
    7,  // SETUID
    18, // SYS_CHROOT: entering mount namespaces
    19, // SYS_PTRACE: entering the environment, whose first process hides
    21, // SYS_ADMIN: mounts and namespaces
    31, // SETFCAP: maps of ids
];

/// The last capability that any kernel we know has; dropping one that it lacks is refused, and that is fine.
const LAST: u32 = 63;

/// Takes every other capability out of the bounding set: no program, set-uid or not, gets it back.
pub(crate) fn limit_capabilities() -> io::Result<()> {
    drop_all_but(&KEPT)?;
    set_capabilities(1 << SYS_ADMIN)
}

fn drop_all_but(kept: &[u32]) -> io::Result<()> {
    for capability in (0..=LAST).filter(|capability| !kept.contains(capability)) {
        // SAFETY: takes numbers, no memory.
        let done = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        if done != 0 {
            let error = io::Error::last_os_error();
            if error.raw_os_error() != Some(libc::EINVAL) {
                return Err(error);
            }
        }
    }
    Ok(())
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

/// Installs the environment's filters for this process and all that it starts, and gives up what was needed for
/// that.
///
/// Without `no_new_privs` the kernel asks for `SYS_ADMIN`, which [`limit_capabilities`] left in force for this
/// very call; it is out of the bounding set, so no later program has it.
pub(crate) fn filter_system_calls() -> io::Result<()> {
    filter::install_for_environment()?;
    set_capabilities(0)
}

/// Confines a session beyond what holds for all of its environment, for this process and all that it starts.
pub(crate) fn confine_session(confinement: Confinement) -> io::Result<()> {
    match confinement {
        Confinement::Usual => Ok(()),
        Confinement::NoNewPrivileges => no_new_privileges(),
        Confinement::NoCapabilities => {
            drop_all_but(&[])?;
            no_new_privileges()
        }
    }
}

fn no_new_privileges() -> io::Result<()> {
    // SAFETY: takes numbers, no memory.
    match unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The program that is executed next gets no capability by any means, once it is not root.
pub(crate) fn limit_to_no_capability() -> io::Result<()> {
    drop_all_but(&[])
}

/// Confines the program that is executed next: it is to be the agent, as root of the machine.
pub(crate) fn confine_agent() -> io::Result<()> {
    drop_all_but(&AGENTS)?;
    filter::install_for_agent()
}
