//! Ranges of host user ids: each machine has one of its own, whichever server of this host started it.
//!
//! A range is taken by locks on a file. The machine's first process keeps the file open, so the range is free again
//! exactly when the machine is gone, and survives the server. One that was taken over could let its lock
//! go; so the server holds one of its own for as long as it has the machine, and again when it adopts it.

use std::fs::{self, File, OpenOptions};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use sprite_agent_api::launch::RANGE;

use crate::MachineError;
use crate::failure::step;

/// The first id. Above all that distributions and other container managers hand out, below 2^31, which some
/// programs take for negative. Source: systemd's UIDS-GIDS.md, table of ranges.
const FIRST_ID: u32 = 0x7000_0000;

/// Ranges between [`FIRST_ID`] and 2^31.
const RANGES: u32 = (0x8000_0000 - FIRST_ID) / RANGE;

/// A range that nobody else of this host has.
#[derive(Debug)]
pub(crate) struct IdRange {
    /// Its first id.
    pub(crate) base: u32,
    /// The agent's mark, open for as long as the range is taken.
    pub(crate) agents: OwnedFd,
    /// The server's own mark.
    pub(crate) ours: OwnedFd,
}

/// Takes a free range.
pub(crate) fn take(dir: &Path) -> Result<IdRange, MachineError> {
    fs::create_dir_all(dir).map_err(step(format!("make {}", dir.display())))?;
    for index in 0..RANGES {
        let path = dir.join(index.to_string());
        match take_one(&path) {
            Ok([ours, agents]) => {
                return Ok(IdRange {
                    base: FIRST_ID + index * RANGE,
                    agents,
                    ours,
                });
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(step(format!("lock {}", path.display()))(error)),
        }
    }
    Err(MachineError::Exhausted {
        what: "range of user ids",
        remedy: format!("{RANGES} machines run on this host; put some to sleep"),
    })
}

/// Two marks on a range that had none.
fn take_one(path: &Path) -> std::io::Result<[OwnedFd; 2]> {
    let ours = open(path)?;
    flock(&ours, FlockOperation::NonBlockingLockExclusive)?;
    // Becoming a shared one is not a single step: whoever gets in between has the range, and we look further.
    flock(&ours, FlockOperation::NonBlockingLockShared)?;
    let agents = open(path)?;
    flock(&agents, FlockOperation::NonBlockingLockShared)?;
    Ok([ours.into(), agents.into()])
}

/// Marks the range of a machine that runs, from `base` on.
pub(crate) fn mark(dir: &Path, base: u32) -> std::io::Result<OwnedFd> {
    let index = base.checked_sub(FIRST_ID).map(|above| above / RANGE);
    let index = index.ok_or(std::io::ErrorKind::InvalidData)?;
    let file = open(&dir.join(index.to_string()))?;
    flock(&file, FlockOperation::NonBlockingLockShared)?;
    Ok(file.into())
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

    #[test]
    fn an_agent_that_lets_go_gives_nothing_away() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let one = take(dir.path()).expect("free");
        flock(&one.agents, FlockOperation::Unlock).expect("it can");
        assert_ne!(take(dir.path()).expect("free").base, one.base);
        // The server is started again while the agent runs.
        let two = take(dir.path()).expect("free");
        drop(two.ours);
        let again = mark(dir.path(), two.base).expect("still marked by the agent");
        drop(two.agents);
        assert_ne!(take(dir.path()).expect("free").base, two.base);
        drop(again);
        assert_eq!(take(dir.path()).expect("free").base, two.base);
    }
}
