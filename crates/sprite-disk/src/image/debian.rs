//! A root file system from Debian's archive, by mmdebstrap.
//!
//! Packages run scripts as root while they are installed. They are signed by Debian, whom the host trusts anyway
//! or is asked to trust by installing its keyring; still mmdebstrap gets namespaces of its own, so that nothing
//! that it mounts or starts outlives this process.

use std::fs;
use std::io;
use std::path::PathBuf;

use super::bootstrap::{self, Bootstrap};
use super::{HostTrust, NodeError, Suite, Variant, node};
use crate::cache::WorkDirectory;
use crate::progress::Progress;
use crate::tool::ToolError;

/// What a sprite cannot run without.
const MINIMAL: [&str; 13] = [
    "bash",
    "ca-certificates",
    "coreutils",
    "iproute2",
    "login",
    "mount",
    "netbase",
    "passwd",
    "procps",
    "python3-minimal",
    "sudo",
    "tzdata",
    "util-linux",
];

/// What people expect beside that.
const DEFAULT: [&str; 17] = [
    "build-essential",
    "curl",
    "file",
    "gh",
    "git",
    "jq",
    "less",
    "locales",
    "openssh-client",
    "python3",
    "python3-pip",
    "python3-venv",
    "ripgrep",
    "tmux",
    "unzip",
    "vim-tiny",
    "zsh",
];

/// Documents are most of the files of a Debian system and nobody reads them in a sprite. The choice stays in
/// `/etc/dpkg/dpkg.cfg.d/99mmdebstrap` of the image, so it holds for packages that a sprite installs.
const LEFT_OUT: [&str; 8] = [
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/lintian/*",
    "path-exclude=/usr/share/locale/*",
    "path-include=/usr/share/locale/locale.alias",
    "path-include=/usr/share/locale/en*",
    "path-exclude=/usr/share/man/*",
];

const CUSTOMIZE: &str = include_str!("customize.sh");

/// Why Debian could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum DebianError {
    /// A program is missing or failed.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// A file that the installation needs could not be written.
    #[error("write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Node is part of the image and could not be had.
    #[error("fetch Node")]
    Node(#[from] NodeError),
}

/// Everything that decides what is in the image.
pub(super) fn ingredients(variant: Variant) -> Vec<&'static str> {
    let mut all = packages(variant);
    all.extend(LEFT_OUT);
    all.push(CUSTOMIZE);
    all
}

fn packages(variant: Variant) -> Vec<&'static str> {
    let mut packages = MINIMAL.to_vec();
    match variant {
        Variant::Default => packages.extend(DEFAULT),
        Variant::Minimal => {}
    }
    packages
}

/// What is missing for [`install`].
pub(super) fn missing_tools() -> Vec<ToolError> {
    bootstrap::missing_tools()
}

/// Installs Debian into the work directory's tree.
pub(super) fn install(
    suite: Suite,
    variant: Variant,
    trust: &HostTrust,
    work: &WorkDirectory,
    progress: &dyn Progress,
) -> Result<(), DebianError> {
    bootstrap::check_tools()?;
    let script = work.path().join("customize.sh");
    bootstrap::write_script(&script, CUSTOMIZE).map_err(|source| DebianError::Write {
        path: script.clone(),
        source,
    })?;
    lay_out_certificates(trust, work)?;
    match variant {
        Variant::Default => node::fetch(suite, work, progress)?,
        Variant::Minimal => {}
    }
    let packages = packages(variant);
    progress.step(&format!(
        "install Debian {} ({} packages and what they need)",
        suite.as_str(),
        packages.len()
    ));
    let bootstrap = Bootstrap {
        suite,
        packages: &packages,
        dpkg_options: &LEFT_OUT,
        script: &script,
        target: Some(work.tree()),
    };
    Ok(bootstrap.run(work, progress)?)
}

/// Puts the host's own certificates where the script finds them, under names of ours.
fn lay_out_certificates(trust: &HostTrust, work: &WorkDirectory) -> Result<(), DebianError> {
    let directory = work.path().join("certificates");
    let lay_out = || -> io::Result<()> {
        fs::create_dir(&directory)?;
        for (at, (_, certificate)) in trust.certificates.iter().enumerate() {
            fs::write(directory.join(format!("host-{at}.crt")), certificate)?;
        }
        Ok(())
    };
    lay_out().map_err(|source| DebianError::Write {
        path: directory.clone(),
        source,
    })
}
