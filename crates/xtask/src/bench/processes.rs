//! What our processes use, read from `/proc`.

use std::time::Duration;

use crate::failure::{Failure, Outcome};

/// Ticks of `/proc/PID/stat` in a second. Source: proc_pid_stat(5); USER_HZ is 100 on every Linux we run on.
const TICKS: f64 = 100.0;

/// Processes whose command line has `word` as one of its words.
///
/// # Errors
/// `/proc` cannot be read.
pub fn with_word(word: &str) -> Outcome<Vec<u32>> {
    Ok(all()?
        .into_iter()
        .filter(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0)
                .any(|other| other == word.as_bytes())
        })
        .collect())
}

/// Processes in a cgroup whose path holds `name`.
///
/// # Errors
/// `/proc` cannot be read.
pub fn in_group(name: &str) -> Outcome<Vec<u32>> {
    Ok(all()?
        .into_iter()
        .filter(|pid| {
            let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup"));
            groups.is_ok_and(|groups| groups.contains(name))
        })
        .collect())
}

/// A process and all that descend from it or have been handed to it.
///
/// # Errors
/// `/proc` cannot be read.
pub fn family(root: u32) -> Outcome<Vec<u32>> {
    let parents: Vec<(u32, u32)> = all()?
        .into_iter()
        .filter_map(|pid| Some((pid, parent(pid)?)))
        .collect();
    let mut family = vec![root];
    let mut next = 0;
    while let Some(one) = family.get(next).copied() {
        family.extend(
            parents
                .iter()
                .filter(|(_, parent)| *parent == one)
                .map(|(pid, _)| *pid),
        );
        next += 1;
    }
    Ok(family)
}

/// Proportional set size in bytes. Source: Documentation/filesystems/proc.rst, `smaps_rollup`.
pub fn pss(pid: u32) -> u64 {
    field(&format!("/proc/{pid}/smaps_rollup"), "Pss:") * 1024
}

/// Resident set size in bytes.
pub fn rss(pid: u32) -> u64 {
    field(&format!("/proc/{pid}/status"), "VmRSS:") * 1024
}

/// CPU time that a process used so far.
pub fn cpu(pid: u32) -> Duration {
    let ticks = stat(pid).map_or(0.0, |fields| {
        // utime and stime are the 14th and 15th field; the first two are cut off before.
        [11, 12]
            .iter()
            .filter_map(|at| fields.get(*at)?.parse::<f64>().ok())
            .sum()
    });
    Duration::from_secs_f64(ticks / TICKS)
}

fn all() -> Outcome<Vec<u32>> {
    Ok(std::fs::read_dir("/proc")
        .map_err(Failure::io("list /proc"))?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect())
}

fn parent(pid: u32) -> Option<u32> {
    stat(pid)?.get(1)?.parse().ok()
}

/// The fields of `/proc/PID/stat` after the name, which may hold spaces.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

/// A number of kibibytes on the line that begins with `name`, or 0 for a process that is gone.
fn field(path: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_memory_and_is_in_its_own_family() {
        let own = std::process::id();
        assert!(rss(own) > 0 && pss(own) > 0);
        assert!(pss(own) <= rss(own));
        assert!(family(own).expect("/proc can be read").contains(&own));
    }

    #[test]
    fn a_child_is_in_the_family() {
        let mut child = std::process::Command::new("sleep")
            .arg("1000.125")
            .spawn()
            .expect("sleep can be started");
        let family = family(std::process::id()).expect("/proc can be read");
        child.kill().expect("the child is ours");
        child.wait().expect("the child is ours");
        assert!(family.contains(&child.id()));
    }

    #[test]
    fn a_process_that_is_gone_uses_nothing() {
        assert_eq!(
            (pss(u32::MAX), rss(u32::MAX), cpu(u32::MAX)),
            (0, 0, Duration::ZERO)
        );
    }
}
