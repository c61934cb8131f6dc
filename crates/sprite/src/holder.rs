//! Which process has a port here: Linux tells it in /proc, of the user's own processes at least.

use std::fs;
use std::path::Path;

/// `st` of a socket that listens. Source: proc_net_tcp(5), net/tcp_states.h.
const LISTENS: &str = "0A";

/// Who listens on a local port, as `name (process 123)`; `None` where that cannot be told.
pub(crate) fn of(port: u16) -> Option<String> {
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"]
        .into_iter()
        .find_map(|table| listener(&fs::read_to_string(table).ok()?, port))?;
    let link = format!("socket:[{inode}]");
    let has_it = |process: &Path| {
        let descriptors = fs::read_dir(process.join("fd")).into_iter().flatten();
        descriptors.flatten().any(|entry| {
            fs::read_link(entry.path()).is_ok_and(|target| target.as_os_str() == link.as_str())
        })
    };
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let id: u32 = entry.file_name().to_str()?.parse().ok()?;
        let process = entry.path();
        let name = has_it(&process).then(|| fs::read_to_string(process.join("comm")).ok())??;
        Some(format!("{} (process {id})", name.trim_end()))
    })
}

/// The inode of the socket that listens on a port, in a table of the kernel.
fn listener(table: &str, port: u16) -> Option<String> {
    let wanted = format!(":{port:04X}");
    table.lines().skip(1).find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let local = words.nth(1)?;
        let state = words.nth(1)?;
        let inode = words.nth(5)?;
        (local.ends_with(&wanted) && state == LISTENS).then(|| inode.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_process_is_found() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = socket.local_addr().expect("it is bound").port();
        let found = of(port).expect("it is ours");
        assert!(
            found.contains(&format!("(process {})", std::process::id())),
            "{found}"
        );
        drop(socket);
        assert_eq!(of(port), None);
    }
}
