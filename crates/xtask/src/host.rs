//! What this computer is, and how a step that needs root gets it.

use std::io::{BufRead, IsTerminal, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::failure::{Failure, Outcome};
use crate::program::Program;

/// How this user becomes root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privilege {
    /// Already root.
    Root,
    /// By `sudo`, which is installed.
    Sudo,
    /// Not at all.
    None,
}

/// Whether questions are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consent {
    /// The person is asked at the terminal.
    Ask,
    /// `--yes`: everything printed is agreed to.
    Given,
}

/// The computer this runs on.
#[derive(Debug, Clone, Copy)]
pub struct Host {
    /// How steps that need root get it.
    pub privilege: Privilege,
}

impl Host {
    /// Looks around.
    pub fn here() -> Self {
        // The owner of /proc/self is the effective user of this process.
        let root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
        let privilege = if root {
            Privilege::Root
        } else if find_program("sudo").is_some() {
            Privilege::Sudo
        } else {
            Privilege::None
        };
        Self { privilege }
    }

    /// Gives a program root's rights.
    ///
    /// # Errors
    /// This user cannot become root.
    pub fn as_root(&self, program: Program) -> Outcome<Program> {
        match self.privilege {
            Privilege::Root => Ok(program),
            Privilege::Sudo => Ok(program.with_sudo()),
            Privilege::None => Err(Failure::Refused(format!(
                "`{}` needs root, and there is no sudo: run the command as root",
                program.shown()
            ))),
        }
    }

    /// Asks once for what `steps` say, and unlocks sudo where it is used.
    ///
    /// # Errors
    /// The person says no, or there is nobody to ask.
    pub fn agree(&self, steps: &[String], consent: Consent) -> Outcome {
        if steps.is_empty() {
            return Ok(());
        }
        let how = match self.privilege {
            Privilege::Root => "as root",
            Privilege::Sudo => "with sudo",
            Privilege::None => {
                return Err(Failure::Refused(format!(
                    "these steps need root, and there is no sudo: run the command as root\n  {}",
                    steps.join("\n  ")
                )));
            }
        };
        eprintln!("These steps run {how}:");
        for step in steps {
            eprintln!("  {step}");
        }
        match consent {
            Consent::Given => {}
            Consent::Ask => ask("Go on? [y/N] ")?,
        }
        match self.privilege {
            Privilege::Sudo => Program::new("sudo").args(["-v"]).run(),
            Privilege::Root | Privilege::None => Ok(()),
        }
    }
}

fn ask(question: &str) -> Outcome {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Refused(
            "nobody to ask: standard input is not a terminal; --yes agrees to what is listed"
                .to_owned(),
        ));
    }
    eprint!("{question}");
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(Failure::io("read the answer"))?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        Ok(())
    } else {
        Err(Failure::Refused("nothing was changed".to_owned()))
    }
}

/// Where a program is, looked for as root's shell would: with the sbin directories.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(sbin)
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}

/// The root of the working tree.
pub fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors()
        .nth(2)
        .expect("xtask lies two directories below the root")
        .to_owned()
}

/// The directory of build results.
pub fn target_directory() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(directory) => workspace().join(directory),
        None => workspace().join("target"),
    }
}
