//! What hostile bytes reach, under a fuzzer, for as long as is wished.
//!
//! The targets are in `fuzz/`, what they call in the crates. The same entries are run in ordinary tests with their
//! seeds and what chance makes of those; here libFuzzer searches, led by what of the code it reached.

use std::path::{Path, PathBuf};

use crate::failure::{Failure, Outcome};
use crate::host::{find_program, workspace};
use crate::interrupt;
use crate::program::Program;

/// Longest input in bytes: a state of one CPU written out, and the largest request there is.
const LONGEST: usize = 64 << 10;
/// No input may take longer: a second is much for any of them, and the computer may be busy.
const SECONDS_FOR_ONE: u32 = 25;
/// Memory that a target may use: far more than any needs.
const MEMORY_MIB: u32 = 2048;

/// What came of a target.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    executions: u64,
    per_second: u64,
    /// Branches of the code that were reached.
    coverage: u64,
}

/// Runs every target for so many seconds, and prints what it reached.
///
/// # Errors
/// A target found something, which is kept below `fuzz/artifacts`; or they cannot be built or run.
pub fn run(seconds_each: u64) -> Outcome {
    if find_program("cargo-fuzz").is_none() {
        return Err(Failure::Refused(
            "cargo-fuzz is missing: cargo install --locked cargo-fuzz".to_owned(),
        ));
    }
    let targets = targets(&workspace().join("fuzz/targets"))?;
    cargo_fuzz().args(["build"]).run()?;
    write_seeds()?;
    let mut failed = Vec::new();
    println!("target       executions  per second  branches reached");
    for target in &targets {
        interrupt::check()?;
        match search(target, seconds_each)? {
            Ok(found) => println!(
                "{target:10}  {:11}  {:10}  {:16}",
                found.executions, found.per_second, found.coverage
            ),
            Err(said) => {
                println!("{target:10}  FAILED");
                eprintln!("{said}");
                failed.push(target.as_str());
            }
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    Err(Failure::Check(format!(
        "fuzzing found something in {}; the inputs are below fuzz/artifacts, and\n  \
         RUSTC_BOOTSTRAP=1 cargo fuzz run TARGET INPUT\nruns one of them again",
        failed.join(", ")
    )))
}

/// Fuzzers need flags of the compiler that stable Rust keeps to itself.
fn cargo_fuzz() -> Program {
    Program::cargo()
        .args(["fuzz"])
        .env("RUSTC_BOOTSTRAP", "1")
        // Its own place for what it builds is the one that seeds are looked for in.
        .unset(&["CARGO_TARGET_DIR"])
        .dir(workspace())
}

fn targets(directory: &Path) -> Outcome<Vec<String>> {
    let failed = || Failure::io(format!("list {}", directory.display()));
    let mut targets = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed())? {
        let path = entry.map_err(failed())?.path();
        if let Some(name) = path.file_stem() {
            targets.push(name.to_string_lossy().into_owned());
        }
    }
    targets.sort();
    Ok(targets)
}

/// The program that writes them was built with the targets, below a directory with the name of the system.
fn write_seeds() -> Outcome {
    let built = workspace().join("fuzz/target");
    let failed = || Failure::io(format!("list {}", built.display()));
    for entry in std::fs::read_dir(&built).map_err(failed())? {
        let seeds = entry.map_err(failed())?.path().join("release/seeds");
        if seeds.is_file() {
            let corpus = workspace().join("fuzz/corpus");
            // Constants of SQLite's one file that have one name in two functions are taken for one. cargo fuzz says so
            // to the targets. Source: the wiki of AddressSanitizer, `detect_odr_violation`.
            let program = Program::new(seeds).env("ASAN_OPTIONS", "detect_odr_violation=0");
            return program.args([corpus]).run();
        }
    }
    Err(Failure::Check(format!(
        "the program that writes seeds was not built below {}",
        built.display()
    )))
}

/// What the target reached, or what it said when it found something.
fn search(target: &str, seconds: u64) -> Outcome<Result<Found, String>> {
    let said = cargo_fuzz()
        .env("TMPDIR", temporary())
        .args(["run", target, "--"])
        .args([
            format!("-max_total_time={seconds}"),
            format!("-max_len={LONGEST}"),
            format!("-timeout={SECONDS_FOR_ONE}"),
            format!("-rss_limit_mb={MEMORY_MIB}"),
            "-print_final_stats=1".to_owned(),
        ])
        .say()?;
    interrupt::check()?;
    if !said.status.success() {
        return Ok(Err(said.stderr));
    }
    read(&said.stderr)
        .map(Ok)
        .ok_or_else(|| Failure::Check(format!("{target} does not say what it did")))
}

/// In memory where there is such a place: some targets make sockets by name.
fn temporary() -> PathBuf {
    let shared = Path::new("/dev/shm");
    if shared.is_dir() {
        shared.to_owned()
    } else {
        std::env::temp_dir()
    }
}

/// Reads the numbers out of what libFuzzer says.
fn read(said: &str) -> Option<Found> {
    let after = |line: &str, word: &str| {
        let (_, rest) = line.split_once(word)?;
        rest.split_ascii_whitespace().next()?.parse::<u64>().ok()
    };
    let last = |word: &str| said.lines().rev().find_map(|line| after(line, word));
    Some(Found {
        executions: last("stat::number_of_executed_units:")?,
        per_second: last("stat::average_exec_per_sec:")?,
        coverage: last(" cov: ")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_fuzzer_says_is_read() {
        let said = "#2\tINITED cov: 31 ft: 35 corp: 2/8b exec/s: 0 rss: 29Mb\n\
                    #15144\tDONE   cov: 2256 ft: 11353 corp: 487/109Kb lim: 536 exec/s: 248 rss: 464Mb\n\
                    Done 15144 runs in 61 second(s)\n\
                    stat::number_of_executed_units: 15144\n\
                    stat::average_exec_per_sec:     248\n";
        let found = Found {
            executions: 15144,
            per_second: 248,
            coverage: 2256,
        };
        assert_eq!(read(said), Some(found));
        assert_eq!(read("error: could not compile"), None);
    }

    #[test]
    fn every_target_is_found_by_its_file() {
        let targets = targets(&workspace().join("fuzz/targets")).expect("it is in the repository");
        assert!(
            targets.iter().any(|target| target == "vsock"),
            "{targets:?}"
        );
    }
}
