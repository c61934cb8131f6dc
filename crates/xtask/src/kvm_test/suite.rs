//! What is tried where KVM is: which tests, with which driver, and what came of them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::failure::{Failure, Outcome};
use crate::host::{target_directory, workspace};
use crate::program::Program;
use crate::report::Tally;
use crate::suite::{Case, cases};

/// Packages with tests that may want KVM, or the box.
const PACKAGES: &[&str] = &["sprite-vmm", "sprite-machine", "sprited"];

/// Cargo's words for these tests: those beside the code, for its own need nothing of the kind.
pub fn selection() -> impl Iterator<Item = &'static str> {
    let packages = PACKAGES.iter().flat_map(|package| ["--package", *package]);
    packages.chain(["--test", "*"])
}

/// What of the working tree the tests want to find beside themselves, and nextest before them.
pub fn sources() -> Vec<PathBuf> {
    let packages = PACKAGES.iter().flat_map(|package| {
        let package = Path::new("crates").join(package);
        [package.join("Cargo.toml"), package.join("tests")]
    });
    let all = packages.chain(["Cargo.toml", ".config/nextest.toml"].map(PathBuf::from));
    all.filter(|path| workspace().join(path).exists()).collect()
}

/// Tests that are run together.
#[derive(Debug)]
pub struct Part {
    /// Its name, also of its report.
    pub name: &'static str,
    /// Which tests, as nextest's filters have it.
    filter: &'static str,
    /// Which driver the servers of these tests use.
    driver: Option<&'static str>,
    /// Where it is worth its time.
    place: Place,
    /// When it is.
    when: When,
}

/// Where a part is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Wherever KVM is usable.
    Anywhere,
    /// In the box alone, for what it has that computers of developers may lack.
    Box,
}

/// When a part is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    /// With every change.
    Always,
    /// When it is asked for, by its name or the name of a test, or with everything: it takes longer than a change
    /// can wait.
    Asked,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection<'a> {
    /// What every change must pass.
    Usual,
    /// All parts, and in them also the tests that are run by their names alone.
    Everything,
    /// The part of this name; if there is none, all tests whose name holds it.
    Named(&'a str),
}

impl Selection<'_> {
    /// Whether tests of it run the official SDKs.
    pub fn wants_sdks(self) -> bool {
        match self {
            Selection::Usual => false,
            Selection::Everything => true,
            Selection::Named(name) => name == "conformance",
        }
    }

    /// The parts that it asks for.
    pub fn parts(self) -> impl Iterator<Item = &'static Part> + Clone {
        let named = PARTS.iter().any(|part| self == Selection::Named(part.name));
        PARTS.iter().filter(move |part| match self {
            Selection::Usual => part.when == When::Always,
            Selection::Everything => true,
            Selection::Named(name) => !named || part.name == name,
        })
    }
}

/// All of them: what is in none of them is run nowhere but where all tests are.
pub const PARTS: &[Part] = &[
    Part {
        name: "vmm",
        // Its other tests need no KVM, and are run with all others.
        filter: "package(sprite-vmm) & binary(/^(kvm_usable|machine|program|frozen)$/)",
        driver: None,
        place: Place::Anywhere,
        when: When::Always,
    },
    Part {
        name: "microvm",
        filter: "package(sprited) & (binary(/^(sleep|golden|linux|microvm)$/) + test(/^(exit_codes_streams|a_checkpoint_brings_back|a_fork_has|monitors::)/))",
        driver: Some("microvm"),
        place: Place::Anywhere,
        when: When::Always,
    },
    // Whatever is promised of sprites is promised with this driver too, and tried by the same tests.
    Part {
        name: "microvm-sprites",
        // A thousand sleeps, and hundreds of machines at once, are `soak sleeps`.
        filter: "package(sprited) & (binary(/^(sessions|recovery|properties|journal|files|inside|ports|services|holds|endless|checkpoints)$/) - test(/^(exit_codes_streams|a_checkpoint_brings_back|a_fork_has|a_websocket_counts_on_over_a_thousand|two_hundred_sprites)/))",
        driver: Some("microvm"),
        place: Place::Anywhere,
        when: When::Asked,
    },
    // What hostile code may not do; what it may because the kernel is its own is named after containers.
    Part {
        name: "microvm-breakout",
        filter: "package(sprited) & binary(/^breakout$/) - test(/^(containers|monitors)::/)",
        driver: Some("microvm"),
        place: Place::Anywhere,
        when: When::Asked,
    },
    // The official SDKs, a part of their suites; all of them is tried with the other driver.
    Part {
        name: "conformance",
        filter: "package(sprited) & binary(conformance)",
        driver: Some("microvm"),
        place: Place::Anywhere,
        when: When::Asked,
    },
    // Machines of the other driver on cgroup version 2: what the versions differ in, as short as it can be tried.
    Part {
        name: "container-cgroup2",
        filter: "package(sprited) & test(/(^|::)(exit_codes_streams|a_killed_server_adopts|a_memory_bomb_ends)/)",
        driver: Some("container"),
        place: Place::Box,
        when: When::Always,
    },
];

/// Tests that build a program for others; they need nothing but a compiler.
const PREPARATIONS: &str = "test(/(^|::)builds_/)";

/// The profile of nextest that is used. Source: .config/nextest.toml.
const PROFILE: &str = "box";

impl Part {
    /// Whether it is run natively too.
    pub fn everywhere(&self) -> bool {
        self.place == Place::Anywhere
    }

    /// The filter, narrowed to the tests whose name was given.
    fn filter(&self, selection: Selection<'_>) -> String {
        match selection {
            Selection::Named(name) if name != self.name => {
                format!("({}) & test({name})", self.filter)
            }
            Selection::Named(_) | Selection::Usual | Selection::Everything => {
                self.filter.to_owned()
            }
        }
    }

    /// Variables for its tests; `vmm` is the monitor if it is not the built one.
    pub fn environment(&self, vmm: Option<&Path>) -> Vec<(&'static str, String)> {
        let Some(driver) = self.driver else {
            return Vec::new();
        };
        // What boots in seconds takes half a minute in an emulator that others slow down.
        let patience = ("SPRITED_BOOT_WITHIN", "180s".to_owned());
        let vmm = vmm.map(|vmm| ("SPRITED_VMM", vmm.display().to_string()));
        let driver = ("SPRITED_DRIVER", driver.to_owned());
        [driver, patience].into_iter().chain(vmm).collect()
    }
}

/// The built tests.
#[derive(Debug)]
pub struct Built {
    /// nextest's list of them.
    pub list: String,
    /// The test programs, and the programs that they start.
    pub programs: Vec<PathBuf>,
}

/// Builds the tests and the programs that they start.
///
/// # Errors
/// They do not compile, or the list of them cannot be read.
pub fn build() -> Outcome<Built> {
    let list = Program::cargo()
        .args(["nextest", "list", "--locked"])
        .args(["--list-type", "binaries-only", "--message-format", "json"])
        .args(selection())
        .dir(workspace())
        .read()?;
    let programs = programs(&list)?;
    Ok(Built { list, programs })
}

/// Runs the tests that build what others need: where those run there may be no compiler.
///
/// # Errors
/// One of them fails.
pub fn prepare() -> Outcome {
    Program::cargo()
        .args(["nextest", "run", "--locked"])
        .args(selection())
        .args(["--no-tests", "pass", "-E", PREPARATIONS])
        .dir(workspace())
        .read()
        .map(drop)
}

/// Where such tests leave what they built. Source: the Cargo book, `CARGO_TARGET_TMPDIR`.
pub fn prepared() -> PathBuf {
    target_directory().join("tmp")
}

fn programs(list: &str) -> Outcome<Vec<PathBuf>> {
    let list: Value = serde_json::from_str(list)
        .map_err(|error| Failure::Check(format!("read the list of tests: {error}")))?;
    let meta = &list["rust-build-meta"];
    let target = Path::new(meta["target-directory"].as_str().unwrap_or_default());
    let tests = list["rust-binaries"]
        .as_object()
        .into_iter()
        .flat_map(|binaries| binaries.values())
        .filter_map(|binary| binary["binary-path"].as_str().map(PathBuf::from));
    let started = meta["non-test-binaries"]
        .as_object()
        .into_iter()
        .flat_map(|packages| packages.values())
        .filter_map(Value::as_array)
        .flatten()
        .filter_map(|binary| binary["path"].as_str().map(|path| target.join(path)));
    let all: Vec<PathBuf> = tests.chain(started).collect();
    if all.is_empty() {
        return Err(Failure::Check("there are no tests to run".to_owned()));
    }
    Ok(all)
}

/// nextest's words for a part, after those that say where its tests are.
pub fn words(part: &Part, selection: Selection<'_>) -> Vec<String> {
    // A test that takes too long for every run is run by its name.
    let ignored = match selection {
        Selection::Named(_) | Selection::Everything => "all",
        Selection::Usual => "default",
    };
    ["--profile", PROFILE, "--no-tests", "pass"]
        .into_iter()
        .chain(["--run-ignored", ignored, "-E"])
        .map(str::to_owned)
        .chain([part.filter(selection)])
        .collect()
}

/// Where nextest writes a part's report, below the target directory.
pub fn report() -> PathBuf {
    Path::new("nextest").join(PROFILE).join("junit.xml")
}

/// What came of tests.
#[derive(Debug, Default)]
pub struct Tried {
    /// How many passed and failed; those that said that they cannot be run are among the passed ones.
    pub tally: Tally,
    /// Each of them.
    pub cases: Vec<Case>,
}

impl Tried {
    /// Adds the report of a part, and says what it counts.
    ///
    /// # Errors
    /// It is not there, or no report.
    pub fn add(&mut self, part: &Part, report: &Path) -> Outcome {
        let text = std::fs::read_to_string(report)
            .map_err(Failure::io(format!("read {}", report.display())))?;
        let tally = tally(&text)
            .ok_or_else(|| Failure::Check(format!("{} is no report", report.display())))?;
        eprintln!("{}: {tally}", part.name);
        self.tally.add(tally);
        self.cases.extend(cases(&text));
        Ok(())
    }

    /// Those of `wanted`, ids of tests, that did not run here either.
    pub fn lacks(&self, wanted: &[String]) -> Vec<String> {
        let ran: BTreeSet<&str> = self
            .cases
            .iter()
            .filter(|case| case.skipped.is_none())
            .map(|case| case.id.as_str())
            .collect();
        wanted
            .iter()
            .filter(|id| !ran.contains(id.as_str()))
            .cloned()
            .collect()
    }
}

fn tally(report: &str) -> Option<Tally> {
    let (_, attributes) = report.split_once("<testsuites ")?;
    let (attributes, _) = attributes.split_once('>')?;
    let number = |name: &str| {
        let (_, rest) = attributes.split_once(&format!(" {name}=\""))?;
        rest.split('"').next()?.parse::<usize>().ok()
    };
    let failed = number("failures")? + number("errors")?;
    Some(Tally {
        passed: number("tests")?.saturating_sub(failed),
        failed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_counted() {
        let report = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="nextest-run" tests="5" failures="1" errors="1" uuid="x" time="0.1">"#;
        let counted = tally(report).expect("it is a report");
        assert_eq!((counted.passed, counted.failed), (3, 2));
        assert_eq!(tally("garbage"), None);
    }

    #[test]
    fn tests_and_what_they_start_are_found() {
        let list = r#"{"rust-build-meta": {"target-directory": "/w/target",
            "non-test-binaries": {"p": [{"name": "d", "path": "debug/d"}]}},
            "rust-binaries": {"p::t": {"binary-path": "/w/target/debug/deps/t-1"}}}"#;
        assert_eq!(
            programs(list).expect("it is a list"),
            ["/w/target/debug/deps/t-1", "/w/target/debug/d"].map(PathBuf::from)
        );
        assert!(programs("{}").is_err());
        assert!(programs("garbage").is_err());
    }

    #[test]
    fn a_test_that_ran_nowhere_is_lacking() {
        let case = |id: &str, skipped: Option<&str>| Case {
            id: id.to_owned(),
            skipped: skipped.map(str::to_owned),
        };
        let tried = Tried {
            tally: Tally::default(),
            cases: vec![case("ran", None), case("said no", Some("needs more"))],
        };
        let wanted = ["ran", "said no", "unheard of"].map(str::to_owned);
        assert_eq!(tried.lacks(&wanted), ["said no", "unheard of"]);
    }

    #[test]
    fn a_name_narrows_every_part_and_a_parts_name_means_all_of_it() {
        for part in PARTS {
            let all = part.filter(Selection::Usual);
            assert_eq!(
                part.filter(Selection::Named("halt")),
                format!("({all}) & test(halt)")
            );
            let named = Selection::Named(part.name);
            assert_eq!(part.filter(named), all);
            let names: Vec<&str> = named.parts().map(|part| part.name).collect();
            assert_eq!(names, [part.name]);
        }
        let count = |selection: Selection<'_>| selection.parts().count();
        assert_eq!(count(Selection::Named("halt")), PARTS.len());
        assert_eq!(count(Selection::Everything), PARTS.len());
        assert!(count(Selection::Usual) < PARTS.len());
    }
}
