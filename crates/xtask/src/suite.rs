//! The tests that cargo knows: run, counted, and those told that ran only to say that they cannot.

use crate::failure::{Failure, Outcome};
use crate::host::{find_program, target_directory, workspace};
use crate::program::Program;
use crate::report::{Tally, tally_of};

/// Crates with tests that are for root: they set up real namespaces, mounts and machines, or filter packets.
const FOR_ROOT: &[&str] = &[
    "sprite-disk",
    "sprite-net",
    "sprite-machine",
    "sprite-agent",
    "sprite-server",
    "sprited",
];

/// A test that takes minutes runs where this is set.
const THOROUGH: (&str, &str) = ("SPRITE_TEST_DEFAULT_IMAGE", "1");

/// What a test prints, and then does nothing, where it cannot be run.
const SKIPPED: &str = "skipped: ";

/// What a test names that cannot be run for want of a KVM alone.
const KVM_TEST: &str = "cargo xtask kvm-test";

/// What a test names that wants the box's own processor.
const BOX_TEST: &str = "cargo xtask kvm-test --box";

/// How thoroughly the tests run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Those that take minutes are left out.
    Quick,
    /// All of them.
    Thorough,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Tested {
    /// How many passed and failed.
    pub tally: Tally,
    /// Tests that said they cannot be run here, with the reason. They are among the passed ones.
    pub skipped: Vec<Case>,
}

/// All tests as the calling user.
///
/// # Errors
/// They do not compile, or end without a count; a test that fails is counted.
pub fn as_caller(depth: Depth) -> Outcome<Tested> {
    let mut tested = run(&["--workspace"], None, depth)?;
    if find_program("cargo-nextest").is_some() {
        // nextest leaves the examples of the documentation out.
        let words = ["test", "--locked", "--doc", "--no-fail-fast", "--workspace"];
        let said = Program::cargo().args(words).dir(workspace()).tee()?;
        tested
            .tally
            .add(count(&said.stdout, &said.stderr, said.status.success())?);
    }
    Ok(tested)
}

/// The tests that need root: built by the caller, run by sudo.
///
/// # Errors
/// As [`as_caller`].
pub fn by_sudo(depth: Depth) -> Outcome<Tested> {
    let selection: Vec<&str> = FOR_ROOT
        .iter()
        .flat_map(|package| ["--package", package])
        .collect();
    run(&selection, Some("sudo -n -E"), depth)
}

fn run(selection: &[&str], runner: Option<&str>, depth: Depth) -> Outcome<Tested> {
    let nextest = find_program("cargo-nextest").is_some();
    let words: &[&str] = if nextest {
        &[
            "nextest",
            "run",
            "--locked",
            "--no-fail-fast",
            "--profile",
            "ci",
        ]
    } else {
        &["test", "--locked", "--no-fail-fast"]
    };
    let mut program = Program::cargo()
        .args(words)
        .args(selection)
        .dir(workspace());
    if let Some(runner) = runner {
        let target = std::env::consts::ARCH.to_uppercase();
        program = program.env(
            format!("CARGO_TARGET_{target}_UNKNOWN_LINUX_GNU_RUNNER"),
            runner,
        );
    }
    if depth == Depth::Thorough {
        program = program.env(THOROUGH.0, THOROUGH.1);
    }
    let said = program.tee()?;
    let skipped = if nextest {
        // nextest keeps what passing tests said in its report alone. Source: .config/nextest.toml.
        let report = target_directory().join("nextest/ci/junit.xml");
        let text = std::fs::read_to_string(&report)
            .map_err(Failure::io(format!("read {}", report.display())))?;
        cases(&text)
            .into_iter()
            .filter(|case| case.skipped.is_some())
            .collect()
    } else {
        Vec::new()
    };
    let tally = count(&said.stdout, &said.stderr, said.status.success())?;
    Ok(Tested { tally, skipped })
}

fn count(stdout: &str, stderr: &str, success: bool) -> Outcome<Tally> {
    let both = format!("{stdout}\n{stderr}");
    let mut tally = tally_of(&both)
        .ok_or_else(|| Failure::Check("the tests ended without a count".to_owned()))?;
    if !success && tally.failed == 0 {
        tally.failed = 1;
    }
    Ok(tally)
}

/// A test of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// `crate::binary::path::test`.
    pub id: String,
    /// Why it could not be run, where it said so.
    pub skipped: Option<String>,
}

impl Case {
    /// Whether it waits for a KVM, which `cargo xtask kvm-test` has.
    pub fn waits_for_kvm(&self) -> bool {
        self.skipped
            .as_ref()
            .is_some_and(|reason| reason.contains(KVM_TEST))
    }

    /// Whether it can be run in the box alone, whatever KVM this computer has.
    pub fn waits_for_box(&self) -> bool {
        self.skipped
            .as_ref()
            .is_some_and(|reason| reason.contains(BOX_TEST))
    }
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let reason = self.skipped.as_deref().unwrap_or("it ran");
        write!(f, "{}: {reason}", self.id)
    }
}

/// The tests of a report in JUnit's form.
pub fn cases(report: &str) -> Vec<Case> {
    let mut found: Vec<Case> = Vec::new();
    for line in report.lines() {
        if let Some(attributes) = line.trim_start().strip_prefix("<testcase ") {
            let of = |name: &str| {
                let (_, rest) = attributes.split_once(&format!("{name}=\""))?;
                rest.split('"').next()
            };
            let id = format!(
                "{}::{}",
                of("classname").unwrap_or_default(),
                of("name").unwrap_or_default()
            );
            found.push(Case { id, skipped: None });
        }
        // The first line of what a test said follows its element.
        if let (Some((_, reason)), Some(case)) = (line.split_once(SKIPPED), found.last_mut()) {
            case.skipped.get_or_insert_with(|| reason.to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_that_cannot_be_run_is_told_with_its_reason() {
        let report = r#"<testsuite name="sprite-net::isolation">
        <testcase name="a" classname="sprite-net::isolation" timestamp="x" time="0.01">
            <system-out>running 1 test
</system-out><system-err>skipped: needs root
</system-err>
        </testcase>
        <testcase name="b" classname="sprite-net::isolation" time="0.01">
            <system-out>fine</system-out>"#;
        let case = |name: &str, skipped: Option<&str>| Case {
            id: format!("sprite-net::isolation::{name}"),
            skipped: skipped.map(str::to_owned),
        };
        assert_eq!(
            cases(report),
            [case("a", Some("needs root")), case("b", None)]
        );
    }

    #[test]
    fn a_run_that_failed_without_a_failed_test_is_a_failure() {
        let tally = count("3 passed, 0 failed", "", false).expect("there is a count");
        assert_eq!(
            tally,
            Tally {
                passed: 3,
                failed: 1
            }
        );
        assert!(count("", "", true).is_err());
    }
}
