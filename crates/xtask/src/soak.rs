//! `cargo xtask soak`: what takes longer than a change may wait for. CI runs a short, seeded part of each.

use crate::failure::{Failure, Outcome};
use crate::fuzz;
use crate::host::{Consent, Host, Privilege};
use crate::kvm_test::{self, Place};
use crate::program::Program;

/// How long each target is fuzzed, if nothing else is said.
const FUZZ_SECONDS: u64 = 10 * 60;

/// How long lives of a host are simulated, if nothing else is said.
const SIMULATION_SECONDS: u64 = 30 * 60;

/// What is asked of `soak`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    /// Where every test that wants a KVM is run.
    kvm: Option<Place>,
    /// How many seconds each target is fuzzed.
    fuzz: Option<u64>,
    /// How many seconds lives of a host are simulated.
    simulation: Option<u64>,
    /// Whether connections are held over a thousand sleeps, and other tests run that are too long for every change.
    sleeps: bool,
}

impl Wish {
    /// Reads the words after `soak`.
    ///
    /// # Errors
    /// A word is not known, or no number of seconds.
    pub fn read(words: &[&str]) -> Outcome<Self> {
        let none = Self {
            kvm: None,
            fuzz: None,
            simulation: None,
            sleeps: false,
        };
        Ok(match words {
            [] => Self {
                kvm: Some(Place::Best),
                fuzz: Some(FUZZ_SECONDS),
                simulation: Some(SIMULATION_SECONDS),
                sleeps: true,
            },
            ["kvm"] => Self {
                kvm: Some(Place::Best),
                ..none
            },
            ["kvm", "--box"] => Self {
                kvm: Some(Place::Box),
                ..none
            },
            ["fuzz", how_long @ ..] => Self {
                fuzz: Some(seconds(how_long, FUZZ_SECONDS)?),
                ..none
            },
            ["simulation", how_long @ ..] => Self {
                simulation: Some(seconds(how_long, SIMULATION_SECONDS)?),
                ..none
            },
            ["sleeps"] => Self {
                sleeps: true,
                ..none
            },
            other => return Err(unknown(other)),
        })
    }
}

/// Reads how long something lasts.
fn seconds(words: &[&str], usual: u64) -> Outcome<u64> {
    match words {
        [] => Ok(usual),
        ["--seconds", seconds] => match seconds.parse() {
            Ok(seconds) if seconds > 0 => Ok(seconds),
            Ok(_) | Err(_) => Err(Failure::Refused(format!(
                "{seconds} is no number of seconds"
            ))),
        },
        other => Err(unknown(other)),
    }
}

fn unknown(words: &[&str]) -> Failure {
    Failure::Refused(format!(
        "no such words of soak: {}; they are kvm [--box], fuzz [--seconds N], simulation [--seconds N], or \
         sleeps",
        words.join(" ")
    ))
}

/// Runs all of it; a part that fails does not keep the others from running.
///
/// # Errors
/// A part fails.
pub fn run(host: Host, wish: Wish, consent: Consent) -> Outcome {
    let mut failures = Vec::new();
    if let Some(place) = wish.kvm {
        note("kvm", kvm_test::soak(host, place, consent), &mut failures)?;
    }
    if let Some(seconds) = wish.fuzz {
        note("fuzz", fuzz::run(seconds), &mut failures)?;
    }
    if let Some(seconds) = wish.simulation {
        note("simulation", simulate(seconds), &mut failures)?;
    }
    if wish.sleeps {
        note("sleeps", sleeps(&host, consent), &mut failures)?;
    }
    match failures.as_slice() {
        [] => Ok(()),
        failures => Err(Failure::Check(failures.join("\n"))),
    }
}

/// Lives of a host in simulated time, with seeds that were not tried before. One that fails tells its seed.
fn simulate(seconds: u64) -> Outcome {
    let test = ["--package", "sprite-host", "--test", "simulation", "soak"];
    Program::cargo()
        .args(["test", "--locked"])
        .args(test)
        .args(["--", "--ignored", "--nocapture"])
        .env("SIMULATION_SECONDS", seconds.to_string())
        .dir(crate::host::workspace())
        .run()
}

/// What is too long for every change and wants no virtual machine: a thousand sleeps, a million names, 10 GiB.
fn sleeps(host: &Host, consent: Consent) -> Outcome {
    host.agree(
        &["tests set up machines, networks, mounts and loop devices, and remove them".to_owned()],
        consent,
    )?;
    let mut program = Program::cargo()
        .args(["nextest", "run", "--locked", "--package", "sprited"])
        .args(["--test", "endless", "--test", "storms"])
        .args(["--profile", "soak", "--run-ignored", "only"])
        .dir(crate::host::workspace());
    if host.privilege == Privilege::Sudo {
        let target = std::env::consts::ARCH.to_uppercase();
        let runner = format!("CARGO_TARGET_{target}_UNKNOWN_LINUX_GNU_RUNNER");
        program = program.env(runner, "sudo -n -E");
    }
    program.run()
}

/// Keeps why a part failed; only a person ends the others.
fn note(part: &str, outcome: Outcome, failures: &mut Vec<String>) -> Outcome {
    match outcome {
        Ok(()) => Ok(()),
        Err(Failure::Interrupted) => Err(Failure::Interrupted),
        Err(failure) => {
            eprintln!("FAIL  {part}\n{failure}");
            failures.push(format!("{part}: {failure}"));
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_are_read() {
        let read = |words: &[&str]| {
            let wish = Wish::read(words).ok()?;
            Some((wish.kvm, wish.fuzz, wish.simulation, wish.sleeps))
        };
        let all = (
            Some(Place::Best),
            Some(FUZZ_SECONDS),
            Some(SIMULATION_SECONDS),
            true,
        );
        assert_eq!(read(&[]), Some(all));
        assert_eq!(read(&["kvm"]), Some((Some(Place::Best), None, None, false)));
        assert_eq!(
            read(&["kvm", "--box"]),
            Some((Some(Place::Box), None, None, false))
        );
        assert_eq!(
            read(&["fuzz"]),
            Some((None, Some(FUZZ_SECONDS), None, false))
        );
        assert_eq!(
            read(&["fuzz", "--seconds", "3"]),
            Some((None, Some(3), None, false))
        );
        let simulation = read(&["simulation", "--seconds", "3"]);
        assert_eq!(simulation, Some((None, None, Some(3), false)));
        assert_eq!(read(&["fuzz", "--seconds", "0"]), None);
        assert_eq!(read(&["simulation", "--seconds"]), None);
        assert_eq!(read(&["sleeps"]), Some((None, None, None, true)));
        assert_eq!(read(&["bench"]), None);
    }
}
