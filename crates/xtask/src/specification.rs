//! SPECIFICATION.md: each promise with what fails when it stops being true.
//!
//! A row is `| promise | proof, proof |`, each proof in backticks:
//!
//! | proof | exists when |
//! |---|---|
//! | `crate::path::test` | `cargo nextest list` has a test of that id (`crate::binary::path::test` for the files of `tests/`); a trailing `*` stands for at least one test |
//! | `conformance/js/suite.mjs::name` | the file holds that name in quotes |
//! | `bench::row` | `cargo xtask bench` has a row of that name |
//! | `ci::step` | `cargo xtask ci` has a step of that name |
//! | `demo::step` | `cargo xtask demo` has a step of that name |

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::failure::{Failure, Outcome};
use crate::host::workspace;
use crate::program::Program;

/// A row of the document.
#[derive(Debug, PartialEq, Eq)]
struct Promise {
    line: usize,
    text: String,
    proofs: Vec<String>,
}

/// What can prove a promise.
#[derive(Debug, Default)]
struct Proofs {
    tests: BTreeSet<String>,
    benches: Vec<&'static str>,
    steps: Vec<&'static str>,
    demo: Vec<&'static str>,
}

/// Checks the document against the tests of the working tree, which this builds.
///
/// # Errors
/// A row without a proof, or a proof that does not exist, each with its line.
pub fn check() -> Outcome<usize> {
    let path = workspace().join("SPECIFICATION.md");
    let text =
        std::fs::read_to_string(&path).map_err(Failure::io(format!("read {}", path.display())))?;
    let promises = read(&text);
    if promises.is_empty() {
        return Err(Failure::Check("SPECIFICATION.md has no rows".to_owned()));
    }
    let proofs = Proofs {
        tests: tests()?,
        benches: [crate::bench::NAMES, crate::bench::machines::NAMES].concat(),
        steps: crate::ci::STEPS.to_vec(),
        demo: crate::demo::STEPS.to_vec(),
    };
    let wrong: Vec<String> = promises
        .iter()
        .flat_map(|promise| unproven(promise, &proofs, &workspace()))
        .collect();
    if wrong.is_empty() {
        Ok(promises.len())
    } else {
        Err(Failure::Check(wrong.join("\n")))
    }
}

/// Ids of every test of the workspace, as `cargo nextest` names them.
fn tests() -> Outcome<BTreeSet<String>> {
    let text = Program::cargo()
        .args(["nextest", "list", "--workspace", "--message-format", "json"])
        .dir(workspace())
        .read()?;
    let list: Value = serde_json::from_str(&text)
        .map_err(|error| Failure::Check(format!("read the list of tests: {error}")))?;
    Ok(ids(&list))
}

fn ids(list: &Value) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    for (binary, suite) in list["rust-suites"].as_object().into_iter().flatten() {
        for test in suite["testcases"]
            .as_object()
            .into_iter()
            .flat_map(|cases| cases.keys())
        {
            ids.insert(format!("{binary}::{test}"));
        }
    }
    ids
}

/// The rows of the tables, without headings and rules.
fn read(text: &str) -> Vec<Promise> {
    let mut promises = Vec::new();
    let mut heading = true;
    for (index, line) in text.lines().enumerate() {
        let Some(row) = line.strip_prefix('|') else {
            heading = true;
            continue;
        };
        if heading {
            heading = false;
            continue;
        }
        let cells: Vec<&str> = row.trim_end().trim_end_matches('|').split(" | ").collect();
        let rule = row.chars().all(|c| "-|: ".contains(c));
        if let (false, Some((proofs, promise))) = (rule, cells.split_last()) {
            promises.push(Promise {
                line: index + 1,
                text: promise.join(" | ").trim().to_owned(),
                proofs: proofs
                    .split('`')
                    .skip(1)
                    .step_by(2)
                    .map(str::to_owned)
                    .collect(),
            });
        }
    }
    promises
}

/// What is wrong with one row.
fn unproven(promise: &Promise, known: &Proofs, root: &Path) -> Vec<String> {
    let place = format!("SPECIFICATION.md:{}", promise.line);
    if promise.proofs.is_empty() {
        return vec![format!("{place}: nothing proves \"{}\"", promise.text)];
    }
    let missing = promise
        .proofs
        .iter()
        .filter(|proof| !exists(proof, known, root));
    missing
        .map(|proof| {
            let moved = namesake(proof, known).map(|id| format!("; did it move to `{id}`?"));
            let moved = moved.unwrap_or_default();
            format!(
                "{place}: `{proof}` does not exist (\"{}\"){moved}",
                promise.text
            )
        })
        .collect()
}

/// A test of the same crate and name, in another place.
fn namesake<'a>(proof: &str, known: &'a Proofs) -> Option<&'a String> {
    let package = format!("{}::", proof.split("::").next()?);
    let name = format!("::{}", proof.rsplit("::").next()?);
    known
        .tests
        .iter()
        .find(|id| id.starts_with(&package) && id.ends_with(&name))
}

fn exists(proof: &str, known: &Proofs, root: &Path) -> bool {
    if let Some(name) = proof.strip_prefix("bench::") {
        known.benches.contains(&name)
    } else if let Some(name) = proof.strip_prefix("ci::") {
        known.steps.contains(&name)
    } else if let Some(name) = proof.strip_prefix("demo::") {
        known.demo.contains(&name)
    } else if proof.starts_with("conformance/") {
        let Some((file, name)) = proof.split_once("::") else {
            return false;
        };
        let text = std::fs::read_to_string(root.join(file)).unwrap_or_default();
        ['\'', '"']
            .iter()
            .any(|quote| text.contains(&format!("{quote}{name}{quote}")))
    } else if let Some(stem) = proof.strip_suffix('*') {
        known
            .tests
            .range(stem.to_owned()..)
            .next()
            .is_some_and(|id| id.starts_with(stem))
    } else {
        known.tests.contains(proof)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = "\
# Promises
| promise | proof |
|---|---|
| a disk is a clone | `sprite-disk::pool::clones`, `bench::create` |
| a | b in words | `sprite-net::*` |

text
| promise | proof |
|---|---|
| nothing proves this | later |
";

    fn known() -> Proofs {
        Proofs {
            tests: ["sprite-disk::pool::clones", "sprite-net::dns::answers"]
                .map(str::to_owned)
                .into(),
            benches: vec!["create"],
            steps: vec!["format"],
            demo: vec![],
        }
    }

    #[test]
    fn rows_are_read_without_headings_and_rules() {
        let promises = read(DOCUMENT);
        let texts: Vec<&str> = promises
            .iter()
            .map(|promise| promise.text.as_str())
            .collect();
        assert_eq!(
            texts,
            ["a disk is a clone", "a | b in words", "nothing proves this"]
        );
        assert_eq!(
            promises[0].proofs,
            ["sprite-disk::pool::clones", "bench::create"]
        );
        assert_eq!(promises[2].line, 10);
    }

    #[test]
    fn a_row_without_proof_is_an_error() {
        let promises = read(DOCUMENT);
        let wrong = unproven(&promises[2], &known(), Path::new("/"));
        assert_eq!(
            wrong,
            ["SPECIFICATION.md:10: nothing proves \"nothing proves this\""]
        );
    }

    #[test]
    fn a_named_test_must_exist() {
        let exists = |proof: &str| exists(proof, &known(), Path::new("/"));
        assert!(exists("sprite-disk::pool::clones"));
        assert!(!exists("sprite-disk::pool::clone"));
        assert!(exists("sprite-net::*"));
        assert!(!exists("sprite-machine::*"));
        assert!(exists("bench::create") && !exists("bench::other"));
        assert!(exists("ci::format") && !exists("ci::other"));
        assert!(!exists("conformance/js/none.mjs::x"));
    }

    #[test]
    fn a_test_that_moved_is_pointed_at() {
        let known = known();
        let moved = namesake("sprite-disk::recovery::clones", &known);
        assert_eq!(moved.map(String::as_str), Some("sprite-disk::pool::clones"));
    }

    #[test]
    fn the_list_of_tests_is_read_as_nextest_writes_it() {
        let list = serde_json::json!({"rust-suites": {
            "sprite-disk": {"testcases": {"tests::a": {"kind": "test"}}},
            "sprite-disk::pool": {"testcases": {"b": {}}},
        }});
        let expected = ["sprite-disk::pool::b", "sprite-disk::tests::a"].map(str::to_owned);
        assert_eq!(ids(&list), expected.into());
    }
}
