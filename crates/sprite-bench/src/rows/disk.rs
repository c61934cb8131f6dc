//! The guest's disk against the file system that its file is in, and what is written of its memory against what it
//! changed.

use std::time::Instant;

use serde_json::json;
use sprite_bench::sequential;
use sprite_bench::talk::{Ask, PORT};

use super::{DISK_MIB, MEMORY_MIB};
use crate::asked::Asked;
use crate::failure::{Outcome, io_failure};
use crate::machine::{self, Bench, Door, Extent, Files, First, Then};
use crate::monitor::Monitor;
use crate::process;
use crate::samples::{Row, Samples};

const ROUNDS: usize = 3;

/// Less than the guest's memory, so that both sides write as much as they like before they have to.
const FILE_MIB: u64 = 128;
const _: () = assert!(FILE_MIB * 2 <= MEMORY_MIB && FILE_MIB * 2 <= DISK_MIB);

const LEAST_SHARE: f64 = 0.7;
const MOST_WRITTEN: f64 = 1.2;

pub(super) fn rows(bench: &Bench) -> Outcome<[Row; 3]> {
    let files = bench.files("asked", DISK_MIB)?;
    let mut monitor = bench.configure(&files, First::Asked, MEMORY_MIB, files.console()?)?;
    let door = files.listen(PORT)?;
    machine::run(&mut monitor)?;
    let mut guest = Asked::meet(&door)?;
    let [read, write] = transfers(bench, &mut guest)?;
    drop(guest);
    let changes = changes(bench, &files, &door, monitor)?;
    files.remove()?;
    Ok([read, write, changes])
}

fn transfers(bench: &Bench, guest: &mut Asked) -> Outcome<[Row; 2]> {
    let step = || io_failure("write and read a file");
    let file = bench.work.join("file");
    let [mut reads, mut read_floors, mut writes, mut write_floors] =
        std::array::from_fn(|_| Samples::default());
    for _ in 0..ROUNDS {
        sequential::forget_caches().map_err(step())?;
        let begun = Instant::now();
        sequential::write(&file, FILE_MIB << 20).map_err(step())?;
        write_floors.push(begun.elapsed());
        sequential::forget_caches().map_err(step())?;
        let begun = Instant::now();
        sequential::read(&file).map_err(step())?;
        read_floors.push(begun.elapsed());
        std::fs::remove_file(&file).map_err(step())?;

        guest.ask(Ask::Clear)?;
        sequential::forget_caches().map_err(step())?;
        let begun = Instant::now();
        guest.ask(Ask::Write(FILE_MIB))?;
        writes.push(begun.elapsed());
        guest.ask(Ask::Forget)?;
        sequential::forget_caches().map_err(step())?;
        let begun = Instant::now();
        guest.ask(Ask::Read)?;
        reads.push(begun.elapsed());
    }
    let row = |name, times: &Samples, floors: &Samples| {
        Row::rate(name, FILE_MIB << 20, times, floors, LEAST_SHARE)
    };
    Ok([
        row("disk read", &reads, &read_floors),
        row("disk write", &writes, &write_floors),
    ])
}

/// What one save of changes wrote.
struct Written {
    bytes: u64,
    dirtied: u64,
}

impl Written {
    fn ratio(&self) -> f64 {
        self.bytes as f64 / self.dirtied as f64
    }
}

fn changes(bench: &Bench, files: &Files, door: &Door, mut monitor: Monitor) -> Outcome<Row> {
    monitor.pause()?;
    files.save(&mut monitor, Extent::Full)?;
    drop(monitor);
    let mut all = (0..ROUNDS)
        .map(|_| change(bench, files, door))
        .collect::<Outcome<Vec<Written>>>()?;
    all.sort_by(|one, other| one.ratio().total_cmp(&other.ratio()));
    let (middle, worst) = (&all[all.len() / 2], all[all.len() - 1].ratio());
    let told = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    Ok(Row {
        name: "diff snapshot",
        measured: format!(
            "{:.1} MiB written ({:.3} / {worst:.3} x)",
            told(middle.bytes),
            middle.ratio()
        ),
        floor: format!("{:.1} MiB dirtied", told(middle.dirtied)),
        limit: format!("{MOST_WRITTEN} x"),
        holds: middle.ratio() <= MOST_WRITTEN,
        numbers: json!({
            "ratio": middle.ratio(),
            "written_bytes": middle.bytes,
            "dirtied_bytes": middle.dirtied,
            "worst_ratio": worst,
        }),
    })
}

/// Loads the guest, has it write to its memory, and saves what it changed.
fn change(bench: &Bench, files: &Files, door: &Door) -> Outcome<Written> {
    let mut monitor = bench.start(files, files.console()?)?;
    files.load(&mut monitor, Then::Stands)?;
    monitor.resume()?;
    Asked::meet(door)?.ask(Ask::Dirty)?;
    monitor.pause()?;
    let dirtied = process::memory(monitor.pid(), MEMORY_MIB << 20)?.written;
    let before = process::written(monitor.pid())?;
    files.save(&mut monitor, Extent::Changes)?;
    Ok(Written {
        bytes: process::written(monitor.pid())? - before,
        dirtied,
    })
}
