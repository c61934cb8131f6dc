//! Load and resume until the agent answers, against the least that KVM makes of a memory file; and what a monitor
//! needs besides its guest's memory, after a boot and after a load.

use std::time::{Duration, Instant};

use serde_json::json;

use super::boot::Machine;
use crate::agent::Host;
use crate::failure::{Failure, Outcome};
use crate::floor;
use crate::machine::{Bench, Extent, Then};
use crate::process;
use crate::samples::{Limit, Row, Samples};

const ROUNDS: usize = 15;

const MOST_MEMORY: u64 = 5 << 20;

pub(super) fn rows(bench: &Bench, host: &mut Host, machine: Machine) -> Outcome<[Row; 2]> {
    let guest = machine.memory_mib << 20;
    let booted = process::memory(machine.monitor.pid(), guest)?.own;
    let asleep = sleep(machine)?;
    let bytes = usize::try_from(guest)
        .map_err(|_| Failure::Check("the guest is too large for this computer".to_owned()))?;
    let [mut times, mut loads, mut floors] = std::array::from_fn(|_| Samples::default());
    let mut loaded = 0;
    for _ in 0..ROUNDS {
        floors.push(floor::load(&asleep.files.memory(), bytes)?);
        let woken = asleep.wake(bench, host)?;
        times.push(woken.answered);
        loads.push(woken.loaded);
        loaded = loaded.max(woken.own);
    }
    asleep.files.remove()?;
    let mut wake = Row::against("wake", &times, &floors, Limit::Aim(5.0));
    // How much of it is the monitor's; the rest is the guest's and its agent's.
    wake.numbers["loads"] = loads.numbers();
    Ok([wake, memory(booted, loaded)])
}

fn memory(booted: u64, loaded: u64) -> Row {
    let told = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    Row {
        name: "monitor memory",
        measured: format!(
            "{:.1} MiB PSS booted, {:.1} loaded",
            told(booted),
            told(loaded)
        ),
        floor: "-".to_owned(),
        limit: "5 MiB".to_owned(),
        holds: booted.max(loaded) <= MOST_MEMORY,
        numbers: json!({ "booted_bytes": booted, "loaded_bytes": loaded }),
    }
}

/// A machine on disk.
pub(super) struct Asleep {
    pub(super) files: crate::machine::Files,
    memory_mib: u64,
}

/// What a wake took.
#[derive(Debug, Clone, Copy)]
pub(super) struct Woken {
    /// Until the monitor had loaded and resumed it.
    pub(super) loaded: Duration,
    /// Until the agent had answered.
    pub(super) answered: Duration,
    /// The monitor's own memory then, in bytes.
    pub(super) own: u64,
}

/// How long a guest may be busy with the end of its boot.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);

/// Writes a machine to disk and ends it. As with those that fall asleep, it is idle then: what a guest had begun it
/// ends when it wakes.
pub(super) fn sleep(mut machine: Machine) -> Outcome<Asleep> {
    process::settle(machine.monitor.pid(), SETTLED_WITHIN)?;
    machine.monitor.pause()?;
    machine.files.save(&mut machine.monitor, Extent::Full)?;
    Ok(Asleep {
        files: machine.files,
        memory_mib: machine.memory_mib,
    })
}

impl Asleep {
    /// Makes a machine of it, which is gone when this returns.
    pub(super) fn wake(&self, bench: &Bench, host: &mut Host) -> Outcome<Woken> {
        let mut monitor = bench.start(&self.files, self.files.console()?)?;
        let begun = Instant::now();
        self.files.load(&mut monitor, Then::Runs)?;
        let loaded = begun.elapsed();
        host.ping(&self.files.vsock())?;
        Ok(Woken {
            loaded,
            answered: begun.elapsed(),
            own: process::memory(monitor.pid(), self.memory_mib << 20)?.own,
        })
    }
}
