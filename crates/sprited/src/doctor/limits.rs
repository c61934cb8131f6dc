//! How much of everything the host allows.

use std::fs;

use rustix::process::{Resource, getrlimit};

use super::check::Check;

/// Connections, streams and name servers of a hundred busy machines.
const FILES: u64 = 65_536;

/// Four machines that use up all the processes that they may have. Source: `Resources::default_for`.
const PROCESSES: u64 = 65_536;

/// Every machine has a network namespace and two of mounts.
const NAMESPACES: u64 = 1_024;

pub(super) fn look() -> Vec<Check> {
    let kernel = |path: &str| {
        let text = fs::read_to_string(path).ok()?;
        text.trim().parse::<u64>().ok()
    };
    let pids = ["/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"]
        .into_iter()
        .filter_map(kernel)
        .min();
    let namespaces = [
        "/proc/sys/user/max_net_namespaces",
        "/proc/sys/user/max_mnt_namespaces",
    ]
    .into_iter()
    .filter_map(kernel)
    .min();
    let files = getrlimit(Resource::Nofile).maximum;
    vec![
        limit(
            "open files",
            files,
            FILES,
            "raise it for the server: ulimit -Hn 1048576, or LimitNOFILE=1048576 in its systemd unit",
        ),
        limit(
            "processes",
            pids,
            PROCESSES,
            "sysctl kernel.pid_max=4194304 kernel.threads-max=4194304, and the same in /etc/sysctl.d to keep it",
        ),
        limit(
            "many machines",
            namespaces,
            NAMESPACES,
            "sysctl user.max_net_namespaces=15000 user.max_mnt_namespaces=15000, and the same in /etc/sysctl.d",
        ),
    ]
}

/// `None`: there is no limit.
fn limit(name: &'static str, allowed: Option<u64>, enough: u64, remedy: &str) -> Check {
    match allowed {
        None => Check::ok(name, "unlimited"),
        Some(allowed) if allowed >= enough => Check::ok(name, format!("up to {allowed}")),
        Some(allowed) => Check::warning(
            name,
            format!("up to {allowed}, which busy sprites use up"),
            remedy,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_itself_is_enough() {
        for (allowed, word) in [(None, "Ok"), (Some(10), "Ok"), (Some(9), "Warning")] {
            let check = format!("{:?}", limit("x", allowed, 10, "raise it"));
            assert!(check.contains(&format!("verdict: {word}")), "{check}");
        }
    }
}
