//! `cargo xtask soak`: what takes longer than a change may wait for. CI runs a short, seeded part of each.

use crate::failure::{Failure, Outcome};
use crate::fuzz;
use crate::host::{Consent, Host};
use crate::kvm_test::{self, Place};

/// How long each target is fuzzed, if nothing else is said.
const FUZZ_SECONDS: u64 = 10 * 60;

/// What is asked of `soak`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    /// Where every test that wants a KVM is run.
    kvm: Option<Place>,
    /// How many seconds each target is fuzzed.
    fuzz: Option<u64>,
}

impl Wish {
    /// Reads the words after `soak`.
    ///
    /// # Errors
    /// A word is not known, or no number of seconds.
    pub fn read(words: &[&str]) -> Outcome<Self> {
        let (kvm, fuzz) = match words {
            [] => (Some(Place::Best), Some(FUZZ_SECONDS)),
            ["kvm"] => (Some(Place::Best), None),
            ["kvm", "--box"] => (Some(Place::Box), None),
            ["fuzz"] => (None, Some(FUZZ_SECONDS)),
            ["fuzz", "--seconds", seconds] => match seconds.parse() {
                Ok(seconds) if seconds > 0 => (None, Some(seconds)),
                Ok(_) | Err(_) => {
                    return Err(Failure::Refused(format!(
                        "{seconds} is no number of seconds for each target"
                    )));
                }
            },
            other => {
                return Err(Failure::Refused(format!(
                    "no such words of soak: {}; they are kvm [--box], or fuzz [--seconds N]",
                    other.join(" ")
                )));
            }
        };
        Ok(Self { kvm, fuzz })
    }
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
    match failures.as_slice() {
        [] => Ok(()),
        failures => Err(Failure::Check(failures.join("\n"))),
    }
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
        let read = |words: &[&str]| Wish::read(words).map(|wish| (wish.kvm, wish.fuzz)).ok();
        assert_eq!(read(&[]), Some((Some(Place::Best), Some(FUZZ_SECONDS))));
        assert_eq!(read(&["kvm"]), Some((Some(Place::Best), None)));
        assert_eq!(read(&["kvm", "--box"]), Some((Some(Place::Box), None)));
        assert_eq!(read(&["fuzz", "--seconds", "3"]), Some((None, Some(3))));
        assert_eq!(read(&["fuzz", "--seconds", "0"]), None);
        assert_eq!(read(&["fuzz", "--seconds"]), None);
        assert_eq!(read(&["bench"]), None);
    }
}
