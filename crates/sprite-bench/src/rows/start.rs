//! A monitor's start until its control socket takes a connection, against a program that does nothing.

use std::process::Stdio;
use std::time::Instant;

use crate::failure::{Outcome, io_failure};
use crate::floor;
use crate::machine::Bench;
use crate::monitor::Place;
use crate::samples::{Limit, Row, Samples};

const ROUNDS: usize = 50;

pub(super) fn row(bench: &Bench) -> Outcome<Row> {
    let directory = bench.work.join("start");
    std::fs::create_dir(&directory).map_err(io_failure("make a directory"))?;
    let nothing = bench.programs.join("bench-true");
    let (mut times, mut floors) = (Samples::default(), Samples::default());
    for _ in 0..ROUNDS {
        floors.push(floor::start(&nothing)?);
        let place = Place::watch(&directory)?;
        let begun = Instant::now();
        let monitor = place.start(&bench.monitor, Stdio::null())?;
        times.push(begun.elapsed());
        drop(monitor);
    }
    Ok(Row::against(
        "monitor start",
        &times,
        &floors,
        Limit::Most(3.0),
    ))
}
