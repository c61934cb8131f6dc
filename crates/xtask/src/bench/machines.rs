//! `cargo xtask bench --box`: the numbers of virtual machines, measured by a program of its own where KVM is.
//!
//! In the box every time is the emulator's: only what is measured against something of the same run means anything.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::bench::{Row, tell};
use crate::failure::{Failure, Outcome};
use crate::host::{Consent, Host, target_directory, workspace};
use crate::kvm_test::{Archive, Brought, Errand, Place};
use crate::program::Program;
use crate::server::Build;

/// The rows, as SPECIFICATION.md names them.
pub const NAMES: &[&str] = &[
    "monitor start",
    "boot",
    "wake",
    "monitor memory",
    "load by size",
    "disk read",
    "disk write",
    "diff snapshot",
];

/// Rows whose limit is for real processors. The box has one, which is the guest's and the monitor's and copies every
/// byte for both: what it tells of them is a number, not a verdict.
const TOLD_IN_THE_BOX: &[&str] = &["disk read", "disk write"];

/// Twenty boots or so, half a minute each on a busy computer.
const WITHIN: Duration = Duration::from_secs(25 * 60);

const TARGET: &str = "x86_64-unknown-linux-gnu";
const PROFILE: &str = "agent";

/// Measures every row.
///
/// # Errors
/// Something cannot be measured, or a number is over its limit.
pub fn run(host: Host, place: Place, consent: Consent) -> Outcome {
    // It builds the programs of machines as users have them, whatever it is itself.
    Build::Debug.make()?;
    build()?;
    let built = target_directory().join("agent").join(TARGET).join(PROFILE);
    let floors = lay_out(&built)?;
    let [program, monitor, agent] =
        ["sprite-bench", "sprite-vmm", "sprite-agent"].map(|name| built.join(name));
    let errand = Errand {
        program,
        words: vec![monitor.clone(), agent.clone(), floors.clone()],
        reads: vec![monitor, agent, floors],
        writes: "machines.jsonl",
        within: WITHIN,
    };
    let Brought { file, emulated } = errand.run(&host, place, consent)?;
    let text =
        fs::read_to_string(&file).map_err(Failure::io(format!("read {}", file.display())))?;
    eprintln!("all that was measured: {}", file.display());
    report(&rows(&text, emulated)?)
}

/// Builds the program that measures as those that it measures: static, for it is also the first one of a guest.
fn build() -> Outcome {
    Program::cargo()
        .args(["build", "--locked", "--package", "sprite-bench", "--bins"])
        .args(["--profile", PROFILE, "--target", TARGET, "--target-dir"])
        .args([target_directory().join("agent")])
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static")
        .dir(workspace())
        .run()
}

/// Makes the directory of floors: a program, and the archives of guests.
fn lay_out(built: &Path) -> Outcome<PathBuf> {
    let directory = target_directory().join("box").join("floors");
    let failed = || Failure::io(format!("make {}", directory.display()));
    fs::create_dir_all(&directory).map_err(failed())?;
    fs::copy(built.join("bench-true"), directory.join("bench-true")).map_err(failed())?;
    for (program, name, archive) in [
        ("bench-print", "init", "print.cpio"),
        ("bench-guest", "bench", "asked.cpio"),
    ] {
        let content = fs::read(built.join(program)).map_err(failed())?;
        let mut made = Archive::default();
        made.program(name, &content);
        fs::write(directory.join(archive), made.finish()).map_err(failed())?;
    }
    Ok(directory)
}

/// The rows that were written, each of which must be there.
fn rows(text: &str, emulated: bool) -> Outcome<Vec<Row>> {
    let lines = text.lines().map(serde_json::from_str::<Value>);
    let lines: Vec<Value> = lines
        .collect::<Result<_, _>>()
        .map_err(|error| Failure::Check(format!("read what was measured: {error}")))?;
    NAMES
        .iter()
        .map(|name| {
            let line = lines.iter().find(|line| line["name"] == *name);
            let line = line.ok_or_else(|| Failure::Check(format!("{name} was not measured")))?;
            let text = |field: &str| line[field].as_str().unwrap_or_default().to_owned();
            let told = emulated && TOLD_IN_THE_BOX.contains(name);
            let limit = match told {
                true => format!("{}, told", text("limit")),
                false => text("limit"),
            };
            Ok(Row {
                name,
                measured: text("measured"),
                floor: text("floor"),
                limit,
                holds: told || line["holds"] == true,
            })
        })
        .collect()
}

fn report(rows: &[Row]) -> Outcome {
    rows.iter().for_each(tell);
    let over: Vec<&str> = rows
        .iter()
        .filter(|row| !row.holds)
        .map(|row| row.name)
        .collect();
    match over.is_empty() {
        true => Ok(()),
        false => Err(Failure::Check(format!(
            "over the limit: {}",
            over.join(", ")
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, holds: bool) -> String {
        format!(r#"{{"name":"{name}","measured":"1","floor":"2","limit":"3","holds":{holds}}}"#)
            + "\n"
    }

    #[test]
    fn a_row_that_was_not_measured_is_an_error() {
        let all: String = NAMES.iter().map(|name| line(name, true)).collect();
        assert!(report(&rows(&all, false).expect("all are there")).is_ok());
        let (_, but_one) = all.split_once('\n').expect("several lines");
        assert!(rows(but_one, false).is_err());
        assert!(rows("garbage", false).is_err());
    }

    #[test]
    fn a_row_over_its_limit_is_an_error() {
        let all: String = NAMES
            .iter()
            .map(|name| line(name, *name != "boot"))
            .collect();
        for emulated in [false, true] {
            let rows = rows(&all, emulated).expect("all are there");
            let failure = report(&rows).expect_err("one is over");
            assert_eq!(failure.to_string(), "over the limit: boot");
        }
    }

    #[test]
    fn what_the_box_cannot_judge_it_tells() {
        let slow = |name: &str| TOLD_IN_THE_BOX.contains(&name);
        let all: String = NAMES.iter().map(|name| line(name, !slow(name))).collect();
        assert!(report(&rows(&all, false).expect("all are there")).is_err());
        let told = rows(&all, true).expect("all are there");
        assert!(report(&told).is_ok());
        let limits = |row: &&Row| row.limit.ends_with("told");
        assert_eq!(told.iter().filter(limits).count(), TOLD_IN_THE_BOX.len());
    }
}
