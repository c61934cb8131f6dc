//! Settings of the kernel that a distribution's own start would make.

use std::fs;
use std::path::Path;

use crate::log::say;
use crate::sys;

/// Below /proc/sys; a kernel without one does not need it.
const SETTINGS: [(&str, &str); 8] = [
    // Everyone may ping, as with every distribution's own start.
    ("net/ipv4/ping_group_range", "0 2147483647"),
    // Namespaces of one's own, which browsers and others build their walls of. Two distributions restrict them.
    ("kernel/unprivileged_userns_clone", "1"),
    ("kernel/apparmor_restrict_unprivileged_userns", "0"),
    // No way leads out by IPv6. What is local stays.
    ("net/ipv6/conf/default/disable_ipv6", "1"),
    ("net/ipv6/conf/eth0/disable_ipv6", "1"),
    // Nobody reads core dumps beside their owner.
    ("fs/suid_dumpable", "0"),
    ("fs/protected_hardlinks", "1"),
    ("fs/protected_symlinks", "1"),
];

/// Applies them all. What a kernel refuses is told, and no reason not to start.
pub(super) fn apply() {
    for (name, value) in SETTINGS {
        let path = Path::new("/proc/sys").join(name);
        if path.exists()
            && let Err(error) = fs::write(&path, value)
        {
            say(format_args!("set {name}: {error}"));
        }
    }
    // How many there may be is the groups' to say, for all users together: the kernel's own limit is half of what it
    // can hold, for each of them but root, who would start another all the same.
    if let Err(error) = sys::limit(libc::RLIMIT_NPROC, libc::RLIM_INFINITY) {
        say(format_args!(
            "leave the number of processes to the groups: {error}"
        ));
    }
}
