//! Which crate may import which. What is not in the table is an error.
//!
//! The order is that of ARCHITECTURE.md: binaries, server, host, mechanisms, contracts, words. Mechanisms do
//! not know each other, but for the machine, which has a network; the catalog knows the pure lifecycle, by which it
//! counts.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::failure::{Failure, Outcome};
use crate::host::workspace;
use crate::program::Program;

/// Each crate with those of the workspace that it may import.
const ALLOWED: &[(&str, &[&str])] = &[
    ("sprite-types", &[]),
    ("sprite-api", &["sprite-types"]),
    ("sprite-agent-api", &["sprite-types"]),
    ("sprite-archive", &[]),
    ("sprite-disk", &["sprite-types"]),
    ("sprite-net", &["sprite-types"]),
    ("sprite-lifecycle", &["sprite-types"]),
    ("sprite-catalog", &["sprite-types", "sprite-lifecycle"]),
    ("sprite-vmm", &[]),
    (
        "sprite-machine",
        &["sprite-types", "sprite-agent-api", "sprite-net"],
    ),
    (
        "sprite-host",
        &[
            "sprite-types",
            "sprite-agent-api",
            "sprite-catalog",
            "sprite-disk",
            "sprite-lifecycle",
            "sprite-machine",
            "sprite-net",
        ],
    ),
    (
        "sprite-server",
        &[
            "sprite-types",
            "sprite-api",
            "sprite-agent-api",
            "sprite-host",
        ],
    ),
    (
        "sprite-client",
        &["sprite-types", "sprite-api", "sprite-archive"],
    ),
    (
        "sprite-agent",
        &["sprite-types", "sprite-agent-api", "sprite-archive"],
    ),
    (
        "sprited",
        &[
            "sprite-types",
            "sprite-catalog",
            "sprite-disk",
            "sprite-host",
            "sprite-machine",
            "sprite-net",
            "sprite-server",
        ],
    ),
    ("sprite", &["sprite-types", "sprite-api", "sprite-client"]),
    (
        "sprite-testkit",
        &[
            "sprite-types",
            "sprite-agent-api",
            "sprite-archive",
            "sprite-catalog",
            "sprite-disk",
            "sprite-host",
            "sprite-machine",
        ],
    ),
    ("sprite-bench", &["sprite-agent-api", "sprite-disk"]),
    ("xtask", &[]),
];

/// What any crate's tests may import on top: the fakes, and the client that speaks only public routes.
const FOR_TESTS: &[&str] = &["sprite-testkit", "sprite-client"];

/// Imports of one crate's tests alone, each because a real part is tried against its real neighbour.
const ALLOWED_IN_TESTS: &[(&str, &[&str])] = &[
    ("sprite", &["sprite-archive"]),
    ("sprite-machine", &["sprite-agent", "sprite-disk"]),
    (
        "sprite-server",
        &["sprite-archive", "sprite-catalog", "sprite-machine"],
    ),
    (
        "sprited",
        &["sprite-agent-api", "sprite-api", "sprite-archive"],
    ),
];

/// One import of a crate of the workspace by another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    from: String,
    to: String,
    in_tests: bool,
}

/// Checks the working tree.
///
/// # Errors
/// An import against the direction, or a crate without a row, each named.
pub fn check() -> Outcome {
    let text = Program::cargo()
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .dir(workspace())
        .read()?;
    let metadata: Value = serde_json::from_str(&text)
        .map_err(|error| Failure::Check(format!("read cargo metadata: {error}")))?;
    let (crates, edges) = read(&metadata);
    let wrong = violations(&crates, &edges);
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(Failure::Check(wrong.join("\n")))
    }
}

/// The workspace's crates and the edges between them.
fn read(metadata: &Value) -> (Vec<String>, Vec<Edge>) {
    let packages = metadata["packages"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    let name = |package: &Value| package["name"].as_str().unwrap_or_default().to_owned();
    let crates: Vec<String> = packages.iter().map(name).collect();
    let mut edges = Vec::new();
    for package in packages {
        for dependency in package["dependencies"]
            .as_array()
            .map_or(&[][..], Vec::as_slice)
        {
            let to = name(dependency);
            if crates.contains(&to) {
                let in_tests = dependency["kind"] == "dev";
                edges.push(Edge {
                    from: name(package),
                    to,
                    in_tests,
                });
            }
        }
    }
    (crates, edges)
}

/// What is wrong, one sentence each.
fn violations(crates: &[String], edges: &[Edge]) -> Vec<String> {
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    let allowed_in_tests: BTreeMap<&str, &[&str]> = ALLOWED_IN_TESTS.iter().copied().collect();
    let mut wrong: Vec<String> = crates
        .iter()
        .filter(|name| !allowed.contains_key(name.as_str()))
        .map(|name| {
            format!("crate {name} has no row in crates/xtask/src/edges.rs: say what it may import")
        })
        .collect();
    for edge in edges {
        let (from, to) = (edge.from.as_str(), edge.to.as_str());
        let lists = |table: &BTreeMap<&str, &[&str]>| {
            table.get(from).is_some_and(|names| names.contains(&to))
        };
        let fine = lists(&allowed)
            || (edge.in_tests && (FOR_TESTS.contains(&to) || lists(&allowed_in_tests)));
        if !fine {
            let where_from = if edge.in_tests { "the tests of " } else { "" };
            wrong.push(format!(
                "{where_from}{from} must not import {to}: imports go one way (ARCHITECTURE.md)"
            ));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(from: &str, to: &str, in_tests: bool) -> Edge {
        Edge {
            from: from.to_owned(),
            to: to.to_owned(),
            in_tests,
        }
    }

    #[test]
    fn an_import_against_the_direction_is_refused() {
        let wrong = violations(&[], &[edge("sprite-disk", "sprite-host", false)]);
        assert_eq!(wrong.len(), 1);
        assert!(
            wrong[0].contains("sprite-disk must not import sprite-host"),
            "{wrong:?}"
        );
    }

    #[test]
    fn mechanisms_do_not_import_each_other() {
        assert_eq!(
            violations(&[], &[edge("sprite-disk", "sprite-net", false)]).len(),
            1
        );
        assert_eq!(
            violations(&[], &[edge("sprite-machine", "sprite-net", false)]).len(),
            0
        );
    }

    #[test]
    fn fakes_are_for_tests_alone() {
        assert_eq!(
            violations(&[], &[edge("sprite-server", "sprite-testkit", true)]).len(),
            0
        );
        assert_eq!(
            violations(&[], &[edge("sprite-server", "sprite-testkit", false)]).len(),
            1
        );
    }

    #[test]
    fn a_crate_without_a_row_is_refused() {
        let wrong = violations(&["sprite-magic".to_owned()], &[]);
        assert!(wrong[0].contains("sprite-magic"), "{wrong:?}");
    }

    #[test]
    fn the_table_itself_goes_one_way() {
        let rank = |name: &str| ALLOWED.iter().position(|(row, _)| *row == name);
        for (from, imports) in ALLOWED {
            for to in *imports {
                assert!(
                    rank(to) < rank(from),
                    "{from} imports {to}, which stands below it"
                );
            }
        }
    }

    #[test]
    fn edges_are_read_from_what_cargo_says() {
        let metadata: Value = serde_json::json!({"packages": [
            {"name": "sprite-types", "dependencies": [{"name": "serde", "kind": null}]},
            {"name": "sprite-disk", "dependencies": [
                {"name": "sprite-types", "kind": null}, {"name": "sprite-types", "kind": "dev"}]},
        ]});
        let (crates, edges) = read(&metadata);
        assert_eq!(crates, ["sprite-types", "sprite-disk"]);
        let expected = [
            edge("sprite-disk", "sprite-types", false),
            edge("sprite-disk", "sprite-types", true),
        ];
        assert_eq!(edges, expected);
    }
}
