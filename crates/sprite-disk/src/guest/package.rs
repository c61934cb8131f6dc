//! Which packages the guest's kernel is made of: those of this machine's own distribution, as apt knows them.
//!
//! apt checks the archive's signature, so that a package's hash in its index says what the package is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::tool::{self, ToolError};

/// Oldest kernel that guests are tried with.
pub(super) const OLDEST: (u32, u32) = (6, 8);

/// Packages that lead to a kernel for virtual machines, the preferred first: Debian 13 and later; Debian 12,
/// whose first is too old; Ubuntu.
#[cfg(target_arch = "x86_64")]
pub(super) const CANDIDATES: [&str; 3] = [
    "linux-image-cloud-amd64",
    "linux-image-6.12-cloud-amd64",
    "linux-image-virtual",
];
#[cfg(target_arch = "aarch64")]
pub(super) const CANDIDATES: [&str; 3] = [
    "linux-image-cloud-arm64",
    "linux-image-6.12-cloud-arm64",
    "linux-image-virtual",
];

/// What such a package depends on and a guest needs: the kernel itself and its modules.
const PARTS: [&str; 2] = ["linux-image-", "linux-modules-"];

/// More parts than any distribution has.
const MOST_PARTS: usize = 8;

/// A package, as apt's index tells of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of its file, in hexadecimal.
    pub sha256: String,
}

/// A package and the parts that it leads to.
#[derive(Debug)]
struct Entry {
    package: Package,
    parts: Vec<String>,
}

/// The packages of the newest kernel that apt knows of; none if it knows of none that is new enough.
///
/// # Errors
/// There is no apt.
pub(super) fn newest() -> Result<Option<Vec<Package>>, ToolError> {
    tool::APT_CACHE.find()?;
    // What apt does not know it says by a failure; without an index it knows nothing.
    choose(|name| show(name).ok())
}

fn show(name: &str) -> Result<String, ToolError> {
    let mut command = tool::APT_CACHE.command()?;
    command.args(["show", "--no-all-versions", name]);
    tool::APT_CACHE.ask(command)
}

fn choose(show: impl Fn(&str) -> Option<String>) -> Result<Option<Vec<Package>>, ToolError> {
    for candidate in CANDIDATES {
        if let Some(packages) = closure(candidate, &show) {
            return Ok(Some(packages));
        }
    }
    Ok(None)
}

/// The candidate and all its parts, in the order of their names; `None` if apt does not know them all, or the
/// kernel is too old.
fn closure(candidate: &str, show: impl Fn(&str) -> Option<String>) -> Option<Vec<Package>> {
    let mut found = BTreeMap::new();
    let mut wanted = vec![candidate.to_owned()];
    while let Some(name) = wanted.pop() {
        if found.contains_key(&name) {
            continue;
        }
        let entry = Entry::parse(&show(&name)?)?;
        if found.is_empty() && !new_enough(&entry.package.version) || found.len() == MOST_PARTS {
            return None;
        }
        wanted.extend(entry.parts);
        found.insert(name, entry.package);
    }
    Some(found.into_values().collect())
}

fn new_enough(version: &str) -> bool {
    let mut numbers = version.split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next()?.parse::<u32>().ok();
    matches!((next(), next()), (Some(major), Some(minor)) if (major, minor) >= OLDEST)
}

impl Entry {
    /// Source: deb-control(5), deb-src-control(5); the fields of apt's index.
    fn parse(text: &str) -> Option<Self> {
        let paragraph = text.split("\n\n").next()?;
        let field = |name: &str| {
            let mut lines = paragraph.lines();
            lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
        };
        let sha256 = field("SHA256")?;
        let known = sha256.len() == 64 && sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
        let package = Package {
            name: field("Package")?.to_owned(),
            version: field("Version")?.to_owned(),
            sha256: known.then(|| sha256.to_owned())?,
        };
        let depends = field("Depends").unwrap_or_default();
        let parts = depends.split(',').filter_map(first_choice).filter(|name| {
            PARTS
                .iter()
                .any(|part| name.starts_with(part) && is_name(name))
        });
        Some(Self {
            package,
            parts: parts.map(str::to_owned).collect(),
        })
    }
}

/// The name in `name (= version) | other`.
fn first_choice(dependency: &str) -> Option<&str> {
    dependency
        .split('|')
        .next()?
        .split_ascii_whitespace()
        .next()
}

/// Source: Debian Policy 5.6.1.
fn is_name(name: &str) -> bool {
    name.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(name: &str, version: &str, depends: &str) -> String {
        let hash = "0123456789abcdef".repeat(4);
        format!(
            "Package: {name}\nVersion: {version}\nDepends: {depends}\nSHA256: {hash}\nDescription: x\n y\n\n"
        )
    }

    fn names(show: impl Fn(&str) -> Option<String>) -> Option<Vec<String>> {
        let chosen = choose(show).expect("no tool is run");
        chosen.map(|packages| packages.into_iter().map(|package| package.name).collect())
    }

    #[test]
    fn an_old_kernel_is_passed_over() {
        let chosen = names(|name| match name {
            "linux-image-cloud-amd64" => Some(entry(name, "6.1.192-2", "linux-image-6.1.0-cloud")),
            "linux-image-6.12-cloud-amd64" => Some(entry(
                name,
                "6.12.117-1~deb12u1",
                "linux-image-6.12.117+deb12-cloud-amd64 (= 6.12.117-1~deb12u1)",
            )),
            "linux-image-6.12.117+deb12-cloud-amd64" => Some(entry(
                name,
                "6.12.117-1~deb12u1",
                "kmod, initramfs-tools (>= 0.120+deb8u2) | linux-initramfs-tool",
            )),
            _ => None,
        });
        let expected = [
            "linux-image-6.12-cloud-amd64",
            "linux-image-6.12.117+deb12-cloud-amd64",
        ];
        assert_eq!(chosen.expect("packages"), expected);
    }

    #[test]
    fn modules_in_a_package_of_their_own_are_found() {
        let chosen = names(|name| match name {
            "linux-image-virtual" => {
                Some(entry(name, "6.8.0.31.31", "linux-image-6.8.0-31-generic"))
            }
            "linux-image-6.8.0-31-generic" => Some(entry(
                name,
                "6.8.0-31.31",
                "kmod, linux-base (>= 4.5ubuntu1~16.04.1), linux-modules-6.8.0-31-generic",
            )),
            "linux-modules-6.8.0-31-generic" => Some(entry(name, "6.8.0-31.31", "")),
            _ => None,
        });
        assert_eq!(chosen.expect("packages").len(), 3);
    }

    #[test]
    fn half_known_kernels_and_circles_are_none() {
        assert_eq!(names(|_| None), None);
        let circle = |name: &str| Some(entry(name, "6.12", "linux-image-cloud-amd64, rm -rf /"));
        assert_eq!(names(circle).expect("itself").len(), 1);
        let endless = |name: &str| Some(entry(name, "6.12", &format!("{name}x")));
        assert_eq!(names(endless), None);
        let lost =
            |name: &str| (name == CANDIDATES[0]).then(|| entry(name, "7.0", "linux-image-7"));
        assert_eq!(names(lost), None);
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        for (version, enough) in [
            ("6.8.0-31.31", true),
            ("6.12.117-1~deb12u1", true),
            ("10.0", true),
            ("6.7.9", false),
            ("5.19", false),
            ("6", false),
            ("", false),
            ("x.9", false),
        ] {
            assert_eq!(new_enough(version), enough, "{version}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read(text: String) {
            let _ = Entry::parse(&text);
            let _ = Entry::parse(&format!("Package: a\nVersion: 1\nDepends: {text}\n"));
        }
    }
}
