//! What a process uses, read from `/proc`.

use std::fs;
use std::time::{Duration, Instant};

use crate::failure::{Failure, Outcome, io_failure};

/// How much of a monitor's memory is what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Proportional set size of all but the guest's memory, in bytes.
    pub(crate) own: u64,
    /// Pages of the guest's memory that are in no file: what it wrote since it booted or was loaded. In bytes.
    pub(crate) written: u64,
}

/// Looks at a monitor whose guest has `guest` bytes of memory, mapped in one piece.
///
/// # Errors
/// The process is gone, or has no such piece.
pub(crate) fn memory(pid: u32, guest: u64) -> Outcome<Memory> {
    let path = format!("/proc/{pid}/smaps");
    let text = fs::read_to_string(&path).map_err(io_failure(format!("read {path}")))?;
    divide(&text, guest).ok_or_else(|| Failure::Check(format!("{path} shows no guest's memory")))
}

/// Source: Documentation/filesystems/proc.rst, `smaps`.
fn divide(smaps: &str, guest: u64) -> Option<Memory> {
    let mut own = 0;
    let mut written = None;
    let mut is_guest = false;
    for line in smaps.lines() {
        let (name, rest) = line.split_once(char::is_whitespace)?;
        let bytes = || {
            let number = rest.trim().strip_suffix(" kB")?;
            Some(number.parse::<u64>().ok()? * 1024)
        };
        match name {
            // The first of each mapping's lines that begin with a word.
            "Size:" => is_guest = bytes()? >= guest,
            "Pss:" if !is_guest => own += bytes()?,
            "Anonymous:" if is_guest => written = Some(bytes()?),
            _ => {}
        }
    }
    Some(Memory {
        own,
        written: written?,
    })
}

/// Ticks of the processor in a second. Source: proc_pid_stat(5); USER_HZ is 100 on every Linux we run on.
const TICKS: u64 = 100;

/// How long a guest is looked at to tell whether it is busy, and what it may use of that if it is not.
const LOOK: Duration = Duration::from_secs(1);
const IDLE_TICKS: u64 = TICKS / 10;

/// Returns when a monitor and its guest have nothing to do any more, or after `patience`.
///
/// # Errors
/// The process is gone.
pub(crate) fn settle(pid: u32, patience: Duration) -> Outcome {
    let begun = Instant::now();
    let mut before = ticks(pid)?;
    while begun.elapsed() < patience {
        // Nothing tells that a guest is idle.
        std::thread::sleep(LOOK);
        let now = ticks(pid)?;
        if now - before <= IDLE_TICKS {
            return Ok(());
        }
        before = now;
    }
    Ok(())
}

/// What a process has used of the processors.
fn ticks(pid: u32) -> Outcome<u64> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).map_err(io_failure(format!("read {path}")))?;
    // The name before may hold spaces; utime and stime are the 12th and 13th field behind it.
    let fields = text.rsplit_once(')').map_or("", |(_, fields)| fields);
    let used = fields.split_whitespace().skip(11).take(2);
    Ok(used.filter_map(|field| field.parse::<u64>().ok()).sum())
}

/// Bytes that a process has given to files so far: those that it wrote, or those that were to go to a disk if they
/// were more.
///
/// # Errors
/// The process is gone.
pub(crate) fn written(pid: u32) -> Outcome<u64> {
    let path = format!("/proc/{pid}/io");
    let text = fs::read_to_string(&path).map_err(io_failure(format!("read {path}")))?;
    let field = |name: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|number| number.trim().parse().ok())
            .unwrap_or(0)
    };
    Ok(field("wchar:").max(field("write_bytes:")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guests_memory_is_told_from_the_monitors() {
        let smaps = "\
55d0c0000000-55d0c0100000 r-xp 00000000 08:01 1  /program
Size:               1024 kB
KernelPageSize:        4 kB
Pss:                 300 kB
Pss_Dirty:             0 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
7f0000000000-7f0008000000 rw-p 00000000 08:01 2  /memory
Size:             131072 kB
Pss:               90000 kB
Anonymous:          8192 kB
7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0  [stack]
Size:                132 kB
Pss:                  20 kB
Anonymous:            20 kB
";
        let memory = divide(smaps, 128 << 20).expect("the guest is there");
        assert_eq!((memory.own, memory.written), (320 << 10, 8192 << 10));
        assert_eq!(divide(smaps, 129 << 20), None);
    }

    #[test]
    fn a_process_that_does_nothing_has_settled() {
        let child = std::process::Command::new("sleep").arg("1000.5").spawn();
        let mut child = child.expect("sleep can be started");
        let begun = Instant::now();
        let settled = settle(child.id(), Duration::from_secs(60));
        child.kill().expect("the child is ours");
        child.wait().expect("the child is ours");
        settled.expect("it was there");
        assert!(begun.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn what_this_process_writes_is_counted() {
        let before = written(std::process::id()).expect("it is there");
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), [1; 10_000]).expect("written");
        let after = written(std::process::id()).expect("it is there");
        assert!(after >= before + 10_000, "{before} {after}");
    }
}
