//! Loading a large guest against loading a small one that has touched as much.

use super::boot;
use super::wake::{self, Asleep};
use crate::agent::Host;
use crate::failure::Outcome;
use crate::machine::Bench;
use crate::samples::{Limit, Row, Samples};

const LARGE_MIB: u64 = 2048;
const SMALL_MIB: u64 = 128;

const ROUNDS: usize = 15;

pub(super) fn row(bench: &Bench, host: &mut Host) -> Outcome<Row> {
    let mut asleep = |name: &str, memory_mib| -> Outcome<Asleep> {
        let (machine, _) = boot::agent(bench, host, name, memory_mib)?;
        wake::sleep(machine)
    };
    let (large, small) = (asleep("large", LARGE_MIB)?, asleep("small", SMALL_MIB)?);
    let (mut times, mut floors) = (Samples::default(), Samples::default());
    for _ in 0..ROUNDS {
        floors.push(small.wake(bench, host)?.loaded);
        times.push(large.wake(bench, host)?.loaded);
    }
    large.files.remove()?;
    small.files.remove()?;
    Ok(Row::against(
        "load by size",
        &times,
        &floors,
        Limit::Most(1.1),
    ))
}
