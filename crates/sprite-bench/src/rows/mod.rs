//! The rows: each measures one thing, beside its floor, in the same minute and the same place.

mod boot;
mod disk;
mod size;
mod start;
mod wake;

use crate::agent::Host;
use crate::failure::Outcome;
use crate::machine::Bench;
use crate::samples::Row;

/// Memory of a machine that is looked at in no relation to its size.
const MEMORY_MIB: u64 = 512;

/// Disk of a machine, with room for what is written to it.
const DISK_MIB: u64 = 512;

/// Measures everything, and tells each row as soon as it is known.
///
/// # Errors
/// Something cannot be measured.
pub(crate) fn all(bench: &Bench, tell: &mut dyn FnMut(Row) -> Outcome) -> Outcome {
    let mut host = Host::new()?;
    tell(start::row(bench)?)?;
    let booted = boot::rows(bench, &mut host)?;
    tell(booted.row)?;
    for row in wake::rows(bench, &mut host, booted.machine)? {
        tell(row)?;
    }
    tell(size::row(bench, &mut host)?)?;
    for row in disk::rows(bench)? {
        tell(row)?;
    }
    Ok(())
}
