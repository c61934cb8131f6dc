//! Every command a developer of this project types: `cargo xtask COMMAND`.

mod bench;
mod blocks;
mod book;
mod checks;
mod ci;
mod conformance;
mod demo;
mod edges;
mod failure;
mod fuzz;
mod host;
mod interrupt;
mod kvm_test;
mod leftovers;
mod packages;
mod program;
mod report;
mod rest;
mod server;
mod soak;
mod specification;
mod suite;
mod test;

use std::process::ExitCode;

use crate::bench::Part;
use crate::failure::{Failure, Outcome};
use crate::host::{Consent, Host};
use crate::server::Build;
use crate::test::Scope;

const HELP: &str = "\
cargo xtask COMMAND

  demo             a sprite's life on this computer, from nothing to nothing left behind
  demo --debug     the same with a build that is quick to make and slow to run
  demo --vm        the same in an emulated computer: nothing of this one is touched
  test             the tests this computer can run as it is; says what is left out and why
  test --all       every test; lists what must be installed, and asks once
  kvm-test         what needs KVM: on this computer if it lends its virtualization, else in the box,
                   an emulated one; --box wherever, --shell for a shell in the box, -- NAME for one test,
                   --vmm FILE with another monitor than the built one
  bench            the numbers of SPECIFICATION.md, each against a floor taken in the same run
  conformance      the official SDKs and the documents' code blocks, against a server of our own
  bench --vm       the numbers of virtual machines: on this computer if it lends its virtualization, else in
                   the box, where ratios alone mean anything; --box wherever
  bench files      those of files alone
  bench sleepers   those of many sprites that sleep alone
  bench checkpoints
                   those of checkpoints and forks alone
  bench url        those of sprites' URLs alone
  bench --debug    tries the bench itself: the numbers of a debug build mean nothing
  soak             what takes hours: every test that wants KVM, each fuzzer for ten minutes, simulated lives;
                   soak kvm [--box], soak fuzz [--seconds N], soak simulation [--seconds N] or soak sleeps for one
                   of them
  ci               everything a change must pass
  check            the quick part of it: imports, documents, SPECIFICATION.md
  generate         writes the documents that are made from the code

  --yes            agrees to what would be asked

Programs are built as the calling user; sudo is used for the steps that need it, which are printed first.
";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let consent = if words.contains(&"--yes") {
        Consent::Given
    } else {
        Consent::Ask
    };
    let words: Vec<&str> = words.into_iter().filter(|word| *word != "--yes").collect();
    match interrupt::watch().and_then(|()| dispatch(&words, consent)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Interrupted) => ExitCode::from(130),
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(words: &[&str], consent: Consent) -> Outcome {
    let host = Host::here();
    match words {
        [] | ["help" | "--help" | "-h"] => {
            print!("{HELP}");
            Ok(())
        }
        ["demo"] => demo::run(host, Build::Release, consent),
        ["demo", "--debug"] => demo::run(host, Build::Debug, consent),
        ["demo", "--vm"] => kvm_test::demo(host, Build::Release, consent),
        ["demo", "--vm", "--debug"] => kvm_test::demo(host, Build::Debug, consent),
        // The second half of `demo --vm`, started in the box.
        ["demo", "--built", "release"] => demo::run_built(host, Build::Release),
        ["demo", "--built", "debug"] => demo::run_built(host, Build::Debug),
        ["kvm-test", words @ ..] => kvm_test::run(host, &kvm_test::Wish::read(words)?, consent),
        ["test"] => test::run(host, Scope::AsItIs, consent),
        ["test", "--all"] => test::run(host, Scope::All, consent),
        ["bench"] => bench::run(host, Build::Release, Part::All, consent),
        ["bench", "--debug"] => bench::run(host, Build::Debug, Part::All, consent),
        ["bench", "--vm"] => bench::machines::run(host, kvm_test::Place::Best, consent),
        ["bench", "--box"] => bench::machines::run(host, kvm_test::Place::Box, consent),
        // The second half of `bench`, started by sudo.
        ["bench", part, "--built", build] => {
            let part = part_of_bench(part)?;
            let build = match *build {
                "debug" => Build::Debug,
                _release => Build::Release,
            };
            bench::measure(host, build, part)
        }
        ["bench", part] => bench::run(host, Build::Release, part_of_bench(part)?, consent),
        ["bench", part, "--debug"] => bench::run(host, Build::Debug, part_of_bench(part)?, consent),
        ["ci"] => ci::run(host, consent),
        ["conformance"] => test::conformance(host, consent),
        ["check"] => check(),
        ["generate"] => generate(),
        ["soak", words @ ..] => soak::run(host, soak::Wish::read(words)?, consent),
        _ => Err(Failure::Refused(format!(
            "no such command: {}\n\n{HELP}",
            words.join(" ")
        ))),
    }
}

fn part_of_bench(word: &str) -> Outcome<Part> {
    Part::of(word).ok_or_else(|| Failure::Refused(format!("bench has no part {word}")))
}

fn generate() -> Outcome {
    Build::Debug.make_client()?;
    checks::write_contract()?;
    checks::generated(Build::Debug, checks::Lag::Mended)
}

fn check() -> Outcome {
    edges::check()?;
    let documents = book::check()?;
    let promises = specification::check()?;
    println!("imports, {documents} documents and {promises} promises are in order");
    Ok(())
}
