//! `cargo xtask ci`: everything a change must pass, in the order in which a failure is cheapest to learn of.

use std::time::Instant;

use crate::checks::{self, Lag};
use crate::conformance::{self, Sdks};
use crate::failure::{Failure, Outcome};
use crate::host::{Consent, Host, Privilege, find_program, workspace};
use crate::packages::{self, Package};
use crate::program::Program;
use crate::report::Tally;
use crate::server::{Build, MINIMAL, Server};
use crate::suite::{Case, Depth};
use crate::{blocks, book, demo, edges, kvm_test, specification, suite};

/// The steps, in their order. SPECIFICATION.md names them.
pub const STEPS: &[&str] = &[
    "format",
    "imports",
    "documents",
    "licences",
    "advisories",
    "lints",
    "tests",
    "specification",
    "generated",
    "server",
    "conformance",
    "code blocks",
    "removal",
    "demo",
    "box",
];

/// What is left running between steps.
#[derive(Default)]
struct State {
    server: Option<Server>,
    total: Tally,
    /// The last lines of the run: one for each step that failed, with what is known of why.
    failures: Vec<String>,
    /// Tests that were not run for want of a KVM.
    waiting: Vec<String>,
}

/// Runs every step; one that fails does not keep the others from running.
///
/// # Errors
/// A step failed.
pub fn run(host: Host, consent: Consent) -> Outcome {
    prepare(&host, consent)?;
    let mut state = State::default();
    for name in STEPS {
        crate::interrupt::check()?;
        eprintln!("\n== {name}");
        let begun = Instant::now();
        let outcome = step(name, host, &mut state);
        let seconds = begun.elapsed().as_secs_f64();
        match outcome {
            Ok(tally) => {
                state.total.add(tally);
                let mark = if tally.failed == 0 { "ok  " } else { "FAIL" };
                eprintln!("{mark}  {name} ({seconds:.1} s): {tally}");
                if tally.failed > 0 {
                    state.failures.push(format!("{name}: {tally}"));
                }
            }
            Err(Failure::Interrupted) => return Err(Failure::Interrupted),
            Err(failure) => {
                state.total.add(Tally {
                    passed: 0,
                    failed: 1,
                });
                eprintln!("FAIL  {name} ({seconds:.1} s)\n{failure}");
                state.failures.push(format!("{name}: {failure}"));
            }
        }
    }
    for failure in &state.failures {
        eprintln!("FAIL  {failure}");
    }
    println!("{}", state.total);
    match state.total.failed {
        0 => Ok(()),
        failed => Err(Failure::Check(format!("{failed} failed"))),
    }
}

fn step(name: &str, host: Host, state: &mut State) -> Outcome<Tally> {
    let passed = |()| Tally {
        passed: 1,
        failed: 0,
    };
    match name {
        "format" => Program::cargo()
            .args(["fmt", "--all", "--", "--check"])
            .dir(workspace())
            .run()
            .map(passed),
        "imports" => edges::check().map(passed),
        "documents" => book::check().map(drop).map(passed),
        "licences" => deny(&["bans", "licenses", "sources"]).map(passed),
        "advisories" => advisories(),
        "lints" => Program::cargo()
            .args([
                "clippy",
                "--locked",
                "--workspace",
                "--all-targets",
                "--",
                "-D",
                "warnings",
            ])
            .dir(workspace())
            .run()
            .map(passed),
        "tests" => tests(host, state),
        "specification" => specification::check()
            .map(|rows| eprintln!("{rows} promises have their tests"))
            .map(passed),
        "generated" => Build::Debug
            .make()
            .and_then(|()| checks::generated(Build::Debug, Lag::Refused))
            .map(passed),
        "server" => {
            state.server = Some(Server::start(host, Build::Debug, "ci", MINIMAL)?);
            Ok(passed(()))
        }
        "conformance" => conformance::run(running(state)?, &Sdks::install()?),
        "code blocks" => {
            let (passed, failed) = blocks::run(running(state)?, &Sdks::install()?)?;
            Ok(Tally { passed, failed })
        }
        "removal" => {
            running(state)?;
            state
                .server
                .take()
                .map_or(Ok(()), Server::remove)
                .map(passed)
        }
        "demo" => demo::run(host, Build::Debug, Consent::Given).map(passed),
        "box" => with_kvm(host, state),
        other => Err(Failure::Check(format!(
            "step {other} is listed and not known"
        ))),
    }
}

/// Every test; here none may say that it cannot be run, but those that the step `box` runs.
fn tests(host: Host, state: &mut State) -> Outcome<Tally> {
    let mut tested = suite::as_caller(Depth::Thorough)?;
    let mut total = tested.tally;
    if host.privilege == Privilege::Sudo {
        tested = suite::by_sudo(Depth::Thorough)?;
        total.add(tested.tally);
    }
    let (waiting, skipped): (Vec<Case>, Vec<Case>) =
        tested.skipped.into_iter().partition(Case::waits_for_kvm);
    total.passed = total.passed.saturating_sub(waiting.len());
    state.waiting = waiting.into_iter().map(|case| case.id).collect();
    Ok(without(total, &skipped))
}

/// The tests that want a KVM, in the box where this computer has none; each that waited for it must run there.
fn with_kvm(host: Host, state: &mut State) -> Outcome<Tally> {
    let wish = kvm_test::Wish {
        place: kvm_test::Place::Best,
        name: None,
        vmm: None,
        within: kvm_test::TESTS_WITHIN,
    };
    let tried = kvm_test::test(host, &wish, Consent::Given)?;
    let skipped = tried.cases.iter().filter(|case| case.skipped.is_some());
    let (left, skipped): (Vec<Case>, Vec<Case>) = skipped.cloned().partition(Case::waits_for_box);
    for case in &left {
        eprintln!("left out: {case}");
    }
    let mut total = without(tried.tally, &skipped);
    let mut waiting = std::mem::take(&mut state.waiting);
    waiting.retain(|id| left.iter().all(|case| case.id != *id));
    for id in tried.lacks(&waiting) {
        eprintln!("FAIL  neither here nor with a KVM: {id}");
        total.failed += 1;
    }
    Ok(total)
}

/// Tests that could not be run are among the passed ones, for they ended well: here they failed.
fn without(total: Tally, skipped: &[Case]) -> Tally {
    for case in skipped {
        eprintln!("FAIL  could not be run: {case}");
    }
    Tally {
        passed: total.passed.saturating_sub(skipped.len()),
        failed: total.failed + skipped.len(),
    }
}

fn running(state: &State) -> Outcome<&Server> {
    state
        .server
        .as_ref()
        .ok_or_else(|| Failure::Check("the server of this run did not start".to_owned()))
}

/// Installs everything the steps need, after one question.
fn prepare(host: &Host, consent: Consent) -> Outcome {
    let all = [packages::SERVE, packages::CONFORMANCE, packages::CLIENTS];
    let wanted: Vec<Package> = all.concat();
    let missing = packages::missing(&wanted);
    let mut steps: Vec<String> = packages::announcement(&missing).into_iter().collect();
    steps.push(
        "tests set up machines, networks, mounts and loop devices, and remove them".to_owned(),
    );
    steps.push("base images are made once and kept in /var/cache/sprited".to_owned());
    host.agree(&steps, consent)?;
    packages::install(host, &missing)?;
    for tool in ["cargo-nextest", "cargo-deny"] {
        if find_program(tool).is_none() {
            Program::cargo().args(["install", "--locked", tool]).run()?;
        }
    }
    Sdks::install().map(drop)
}

fn deny(checks: &[&str]) -> Outcome {
    Program::cargo()
        .args(["deny", "--all-features", "check"])
        .args(checks)
        .dir(workspace())
        .run()
}

/// Advisories are looked up in a database on the network. Where that cannot be reached nothing is counted: a
/// build without a network is not a build with a known weakness, and not one without.
fn advisories() -> Outcome<Tally> {
    let fetched = Program::cargo()
        .args(["deny", "--all-features", "fetch", "db"])
        .dir(workspace())
        .say()?;
    if !fetched.status.success() {
        eprintln!("skipped: the advisory database cannot be reached from here");
        return Ok(Tally::default());
    }
    deny(&["advisories"]).map(|()| Tally {
        passed: 1,
        failed: 0,
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_listed_step_is_known() {
        let source = include_str!("ci.rs");
        for step in super::STEPS {
            assert!(
                source.contains(&format!("\"{step}\" =>")),
                "{step} has no arm"
            );
        }
    }
}
