//! The rows: each measures one thing, beside its floor, in the same minute and the same place.

mod boot;
mod disk;
mod size;
mod start;
mod wake;

use crate::agent::Host;
use crate::failure::{Failure, Outcome};
use crate::machine::Bench;
use crate::samples::Row;

/// Memory of a machine that is looked at in no relation to its size.
const MEMORY_MIB: u64 = 512;

/// Disk of a machine, with room for what is written to it.
const DISK_MIB: u64 = 512;

/// Measures everything, and tells each row as soon as it is known. What cannot be measured keeps nothing else from
/// being so.
///
/// # Errors
/// The first thing that could not be measured; `lost` was told of each.
pub(crate) fn all(
    bench: &Bench,
    tell: &mut dyn FnMut(Row) -> Outcome,
    lost: &dyn Fn(&Failure),
) -> Outcome {
    let mut host = Host::new()?;
    let mut first = Ok(());
    let parts: [Part; 4] = [starts, boots, sizes, disks];
    for part in parts {
        if let Err(failure) = part(bench, &mut host, tell) {
            lost(&failure);
            first = first.and(Err(failure));
        }
    }
    first
}

/// Rows that are measured together.
type Part = fn(&Bench, &mut Host, &mut dyn FnMut(Row) -> Outcome) -> Outcome;

fn starts(bench: &Bench, _: &mut Host, tell: &mut dyn FnMut(Row) -> Outcome) -> Outcome {
    tell(start::row(bench)?)
}

fn boots(bench: &Bench, host: &mut Host, tell: &mut dyn FnMut(Row) -> Outcome) -> Outcome {
    let booted = boot::rows(bench, host)?;
    tell(booted.row)?;
    wake::rows(bench, host, booted.machine)?
        .into_iter()
        .try_for_each(tell)
}

fn sizes(bench: &Bench, host: &mut Host, tell: &mut dyn FnMut(Row) -> Outcome) -> Outcome {
    tell(size::row(bench, host)?)
}

fn disks(bench: &Bench, _: &mut Host, tell: &mut dyn FnMut(Row) -> Outcome) -> Outcome {
    disk::rows(bench)?.into_iter().try_for_each(tell)
}
