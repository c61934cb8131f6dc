//! Packages of the distribution: which are missing, and their installation, never unasked.

use crate::failure::{Failure, Outcome};
use crate::host::{Host, find_program};
use crate::program::Program;

/// A package and the sign that it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Package {
    /// Its name at Debian and Ubuntu.
    pub name: &'static str,
    /// How it is known to be there.
    pub sign: Sign,
    /// What it is for.
    pub purpose: &'static str,
}

/// How a package is known to be there, whoever installed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// A program of this name.
    Program(&'static str),
    /// A file.
    File(&'static str),
    /// Modules that `python3` can import.
    PythonModules(&'static str),
}

/// What `sprited serve` needs to build the default base image and to run machines.
pub const SERVE: &[Package] = &[
    Package {
        name: "mmdebstrap",
        sign: Sign::Program("mmdebstrap"),
        purpose: "builds the base image",
    },
    Package {
        name: "debian-archive-keyring",
        sign: Sign::File("/usr/share/keyrings/debian-archive-keyring.gpg"),
        purpose: "verifies the base image's packages",
    },
    Package {
        name: "e2fsprogs",
        sign: Sign::Program("mkfs.ext4"),
        purpose: "makes sprites' disks",
    },
    Package {
        name: "xfsprogs",
        sign: Sign::Program("mkfs.xfs"),
        purpose: "makes the pool that holds them",
    },
    Package {
        name: "kmod",
        sign: Sign::Program("depmod"),
        purpose: "prepares the kernel of virtual machines",
    },
    Package {
        name: "nftables",
        sign: Sign::Program("nft"),
        purpose: "lists firewall tables, to see that none is left",
    },
];

/// What `cargo xtask bench` needs on top.
pub const BENCH: &[Package] = &[
    Package {
        name: "socat",
        sign: Sign::Program("socat"),
        purpose: "is the floor of a proxy",
    },
    Package {
        name: "nginx",
        sign: Sign::Program("nginx"),
        purpose: "is the floor of URLs",
    },
    Package {
        name: "sqlite3",
        sign: Sign::Program("sqlite3"),
        purpose: "fills a catalog",
    },
    Package {
        name: "wrk",
        sign: Sign::Program("wrk"),
        purpose: "asks URLs",
    },
];

/// What the official SDKs' conformance suites need on top.
pub const CONFORMANCE: &[Package] = &[Package {
    name: "python3-venv",
    sign: Sign::PythonModules("ensurepip, venv"),
    purpose: "holds the Python SDK, Node and the JavaScript SDK",
}];

/// People's own clients, which are tried where they are: CI has them.
pub const CLIENTS: &[Package] = &[
    Package {
        name: "chromium-headless-shell",
        sign: Sign::Program("chromium-headless-shell"),
        purpose: "logs in to sprites' URLs",
    },
    Package {
        name: "openssh-client",
        sign: Sign::Program("ssh"),
        purpose: "is proxied to a sprite",
    },
];

impl Package {
    fn present(&self) -> bool {
        match self.sign {
            Sign::Program(name) => find_program(name).is_some(),
            Sign::File(path) => std::path::Path::new(path).exists(),
            Sign::PythonModules(names) => Program::new("python3")
                .args(["-c", &format!("import {names}")])
                .say()
                .is_ok_and(|said| said.status.success()),
        }
    }
}

/// Those of `wanted` that are not here.
pub fn missing(wanted: &[Package]) -> Vec<Package> {
    wanted
        .iter()
        .copied()
        .filter(|package| !package.present())
        .collect()
}

/// What the installation of `packages` will be announced as: one step, or none.
pub fn announcement(packages: &[Package]) -> Option<String> {
    if packages.is_empty() {
        return None;
    }
    let named: Vec<String> = packages
        .iter()
        .map(|package| format!("{} ({})", package.name, package.purpose))
        .collect();
    Some(format!("apt-get install {}", named.join(", ")))
}

/// Installs them.
///
/// # Errors
/// There is no apt here, or it fails.
pub fn install(host: &Host, packages: &[Package]) -> Outcome {
    if packages.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = packages.iter().map(|package| package.name).collect();
    if find_program("apt-get").is_none() {
        return Err(Failure::Refused(format!(
            "install these with this system's package manager, then try again: {}",
            names.join(" ")
        )));
    }
    let apt = |words: &[&str]| {
        let program = Program::new("apt-get")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(words);
        host.as_root(program)
    };
    apt(&["update", "-q"])?.run()?;
    apt(&["install", "-q", "-y", "--no-install-recommends"])?
        .args(names)
        .run()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_not_missing() {
        let shell = Package {
            name: "dash",
            sign: Sign::Program("sh"),
            purpose: "runs scripts",
        };
        let nothing = Package {
            name: "nothing",
            sign: Sign::Program("no-such-program"),
            purpose: "-",
        };
        assert_eq!(missing(&[shell, nothing]), [nothing]);
    }

    #[test]
    fn an_installation_is_announced_with_its_reason() {
        let text = announcement(&SERVE[..1]).expect("one package is one step");
        assert_eq!(text, "apt-get install mmdebstrap (builds the base image)");
        assert_eq!(announcement(&[]), None);
    }
}
