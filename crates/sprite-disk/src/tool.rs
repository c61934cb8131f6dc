//! Running the system's own programs: `mkfs.xfs`, `mkfs.ext4`, `mmdebstrap` and their like.
//!
//! They run when something is set up, never on the way of a create.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use crate::progress::Progress;

/// Lines of a program's output that an error repeats.
const TAIL_LINES: usize = 15;

/// Bytes of one line that are kept. Programs repeat file names, and those may come from a hostile archive.
const LONGEST_LINE: usize = 400;

/// Where system programs are, beside what PATH says: `su` and cron leave the sbin directories out.
const SYSTEM_DIRECTORIES: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// A program of the system that failed or is not there.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// It is not installed.
    #[error("{tool} is missing; install it: apt-get install {package}")]
    Missing {
        /// Name of the program or file.
        tool: &'static str,
        /// The package that has it, on Debian and Ubuntu.
        package: &'static str,
    },
    /// It could not be started or listened to.
    #[error("run {tool}")]
    Run {
        /// Name of the program.
        tool: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It ended with a failure.
    #[error("{tool} failed ({status}); its last words:\n{tail}")]
    Failed {
        /// Name of the program.
        tool: &'static str,
        /// Exit status or signal.
        status: ExitStatus,
        /// The last lines of what it printed.
        tail: String,
    },
}

/// A program and the package it is from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tool {
    name: &'static str,
    package: &'static str,
}

pub(crate) const MKFS_XFS: Tool = Tool {
    name: "mkfs.xfs",
    package: "xfsprogs",
};
pub(crate) const MKFS_EXT4: Tool = Tool {
    name: "mkfs.ext4",
    package: "e2fsprogs",
};
pub(crate) const RESIZE2FS: Tool = Tool {
    name: "resize2fs",
    package: "e2fsprogs",
};
pub(crate) const MMDEBSTRAP: Tool = Tool {
    name: "mmdebstrap",
    package: "mmdebstrap",
};
pub(crate) const UNSHARE: Tool = Tool {
    name: "unshare",
    package: "util-linux",
};
pub(crate) const SETPRIV: Tool = Tool {
    name: "setpriv",
    package: "util-linux",
};
pub(crate) const SHELL: Tool = Tool {
    name: "sh",
    package: "dash",
};
pub(crate) const TAR: Tool = Tool {
    name: "tar",
    package: "tar",
};
pub(crate) const GZIP: Tool = Tool {
    name: "gzip",
    package: "gzip",
};
pub(crate) const XZ: Tool = Tool {
    name: "xz",
    package: "xz-utils",
};
pub(crate) const ZSTD: Tool = Tool {
    name: "zstd",
    package: "zstd",
};
pub(crate) const NPM: Tool = Tool {
    name: "npm",
    package: "npm",
};
pub(crate) const APT_GET: Tool = Tool {
    name: "apt-get",
    package: "apt",
};
pub(crate) const APT_CACHE: Tool = Tool {
    name: "apt-cache",
    package: "apt",
};
pub(crate) const DPKG_DEB: Tool = Tool {
    name: "dpkg-deb",
    package: "dpkg",
};
pub(crate) const DEPMOD: Tool = Tool {
    name: "depmod",
    package: "kmod",
};

impl Tool {
    pub(crate) fn name(self) -> &'static str {
        self.name
    }

    /// Where the program is.
    pub(crate) fn find(self) -> Result<PathBuf, ToolError> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path)
            .chain(SYSTEM_DIRECTORIES.iter().map(PathBuf::from))
            .map(|directory| directory.join(self.name))
            .find(|candidate| candidate.is_absolute() && is_program(candidate))
            .ok_or(ToolError::Missing {
                tool: self.name,
                package: self.package,
            })
    }

    /// A command that runs it, without our standard input and in the language that we can read.
    pub(crate) fn command(self) -> Result<Command, ToolError> {
        let mut command = Command::new(self.find()?);
        command.stdin(Stdio::null()).env("LC_ALL", "C");
        Ok(command)
    }

    /// Runs `command` to its end; its lines go to `progress`.
    pub(crate) fn run(
        self,
        mut command: Command,
        progress: &dyn Progress,
    ) -> Result<(), ToolError> {
        let failed = |source| ToolError::Run {
            tool: self.name,
            source,
        };
        let (reader, writer) = io::pipe().map_err(failed)?;
        command
            .stdout(writer.try_clone().map_err(failed)?)
            .stderr(writer);
        let mut child = command.spawn().map_err(failed)?;
        // The command holds our copies of the pipe's writing end; the pipe ends when those are gone too.
        drop(command);
        let tail = follow(reader, progress);
        let status = child.wait().map_err(failed)?;
        let tail = tail.map_err(failed)?;
        if status.success() {
            Ok(())
        } else {
            Err(ToolError::Failed {
                tool: self.name,
                status,
                tail,
            })
        }
    }

    /// Runs a `command` that answers in a few lines, and gives back its standard output.
    pub(crate) fn ask(self, mut command: Command) -> Result<String, ToolError> {
        let output = command.output().map_err(|source| ToolError::Run {
            tool: self.name,
            source,
        })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let tail = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(ToolError::Failed {
            tool: self.name,
            status: output.status,
            tail,
        })
    }
}

/// A command that dies, with everything it started, when this process does: it gets mount and process
/// namespaces of its own, and the kernel ends them with it. Nothing that it mounted is seen outside. `isolation`
/// adds options of unshare(1), such as `--net`.
///
/// # Crash safety
/// Whatever kills this process leaves of the command's work only files.
pub(crate) fn confined(program: &OsStr, isolation: &[&str]) -> Result<Command, ToolError> {
    let mut command = SETPRIV.command()?;
    command.args(["--pdeathsig", "KILL"]).arg(UNSHARE.find()?);
    command.args([
        "--mount",
        "--pid",
        "--ipc",
        "--fork",
        "--kill-child=KILL",
        "--mount-proc",
    ]);
    command.args(isolation).arg("--").arg(program);
    Ok(command)
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata()
        .is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

/// Reads lines until the end, tells each, and gives back the last ones.
fn follow(mut from: impl Read, progress: &dyn Progress) -> io::Result<String> {
    let mut tail: VecDeque<String> = VecDeque::new();
    let mut line = Vec::new();
    let mut buffer = [0; 4096];
    let mut end = |line: &mut Vec<u8>| {
        let text = String::from_utf8_lossy(line).trim().to_owned();
        line.clear();
        if text.is_empty() {
            return;
        }
        progress.detail(&text);
        if tail.len() == TAIL_LINES {
            tail.pop_front();
        }
        tail.push_back(text);
    };
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        for byte in &buffer[..count] {
            match byte {
                b'\n' | b'\r' => end(&mut line),
                _ if line.len() < LONGEST_LINE => line.push(*byte),
                _ => {}
            }
        }
    }
    end(&mut line);
    Ok(Vec::from(tail).join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;

    fn shell(script: &str) -> Command {
        let mut command = SHELL.command().expect("a shell");
        command.args(["-c", script]);
        command
    }

    fn told(script: &str) -> String {
        match SHELL.run(shell(script), &Silent) {
            Err(ToolError::Failed { tail, .. }) => tail,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_failure_repeats_the_last_words() {
        let error = SHELL
            .run(shell("echo one; echo two >&2; exit 3"), &Silent)
            .expect_err("exit 3");
        let text = error.to_string();
        assert!(text.contains("one\ntwo") && text.contains('3'), "{text}");
    }

    #[test]
    fn endless_lines_and_much_output_are_bounded() {
        let script = "head -c 300000 /dev/zero | tr '\\0' x; seq 100000; exit 1";
        let tail = told(script);
        assert!(tail.len() <= TAIL_LINES * (LONGEST_LINE + 1));
        assert!(tail.ends_with("99999\n100000"));
    }

    #[test]
    fn a_missing_program_names_its_package() {
        let tool = Tool {
            name: "no-such-program-here",
            package: "some-package",
        };
        let text = tool.find().expect_err("it does not exist").to_string();
        assert!(text.contains("apt-get install some-package"), "{text}");
    }
}
