//! A cold boot until the agent answers, against the same kernel with a first program that only prints.

use std::io::BufRead;
use std::process::Stdio;
use std::time::{Duration, Instant};

use sprite_agent_api::guest::READY_PORT;
use sprite_bench::talk::PRINTED;

use super::{DISK_MIB, MEMORY_MIB};
use crate::agent::Host;
use crate::failure::{Failure, Outcome, io_failure};
use crate::machine::{self, Bench, Files, First};
use crate::monitor::Monitor;
use crate::samples::{Limit, Row, Samples};

const ROUNDS: usize = 5;

/// A machine whose agent has answered.
pub(super) struct Machine {
    pub(super) files: Files,
    pub(super) monitor: Monitor,
    pub(super) memory_mib: u64,
}

/// What came of the boots.
pub(super) struct Booted {
    pub(super) row: Row,
    /// The last of them.
    pub(super) machine: Machine,
}

pub(super) fn rows(bench: &Bench, host: &mut Host) -> Outcome<Booted> {
    let (mut times, mut floors) = (Samples::default(), Samples::default());
    let mut last: Option<Machine> = None;
    for round in 0..ROUNDS {
        if let Some(before) = last.take() {
            drop(before.monitor);
            before.files.remove()?;
        }
        floors.push(print(bench, &format!("print-{round}"))?);
        let (machine, took) = agent(bench, host, &format!("boot-{round}"), MEMORY_MIB)?;
        times.push(took);
        last = Some(machine);
    }
    Ok(Booted {
        row: Row::against("boot", &times, &floors, Limit::Most(1.3)),
        machine: last.expect("there is at least one round"),
    })
}

/// Boots a machine until its agent answers.
pub(super) fn agent(
    bench: &Bench,
    host: &mut Host,
    name: &str,
    memory_mib: u64,
) -> Outcome<(Machine, Duration)> {
    let files = bench.files(name, DISK_MIB)?;
    let mut monitor = bench.configure(&files, First::Agent, memory_mib, files.console()?)?;
    let door = files.listen(READY_PORT)?;
    let begun = Instant::now();
    machine::run(&mut monitor)?;
    door.accept()?;
    host.ping(&files.vsock())?;
    let took = begun.elapsed();
    let machine = Machine {
        files,
        monitor,
        memory_mib,
    };
    Ok((machine, took))
}

/// Boots a machine until its first program prints.
fn print(bench: &Bench, name: &str) -> Outcome<Duration> {
    let files = bench.files(name, DISK_MIB)?;
    let mut monitor = bench.configure(&files, First::Prints, MEMORY_MIB, Stdio::piped())?;
    let mut console = monitor.take_console()?;
    let begun = Instant::now();
    machine::run(&mut monitor)?;
    let mut line = String::new();
    while !line.contains(PRINTED) {
        line.clear();
        let length = console
            .read_line(&mut line)
            .map_err(io_failure("read the guest's console"))?;
        if length == 0 {
            return Err(Failure::Check("the guest printed nothing".to_owned()));
        }
    }
    let took = begun.elapsed();
    drop(monitor);
    files.remove()?;
    Ok(took)
}
