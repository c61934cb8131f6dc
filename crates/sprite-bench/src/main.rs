//! Measures virtual machines: `cargo xtask bench --box` starts it, in the box or where KVM is usable.
//!
//! It drives the monitor by its control socket alone, as the driver does, with the guest system that the driver
//! boots. It must be root, in a network namespace of its own: its tap is there.

mod agent;
mod asked;
mod failure;
mod floor;
mod machine;
mod monitor;
mod process;
mod rows;
mod samples;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use sprite_disk::Silent;
use sprite_disk::guest::{Guest, GuestOptions, GuestSource};

use crate::failure::{Failure, Outcome, io_failure};
use crate::machine::{Bench, TAP};
use crate::samples::Row;

const USAGE: &str = "\
usage: sprite-bench MONITOR AGENT PROGRAMS CACHE OUT

  MONITOR, AGENT  the programs of machines
  PROGRAMS        directory of bench-true, print.cpio and asked.cpio
  CACHE           directory of base images and guest systems
  OUT             file for the rows, a line of JSON each
";

/// A directory that goes with us.
struct Work(PathBuf);

impl Drop for Work {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("remove {}: {error}", self.0.display());
        }
    }
}

fn main() -> ExitCode {
    let words: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [monitor, agent, programs, cache, out] = words.as_slice() else {
        eprint!("{USAGE}");
        return ExitCode::from(2);
    };
    match measure(monitor, agent, programs, cache, out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("not all was measured: {}", failure.chain());
            ExitCode::FAILURE
        }
    }
}

fn measure(monitor: &Path, agent: &Path, programs: &Path, cache: &Path, out: &Path) -> Outcome {
    // Not below /tmp, which may be memory: machines' files belong on a real disk.
    let work = PathBuf::from(format!("/var/tmp/sprite-bench-{}", std::process::id()));
    fs::create_dir(&work).map_err(io_failure(format!("make {}", work.display())))?;
    let work = Work(work);
    let agent =
        fs::read(agent).map_err(io_failure(format!("read the agent {}", agent.display())))?;
    let options = GuestOptions {
        directory: work.0.join("guest"),
        cache_dir: cache.to_owned(),
    };
    let guest = Guest::open(&options, &GuestSource::Recorded, &agent, &Silent)?;
    let asked = work.0.join("asked.cpio");
    join(&guest.initramfs, &programs.join("asked.cpio"), &asked)
        .map_err(io_failure("make the guest's archive"))?;
    let bench = Bench {
        monitor: monitor.to_owned(),
        programs: programs.to_owned(),
        kernel: guest.kernel,
        agent: guest.initramfs,
        asked,
        prints: programs.join("print.cpio"),
        modules: guest.modules,
        work: work.0.clone(),
    };
    make_tap()?;
    let mut out = File::create(out).map_err(io_failure(format!("make {}", out.display())))?;
    let lost = |failure: &Failure| {
        eprintln!("error: {}", failure.chain());
        tell_last_words(&work.0);
    };
    rows::all(&bench, &mut |row| tell(&mut out, &row), &lost)
}

/// How much of what a guest or a monitor said last is repeated when something fails.
const REPEATED_LINES: usize = 10;

/// Repeats what guests and monitors said last.
fn tell_last_words(work: &Path) {
    let machines = fs::read_dir(work).into_iter().flatten().flatten();
    for machine in machines.map(|entry| entry.path()) {
        for said in ["console", "errors"].map(|name| machine.join(name)) {
            let text = fs::read(&said).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let lines: Vec<&str> = text.lines().collect();
            for line in &lines[lines.len().saturating_sub(REPEATED_LINES)..] {
                eprintln!("{}: {line}", said.display());
            }
        }
    }
}

/// Machines find their tap ready, as those of the driver do. It goes with the network namespace, which is ours.
fn make_tap() -> Outcome {
    let made = Command::new("ip")
        .args(["tuntap", "add", "dev", TAP, "mode", "tap", "vnet_hdr"])
        .status()
        .map_err(io_failure("run ip"))?;
    match made.success() {
        true => Ok(()),
        false => Err(Failure::Check(format!("make a tap: ip ended with {made}"))),
    }
}

/// One archive behind the other is one of both. Source: Documentation/driver-api/early-userspace/buffer-format.rst.
fn join(first: &Path, second: &Path, to: &Path) -> std::io::Result<()> {
    let mut content = fs::read(first)?;
    content.extend(fs::read(second)?);
    fs::write(to, content)
}

fn tell(out: &mut File, row: &Row) -> Outcome {
    eprintln!("{}: {}, floor {}", row.name, row.measured, row.floor);
    writeln!(out, "{}", row.json()).map_err(io_failure("keep a row"))
}
