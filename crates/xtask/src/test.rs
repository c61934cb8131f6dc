//! `cargo xtask test`: says what runs, what is skipped and why, and what enables it; then runs it.

use crate::conformance::{self, Sdks};
use crate::failure::{Failure, Outcome};
use crate::host::{Consent, Host, Privilege};
use crate::packages::{self, Package};
use crate::report::Tally;
use crate::server::{Build, MINIMAL, Server};
use crate::suite::{Depth, Tested};
use crate::{blocks, book, edges, suite};

/// How much is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// What this computer can run as it is. Nothing is installed.
    AsItIs,
    /// Everything; what is missing is installed, after a question.
    All,
}

/// One line of the plan.
struct Part {
    name: &'static str,
    what: &'static str,
    /// Why it is left out, with the command that changes that.
    skipped: Option<String>,
}

/// What can be run here.
struct Plan {
    machines: Option<String>,
    sdks: Option<String>,
}

/// Prints the plan and runs it.
///
/// # Errors
/// A test fails, or a part cannot be run to its end.
pub fn run(host: Host, scope: Scope, consent: Consent) -> Outcome {
    let plan = match scope {
        Scope::AsItIs => Plan::here(host),
        Scope::All => prepare(&host, consent)?,
    };
    eprintln!("plan:\n{}", plan.lines().join("\n"));
    let mut total = Tally::default();
    for (name, check) in [
        ("imports", edges::check as fn() -> Outcome),
        ("documents", || book::check().map(drop)),
    ] {
        let outcome = check();
        match &outcome {
            Ok(()) => eprintln!("ok    {name}"),
            Err(failure) => eprintln!("FAIL  {name}\n{failure}"),
        }
        total.add(one(outcome.is_ok()));
    }
    let depth = match scope {
        Scope::AsItIs => Depth::Quick,
        Scope::All => Depth::Thorough,
    };
    let mut tested = suite::as_caller(depth)?;
    total.add(tested.tally);
    if host.privilege == Privilege::Sudo && plan.machines.is_none() {
        // What could not be run as the caller is run now.
        tested = suite::by_sudo(depth)?;
        total.add(tested.tally);
    }
    tell_skipped(&tested);
    if plan.machines.is_none() && plan.sdks.is_none() {
        total.add(against_a_server(host, Build::Debug)?);
    }
    judge(total)
}

fn tell_skipped(tested: &Tested) {
    for test in &tested.skipped {
        eprintln!("skipped  {test}");
    }
}

/// The part of [`run`] that needs a live server, alone.
///
/// # Errors
/// A test fails, or a suite cannot be run to its end.
pub fn conformance(host: Host, consent: Consent) -> Outcome {
    prepare(&host, consent)?;
    judge(against_a_server(host, Build::Debug)?)
}

fn judge(total: Tally) -> Outcome {
    println!("{total}");
    match total.failed {
        0 => Ok(()),
        failed => Err(Failure::Check(format!("{failed} failed"))),
    }
}

fn one(passed: bool) -> Tally {
    Tally {
        passed: usize::from(passed),
        failed: usize::from(!passed),
    }
}

impl Plan {
    fn here(host: Host) -> Self {
        let enable = "cargo xtask test --all";
        let machines = match host.privilege {
            Privilege::Root => lacking(packages::SERVE)
                .map(|names| format!("{names} not installed; {enable} installs it")),
            Privilege::Sudo => Some(format!("needs root; {enable} uses sudo")),
            Privilege::None => Some(format!("needs root; as root: {enable}")),
        };
        let sdks = if Sdks::installed() {
            None
        } else {
            Some(format!(
                "the SDKs are not installed; {enable} installs them below target/"
            ))
        };
        let sdks = machines
            .clone()
            .map(|_| "needs machines, see above".to_owned())
            .or(sdks);
        Self { machines, sdks }
    }

    fn lines(&self) -> Vec<String> {
        let parts = [
            Part {
                name: "documents",
                what: "links, imports, contents",
                skipped: None,
            },
            Part {
                name: "unit",
                what: "unit, property and API tests on fakes",
                skipped: None,
            },
            Part {
                name: "machines",
                what: "disks, networks and machines as they are in service",
                skipped: self.machines.clone(),
            },
            Part {
                name: "conformance",
                what: "the official JavaScript and Python SDKs, and the documents' code blocks",
                skipped: self.sdks.clone(),
            },
        ];
        let line = |part: Part| match part.skipped {
            None => format!("  run   {:<12} {}", part.name, part.what),
            Some(why) => format!("  skip  {:<12} {}: {why}", part.name, part.what),
        };
        parts.map(line).into()
    }
}

fn lacking(wanted: &[Package]) -> Option<String> {
    let names: Vec<&str> = packages::missing(wanted)
        .iter()
        .map(|package| package.name)
        .collect();
    if names.is_empty() {
        None
    } else {
        Some(names.join(", "))
    }
}

/// Installs what is missing, after a question.
fn prepare(host: &Host, consent: Consent) -> Outcome<Plan> {
    let wanted: Vec<Package> = [packages::SERVE, packages::CONFORMANCE].concat();
    let missing = packages::missing(&wanted);
    let mut steps: Vec<String> = packages::announcement(&missing).into_iter().collect();
    steps.push(
        "tests set up machines, networks, mounts and loop devices, and remove them".to_owned(),
    );
    steps.push("base images are made once and kept in /var/cache/sprited".to_owned());
    host.agree(&steps, consent)?;
    packages::install(host, &missing)?;
    Sdks::install()?;
    Ok(Plan {
        machines: None,
        sdks: None,
    })
}

/// What needs a live server: the official SDKs and the documents' code blocks.
///
/// # Errors
/// The server does not start or does not go, or a suite cannot be run to its end.
pub fn against_a_server(host: Host, build: Build) -> Outcome<Tally> {
    build.make()?;
    let sdks = Sdks::install()?;
    let server = Server::start(host, build, "test", MINIMAL)?;
    let mut total = conformance::run(&server, &sdks)?;
    let (passed, failed) = blocks::run(&server, &sdks)?;
    total.add(Tally { passed, failed });
    server.remove()?;
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The part of the plan with this name.
    fn line(privilege: Privilege, name: &str) -> String {
        let lines = Plan::here(Host { privilege }).lines();
        let line = lines.into_iter().find(|line| line.contains(name));
        line.expect("every part has its line")
    }

    #[test]
    fn what_is_skipped_is_told_with_its_reason_and_what_enables_it() {
        for (privilege, how) in [
            (Privilege::Sudo, "uses sudo"),
            (Privilege::None, "as root:"),
        ] {
            assert!(line(privilege, "unit").starts_with("  run"));
            let machines = line(privilege, "machines");
            assert!(machines.starts_with("  skip"), "{machines}");
            for part in ["needs root", "cargo xtask test --all", how] {
                assert!(machines.contains(part), "{part}: {machines}");
            }
            assert!(line(privilege, "conformance").starts_with("  skip"));
        }
    }
}
