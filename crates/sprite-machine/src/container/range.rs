//! Ranges of host user ids: each machine has one of its own, whichever server of this host started it.
//!
//! A range is taken by the lock on a file; the machine's agent keeps the file open, so the range is free again
//! exactly when the machine is gone, and survives the server.

use std::fs::{self, File, OpenOptions};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use sprite_agent_api::launch::RANGE;

use super::step;
use crate::MachineError;

/// The first id. Above all that distributions and other container managers hand out, below 2^31, which some
/// programs take for negative. Source: systemd's UIDS-GIDS.md, table of ranges.
const FIRST_ID: u32 = 0x7000_0000;

/// Ranges between [`FIRST_ID`] and 2^31.
const RANGES: u32 = (0x8000_0000 - FIRST_ID) / RANGE;

/// A range that nobody else of this host has.
#[derive(Debug)]
pub(super) struct IdRange {
    /// Its first id.
    pub(super) base: u32,
    /// Open for as long as the range is taken.
    pub(super) lock: OwnedFd,
}

/// Takes a free range.
pub(super) fn take(dir: &Path) -> Result<IdRange, MachineError> {
    fs::create_dir_all(dir).map_err(step(format!("make {}", dir.display())))?;
    for index in 0..RANGES {
        let path = dir.join(index.to_string());
        let file = open(&path).map_err(step(format!("open {}", path.display())))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                return Ok(IdRange {
                    base: FIRST_ID + index * RANGE,
                    lock: file.into(),
                });
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {}
            Err(error) => return Err(step(format!("lock {}", path.display()))(error.into())),
        }
    }
    Err(MachineError::Exhausted {
        what: "range of user ids",
        remedy: format!("{RANGES} machines run on this host; put some to sleep"),
    })
}

fn open(path: &Path) -> std::io::Result<File> {
    // Read-only: whoever gets hold of it in a machine can do nothing with it.
    match File::open(path) {
        Ok(file) => Ok(file),
        Err(_) => {
            OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(path)?;
            File::open(path)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_never_meet_and_come_back() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (one, two) = (
            take(dir.path()).expect("free"),
            take(dir.path()).expect("free"),
        );
        assert_eq!(two.base - one.base, RANGE);
        let first = one.base;
        drop(one);
        assert_eq!(take(dir.path()).expect("free").base, first);
    }
}
