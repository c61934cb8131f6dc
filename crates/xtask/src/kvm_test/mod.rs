//! `cargo xtask kvm-test`: what needs hardware virtualization, tried on the real interface of the kernel.
//!
//! Where the computer lends its virtualization the tests run on it. Everywhere else they run in *the box*: a small
//! Debian under an emulator that emulates virtualization too, so that its `/dev/kvm` is a true one. Only speed is
//! lost: times in the box are printed and never judged.

mod cpio;
mod disk;
mod emulator;
mod errand;
mod mirror;
mod native;
mod outer;
mod suite;
mod visit;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use crate::kvm_test::cpio::Archive;
pub use crate::kvm_test::errand::{Brought, Errand};

use crate::conformance::Sdks;
use crate::failure::{Failure, Outcome};
use crate::host::{Consent, Host, find_program, target_directory, workspace};
use crate::kvm_test::emulator::Terminal;
use crate::kvm_test::outer::Outer;
use crate::kvm_test::suite::{Built, Part, Selection, Tried};
use crate::kvm_test::visit::{Returned, Visit, timed};
use crate::program::Program;
use crate::server::Build;

/// What the box may take in CI. Fifteen minutes, all in all, are its budget; a busy computer gets more before a run is
/// given up.
pub const TESTS_WITHIN: Duration = Duration::from_secs(35 * 60);

/// By hand, on a computer that has other things to do.
const TESTS_AT_LEISURE: Duration = Duration::from_secs(2 * 60 * 60);

/// Everything, in an emulator.
const SOAK_WITHIN: Duration = Duration::from_secs(4 * 60 * 60);

const DEMO_WITHIN: Duration = Duration::from_secs(20 * 60);

/// Most boxes that share the tests: each takes memory, and the longest test decides in the end.
const BOXES: usize = 3;

/// What is asked of `kvm-test`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Where.
    pub place: Place,
    /// Only the part of this name, or the tests whose name holds it.
    pub name: Option<String>,
    /// The monitor of virtual machines, if it is not the one that was built: a `firecracker`, say.
    pub vmm: Option<PathBuf>,
    /// How long the box may take for it.
    pub within: Duration,
}

/// Where the tests run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On this computer if it can, in the box if not.
    Best,
    /// In the box.
    Box,
    /// In the box too, and it is a shell instead of tests.
    Shell,
}

impl Wish {
    /// Reads the words after `kvm-test`.
    ///
    /// # Errors
    /// A word is not known.
    pub fn read(words: &[&str]) -> Outcome<Self> {
        let mut wish = Self {
            place: Place::Best,
            name: None,
            vmm: None,
            within: TESTS_AT_LEISURE,
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match *word {
                "--box" if wish.place == Place::Best => wish.place = Place::Box,
                "--box" => {}
                "--shell" => wish.place = Place::Shell,
                "--vmm" => {
                    let path = words.next().ok_or_else(|| {
                        Failure::Refused("the path of a program follows --vmm".to_owned())
                    })?;
                    let found = std::fs::canonicalize(path);
                    wish.vmm = Some(found.map_err(Failure::io(format!("look at {path}")))?);
                }
                "--" => match (words.next(), words.next()) {
                    (Some(name), None) => wish.name = Some(plain(name)?),
                    _ => {
                        let text = "one name of a test, or of a part, follows --";
                        return Err(Failure::Refused(text.to_owned()));
                    }
                },
                other => {
                    return Err(Failure::Refused(format!(
                        "no such word of kvm-test: {other}"
                    )));
                }
            }
        }
        Ok(wish)
    }
}

/// A name of a test is one, and nothing that a filter or a shell would understand.
fn plain(name: &str) -> Outcome<String> {
    let known = |c: char| c.is_ascii_alphanumeric() || "_:-".contains(c);
    if !name.is_empty() && name.chars().all(known) {
        Ok(name.to_owned())
    } else {
        Err(Failure::Refused(format!("{name:?} is no name of a test")))
    }
}

/// Does what is wished, and prints the count.
///
/// # Errors
/// A test fails, or they cannot be run to their end.
pub fn run(host: Host, wish: &Wish, consent: Consent) -> Outcome {
    if wish.place == Place::Shell {
        return shell(&host, consent);
    }
    tell(&test(host, wish, consent)?)
}

fn tell(tried: &Tried) -> Outcome {
    for case in &tried.cases {
        if let Some(reason) = &case.skipped {
            eprintln!("skipped  {}: {reason}", case.id);
        }
    }
    println!("{}", tried.tally);
    match tried.tally.failed {
        0 => Ok(()),
        failed => Err(Failure::Check(format!("{failed} failed"))),
    }
}

/// Runs the tests.
///
/// # Errors
/// They cannot be run to their end; a test that fails is counted.
pub fn test(host: Host, wish: &Wish, consent: Consent) -> Outcome<Tried> {
    let selection = match &wish.name {
        Some(name) => Selection::Named(name),
        None => Selection::Usual,
    };
    tried(host, wish, selection, consent)
}

/// Runs every test that wants a KVM, those too that take longer than a change can wait.
///
/// # Errors
/// As [`test`].
pub fn soak(host: Host, place: Place, consent: Consent) -> Outcome {
    let wish = Wish {
        place,
        name: None,
        vmm: None,
        within: SOAK_WITHIN,
    };
    tell(&tried(host, &wish, Selection::Everything, consent)?)
}

fn tried(host: Host, wish: &Wish, selection: Selection<'_>, consent: Consent) -> Outcome<Tried> {
    if find_program("cargo-nextest").is_none() {
        return Err(Failure::Refused(
            "cargo-nextest is missing: cargo install --locked cargo-nextest".to_owned(),
        ));
    }
    let built = timed("tests built", suite::build)?;
    if selection.wants_sdks() {
        timed("SDKs", || Sdks::install().map(drop))?;
    }
    let obstacle = match wish.place {
        Place::Best => native::obstacle(&built),
        Place::Box | Place::Shell => Some("asked for".to_owned()),
    };
    match obstacle {
        None => {
            eprintln!("on this computer's own KVM");
            native::test(&host, selection, wish.vmm.as_deref(), consent)
        }
        Some(why) => {
            eprintln!("in the box: {why}");
            let outer = timed("outer system", || Outer::ready(&host, consent))?;
            test_in_box(&host, &outer, &built, wish, selection)
        }
    }
}

fn test_in_box(
    host: &Host,
    outer: &Outer,
    built: &Built,
    wish: &Wish,
    selection: Selection<'_>,
) -> Outcome<Tried> {
    let (workspace, target) = (workspace(), target_directory());
    let mut visit = Visit::prepare(outer)?;
    visit.place(&workspace);
    visit.place(&target);
    for program in &built.programs {
        visit.bring(program)?;
    }
    timed("programs of tests", suite::prepare)?;
    if suite::prepared().exists() {
        visit.bring(&suite::prepared())?;
    }
    for file in suite::sources() {
        visit.bring(&workspace.join(file))?;
    }
    if selection.wants_sdks() {
        bring_sdks(&mut visit)?;
    }
    visit.bring_program("cargo-nextest")?;
    visit.write("binaries.json", &built.list)?;
    visit.write("cargo.json", &metadata()?)?;
    timed("images", || {
        visit.bring_images(host, &Build::Debug.directory().join("sprited"))
    })?;
    let boxes = boxes(selection);
    let vmm = match &wish.vmm {
        Some(vmm) => Some(visit.bring_file(vmm, "vmm")?),
        None => None,
    };
    let parts: String = selection
        .parts()
        .map(|part| command(part, selection, vmm.as_deref(), boxes))
        .collect();
    let command = format!("failed=0\n{parts}exit $failed\n");
    let mut all = Tried::default();
    for stay in visit.go_to_several(boxes, &command, Terminal::Repeated, wish.within)? {
        match stay {
            Ok(returned) => count(&returned, selection, &mut all),
            Err(Failure::Interrupted) => return Err(Failure::Interrupted),
            // What the other boxes found is told too.
            Err(failure) => {
                eprintln!("FAIL  {failure}");
                all.tally.failed += 1;
            }
        }
    }
    eprintln!("reports and consoles: {}", visit::results().display());
    Ok(all)
}

/// The official SDKs with what runs them, and their suites: the box has neither Node nor Python.
fn bring_sdks(visit: &mut Visit<'_>) -> Outcome {
    let sdks = Sdks::install()?;
    visit.place(sdks.directory());
    visit.bring(sdks.directory())?;
    let libraries = sdks.python_libraries()?;
    // A shared library stands in a directory of that Python alone.
    let place = match libraries.as_slice() {
        [modules] => modules,
        several => several[0].parent().unwrap_or(&several[0]),
    };
    visit.place(place);
    for library in &libraries {
        visit.bring(library)?;
    }
    visit.bring(&workspace().join("conformance"))
}

/// Adds what one of the boxes found.
fn count(returned: &Returned, selection: Selection<'_>, all: &mut Tried) {
    let before = all.tally.failed;
    for part in selection.parts() {
        let report = returned.results.join(format!("{}.xml", part.name));
        if let Err(failure) = all.add(part, &report) {
            eprintln!("FAIL  {}: {failure}", part.name);
            all.tally.failed += 1;
        }
    }
    if returned.status != 0 && all.tally.failed == before {
        eprintln!(
            "FAIL  the command in the box ended with {}",
            returned.status
        );
        all.tally.failed += 1;
    }
}

/// How many boxes share the tests: one for each processor of this computer, at most [`BOXES`].
fn boxes(selection: Selection<'_>) -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    match selection {
        // A few tests are not worth another box; a whole part is.
        Selection::Named(_) if selection.parts().count() > 1 => 1,
        Selection::Named(_) | Selection::Usual | Selection::Everything => processors.min(BOXES),
    }
}

/// Shell lines that run a box's share of a part, and keep its report.
fn command(part: &Part, selection: Selection<'_>, vmm: Option<&Path>, boxes: usize) -> String {
    let nextest = Program::new("/mnt/box/cargo-nextest")
        .args(["nextest", "run"])
        .args(["--binaries-metadata", "/mnt/box/binaries.json"])
        .args(["--cargo-metadata", "/mnt/box/cargo.json"])
        .args(["--workspace-remap"])
        .args([workspace()])
        .args(suite::words(part, selection));
    let variables: String = part
        .environment(vmm)
        .iter()
        .map(|(name, value)| format!("{name}={value} "))
        .collect();
    format!(
        "echo '== {name}'\n{variables}{nextest} --partition slice:$lane/{boxes} || failed=1\n\
         mv {report} /results/{name}.xml\n",
        name = part.name,
        nextest = nextest.shown(),
        report = Program::new(target_directory().join(suite::report())).shown(),
    )
}

fn metadata() -> Outcome<String> {
    Program::cargo()
        .args(["metadata", "--locked", "--format-version", "1"])
        .dir(workspace())
        .read()
}

/// A shell in the box, with this computer's build of the programs.
fn shell(host: &Host, consent: Consent) -> Outcome {
    Build::Debug.make()?;
    let outer = Outer::ready(host, consent)?;
    let mut visit = pack_programs(host, &outer, Build::Debug)?;
    let size = Program::new("stty").args(["size"]).at_terminal()?;
    let (rows, columns) = size.trim().split_once(' ').unwrap_or(("24", "80"));
    visit.write(
        "README",
        "sprited and sprite are on PATH; /results is brought home; exit ends\n",
    )?;
    let command = format!(
        "stty rows {rows} columns {columns}\nexport TERM=linux PATH={directory}:$PATH\n\
         cat /mnt/box/README\nexec bash -i\n",
        directory = Build::Debug.directory().display(),
    );
    let returned = visit.go(&command, Terminal::Persons, DEMO_WITHIN)?;
    eprintln!("what was in /results is in {}", returned.results.display());
    Ok(())
}

/// `cargo xtask demo --vm`: the demo in the box, so that nothing of this computer is touched.
///
/// # Errors
/// The demo fails.
pub fn demo(host: Host, build: Build, consent: Consent) -> Outcome {
    timed("programs built", || build.make())?;
    let outer = timed("outer system", || Outer::ready(&host, consent))?;
    let mut visit = pack_programs(&host, &outer, build)?;
    let own = std::env::current_exe().map_err(Failure::io("find this program"))?;
    visit.place(own.parent().unwrap_or(Path::new("/")));
    visit.bring(&own)?;
    let demo = Program::new(&own).args(["demo", "--yes", "--built", build.name()]);
    let command = format!("{}\n", demo.shown());
    let returned = visit.go(&command, Terminal::Repeated, DEMO_WITHIN)?;
    match returned.status {
        0 => Ok(()),
        status => Err(Failure::Check(format!("the demo ended with {status}"))),
    }
}

fn pack_programs<'a>(host: &Host, outer: &'a Outer, build: Build) -> Outcome<Visit<'a>> {
    let mut visit = Visit::prepare(outer)?;
    visit.place(&workspace());
    visit.place(&target_directory());
    for name in ["sprited", "sprite"] {
        visit.bring(&build.directory().join(name))?;
    }
    timed("images", || {
        visit.bring_images(host, &build.directory().join("sprited"))
    })?;
    Ok(visit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_are_read() {
        let read = |words: &[&str]| Wish::read(words).map(|wish| (wish.place, wish.name)).ok();
        assert_eq!(read(&[]), Some((Place::Best, None)));
        assert_eq!(read(&["--box"]), Some((Place::Box, None)));
        assert_eq!(read(&["--shell", "--box"]), Some((Place::Shell, None)));
        assert_eq!(
            read(&["--box", "--", "boot::halts"]),
            Some((Place::Box, Some("boot::halts".to_owned())))
        );
        assert_eq!(read(&["--", "a", "b"]), None);
        assert_eq!(read(&["--", "a) | all("]), None);
        assert_eq!(read(&["boot"]), None);
    }
}
