//! Calling mmdebstrap: a root file system of Debian packages, to keep or to use once.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::{Suite, mirror};
use crate::cache::WorkDirectory;
use crate::progress::Progress;
use crate::tool::{self, ToolError};

/// The keys by which apt checks the archive. Ubuntu does not have them by itself.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A root file system to make.
#[derive(Debug)]
pub(super) struct Bootstrap<'a> {
    pub(super) suite: Suite,
    /// The packages, beside those that no Debian is without.
    pub(super) packages: &'a [&'a str],
    /// Lines for dpkg's configuration.
    pub(super) dpkg_options: &'a [&'a str],
    /// Run at the end with the root as its argument; finds what it needs beside itself.
    pub(super) script: &'a Path,
    /// Where the root stays; nowhere if only the script counts.
    pub(super) target: Option<PathBuf>,
}

/// What of all that a bootstrap needs is not installed.
pub(super) fn missing_tools() -> Vec<ToolError> {
    const PACKAGE: &str = "debian-archive-keyring";
    let keyring = ToolError::Missing {
        tool: PACKAGE,
        package: PACKAGE,
    };
    let keyring = (!Path::new(KEYRING).exists()).then_some(keyring);
    tool::MMDEBSTRAP
        .find()
        .err()
        .into_iter()
        .chain(keyring)
        .collect()
}

/// Whether all is installed, so that what is missing does not come out after minutes.
pub(super) fn check_tools() -> Result<(), ToolError> {
    missing_tools().into_iter().next().map_or(Ok(()), Err)
}

/// Writes a program for the script of a [`Bootstrap`].
pub(super) fn write_script(path: &Path, text: &str) -> io::Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
}

impl Bootstrap<'_> {
    /// Makes it from this machine's mirror; if that does not serve, from the archive's own front. A mirror of one
    /// release only is a good mirror for the machine and none for us.
    pub(super) fn run(
        &self,
        work: &WorkDirectory,
        progress: &dyn Progress,
    ) -> Result<(), ToolError> {
        let own = mirror::sources(self.suite.as_str());
        let failure = match self.attempt(work, &own, progress) {
            Err(ToolError::Failed { tail, .. }) if !own.is_empty() => tail,
            other => return other,
        };
        let reason = failure
            .lines()
            .find(|line| line.starts_with("E:"))
            .unwrap_or_default();
        progress.step(&format!(
            "this machine's mirror failed ({reason}); use the archive's own front"
        ));
        if let Some(target) = &self.target
            && target.exists()
        {
            let failed = |source| ToolError::Run {
                tool: tool::MMDEBSTRAP.name(),
                source,
            };
            fs::remove_dir_all(target).map_err(failed)?;
        }
        self.attempt(work, &[], progress)
    }

    fn attempt(
        &self,
        work: &WorkDirectory,
        sources: &[String],
        progress: &dyn Progress,
    ) -> Result<(), ToolError> {
        let mut command = tool::confined(tool::MMDEBSTRAP.find()?.as_os_str(), &[])?;
        // Where the next build sweeps, if this one is killed.
        command.env("TMPDIR", work.path());
        command.args(["--mode=root", "--variant=apt"]);
        command.arg("--aptopt=APT::Install-Recommends \"false\"");
        // Half a root file system is of no use anyway; the finished image is synced as a whole.
        command.arg("--dpkgopt=force-unsafe-io");
        command.args(
            self.dpkg_options
                .iter()
                .map(|line| format!("--dpkgopt={line}")),
        );
        command.arg(format!("--include={}", self.packages.join(",")));
        // Neither the option nor the path is read by a shell.
        let mut hook = OsString::from("--customize-hook=");
        hook.push(self.script);
        command.arg(hook);
        match &self.target {
            Some(target) => {
                command
                    .arg("--format=directory")
                    .arg(self.suite.as_str())
                    .arg(target);
            }
            None => {
                command.args(["--format=null", self.suite.as_str(), "-"]);
            }
        }
        command.args(sources);
        tool::MMDEBSTRAP.run(command, progress)
    }
}
